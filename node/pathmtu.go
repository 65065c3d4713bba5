package node

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/netstack"
)

// When the path to a gateway is measured: docs/decisions/path-mtu.md has the reasons.
const (
	measureEvery = 10 * time.Minute // it may carry more, or less and nothing long was sent
	retryMeasure = 30 * time.Second // nothing was answered
	measureTick  = 500 * time.Millisecond

	// Each that TCP waits for in vain may be for the path's sake, and what the gateway
	// sends may be lost without TCP here having waited for it: if as much came as a
	// visitor's first words, there is somebody who may send more.
	measureStalled = 2 * time.Second // not sooner after the last, when TCP waited in vain
	measureBusy    = 5 * time.Second // in which busyBytes came
	busyBytes      = 2 << 10

	// The gateway is told every measureBusy of what is less than the tunnel's MTU, since it
	// may have begun anew, and of what is as much as that for a while.
	tellFor = time.Minute

	measureMisses = 3  // in which shorter ones were answered, until a length counts as lost
	mostAtOnce    = 16 // lengths
	mtuStep       = 16 // WireGuard pads packets to that

	shortestWait = 250 * time.Millisecond // for an answer
	longestWait  = time.Second
)

// A pathMTU keeps packets to one gateway, and from it, as long as the path carries, over
// UDP: it asks by echoes of several lengths beside the tunnel (RFC 8899, without the
// ICMP). A length counts as lost when it was three times and shorter ones were not. By a
// relay anything passes, and what was last found stays, so that UDP can be taken back.
type pathMTU struct {
	top  int // the tunnel's MTU
	echo func(ctx context.Context, mtu int) (time.Duration, error)
	use  func(mtu int) error // from now on, and tell the gateway

	again    chan struct{} // wakes: the path may be another now
	onUDP    func() bool
	timeouts func() uint64 // of TCP
	heard    func() uint64 // bytes that came through the tunnel
	told     func()        // it changed
	log      *slog.Logger  // with the gateway

	found atomic.Int64 // how long packets may be; 0: not measured yet

	// Owned by run.
	rtt     time.Duration // the shortest of all echoes; 0: not known
	changed time.Time     // when found did, to another than top at first; zero: never
}

// Found returns how long packets are that pass, 0 if that is not known.
func (m *pathMTU) Found() int { return int(m.found.Load()) }

// run measures when there is reason to, until ctx is done.
func (m *pathMTU) run(ctx context.Context) {
	tick := time.NewTicker(measureTick)
	defer tick.Stop()
	var measured time.Time // the last time
	var timeouts uint64    // then
	var looked time.Time   // at what came
	var heard uint64       // then
	udp, wait := false, time.Duration(0)
	for {
		now, was, flows := time.Now(), udp, false
		udp = m.onUDP()
		since := now.Sub(measured)
		if now.Sub(looked) >= measureBusy {
			before := heard
			looked, heard = now, m.heard()
			flows = heard >= before+busyBytes
			m.tell(now)
		}
		if udp && (!was || since >= wait || flows || since >= measureStalled && m.timeouts() > timeouts) {
			wait = retryMeasure
			if m.measure(ctx) {
				wait = measureEvery
			}
			measured, timeouts = time.Now(), m.timeouts()
		}
		select {
		case <-ctx.Done():
			return
		case <-m.again:
			wait = 0
		case <-tick.C:
		}
	}
}

// tell tells the gateway again what it may not know.
func (m *pathMTU) tell(now time.Time) {
	if f := m.Found(); f > 0 && f < m.top || now.Sub(m.changed) < tellFor {
		_ = m.use(f) // it is no peer any more, or we are closed
	}
}

// measure finds out what passes now, and puts it to use. It reports false if no echo was
// answered: then it is not the length that counts.
func (m *pathMTU) measure(ctx context.Context) bool {
	floor, was := netstack.MinPathMTU, m.Found()
	if was == m.top && m.ask(ctx, []int{m.top}) == m.top { // as nearly always: one echo is enough
		return true
	}
	sizes := []int{floor, m.top}
	if was > floor && was < m.top { // does that still pass, and no more?
		sizes = []int{floor, was, min(was+mtuStep, m.top), m.top}
	}
	pass, lost := m.search(ctx, slices.Compact(sizes))
	for pass > 0 && lost > 0 && ctx.Err() == nil {
		between := ladder(pass, lost)
		if len(between) == 0 {
			break
		}
		more, less := m.search(ctx, append([]int{pass}, between...))
		if more == 0 { // nothing at all passes now
			break
		}
		if pass = more; less > 0 {
			lost = less
		}
	}
	if pass == 0 || ctx.Err() != nil {
		return false
	}
	if pass == was {
		return true
	}
	m.found.Store(int64(pass))
	m.changed = time.Now()
	m.tell(m.changed) // the most, too: the gateway may know less of the run before
	if was > 0 || pass < m.top {
		m.log.Info("path MTU to the gateway changed", "mtu", pass, "before", was, "most", m.top)
	}
	m.told()
	return true
}

// ladder returns lengths between two, at most mostAtOnce, evenly.
func ladder(pass, lost int) []int {
	first, last := (pass/mtuStep+1)*mtuStep, (lost-1)/mtuStep*mtuStep
	if first > last {
		return nil
	}
	steps := (last-first)/mtuStep + 1
	step := (steps + mostAtOnce - 1) / mostAtOnce * mtuStep
	var sizes []int
	for n := first; n <= last; n += step {
		sizes = append(sizes, n)
	}
	return sizes
}

// search asks for sizes, which grow, the first of them to see whether anything passes. It
// returns the greatest that passes, 0 if none does, and the next, which is lost, 0 if
// there is none.
func (m *pathMTU) search(ctx context.Context, sizes []int) (pass, lost int) {
	for misses, silent := 0, 0; misses < measureMisses && silent < measureMisses && ctx.Err() == nil; {
		switch got := m.ask(ctx, sizes); {
		case got == 0:
			silent++
			continue
		case got > pass:
			pass = got
		}
		if pass == sizes[len(sizes)-1] {
			return pass, 0
		}
		misses++
		sizes = sizes[slices.Index(sizes, pass):]
	}
	if pass == 0 || len(sizes) < 2 {
		return pass, 0
	}
	return pass, sizes[1]
}

// ask asks for all sizes at once and returns the greatest that was answered, 0 if none
// was. It waits for the others no longer than for the greatest.
func (m *pathMTU) ask(ctx context.Context, sizes []int) (best int) {
	wait := longestWait
	if m.rtt > 0 {
		wait = min(max(4*m.rtt, shortestWait), longestWait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, size := range sizes {
		asked.Go(func() {
			rtt, err := m.echo(ctx, size)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if best = max(best, size); m.rtt == 0 || rtt < m.rtt {
				m.rtt = rtt
			}
			if size == sizes[len(sizes)-1] {
				cancel()
			}
		})
	}
	asked.Wait()
	return best
}
