package coordinator

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter[int](rate.Every(time.Second), 3, func() time.Time { return now })
	take := func(key int) (n int) {
		for l.allow(key) {
			n++
		}
		return n
	}
	if got := take(1); got != 3 {
		t.Errorf("burst: got %d, want 3", got)
	}
	now = now.Add(2 * time.Second)
	if got := take(1); got != 2 {
		t.Errorf("after 2 s: got %d, want 2", got)
	}
	// A flood of others neither grows it without bound nor refills the bucket of
	// one that keeps asking.
	for key := range 10 * limiterSize {
		l.allow(key + 2)
		if l.allow(1) {
			t.Fatalf("allowed again after %d others", key)
		}
	}
	if n := len(l.new) + len(l.old); n > 2*limiterSize {
		t.Errorf("holds %d keys, want at most %d", n, 2*limiterSize)
	}
}

// Limits that were reached are told in a line each, of what is new.
func TestLimitsAreTold(t *testing.T) {
	var log strings.Builder
	c := &Coordinator{limits: newLimits(time.Now), log: slog.New(slog.NewTextHandler(&log, nil))}
	told := c.tellLimits(t.Context(), nil)
	for range 8 {
		c.limits.login.allow("anna")
	}
	told = c.tellLimits(t.Context(), told)
	c.tellLimits(t.Context(), told)
	if got := log.String(); strings.Count(got, "limit reached") != 1 || !strings.Contains(got, "limit=signin_login refused=3") || strings.Contains(got, "anna") {
		t.Errorf("got:\n%s", got)
	}
}

func TestGate(t *testing.T) {
	now := time.Unix(0, 0)
	g := newGate(rate.Every(time.Minute), 1, func() time.Time { return now })
	if stopped, ok := g.pass(); !ok || stopped != 0 {
		t.Errorf("first: got %d, %v", stopped, ok)
	}
	for range 7 {
		if _, ok := g.pass(); ok {
			t.Fatal("passed too soon")
		}
	}
	now = now.Add(time.Minute)
	if stopped, ok := g.pass(); !ok || stopped != 7 {
		t.Errorf("after a minute: got %d, %v, want 7 stopped before", stopped, ok)
	}
}

func TestSourceOf(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"IPv4", "192.0.2.1", "192.0.2.1/32"},
		{"IPv4 in IPv6", "::ffff:192.0.2.1", "192.0.2.1/32"},
		{"IPv6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"zone", "fe80::1%eth0", "fe80::/64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := SourceOf(netip.MustParseAddr(tt.in)).String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if got := SourceOf(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("no address: got %v", got)
	}
}
