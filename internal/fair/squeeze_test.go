package fair

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A machine stands for a gateway whose processors carry rate bytes a second of what comes
// from flows, which send as much as their windows let them: all that was read. What came
// and was not worked on yet is in one queue.
type machine struct {
	rate, window int

	mu    sync.Mutex
	queue []piece
	held  int         // bytes in queue
	left  float64     // bytes that it could have worked on in the time so far
	ready map[int]int // bytes that may be read, by flow
	wake  sync.Cond
	ended bool
	done  int // bytes that were read
}

type piece struct{ flow, size int }

func newMachine(rate, flows, window int) *machine {
	m := &machine{rate: rate, window: window, ready: map[int]int{}}
	m.wake.L = &m.mu
	for i := range flows {
		m.send(i, window)
	}
	return m
}

func (m *machine) send(flow, size int) {
	for ; size > 0; size -= 16 << 10 {
		n := min(size, 16<<10)
		m.queue = append(m.queue, piece{flow, n})
		m.held += n
	}
}

func (m *machine) behind() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held > 1<<20
}

// work works for d.
func (m *machine) work(d time.Duration) {
	<-time.After(d)
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.left += float64(m.rate) * d.Seconds(); m.left > 0 && len(m.queue) > 0; {
		p := m.queue[0]
		m.queue = m.queue[1:]
		m.held -= p.size
		m.ready[p.flow] += p.size
		m.left -= float64(p.size)
	}
	m.left = min(m.left, 0) // what it did not use is gone
	m.wake.Broadcast()
}

// pump reads what comes of a flow, as s says.
func (m *machine) pump(flow int, s *Share) {
	for {
		m.mu.Lock()
		for m.ready[flow] == 0 && !m.ended {
			m.wake.Wait()
		}
		m.mu.Unlock()
		most := s.Take(func() <-chan struct{} { return nil })
		m.mu.Lock()
		if m.ended {
			m.mu.Unlock()
			s.Give(most)
			return
		}
		n := min(most, m.ready[flow])
		m.ready[flow] -= n
		m.done += n
		m.send(flow, n)
		m.mu.Unlock()
		s.Give(most - n)
	}
}

// run has one tenant's flows send for two seconds, and returns how much of the machine's
// rate was used after the first half second and how long what came waited in the queue: mostly, and
// at the 99th percentile. Beside it another tenant moves a little, unless it is alone.
func (m *machine) run(line *Line, flows int, alone bool) (used float64, p50, p99 time.Duration) {
	var wg sync.WaitGroup
	s, quiet := line.Share(1), line.Share(1)
	for i := range flows {
		wg.Go(func() { m.pump(i, s) })
	}
	var waits []time.Duration
	var begun int
	const tick = time.Millisecond
	for i := range 2000 {
		m.work(tick)
		synctest.Wait()
		if !alone && i%50 == 0 {
			quiet.Give(quiet.Take(nil) - 100)
		}
		m.mu.Lock()
		if i == 500 {
			begun = m.done
		}
		if i >= 500 {
			waits = append(waits, time.Duration(float64(m.held)/float64(m.rate)*float64(time.Second)))
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	used = float64(m.done-begun) / 1.5 / float64(m.rate)
	m.ended = true
	m.wake.Broadcast()
	m.mu.Unlock()
	for range 100000 {
		<-time.After(tick)
		line.mu.Lock()
		left := len(line.waiting)
		line.mu.Unlock()
		if left == 0 {
			break
		}
	}
	wg.Wait()
	slices.Sort(waits)
	return used, waits[len(waits)/2], waits[len(waits)*99/100]
}

// TestSqueeze: a machine with more to do than it can keeps what waits in its own queue
// short, and is busy all the same.
func TestSqueeze(t *testing.T) {
	for _, tt := range []struct {
		name                string
		rate, flows, window int
	}{
		{"many flows", 250 << 20, 200, 64 << 10},
		{"a slow machine", 50 << 20, 100, 64 << 10},
		{"few flows with much under way", 250 << 20, 8, 2 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(tt.rate, tt.flows, tt.window)
				used, p50, p99 := m.run(NewLine(0, 0, nil), tt.flows, false)
				t.Logf("not squeezed: %.0f%% of its rate, waits of %v, p99 %v", used*100, p50, p99)
				m = newMachine(tt.rate, tt.flows, tt.window)
				used, p50sq, p99sq := m.run(NewLine(0, 0, m.behind), tt.flows, false)
				t.Logf("squeezed: %.0f%% of its rate, waits of %v, p99 %v", used*100, p50sq, p99sq)
				if used < 0.95 {
					t.Errorf("%.0f%% of the machine's rate is used, want 95", used*100)
				}
				if p99sq > p99/3 {
					t.Errorf("waits of %v, want a third of the %v without", p99sq, p99)
				}
			})
		})
	}
}

// TestSqueezeAgain: a machine that was let go and is behind anew is slowed down, and does
// not stand still for what it moved meanwhile.
func TestSqueezeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var behind atomic.Bool
		line := NewLine(0, 0, behind.Load)
		var sofar atomic.Int64
		stop := make(chan struct{})
		var flows sync.WaitGroup
		for range 2 {
			share := line.Share(1)
			for range 4 {
				flows.Go(func() { // 12.5 MiB a second, if it may
					for {
						n := share.Take(func() <-chan struct{} { return stop })
						sofar.Add(int64(n))
						select {
						case <-time.After(time.Duration(n) * time.Second / (25 * mega / 2)):
						case <-stop:
							return
						}
					}
				})
			}
		}
		moved := func(d time.Duration) int {
			before := sofar.Load()
			<-time.After(d)
			return int(sofar.Load() - before)
		}
		free := moved(time.Second)
		for i := range 3 {
			behind.Store(true)
			<-time.After(50 * time.Millisecond)
			if got := moved(500 * time.Millisecond); got < free/8 || got > free*3/8 {
				t.Errorf("time %d: moved %d MiB in half a second of being behind, want half of %d", i, got/mega, free/2/mega)
			}
			behind.Store(false)
			<-time.After(10 * time.Second)
			if got := moved(time.Second); got < free*9/10 {
				t.Errorf("time %d: moved %d MiB in a second when it was let go, want %d", i, got/mega, free/mega)
			}
		}
		close(stop)
		flows.Wait()
	})
}

// TestAloneIsNotSqueezed: a tenant that is alone has nobody to hold up.
func TestAloneIsNotSqueezed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(250<<20, 50, 64<<10)
		line := NewLine(0, 0, m.behind)
		m.run(line, 50, true)
		if got := line.Waits(); got != (Waits{}) {
			t.Errorf("got %+v, want no waits", got)
		}
	})
}

// TestSqueezeLetsGo: a machine that is behind whatever is moved, such as under a flood of
// datagrams that lead nowhere, goes on moving.
func TestSqueezeLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := NewLine(100*mega, 0, func() bool { return true })
		a, b := start(line.Share(1), 5), start(line.Share(1), 5)
		<-time.After(10 * time.Second)
		if got := a.end() + b.end(); got < 900*mega {
			t.Errorf("moved %d MiB, want nearly 1000", got/mega)
		}
	})
}
