package node

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/netstack"
)

// A wire is what a pathMTU knows of the world, under a fake clock: it carries packets up
// to a length, and loses some of those.
type wire struct {
	mu       sync.Mutex
	carries  int
	loss     float64
	away     bool // the tunnel goes by a relay
	asked    int  // echoes
	bytes    int  // of them
	used     []int
	timeouts uint64
	heard    uint64
	random   *rand.Rand
}

const wireRTT = 40 * time.Millisecond

// measure runs a pathMTU over w until the test is over.
func (w *wire) measure(t *testing.T, top int) *pathMTU {
	w.random = rand.New(rand.NewPCG(1, 2))
	locked := func(f func() uint64) func() uint64 {
		return func() uint64 { w.mu.Lock(); defer w.mu.Unlock(); return f() }
	}
	m := &pathMTU{
		top: top, again: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler), told: func() {},
		onUDP:    func() bool { w.mu.Lock(); defer w.mu.Unlock(); return !w.away },
		timeouts: locked(func() uint64 { return w.timeouts }), heard: locked(func() uint64 { return w.heard }),
		use: func(mtu int) error { w.mu.Lock(); defer w.mu.Unlock(); w.used = append(w.used, mtu); return nil },
	}
	m.echo = func(ctx context.Context, mtu int) (time.Duration, error) {
		w.mu.Lock()
		w.asked, w.bytes = w.asked+1, w.bytes+mtu
		lost := mtu > w.carries || w.random.Float64() < w.loss
		w.mu.Unlock()
		if lost {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		select {
		case <-time.After(wireRTT):
			return wireRTT, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { m.run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	return m
}

func (w *wire) set(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }

func TestPathMTUFound(t *testing.T) {
	for _, v := range []struct{ top, carries, want int }{
		{1420, 1420, 1420}, {1420, 9000, 1420}, {1420, 1419, 1408}, {1420, 1340, 1328}, {1420, 1240, 1232},
		{1420, 1200, 1200}, {1280, 1270, 1264}, {1280, 1500, 1280}, {8920, 1420, 1408}, {8920, 8000, 8000}, {8920, 4321, 4320},
		{1420, 1100, 0}, {1420, 0, 0},
	} {
		t.Run(fmt.Sprintf("%d of %d", v.carries, v.top), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{carries: v.carries}
				m := w.measure(t, v.top)
				<-time.After(10 * time.Second)
				if got := m.Found(); got != v.want {
					t.Errorf("found %d, want %d", got, v.want)
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				if v.want == v.top && (w.asked > 2 || slices.ContainsFunc(w.used, func(told int) bool { return told != v.top })) {
					t.Errorf("%d echoes, used %v, where nothing was to be done", w.asked, w.used)
				}
			})
		})
	}
}

// Loss by chance costs echoes, and hardly any length.
// A gateway that was told of a narrow path goes on with that when the node is started anew
// on a wide one, unless it is told.
func TestPathMTUWideFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{carries: 1420}
		m := w.measure(t, 1420)
		<-time.After(time.Hour)
		w.set(func() {
			if m.Found() != 1420 || len(w.used) == 0 || len(w.used) > 20 || slices.ContainsFunc(w.used, func(told int) bool { return told != 1420 }) {
				t.Errorf("found %d, told %d", m.Found(), w.used)
			}
		})
	})
}

func TestPathMTUOnALossyPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{carries: 1340, loss: .2}
		m := w.measure(t, 1420)
		<-time.After(2 * time.Minute)
		for range 100 {
			if got := m.Found(); got < 1328-2*mtuStep || got > 1328 {
				t.Errorf("found %d, want 1328 or little less", got)
			}
			<-time.After(time.Minute)
		}
	})
}

// Less passes all at once while bytes go up or down: it is found soon, at little cost.
func TestPathMTUShrinks(t *testing.T) {
	for what, stall := range map[string]func(w *wire){
		"the node sends":    func(w *wire) { w.timeouts++ },
		"the gateway sends": func(w *wire) { w.heard += 3000 },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{carries: 1500}
				m := w.measure(t, 1420)
				<-time.After(time.Minute)
				w.set(func() { w.carries = 1230; stall(w) })
				<-time.After(measureBusy + 3*time.Second)
				if got := m.Found(); got != 1216 {
					t.Errorf("found %d, want 1216", got)
				}
				w.set(func() { w.carries = 1500 })
				<-time.After(measureEvery + 5*time.Second)
				if got := m.Found(); got != 1420 {
					t.Errorf("found %d when all passes again", got)
				}
				w.set(func() {
					if last := w.used[len(w.used)-1]; last != 1420 {
						t.Errorf("%d is in use", last)
					}
				})
			})
		})
	}
}

// Somewhere else the path is another.
func TestPathMTUElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{carries: 1500}
		m := w.measure(t, 1420)
		<-time.After(time.Minute)
		w.set(func() { w.carries = 1300 })
		wake(m.again)
		<-time.After(3 * time.Second)
		if got := m.Found(); got != 1296 {
			t.Errorf("found %d, want 1296", got)
		}
	})
}

// A path by which nothing comes is nothing's length; and what comes back is measured.
func TestPathMTUWhileUDPIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{carries: 1340}
		m := w.measure(t, 1420)
		<-time.After(time.Minute)
		w.set(func() { w.carries = 0 })
		<-time.After(measureEvery)
		w.set(func() { w.away, w.asked = true, 0 })
		<-time.After(time.Hour)
		w.set(func() {
			if m.Found() != 1328 || w.asked > 0 {
				t.Errorf("found %d by %d echoes, while it goes by a relay", m.Found(), w.asked)
			}
			w.away, w.carries = false, 1300
		})
		<-time.After(5 * time.Second)
		if got := m.Found(); got != 1296 {
			t.Errorf("found %d, want 1296", got)
		}
	})
}

// What an idle node pays for it in a day.
func TestPathMTUCost(t *testing.T) {
	for carries, most := range map[int]int{1420: 500 << 10, 1340: 4 << 20} {
		synctest.Test(t, func(t *testing.T) {
			w := &wire{carries: carries}
			w.measure(t, 1420)
			<-time.After(24 * time.Hour)
			w.mu.Lock()
			defer w.mu.Unlock()
			telling := len(w.used) * (48 + netstack.Overhead + 28)
			if w.bytes+telling > most {
				t.Errorf("%d: echoes of %d bytes each way, and %d of telling, want %d", carries, w.bytes, telling, most)
			}
			t.Logf("%d: echoes of %d KiB each way, telling %d KiB", carries, w.bytes>>10, telling>>10)
		})
	}
}
