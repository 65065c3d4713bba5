package node

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"postern"
)

// When a tunnel goes which way: docs/decisions/relay.md has the reasons.
const (
	steerTick     = 500 * time.Millisecond  // how often one looks whether anything was heard
	probeTimeout  = 1500 * time.Millisecond // of a probe in the tunnel, and of an echo beside it
	probeBusy     = 2 * time.Second         // from one probe to the next, with connections open
	probeIdle     = 2500 * time.Millisecond // the same without
	echoAfter     = 500 * time.Millisecond  // of a probe without an answer
	missesToLeave = 2                       // in a row, until UDP is given up

	echoRound   = 30 * time.Second // from an echo that failed to the next
	echoApart   = 5 * time.Second  // from one that was answered to the next
	echoesBack  = 3                // in a row, until UDP is taken back
	flapping    = 60 * time.Second // UDP that is lost again so soon is not trusted for as long
	lingerRelay = 200 * time.Millisecond

	// hurriedProbe is how long a probe may take once something happened that may have
	// cost the session. It is cheap to be wrong: the session is made anew.
	hurriedProbe = 500 * time.Millisecond

	minRedial = time.Second
	maxRedial = 30 * time.Second
)

// A steering keeps one tunnel on UDP while that passes, and on the gateway's relay while
// it does not:
//
//	          a probe in the tunnel missed ──▶ open the relay
//	UDP ───── two missed, or at first one; no echo over UDP; relay open ──▶ RELAY
//	  ▲                                                                       │
//	  └── 3 echoes over UDP answered in a row, and a probe in the tunnel ◀────┘
//
// If an echo is answered and probes are not, it is not UDP's fault: the gateway lost the
// session, and is greeted anew. The fields are what it knows of the world.
type steering struct {
	probe func(context.Context) error // in the tunnel, until the answer
	echo  func(context.Context) error // over UDP beside it, the same
	heard func() uint64               // bytes that came through the tunnel
	busy  func() bool                 // it has connections to lose
	use   func(relay bool) error      // send by it from now on
	greet func() error                // make a new session
	dial  func(context.Context) (relayRun, error)
	told  func()       // the path changed
	log   *slog.Logger // with the gateway

	works atomic.Bool               // the last probe in the tunnel was answered
	stuck atomic.Pointer[time.Time] // since when the gateway hears us and the tunnel does not come up; nil: that is not so

	path  atomic.Pointer[string] // one of postern.CarrierXxx; nil: not run yet
	hurry chan struct{}          // holds one token when something happened; see lookNow

	// Owned by run.
	relay    *openRelay
	failures int       // of dials in a row
	redial   time.Time // not before
	taken    time.Time // UDP, the last time after a relay; zero: never
}

// A relayRun carries datagrams by an open relay until ctx is done or the relay has ended.
// It is to be called once.
type relayRun func(ctx context.Context) error

// An openRelay is one that is being opened, or open, or has ended.
type openRelay struct {
	opened chan struct{} // closed when it is open
	ended  chan struct{} // closed when it is of no use any more
	err    error         // why; owned by who closes ended
	cancel context.CancelFunc
	work   sync.WaitGroup // serve
}

func (r *openRelay) isOpen() bool {
	select {
	case <-r.ended:
		return false
	case <-r.opened:
		return true
	default:
		return false
	}
}

// Path returns what carries the tunnel's datagrams.
func (s *steering) Path() string {
	if p := s.path.Load(); p != nil {
		return *p
	}
	return postern.CarrierUDP
}

// run steers until ctx is done.
func (s *steering) run(ctx context.Context) {
	defer s.hangUp()
	_ = s.use(false) // there may be no address yet: then what is sent is lost
	udp := postern.CarrierUDP
	s.path.Store(&udp)
	for ctx.Err() == nil {
		s.onUDP(ctx)
		if ctx.Err() == nil {
			s.onRelay(ctx)
		}
	}
}

