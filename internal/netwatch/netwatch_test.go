package netwatch

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A machine is one whose network and clocks a test moves.
type machine struct {
	mu      sync.Mutex
	place   string
	set     time.Duration // how far the clock on the wall is ahead of the fake one
	event   func()        // tells that something may have changed; nil: nobody listens
	takes   time.Duration // to work a change in
	changes []string
	at      []time.Time
	looks   int
}

// watch has Run watch m until the test is over.
func (m *machine) watch(t *testing.T, deaf error) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		Run(ctx, Config{
			Changed: func(_ context.Context, why string) {
				m.mu.Lock()
				defer m.mu.Unlock()
				if m.takes > 0 {
					takes := m.takes
					m.mu.Unlock()
					<-time.After(takes)
					m.mu.Lock()
				}
				m.changes, m.at = append(m.changes, why), append(m.at, time.Now())
			},
			place: func() place { m.mu.Lock(); defer m.mu.Unlock(); m.looks++; return place{addresses: m.place} },
			wall:  func() time.Time { m.mu.Lock(); defer m.mu.Unlock(); return time.Now().Add(m.set) },
			listen: func(ctx context.Context, changed func()) error {
				if deaf != nil {
					return deaf
				}
				m.mu.Lock()
				m.event = changed
				m.mu.Unlock()
				<-ctx.Done()
				return nil
			},
		})
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	synctest.Wait()
}

func (m *machine) moves(place string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.place = place
	if m.event != nil {
		m.event()
	}
}

// told returns the changes since it was last called, and when the first came.
func (m *machine) told() ([]string, time.Time) {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	changes, at := m.changes, time.Time{}
	if len(m.at) > 0 {
		at = m.at[0]
	}
	m.changes, m.at = nil, nil
	return changes, at
}

// A move is told once, when it has settled, and noise is not told.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{place: "home"}
		m.watch(t, nil)
		for range 100 {
			m.moves("home")
		}
		<-time.After(time.Minute)
		if got, _ := m.told(); got != nil {
			t.Errorf("told %q of nothing", got)
		}
		if m.looks > 10 {
			t.Errorf("looked %d times in a minute", m.looks)
		}
		begin := time.Now()
		m.moves("nowhere")
		m.moves("train")
		<-time.After(time.Minute)
		if got, at := m.told(); len(got) != 1 || at.Sub(begin) > settleTime {
			t.Errorf("told %q after %v", got, at.Sub(begin))
		}
	})
}

// What a move takes to be worked in is no sleep.
func TestMoveTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{place: "home", takes: 2 * lateTick}
		m.watch(t, nil)
		m.moves("train")
		<-time.After(time.Minute)
		if got, _ := m.told(); len(got) != 1 {
			t.Errorf("told %q", got)
		}
	})
}

// Where the system says nothing, a move is seen all the same.
func TestMoveUntold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{place: "home"}
		m.watch(t, errors.ErrUnsupported)
		<-time.After(time.Minute)
		begin := time.Now()
		m.moves("train")
		<-time.After(time.Minute)
		if got, at := m.told(); len(got) != 1 || at.Sub(begin) > lookInterval+tickInterval {
			t.Errorf("told %q after %v", got, at.Sub(begin))
		}
	})
}

// A machine sleeps for 8 hours, in which its clock on the wall alone goes on (R8).
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{place: "home"}
		m.watch(t, nil)
		<-time.After(time.Minute + tickInterval/2)
		begin := time.Now()
		m.mu.Lock()
		m.set = 8 * time.Hour
		m.mu.Unlock()
		<-time.After(time.Minute)
		got, at := m.told()
		if len(got) != 1 || !strings.Contains(got[0], "8h0m") || at.Sub(begin) > tickInterval {
			t.Errorf("told %q after %v", got, at.Sub(begin))
		}
		// A clock that is corrected by little, or set back, has not slept.
		for _, by := range []time.Duration{5 * time.Second, -5 * time.Second, -8 * time.Hour} {
			m.mu.Lock()
			m.set += by
			m.mu.Unlock()
			<-time.After(time.Minute)
			if got, _ := m.told(); got != nil {
				t.Errorf("clock set by %v: told %q", by, got)
			}
		}
	})
}

// A process that is stopped for long sees both clocks jump.
func TestGap(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name      string
		wall, ran time.Duration
		want      time.Duration
	}{
		{"a tick", tickInterval, tickInterval, 0},
		{"a busy machine", 5 * time.Second, 5 * time.Second, 0},
		{"stopped", time.Minute, time.Minute, time.Minute - tickInterval},
		{"asleep", 8 * time.Hour, tickInterval, 8*time.Hour - tickInterval},
		{"stopped, and its clock set back", -time.Hour, time.Minute, time.Minute - tickInterval},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := watch{Config: Config{wall: func() time.Time { return now }}}
			w.last = reading{now.Add(-tt.wall), time.Now().Add(-tt.ran)}
			if got := w.gap().Round(time.Second); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// A gateway that is new is no move; one that is reached from elsewhere is.
func TestPlaceMoved(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	before := place{"eth 10.0.0.2/24", map[netip.Addr]string{a: "10.0.0.2"}}
	for _, tt := range []struct {
		name string
		now  place
		want bool
	}{
		{"the same", place{"eth 10.0.0.2/24", map[netip.Addr]string{a: "10.0.0.2"}}, false},
		{"another target", place{"eth 10.0.0.2/24", map[netip.Addr]string{a: "10.0.0.2", b: "10.0.0.2"}}, false},
		{"no target", place{"eth 10.0.0.2/24", nil}, false},
		{"another way", place{"eth 10.0.0.2/24", map[netip.Addr]string{a: "10.0.1.2"}}, true},
		{"no way", place{"eth 10.0.0.2/24", map[netip.Addr]string{a: "nowhere"}}, true},
		{"another address", place{"eth 10.0.0.3/24", map[netip.Addr]string{a: "10.0.0.2"}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.now.moved(before); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// The real thing: this machine is somewhere, and listening to it ends when it should.
func TestThisMachine(t *testing.T) {
	loopback := netip.MustParseAddrPort("127.0.0.1:9")
	if got := here(func() []netip.AddrPort { return []netip.AddrPort{loopback} }); got.from[loopback.Addr()] != "127.0.0.1" {
		t.Errorf("place %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- listen(ctx, func() {}) }()
	cancel()
	if err := <-done; err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
