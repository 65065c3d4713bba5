package netstack

import "time"

// A trial measures the round trip of a path that is too short to be covered, or is not
// known yet: by one segment at a time, which goes its way as if there were no path. A
// segment may have to wait for others of ours, so that a short path is taken for long
// only if trialCount in a row say so.
type trial struct {
	ports  uint32
	end    uint32  // sequence number after the segment; valid if sent is not 0
	sent   instant // when the segment was; 0: none is on its way
	next   instant // when the next may be sent
	count  int     // round trips that were long, in a row
	minRTT instant // of those
}

const (
	// trialEvery is how often a path is looked at that is short.
	trialEvery = time.Second
	trialCount = 5
)

// short reports whether the path is known to be short.
func (p *path) short() bool { return p.model.minRTT > 0 && p.model.minRTT < p.paths.longRTT }

// covers reports whether what TCP sends goes by the path.
func (p *path) covers() bool { return !p.closed && p.sack && !p.short() }

// try begins a trial by a segment that ends at end.
func (p *path) try(now instant, ports, end uint32) {
	if now >= p.trial.next {
		p.trial.ports, p.trial.end, p.trial.sent = ports, end, now
		p.trial.next = now + trialEvery
	}
}

// answer ends the trial if ack is of its segment.
func (p *path) answer(now instant, ports, ack uint32) {
	t := &p.trial
	if t.sent == 0 || t.ports != ports || before(ack, t.end) {
		return
	}
	rtt := now - t.sent
	t.sent = 0
	switch {
	case p.model.minRTT == 0:
		p.model.measure(now, rtt)
	case rtt < p.paths.longRTT:
		t.count = 0
	case t.count == 0 || rtt < t.minRTT:
		t.minRTT = rtt
		fallthrough
	default:
		if t.count++; t.count == trialCount && p.short() {
			p.model.minRTT, p.model.srtt, t.count = 0, 0, 0
			p.model.measure(now, t.minRTT)
		}
	}
}
