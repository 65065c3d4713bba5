package netstack

import "slices"

// A span is sequence numbers from start to before end.
type span struct{ start, end uint32 }

// A scoreboard is what the other end has of what it has not acknowledged (RFC 6675,
// section 3): spans in order that do not touch each other.
type scoreboard struct{ spans []span }

// add adds s, and calls fresh with each part of it that was not there.
func (b *scoreboard) add(s span, fresh func(span)) {
	if !before(s.start, s.end) {
		return
	}
	i := 0 // the first that touches s or is after it
	for i < len(b.spans) && before(b.spans[i].end, s.start) {
		i++
	}
	j, at := i, s.start
	for ; j < len(b.spans) && !before(s.end, b.spans[j].start); j++ {
		if t := b.spans[j]; before(at, t.start) {
			fresh(span{at, t.start})
			at = t.end
		} else if before(at, t.end) {
			at = t.end
		}
	}
	if before(at, s.end) {
		fresh(span{at, s.end})
	}
	if i < j {
		if before(b.spans[i].start, s.start) {
			s.start = b.spans[i].start
		}
		if last := b.spans[j-1].end; before(s.end, last) {
			s.end = last
		}
	}
	b.spans = slices.Replace(b.spans, i, j, s)
}

// forget removes what is before ack.
func (b *scoreboard) forget(ack uint32) {
	i := 0
	for i < len(b.spans) && !before(ack, b.spans[i].end) {
		i++
	}
	b.spans = slices.Delete(b.spans, 0, i)
	if len(b.spans) > 0 && before(b.spans[0].start, ack) {
		b.spans[0].start = ack
	}
}
