package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"
)

// A half is one direction of a connection as its callers see it. They take
// turns. Whose turn it is looks at the endpoint, and sleeps until the half is
// woken: by the endpoint, by a deadline or by Close. It allocates nothing, unless a
// deadline is set.
type half struct {
	turn sync.Mutex

	entry waiter.Entry // in the endpoint's queue for as long as there is one

	mu      sync.Mutex
	waking  sync.Cond   // signaled when woken is set; its lock is mu
	woken   bool        // since rest
	watcher func()      // called when the half is woken, once; nil: nobody waits so
	at      time.Time   // the deadline; zero: never
	timer   *time.Timer // wakes the half then; nil: there is none
}

// open makes the half one of an endpoint whose events are queued there.
func (h *half) open(events *waiter.Queue, mask waiter.EventMask) {
	h.waking.L = &h.mu
	h.entry.Init(h, mask)
	events.EventRegister(&h.entry)
}

// NotifyEvent implements waiter.EventListener.
func (h *half) NotifyEvent(waiter.EventMask) { h.wake() }

func (h *half) wake() {
	h.mu.Lock()
	h.woken = true
	h.waking.Signal()
	f := h.watcher
	h.watcher = nil
	h.mu.Unlock()
	if f != nil {
		f()
	}
}

// watch has f called when the half is woken, once.
func (h *half) watch(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watcher = f
}

// unwatch ends what watch began, and reports whether f was not called.
func (h *half) unwatch() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	waited := h.watcher != nil
	h.watcher = nil
	return waited
}

// rest forgets what woke the half so far. What happens from now on ends the
// next sleep, so that who looks between the two misses nothing.
func (h *half) rest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.woken = false
}

func (h *half) sleep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for !h.woken {
		h.waking.Wait()
	}
}

// setDeadline moves the deadline to t; the zero Time is never.
func (h *half) setDeadline(t time.Time) {
	if h.moveDeadline(t) {
		h.wake()
	}
}

// moveDeadline is setDeadline, but for a deadline that has passed reports true.
func (h *half) moveDeadline(t time.Time) (passed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	if t.IsZero() {
		h.at = t
		return false
	}
	// On the monotonic clock, as the timer: it must not fire before the deadline.
	left := time.Until(t)
	h.at = time.Now().Add(left)
	if left > 0 {
		h.timer = time.AfterFunc(left, h.wake)
	}
	return left <= 0
}

// late reports whether the deadline has passed.
func (h *half) late() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.at.IsZero() && !time.Now().Before(h.at)
}

// close ends the sleep of whose turn it is, and the timer.
func (h *half) close() {
	h.setDeadline(time.Time{})
	h.wake()
}
