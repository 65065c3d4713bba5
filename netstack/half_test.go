package netstack

import (
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"
)

// A deadline holds however often it moved before.
func TestHalfMovesItsDeadline(t *testing.T) {
	never := time.Duration(0)
	for _, tc := range []struct {
		name  string
		moves []time.Duration // from the beginning on; the last one holds
	}{
		{"later", []time.Duration{time.Second, time.Minute}},
		{"earlier", []time.Duration{time.Minute, time.Second}},
		{"again after none", []time.Duration{time.Second, never, time.Minute}},
		{"again after one that had passed", []time.Duration{time.Second, -time.Second, time.Minute}},
		{"passed", []time.Duration{time.Minute, -time.Second}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var events waiter.Queue
				var h half
				h.open(&events, readable)
				start := time.Now()
				for _, after := range tc.moves {
					h.setDeadline(deadline(start, after))
				}
				for h.rest(); !h.late(); h.rest() {
					h.sleep()
				}
				want := max(0, tc.moves[len(tc.moves)-1])
				if got := time.Since(start); got != want {
					t.Errorf("it was late after %v, want %v", got, want)
				}
			})
		})
	}
}

// deadline returns the time that is so long after start, and never for zero.
func deadline(start time.Time, after time.Duration) time.Time {
	if after == 0 {
		return time.Time{}
	}
	return start.Add(after)
}

// A deadline that is taken away wakes nobody.
func TestHalfWithoutDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events waiter.Queue
		var h half
		h.open(&events, readable)
		h.setDeadline(time.Now().Add(time.Second))
		h.setDeadline(time.Time{})
		h.rest()
		woken := false
		h.watch(func() { woken = true })
		<-time.After(time.Minute)
		synctest.Wait()
		if woken || h.late() {
			t.Errorf("woken %v, late %v by a deadline that was taken away", woken, h.late())
		}
	})
}
