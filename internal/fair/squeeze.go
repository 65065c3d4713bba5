package fair

import "time"

// A line whose rate nobody said has one all the same: what the processors carry. When
// they are full, what came waits in the kernel's buffer, everybody's in one queue, until
// that overflows. So a machine that is behind moves less: what is not read waits in its
// connection's own buffer, whose window closes, and whoever sends too much is who waits.
// Once the queue is gone, nearly what was carried before is the rate, which creeps up until the
// machine is behind again. It is congestion control, of one sender by one queue. A tenant
// that is alone has nobody to hold up, and is left alone.
const (
	sampleTime = 5 * time.Millisecond

	draining = 0.5  // of what was carried, while the machine is behind
	resuming = 0.95 // of what was carried, when it is not any more
	creeping = 1.03 // a sample, after that

	// lettingGo is of how many times what is carried the rate is none.
	lettingGo = 4

	// A machine that is behind for patience is so for another reason than what it moves,
	// such as datagrams that lead nowhere. It is let go then, for respite.
	patience = time.Second
	respite  = 5 * time.Second

	// idleTime is for how long nothing has to be moved until what was is forgotten.
	idleTime = 200 * time.Millisecond

	// aloneTime is for how long nobody else has to have moved anything until a tenant is
	// alone.
	aloneTime = time.Second

	minSqueezed = 1 << 20 // bytes a second
)

// A squeeze adapts a line's rate.
type squeeze struct {
	behind func() bool // nil: never
	rate   float64     // bytes a second, without a squeeze; zero: any

	// Guarded by Line.mu.
	at      time.Time // of the last sample
	moved   float64   // bytes since then
	carried float64   // bytes a second, of late
	since   time.Time // when the machine began to be behind; zero: it is not
	before  float64   // carried, then
	until   time.Time // when the respite ends
}

// sample looks whether the machine is behind, unless it did just now. The lock is held.
func (l *Line) sample(now time.Time) {
	q := &l.squeeze
	span := now.Sub(q.at)
	if q.behind == nil || span < sampleTime {
		return
	}
	moved := q.moved
	q.at, q.moved = now, 0
	if span > idleTime {
		q.carried, q.since = 0, time.Time{}
		l.bucket.set(q.rate)
		return
	}
	q.carried += (moved/span.Seconds() - q.carried) / 8
	behind := q.behind()
	switch {
	case behind && q.since.IsZero():
		q.since, q.before = now, q.carried
		if now.After(q.until) && now.Sub(l.shared) < aloneTime {
			l.limit(q.before * draining)
		}
	case behind && now.Sub(q.since) > patience:
		q.until = now.Add(respite)
		l.bucket.set(q.rate)
	case behind:
	case !q.since.IsZero():
		q.since = time.Time{}
		if l.bucket.rate != q.rate {
			l.limit(q.before * resuming)
		}
	case l.bucket.rate != q.rate:
		if rate := l.bucket.rate * creeping; rate < lettingGo*q.carried {
			l.limit(rate)
		} else {
			l.bucket.set(q.rate)
		}
	}
}

// limit makes rate the line's, or what it is without a squeeze if that is less. The lock
// is held.
func (l *Line) limit(rate float64) {
	rate = max(rate, minSqueezed)
	if most := l.squeeze.rate; most > 0 {
		rate = min(rate, most)
	}
	l.bucket.set(rate)
}
