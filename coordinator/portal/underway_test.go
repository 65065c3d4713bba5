package portal

import (
	"fmt"
	"net/netip"
	"net/url"
	"testing"
	"time"
)

func TestUnderWay(t *testing.T) {
	now := time.Now()
	u := newUnderWay[int](func() time.Time { return now })
	mine, theirs := [32]byte{1}, [32]byte{2}
	u.put("a", mine, 1)
	if _, ok := u.take("a", theirs); ok {
		t.Error("another browser took it")
	}
	if got, ok := u.take("a", mine); !ok || got != 1 {
		t.Errorf("got %d, %v", got, ok)
	}
	if _, ok := u.take("a", mine); ok {
		t.Error("taken twice")
	}
	u.put("b", mine, 2)
	now = now.Add(underWayLife)
	if _, ok := u.take("b", mine); ok {
		t.Error("taken too late")
	}
	for n := range 3 * maxUnderWay {
		u.put(fmt.Sprint(n), mine, n)
		if n%2 == 0 {
			u.take(fmt.Sprint(n), mine)
		}
	}
	if len(u.all) > maxUnderWay || len(u.order) > maxUnderWay {
		t.Errorf("keeps %d of %d", len(u.all), len(u.order))
	}
	if got, ok := u.take(fmt.Sprint(3*maxUnderWay-1), mine); !ok || got != 3*maxUnderWay-1 {
		t.Errorf("the newest is gone: %d, %v", got, ok)
	}
	u.put("c", mine, 3)
	now = now.Add(underWayLife)
	u.put("d", mine, 4)
	if len(u.all) != 1 || len(u.order) != 1 {
		t.Errorf("what is too old is kept: %d of %d", len(u.all), len(u.order))
	}
}

// TestDevices: one network does not fill what waits, from however many addresses.
func TestDevices(t *testing.T) {
	s := newDevices(time.Now)
	n := 0
	put := func(remote string) bool {
		n++
		return s.put(device{UserCode: fmt.Sprint(n), hash: [32]byte{byte(n), byte(n >> 8)}, Remote: netip.MustParseAddr(remote)})
	}
	for i := range sourceDevices {
		if !put(fmt.Sprintf("2001:db8::%x", i)) {
			t.Fatalf("number %d of a network is refused", i)
		}
	}
	if put("2001:db8::ffff:1") {
		t.Error("a network has more than its share")
	}
	if !put("2001:db8:0:1::1") || !put("192.0.2.1") {
		t.Error("another network is refused")
	}
}

func TestAgentName(t *testing.T) {
	tests := []struct{ agent, want string }{
		{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36", "Chrome on Linux"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0", "Edge on Windows"},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:153.0) Gecko/20100101 Firefox/153.0", "Firefox on macOS"},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1", "Safari on iPhone"},
		{"curl/8.0", "curl"},
		{"Your IT department. Choose: Let it in", "An unknown program"},
		{"", "An unknown program"},
	}
	for _, tt := range tests {
		if got := agentName(tt.agent); got != tt.want {
			t.Errorf("agentName(%q) = %q, want %q", tt.agent, got, tt.want)
		}
	}
}

func TestSentence(t *testing.T) {
	for in, want := range map[string]string{"": "", "try again": "Try again.", "ähm?": "Ähm?", "Done.": "Done."} {
		if got := sentence(in); got != want {
			t.Errorf("sentence(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzNext: what is gone on to after signing in is on this site, as browsers read it.
func FuzzNext(f *testing.F) {
	for _, next := range []string{"/", "/open/a/b?entry=c", "//evil.example", `/\evil.example`, "https://evil.example", "/a#b", "/%2f/x", "/..//evil.example", "/?next=//x"} {
		f.Add(next)
	}
	here, err := url.Parse("https://portal.apps.test:8443/sign-in")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, next string) {
		got, problem := checkNext(next)
		if problem != nil {
			return
		}
		at, err := here.Parse(got)
		if err != nil {
			t.Fatalf("%q is no URL: %v", next, err)
		}
		if at.Scheme != here.Scheme || at.Host != here.Host || at.User != nil {
			t.Fatalf("%q leads to %s", next, at)
		}
	})
}
