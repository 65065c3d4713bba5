package fair

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mega = 1 << 20

// A load moves bytes on a share, by flows at a time, until stopped.
type load struct {
	share *Share
	flows int
	stop  chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	moved int
}

func start(s *Share, flows int) *load {
	l := &load{share: s, flows: flows, stop: make(chan struct{})}
	for range flows {
		l.wg.Go(func() {
			for {
				n := s.Take(func() <-chan struct{} { return l.stop })
				if n == 0 {
					return
				}
				l.mu.Lock()
				l.moved += n
				l.mu.Unlock()
			}
		})
	}
	return l
}

func (l *load) end() int {
	close(l.stop)
	l.wg.Wait()
	return l.moved
}

func near(got, want int) bool {
	return math.Abs(float64(got-want)) <= 0.05*float64(want)
}

// TestParts: tenants that want more than their part get parts by weight, whatever the
// number of their flows, and all of the line together.
func TestParts(t *testing.T) {
	for _, tt := range []struct {
		name       string
		rate, each int64
		flows      []int
		weights    []int
		want       []int // MiB in 10 s
	}{
		{"alone", 10 * mega, 0, []int{1}, []int{1}, []int{100}},
		{"two", 10 * mega, 0, []int{1, 1}, []int{1, 1}, []int{50, 50}},
		{"one with many flows", 10 * mega, 0, []int{100, 1}, []int{1, 1}, []int{50, 50}},
		{"three", 9 * mega, 0, []int{7, 50, 1}, []int{1, 1, 1}, []int{30, 30, 30}},
		{"weights", 9 * mega, 0, []int{5, 5}, []int{8, 1}, []int{80, 10}},
		{"each", 0, 2 * mega, []int{9, 1}, []int{1, 1}, []int{20, 20}},
		{"each, weights", 0, 2 * mega, []int{9, 1}, []int{1, 8}, []int{20, 160}},
		{"both, the line is short", 3 * mega, 2 * mega, []int{9, 9}, []int{1, 1}, []int{15, 15}},
		{"both, the line is long", 10 * mega, 2 * mega, []int{9, 9}, []int{1, 1}, []int{20, 20}},
		{"a fast line", 4000 * mega, 0, []int{3, 3}, []int{1, 1}, []int{20000, 20000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line := NewLine(tt.rate, tt.each, nil)
				var loads []*load
				for i, flows := range tt.flows {
					loads = append(loads, start(line.Share(tt.weights[i]), flows))
				}
				<-time.After(10 * time.Second)
				for i, l := range loads {
					if got := l.end(); !near(got, tt.want[i]*mega) {
						t.Errorf("tenant %d: moved %d MiB, want %d", i, got/mega, tt.want[i])
					}
				}
			})
		})
	}
}

// TestLittleDoesNotWait: a tenant that wants little does not wait, however many others
// want how much.
func TestLittleDoesNotWait(t *testing.T) {
	for _, others := range []int{1, 50} {
		t.Run(fmt.Sprint(others), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rate = 10 * mega
				line := NewLine(rate, 0, nil)
				var loads []*load
				for range others {
					loads = append(loads, start(line.Share(1), 20))
				}
				<-time.After(time.Second)
				little := line.Share(1)
				for range 200 {
					<-time.After(3 * time.Millisecond)
					begun := time.Now()
					n := little.Take(func() <-chan struct{} { return nil })
					little.Give(n - 100)
					if took := time.Since(begun); took > 0 {
						t.Fatalf("waited %v, want not at all", took)
					}
				}
				for _, l := range loads {
					l.end()
				}
			})
		})
	}
}

// TestRestIsNotSaved: who rested gets no more than its part afterwards.
func TestRestIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := NewLine(10*mega, 0, nil)
		rested := line.Share(1)
		rested.Give(rested.Take(nil))
		busy := start(line.Share(1), 5)
		<-time.After(time.Minute)
		busy.mu.Lock()
		busy.moved = 0
		busy.mu.Unlock()
		back := start(rested, 5)
		<-time.After(10 * time.Second)
		if got := back.end(); !near(got, 50*mega) {
			t.Errorf("who rested moved %d MiB, want 50", got/mega)
		}
		if got := busy.end(); !near(got, 50*mega) {
			t.Errorf("the other moved %d MiB, want 50", got/mega)
		}
	})
}

// TestGive: what is given back is there for others.
func TestGive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := NewLine(mega, 0, nil)
		s := line.Share(1)
		begun := time.Now()
		for range 1000 {
			s.Give(s.Take(nil) - 10)
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("10 kB took %v of a line that had room for more", took)
		}
		if got := line.Waits(); got != (Waits{}) {
			t.Errorf("got %+v, want no waits", got)
		}
	})
}

// TestLeave: who does not wait any more has moved nothing, and leaves nothing behind.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := NewLine(mega, 0, nil)
		s := line.Share(1)
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for s.Take(func() <-chan struct{} { return done }) > 0 {
				}
			})
		}
		<-time.After(time.Second)
		close(done)
		wg.Wait()
		if len(line.waiting) != 0 || len(s.waiters) != 0 {
			t.Errorf("%d tenants and %d of their moves wait, want none", len(line.waiting), len(s.waiters))
		}
		if w := line.Waits(); w.Line == 0 || w.Share != 0 {
			t.Errorf("got %+v, want waits for the line", w)
		}
	})
}

// BenchmarkTake is what a turn costs that need not be waited for.
func BenchmarkTake(b *testing.B) {
	s := NewLine(1<<50, 1<<50, nil).Share(1)
	b.ReportAllocs()
	for b.Loop() {
		s.Give(s.Take(nil))
	}
}
