package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern"
)

// A sky is what a steering knows of the world, under a fake clock.
type sky struct {
	mu       sync.Mutex
	udp      bool // passes
	session  bool // the gateway has ours
	deaf     bool // and makes no new one
	relays   bool // can be opened
	fleeting bool // and end at once
	dials    int
	relayed  bool // in use
	greeted  int
	received uint64
	hangUp   context.CancelFunc // ends the open relay
	path     []string           // each change, with the seconds at which it came
	at       []time.Duration
	began    time.Time
	echoes   int  // asked
	idle     bool // no connections are open
}

var errNothing = errors.New("nothing came back")

// answer waits until ctx is done unless ok, which is asked after a round trip.
func (s *sky) answer(ctx context.Context, ok func() bool) error {
	select {
	case <-time.After(40 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	good := ok()
	s.mu.Unlock()
	if good {
		return nil
	}
	<-ctx.Done()
	return errNothing
}

func (s *sky) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// steer runs a steering under s until the test is over.
func (s *sky) steer(t *testing.T) *steering {
	st := &steering{hurry: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
	s.began = time.Now()
	st.probe = func(ctx context.Context) error {
		return s.answer(ctx, func() bool {
			ok := s.session && (s.udp && !s.relayed || s.relayed && s.hangUp != nil)
			if ok {
				s.received++
			}
			return ok
		})
	}
	st.echo = func(ctx context.Context) error {
		s.set(func() { s.echoes++ })
		return s.answer(ctx, func() bool { return s.udp })
	}
	st.heard = func() uint64 { s.mu.Lock(); defer s.mu.Unlock(); return s.received }
	st.busy = func() bool { return !s.idle }
	st.use = func(relay bool) error { s.set(func() { s.relayed = relay }); return nil }
	st.greet = func() error { s.set(func() { s.greeted++; s.session = !s.deaf }); return nil }
	st.dial = func(context.Context) (relayRun, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dials++
		if !s.relays {
			return nil, errNothing
		}
		if s.fleeting {
			return func(context.Context) error { return errNothing }, nil
		}
		return func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			s.set(func() { s.hangUp = cancel })
			<-ctx.Done()
			s.set(func() { s.hangUp = nil })
			return errNothing
		}, nil
	}
	st.told = func() {
		s.set(func() { s.path, s.at = append(s.path, st.Path()), append(s.at, time.Since(s.began)) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { st.run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	return st
}

// changes fails unless the path has changed so, and returns when each was.
func (s *sky) changes(t *testing.T, want ...string) []time.Duration {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.path, want) {
		t.Fatalf("the path was %v at %v, want %v", s.path, s.at, want)
	}
	return slices.Clone(s.at)
}

const (
	udp    = postern.CarrierUDP
	tls443 = postern.CarrierRelay
)

func TestSteerStaysOnUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{udp: true, session: true, relays: true}
		st := s.steer(t)
		<-time.After(time.Hour)
		s.changes(t)
		if st.Path() != udp || s.hangUp != nil || s.greeted > 0 || s.echoes > 0 {
			t.Errorf("path %q, relay open %t, greeted %d times, %d echoes", st.Path(), s.hangUp != nil, s.greeted, s.echoes)
		}
	})
}

func TestSteerBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{session: true, relays: true}
		s.steer(t)
		<-time.After(time.Minute)
		if at := s.changes(t, tls443); at[0] > 3*time.Second {
			t.Errorf("on the relay after %v", at[0])
		}
	})
}

// A session that the gateway lost is made anew, also while the relay stays open.
func TestSteerGreetsByTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{session: true, relays: true}
		s.steer(t)
		<-time.After(time.Minute)
		s.set(func() { s.session = false })
		<-time.After(echoRound + 3*probeTimeout)
		s.changes(t, tls443)
		if !s.session || s.greeted != 1 {
			t.Errorf("greeted %d times, session %t", s.greeted, s.session)
		}
	})
}

