//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// promisedKey is how long a download may stand still for while a key is replaced.
const promisedKey = 2 * time.Second

// The keys of node and gateway are replaced while a download goes on: not a byte is lost
// and it stands still for a moment at most.
func TestSurviveNewKeys(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	want := l.bigFile(64 << 20)
	curl := l.fetch("6M") // in pieces of a tenth of a second
	l.reaches(1 << 20)
	key := l.d.nodeStatus("office").Member.WireGuard
	still := map[string]time.Duration{}
	for _, role := range []string{"node", "gateway", "node", "gateway"} {
		data := l.d.data(map[string]string{"node": "office", "gateway": "gateway"}[role])
		stood := make(chan time.Duration, 1)
		done := make(chan struct{})
		go func() { stood <- standstill(l.size, done) }()
		must(t, program("postern"), role, "rotate-key", "--data", data)
		l.answered(survivePatience)
		l.reaches(l.size() + 1<<20)
		close(done)
		longest := <-stood
		if longest > promisedKey+survivePatience {
			t.Errorf("with a new key of the %s the download stood still for %v", role, longest)
		}
		still[role] = max(still[role], longest)
	}
	for role, longest := range still {
		noteFigure(t, "survive", "a download stands still while the "+role+" gets another key", longest.Seconds(), "s")
	}
	if now := l.d.nodeStatus("office").Member.WireGuard; now == key {
		t.Error("the node has the key that it had")
	}
	l.whole(curl, want, 2*time.Minute)

	// Both come up with the keys that they have now.
	l.office.kill()
	l.d.gateway.kill()
	l.d.gateway, l.office = l.again(l.d.gateway), l.again(l.office)
	l.answered(survivePatience)
}

// standstill returns for how long size did not change, at most, until done is closed.
func standstill(size func() int64, done <-chan struct{}) (longest time.Duration) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last, at := size(), time.Now()
	for {
		select {
		case <-done:
			return max(longest, time.Since(at))
		case <-tick.C:
		}
		if now := size(); now != last {
			longest = max(longest, time.Since(at))
			last, at = now, time.Now()
		}
	}
}

// A member that is killed at any moment of a change of its key comes back.
func TestSurviveKillWhileKeyChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for i := range 5 {
		rotating := start(t, "rotate-key", nil, program("postern"), "node", "rotate-key", "--data", l.d.data("office"))
		at := time.Now().Add(time.Duration(i*30) * time.Millisecond)
		eventually(t, survivePatience, func() error {
			if left := time.Until(at); left > 0 && !rotating.ended() {
				return fmt.Errorf("%v to go", left)
			}
			return nil
		})
		l.office.kill()
		rotating.kill()
		l.office = l.again(l.office)
		l.answered(2 * survivePatience)
	}
}
