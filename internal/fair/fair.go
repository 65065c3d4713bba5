// Package fair divides a line between tenants when it is full.
//
// It is start-time fair queueing (Goyal, Vin and Cheng, 1996): each tenant has a virtual
// time, which is how much it has moved, and the one that is behind goes next. One that
// comes back is put a quantum behind who went last: it is owed no more for its rest. So a
// tenant alone has the whole line, those that want more than their part get equal parts,
// in steps of a quantum, and one that wants less does not wait: while it is behind it goes
// at once, and the others make up for it. Deficit round robin (Shreedhar and Varghese,
// 1995) makes the same parts, but has each wait until all others had their turn.
package fair

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	minQuantum = 16 << 10
	maxQuantum = 64 << 10

	// quantumTime is what one quantum takes of the line, if it can be chosen so.
	quantumTime = time.Millisecond

	// burstTime is for how much time a line that was idle catches up. It bridges what a
	// timer is late.
	burstTime = 20 * time.Millisecond
)

// A Line is what is divided. Its methods are safe for concurrent use.
type Line struct {
	// Static after NewLine.
	each    float64 // bytes a second that one share may have; zero: any
	quantum int     // bytes

	mu      sync.Mutex
	bucket  bucket
	squeeze squeeze
	now     float64   // the virtual time of who went last
	last    *Share    // who went last
	shared  time.Time // when that was last another than the one before
	waiting []*Share  // those that wait for their turn
	timer   *time.Timer
	waits   Waits
}

// Waits counts turns that were waited for.
type Waits struct {
	Line    int64 `json:"line"`    // because the line was full
	Machine int64 `json:"machine"` // because the machine was behind
	Share   int64 `json:"share"`   // because a share had all that it may
}

// NewLine returns a line that carries rate bytes a second, of which one share may have
// each. A zero is no limit. If behind is not nil, it reports whether this machine is
// behind with what came: the line then carries what the machine does. It must be quick.
func NewLine(rate, each int64, behind func() bool) *Line {
	l := &Line{
		each: float64(each), bucket: newBucket(float64(rate)), quantum: maxQuantum,
		squeeze: squeeze{behind: behind, rate: float64(rate)},
	}
	for _, r := range []int64{rate, each} {
		if r > 0 {
			q := int64(quantumTime.Seconds() * float64(r))
			l.quantum = min(l.quantum, int(min(max(q, minQuantum), maxQuantum)))
		}
	}
	return l
}

// Share returns a new share, which gets weight times the part of one of weight 1.
func (l *Line) Share(weight int) *Share {
	return &Share{line: l, weight: float64(weight), bucket: newBucket(l.each * float64(weight))}
}

// Waits returns how often a turn was waited for.
func (l *Line) Waits() Waits {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits
}

// A Share is one tenant's of a Line, however many connections it has. Its methods are
// safe for concurrent use.
type Share struct {
	line   *Line
	weight float64

	// Guarded by line.mu.
	bucket  bucket
	moved   float64   // virtual time
	waiters []*waiter // in line.waiting if there are any
}

// A waiter waits for a turn.
type waiter struct {
	turn chan struct{} // closed when it has come
	n    int           // bytes; zero: it has not
}

// Take waits for a turn and returns how many bytes may be moved in it. What is not, is
// to be given back at once, with Give. If done is closed before, it returns 0; it is asked for
// only if there is something to wait for.
func (s *Share) Take(done func() <-chan struct{}) int {
	l := s.line
	l.mu.Lock()
	now := time.Now()
	l.sample(now)
	if l.free(s, now) {
		defer l.mu.Unlock()
		return l.grant(s, now)
	}
	w := &waiter{turn: make(chan struct{})}
	l.enqueue(s, w, now)
	l.mu.Unlock()
	select {
	case <-w.turn:
		return w.n
	case <-done():
		l.leave(s, w)
		return 0
	}
}

// Give takes back n bytes of what Take gave.
func (s *Share) Give(n int) {
	if n == 0 {
		return
	}
	s.line.mu.Lock()
	defer s.line.mu.Unlock()
	s.line.refund(s, n)
}

// enqueue has w wait. The lock is held.
func (l *Line) enqueue(s *Share, w *waiter, now time.Time) {
	switch {
	case s.bucket.wait(now) > 0:
		l.waits.Share++
	case l.bucket.rate != l.squeeze.rate:
		l.waits.Machine++
	default:
		l.waits.Line++
	}
	if len(s.waiters) == 0 {
		l.waiting = append(l.waiting, s)
	}
	s.waiters = append(s.waiters, w)
	l.dispatch(now)
}