// As soon with nothing open, and at whatever moment after a probe.
func TestSteerOutAndBack(t *testing.T) {
	for _, idle := range []bool{false, true} {
		for since := range 6 {
			t.Run(fmt.Sprintf("idle %t, %d", idle, since), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { outAndBack(t, idle, time.Duration(since)*steerTick) })
			})
		}
	}
}

func outAndBack(t *testing.T, idle bool, since time.Duration) {
	s := &sky{udp: true, session: true, relays: true, idle: idle}
	s.steer(t)
	<-time.After(time.Minute + since)
	s.set(func() { s.udp = false })
	<-time.After(6 * time.Second) // R10
	s.changes(t, tls443)
	<-time.After(10 * time.Minute)
	s.changes(t, tls443)
	s.set(func() { s.udp = true })
	<-time.After(time.Minute) // R10
	s.changes(t, tls443, udp)
	<-time.After(time.Second)
	if s.hangUp != nil {
		t.Error("the relay is still open")
	}
}

// UDP that comes and goes does not take the tunnel with it every time.
func TestSteerDoesNotFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{udp: true, session: true, relays: true}
		s.steer(t)
		<-time.After(time.Minute)
		for range 30 {
			s.set(func() { s.udp = false })
			<-time.After(10 * time.Second)
			s.set(func() { s.udp = true })
			<-time.After(20 * time.Second)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.path); n > 2*15*60/60+2 {
			t.Errorf("%d changes in 15 minutes, at %v", n, s.at)
		}
	})
}

// The gateway lost the session, and UDP is not to blame.
func TestSteerGreets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{udp: true, session: true, relays: true}
		s.steer(t)
		<-time.After(time.Minute)
		s.set(func() { s.session = false })
		<-time.After(8 * time.Second)
		s.changes(t)
		if s.greeted != 1 {
			t.Errorf("greeted %d times", s.greeted)
		}
	})
}

func TestSteerWithoutRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{session: true}
		st := s.steer(t)
		<-time.After(10 * time.Minute)
		s.changes(t)
		s.set(func() { s.udp = true })
		<-time.After(5 * time.Second)
		if s.changes(t); st.Path() != udp || s.greeted > 0 {
			t.Errorf("path %q, greeted %d", st.Path(), s.greeted)
		}
	})
}

func TestSteerReopensRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{session: true, relays: true}
		s.steer(t)
		<-time.After(time.Minute)
		s.set(func() { s.hangUp(); s.session = false }) // the gateway starts anew
		<-time.After(5 * time.Second)
		s.changes(t, tls443)
		if s.hangUp == nil || !s.session {
			t.Errorf("relay open %t, session %t", s.hangUp != nil, s.session)
		}
		s.set(func() { s.relays = false; s.hangUp() })
		<-time.After(time.Second)
		s.changes(t, tls443, udp)
		s.set(func() { s.relays = true })
		<-time.After(time.Minute)
		s.changes(t, tls443, udp, tls443)
	})
}

// Relays that end as soon as they are open, such as those of two machines with one
// membership, are not opened all the time.
// Failures of long ago do not count: a relay that was in use for a day is opened anew as
// soon as one that never failed.
func TestSteerReopensRelayAfterABadStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{session: true}
		st := s.steer(t)
		<-time.After(2 * time.Minute)
		s.set(func() { s.relays = true })
		<-time.After(24 * time.Hour)
		if st.Path() != tls443 {
			t.Fatalf("path %s", st.Path())
		}
		s.set(func() { s.relays = false; s.hangUp(); s.hangUp = nil })
		<-time.After(time.Second)
		s.set(func() { s.relays = true })
		again := time.Now()
		for open := false; !open; s.set(func() { open = s.hangUp != nil }) {
			<-time.After(100 * time.Millisecond)
		}
		if took := time.Since(again); took > 5*time.Second {
			t.Errorf("the relay was opened anew %v after it could be", took)
		}
	})
}

func TestSteerFleetingRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{session: true, relays: true, fleeting: true}
		s.steer(t)
		<-time.After(time.Minute)
		if s.dials < 5 || s.dials > 60 {
			t.Errorf("dialed %d times in a minute", s.dials)
		}
		s.set(func() { s.fleeting = false })
		<-time.After(time.Minute)
		if s.hangUp == nil {
			t.Error("no relay is open, where one would last")
		}
	})
}

// What may have cost the session is looked into at once, and a session that is there is
// left alone.
func TestSteerHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{udp: true, session: true, relays: true}
		st := s.steer(t)
		<-time.After(time.Minute)
		wake(st.hurry)
		<-time.After(2 * time.Second)
		if s.greeted != 0 {
			t.Errorf("greeted %d times, with a session", s.greeted)
		}
		s.set(func() { s.session = false })
		wake(st.hurry)
		<-time.After(hurriedProbe + 100*time.Millisecond)
		if s.greeted != 1 || !s.session {
			t.Errorf("greeted %d times", s.greeted)
		}

		// Also while a probe is under way that nobody answers.
		s.set(func() { s.session = false })
		<-time.After(probeBusy + probeTimeout/2)
		wake(st.hurry)
		<-time.After(hurriedProbe + 100*time.Millisecond)
		if s.greeted != 2 || !s.session {
			t.Errorf("greeted %d times", s.greeted)
		}
		s.changes(t)
	})
}

// The same on the relay: a way that still leads there stays, and else UDP has its turn.
func TestSteerHurriesOnTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sky{session: true, relays: true}
		st := s.steer(t)
		<-time.After(time.Minute)
		s.changes(t, tls443)
		wake(st.hurry)
		<-time.After(5 * time.Second)
		s.changes(t, tls443)

		s.set(func() { s.relays, s.session, s.udp = false, false, true })
		s.set(func() { s.hangUp() })
		wake(st.hurry)
		<-time.After(5 * time.Second)
		if s.changes(t, tls443, udp); !s.session {
			t.Error("no session")
		}
	})
}

func TestSteeredRuns(t *testing.T) {
	var s steered
	for i, step := range []struct {
		boot string
		want bool
	}{{"", false}, {"one", false}, {"one", false}, {"", false}, {"one", false}, {"two", true}, {"", false}, {"two", false}} {
		if got := s.runs(step.boot); got != step.want {
			t.Errorf("step %d, %q: got %t, want %t", i, step.boot, got, step.want)
		}
	}
}

// A gateway that hears us and makes no session is taken for one that has seen a later
// clock; one that is not heard, or that answers again, is not (R9).
func TestSteerStuck(t *testing.T) {
	for _, tt := range []struct {
		name        string
		udp, relays bool
		want        bool
	}{
		{"heard over UDP", true, true, true},
		{"heard by the relay", false, true, true},
		{"not heard", false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sky{udp: true, session: true, relays: tt.relays}
				st := s.steer(t)
				<-time.After(time.Minute)
				if st.stuck.Load() != nil || !st.works.Load() {
					t.Error("stuck while all is well")
				}
				s.set(func() { s.session, s.deaf, s.udp = false, true, tt.udp })
				begin := time.Now()
				// On the relay one only looks when an echo is due.
				<-time.After(echoRound + stuckFor + 3*probeTimeout)
				if since := st.stuck.Load(); (since != nil) != tt.want || st.works.Load() {
					t.Errorf("stuck since %v, works %t", since, st.works.Load())
				} else if tt.udp && since.Sub(begin) > probeBusy+2*probeTimeout+steerTick {
					t.Errorf("noticed after %v", since.Sub(begin))
				}
				s.set(func() { s.deaf, s.udp = false, true })
				<-time.After(2 * time.Minute)
				if st.stuck.Load() != nil || !st.works.Load() {
					t.Error("stuck once it is well again")
				}
			})
		})
	}
}
