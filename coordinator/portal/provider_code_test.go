package portal

import (
	"testing"
	"time"
)

// A code that is used again before the first has been answered buys nothing.
func TestCodeUsedMeanwhile(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := newCodes(func() time.Time { return now })
	secret, ok := s.put(code{user: "u"})
	if !ok {
		t.Fatal("no code")
	}
	c, fresh, again := s.use(secret)
	if c == nil || !fresh || again {
		t.Fatalf("first: %v, fresh %v, again %v", c, fresh, again)
	}
	if _, fresh, again := s.use(secret); fresh || again {
		t.Errorf("second: fresh %v, again %v; nothing was bought yet", fresh, again)
	}
	if s.redeem(c) {
		t.Error("the first is answered all the same")
	}
	now = now.Add(codeMemory)
	s.put(code{user: "u"})
	if c, _, _ := s.use(secret); c != nil || len(s.all) != 1 || len(s.order) != 1 {
		t.Errorf("it is remembered: %d codes", len(s.all))
	}
}
