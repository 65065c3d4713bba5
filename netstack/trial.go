package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A trial measures now and then the round trip of a path that is too short to be
// covered: by one segment, which goes its way as if there were no path.
type trial struct {
	ports uint32
	end   uint32  // sequence number after the segment; valid if sent is not 0
	sent  instant //
	next  instant // when the next may be sent
	lossy instant // until then the path may lose something, short or not
}

const (
	// trialEvery is how often a path is looked at that was short.
	trialEvery = time.Second

	// lossyFor is for how long a short path that lost something is as good as long.
	lossyFor = 10 * time.Second
)

// short reports whether the path is known to be short.
func (p *path) short() bool { return p.model.minRTT > 0 && p.model.minRTT < p.paths.longRTT }

// covers reports whether what TCP sends goes by the path.
func (p *path) covers(now instant) bool {
	return !p.closed && p.sack && (!p.short() || now <= p.trial.lossy)
}

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
	if p.short() {
		p.model.minRTT = 0
	}
	p.model.measure(now, now-t.sent)
	t.sent = 0
}

// suffer looks for losses among the options of an acknowledgement of what was not
// sent by the path.
func (p *path) suffer(now instant, options []byte) {
	if p.sack && len(options) > 0 && len(header.ParseTCPOptions(options).SACKBlocks) > 0 {
		p.trial.lossy = now + lossyFor
	}
}