// onUDP returns when the relay is in use, or ctx is done.
func (s *steering) onUDP(ctx context.Context) {
	tick := time.NewTicker(steerTick)
	defer tick.Stop()
	last, next, misses, good := s.heard(), time.Now(), 0, false
	var greeted time.Time
	alive := func(now time.Time, wait time.Duration) {
		last, next, misses, good = s.heard(), now.Add(wait), 0, true
		s.redial = time.Time{}
		s.hangUp()
		s.answered()
	}
	for {
		now, heard := time.Now(), s.heard()
		last = min(last, heard) // a session that is made anew is counted anew
		limit := missesToLeave
		if !good {
			limit = 1
		}
		switch {
		case heard > last:
			alive(now, steerTick)
		case misses >= limit && s.relay != nil && s.relay.isOpen():
			if err := s.use(true); err == nil {
				s.changed(postern.CarrierRelay, "nothing comes back over UDP")
				return
			}
		case !now.Before(next):
			next = now.Add(probeTimeout)
			tunnel, udp := s.ask(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case !tunnel && len(s.hurry) > 0: // it was cut off
			case tunnel && s.busy():
				alive(now, probeBusy)
			case tunnel:
				alive(now, probeIdle)
			case udp && misses+1 >= limit:
				misses = 0
				s.unanswered(true)
				if now.Sub(greeted) > 2*probeTimeout {
					greeted = now
					s.log.Debug("the gateway has no session of ours, greeting it anew", "err", s.greet())
				}
			default:
				misses++
				s.unanswered(udp)
				s.callUp(ctx)
				if misses >= limit { // the relay is all that is waited for
					next = time.Now().Add(probeTimeout)
				}
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.hurry:
			if s.lookNow(ctx) {
				alive(time.Now(), probeBusy)
			} else {
				greeted, next = time.Now(), time.Now()
			}
		case <-tick.C:
		}
	}
}

// answered notes that the tunnel works, by whatever way.
func (s *steering) answered() {
	s.failures = 0
	s.works.Store(true)
	s.stuck.Store(nil)
}

// unanswered notes that it does not. That is no fault of the way if the gateway hears us.
func (s *steering) unanswered(heard bool) {
	s.works.Store(false)
	if !heard {
		s.stuck.Store(nil)
	} else if s.stuck.Load() == nil {
		now := time.Now()
		s.stuck.Store(&now)
	}
}

// lookNow reports whether the tunnel answers, after something happened that may have cost
// the session: the gateway was started anew, or this machine is elsewhere, or slept. If
// it does not answer at once the session is made anew, whatever else is wrong.
func (s *steering) lookNow(ctx context.Context) bool {
	probing, cancel := context.WithTimeout(ctx, hurriedProbe)
	defer cancel()
	if s.probe(probing) == nil {
		s.answered()
		return true
	}
	if ctx.Err() == nil {
		s.log.Debug("greeting the gateway anew", "err", s.greet())
	}
	return false
}

// ask probes the tunnel, and UDP, too, if the tunnel takes long to answer: an echo is ten
// times as long as a probe. It does not wait for the other when the tunnel has answered, and
// for neither when something happened; hurry has its token still then.
func (s *steering) ask(ctx context.Context) (tunnel, udp bool) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var asked sync.WaitGroup
	asked.Go(func() {
		select {
		case <-time.After(echoAfter):
			udp = s.echo(ctx) == nil
		case <-ctx.Done():
		}
	})
	asked.Go(func() {
		select {
		case <-ctx.Done():
		case <-s.hurry:
			wake(s.hurry)
			cancel()
		}
	})
	tunnel = s.probe(ctx) == nil
	cancel() // a probe that failed took all the time there was
	asked.Wait()
	return tunnel, udp
}