// leave ends w's waiting.
func (l *Line) leave(s *Share, w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.n > 0 { // its turn came just now
		l.refund(s, w.n)
		return
	}
	i := slices.Index(s.waiters, w)
	s.waiters = slices.Delete(s.waiters, i, i+1)
	l.settle(s)
}

// settle takes s off those that wait, if it does not any more. The lock is held.
func (l *Line) settle(s *Share) {
	if len(s.waiters) > 0 {
		return
	}
	i := slices.Index(l.waiting, s)
	l.waiting = slices.Delete(l.waiting, i, i+1)
	if len(l.waiting) == 0 && l.timer != nil {
		l.timer.Stop()
	}
}

// arrive brings the virtual time of s, which may have rested, up to date. The lock is held.
func (l *Line) arrive(s *Share) { s.moved = max(s.moved, l.now-float64(l.quantum)/s.weight) }

// free reports whether it is the turn of s without waiting. The lock is held.
func (l *Line) free(s *Share, now time.Time) bool {
	l.arrive(s)
	wait := l.bucket.wait(now)
	switch owed := l.now - s.moved; {
	case s.bucket.wait(now) > 0:
		return false
	case owed >= float64(l.quantum)/s.weight/2:
		// All who are owed at once could be many.
		return wait == 0 || l.bucket.tokens > -l.bucket.burst
	}
	return wait == 0 && len(l.waiting) == 0
}

// grant charges s for a quantum. The lock is held.
func (l *Line) grant(s *Share, now time.Time) int {
	if l.last != nil && l.last != s {
		l.shared = now
	}
	l.last = s
	l.arrive(s)
	l.now = max(l.now, s.moved)
	s.moved += float64(l.quantum) / s.weight
	l.squeeze.moved += float64(l.quantum)
	l.bucket.tokens -= float64(l.quantum)
	s.bucket.tokens -= float64(l.quantum)
	return l.quantum
}

// refund charges s for n bytes less. The lock is held.
func (l *Line) refund(s *Share, n int) {
	s.moved -= float64(n) / s.weight
	l.squeeze.moved -= float64(n)
	l.bucket.tokens += float64(n)
	s.bucket.tokens += float64(n)
	if len(l.waiting) > 0 {
		l.dispatch(time.Now())
	}
}

// dispatch gives turns for as long as the line is free, and has itself called when it
// will be. The lock is held.
func (l *Line) dispatch(now time.Time) {
	for len(l.waiting) > 0 {
		wait := l.bucket.wait(now)
		if wait == 0 {
			var s *Share
			if s, wait = l.next(now); s != nil {
				w := s.waiters[0]
				s.waiters = slices.Delete(s.waiters, 0, 1)
				w.n = l.grant(s, now)
				close(w.turn)
				l.settle(s)
				continue
			}
		}
		if l.timer == nil {
			l.timer = time.AfterFunc(wait, l.tick)
		} else {
			l.timer.Reset(wait)
		}
		return
	}
}

func (l *Line) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.sample(now)
	l.dispatch(now)
}

// next returns whose turn it is: of those that may have more, who moved least. If there
// are none, wait is how long that will be so. The lock is held.
func (l *Line) next(now time.Time) (next *Share, wait time.Duration) {
	wait = math.MaxInt64
	for _, s := range l.waiting {
		if w := s.bucket.wait(now); w > 0 {
			wait = min(wait, w)
		} else if next == nil || s.moved < next.moved {
			next = s
		}
	}
	return next, wait
}

// A bucket fills at a rate, and lets through while there is something in it: it may
// come to owe what was let through last.
type bucket struct {
	rate   float64 // bytes a second; zero: any
	burst  float64 // bytes that it holds
	tokens float64 // bytes that are in it
	at     time.Time
}

func newBucket(rate float64) (b bucket) {
	b.set(rate)
	return b
}

// set makes rate the rate from now on. While it was any, nothing was owed.
func (b *bucket) set(rate float64) {
	if b.rate == 0 {
		b.tokens = math.Inf(1)
	}
	b.rate, b.burst = rate, max(rate*burstTime.Seconds(), maxQuantum)
	b.tokens = min(b.tokens, b.burst)
}

// wait fills b and returns how long it will be before it lets something through.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	if now.After(b.at) {
		b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.at).Seconds())
		b.at = now
	}
	if b.tokens > 0 {
		return 0
	}
	return time.Duration((1-b.tokens)/b.rate*float64(time.Second)) + 1
}