// onRelay returns when UDP is in use, or ctx is done.
func (s *steering) onRelay(ctx context.Context) {
	began := time.Now()
	trust := began
	if !s.taken.IsZero() && began.Sub(s.taken) < flapping {
		trust = began.Add(flapping)
	}
	s.waken(ctx)
	answered, next, last := 0, began.Add(echoApart), s.heard()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.relay.ended:
			if !s.reopen(ctx) {
				return
			}
			s.waken(ctx)
			continue
		case <-s.hurry:
			// Elsewhere UDP may pass, and the way to the relay be gone.
			if !s.lookNow(ctx) && within(ctx, s.probe) != nil && !s.reopen(ctx) {
				return
			}
			next = time.Now()
			continue
		case <-time.After(time.Until(next)):
		}
		if s.heard() == last {
			s.waken(ctx)
		}
		last = s.heard()
		if within(ctx, s.echo) != nil {
			answered, next = 0, time.Now().Add(echoRound)
			continue
		}
		now := time.Now()
		answered++
		next = now.Add(echoApart)
		if answered < echoesBack || now.Before(trust) {
			continue
		}
		if s.goBack(ctx) {
			return
		}
		answered, next, trust = 0, now.Add(echoRound), now.Add(flapping)
	}
}

// waken sends a packet by the relay, so that the gateway learns of the way, and sees to it
// that there is a session.
func (s *steering) waken(ctx context.Context) {
	if within(ctx, s.probe) == nil {
		s.answered()
	} else if ctx.Err() == nil {
		s.unanswered(s.relay != nil && s.relay.isOpen())
		s.log.Debug("the gateway has no session of ours, greeting it anew", "err", s.greet())
	}
}

func within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return f(ctx)
}

// goBack takes UDP into use and reports whether the tunnel answers there; otherwise the
// relay stays in use.
func (s *steering) goBack(ctx context.Context) bool {
	if s.use(false) != nil {
		return false
	}
	for range missesToLeave {
		if within(ctx, s.probe) == nil {
			s.taken = time.Now()
			s.changed(postern.CarrierUDP, "UDP passes again")
			// What the gateway sent by the relay a moment ago still comes.
			select {
			case <-time.After(lingerRelay):
			case <-ctx.Done():
			}
			s.hangUp()
			return true
		}
	}
	_ = s.use(true)
	return false
}

// reopen opens the relay that has ended anew, once. If that fails, UDP is in use when it
// returns: one way is as good as the other then.
func (s *steering) reopen(ctx context.Context) bool {
	was := s.relay
	s.hangUp() // which waits for the one who sets err
	s.log.Info("the relay ended, opening it anew", "err", was.err)
	s.callUp(ctx)
	if s.relay != nil {
		select {
		case <-s.relay.opened:
		case <-s.relay.ended:
		case <-ctx.Done():
		}
		if s.relay.isOpen() {
			return true
		}
	}
	if ctx.Err() == nil && s.use(false) == nil {
		s.changed(postern.CarrierUDP, "the relay cannot be opened")
	}
	return false
}

// changed notes and tells the path, once for each change.
func (s *steering) changed(path, why string) {
	if s.path.Swap(&path); s.told != nil {
		s.told()
	}
	s.log.Info("path to the gateway changed", "path", path, "reason", why)
}

// callUp begins to open the relay, unless one is being opened, open, or failed lately.
func (s *steering) callUp(ctx context.Context) {
	now := time.Now()
	if r := s.relay; r != nil {
		select {
		case <-r.ended:
			s.hangUp()
			s.failures++
			wait := min(maxRedial, minRedial<<min(s.failures-1, 5))
			s.redial = now.Add(wait/2 + rand.N(wait/2))
			if s.failures == 1 {
				s.log.Warn("nothing comes back over UDP, and there is no relay", "err", r.err)
			}
		default:
			return
		}
	}
	if now.Before(s.redial) {
		return
	}
	s.redial = now.Add(minRedial) // one that ends at once is not opened anew at once
	ctx, cancel := context.WithCancel(ctx)
	r := &openRelay{opened: make(chan struct{}), ended: make(chan struct{}), cancel: cancel}
	s.relay = r
	r.work.Go(func() { s.serve(ctx, r) })
}

// serve opens r and runs it. hangUp waits for it.
func (s *steering) serve(ctx context.Context, r *openRelay) {
	run, err := s.dial(ctx)
	if err != nil {
		r.err = err
		close(r.ended)
		return
	}
	close(r.opened)
	r.err = run(ctx)
	close(r.ended)
}

// hangUp ends the relay, if there is one.
func (s *steering) hangUp() {
	if s.relay == nil {
		return
	}
	s.relay.cancel()
	s.relay.work.Wait()
	s.relay = nil
}
