package portal

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern"
)

func TestUnderWay(t *testing.T) {
	now := time.Now()
	u := newUnderWay[int](func() time.Time { return now })
	mine, theirs := [32]byte{1}, [32]byte{2}
	here, there := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
	u.put("a", mine, here, 1)
	if _, ok := u.take("a", theirs); ok {
		t.Error("another browser took it")
	}
	if got, ok := u.take("a", mine); !ok || got != 1 {
		t.Errorf("got %d, %v", got, ok)
	}
	if _, ok := u.take("a", mine); ok {
		t.Error("taken twice")
	}
	u.put("b", mine, here, 2)
	now = now.Add(underWayLife)
	if _, ok := u.take("b", mine); ok {
		t.Error("taken too late")
	}
	u.put("other", theirs, there, 0)
	for n := range 3 * sourceUnderWay {
		u.put(fmt.Sprint("mine ", n), mine, netip.AddrFrom16([16]byte{0: 0x20, 15: byte(n)}), n)
	}
	if len(u.all) != sourceUnderWay+1 || !u.has("other", theirs) || !u.has(fmt.Sprint("mine ", 3*sourceUnderWay-1), mine) {
		t.Errorf("one network has %d places, and others none", len(u.all))
	}
	for n := range 3 * maxUnderWay {
		u.put(fmt.Sprint(n), mine, netip.AddrFrom4([4]byte{10, byte(n)}), n)
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
	u.put("c", mine, here, 3)
	now = now.Add(underWayLife)
	u.put("d", mine, here, 4)
	if len(u.all) != 1 || len(u.order) != 1 || len(u.of) != 1 {
		t.Errorf("what is too old is kept: %d of %d, of %d sources", len(u.all), len(u.order), len(u.of))
	}
}

// TestDiscoverOnce: however many want to sign in while an issuer hangs, it is asked
// once; and all are told.
func TestDiscoverOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		x := newExternal(Config{Now: time.Now, Client: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}})
		const url = "https://issuer.example"
		left, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for n := range 16 {
			ctx := t.Context()
			if n == 0 {
				ctx = left
			}
			wg.Go(func() {
				if _, err := x.provider(ctx, url); err == nil {
					t.Error("no error")
				}
			})
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		start := time.Now()
		wg.Wait()
		if n := asked.Load(); n != 1 || time.Since(start) != issuerTimeout {
			t.Errorf("asked %d times, for %v", n, time.Since(start))
		}
		x.provider(t.Context(), url)
		<-time.After(discoveryRest)
		x.provider(t.Context(), url)
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times, want once more after a rest", n)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

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

// TestHints: whatever a problem leaves unsaid, its page says what to do.
func TestHints(t *testing.T) {
	all, err := parsePages()
	if err != nil {
		t.Fatal(err)
	}
	for code := range headings {
		if hints[code] == "" && !strings.HasPrefix(code, "token_") {
			t.Errorf("no hint for %s", code)
		}
	}
	for hint, want := range map[string]string{"": sentence(hints[postern.CodeNotFound]), "look elsewhere": "Look elsewhere."} {
		html, err := all.execute("problem", "complaint", postern.NewProblem(404, postern.CodeNotFound, "gone", hint))
		if err != nil || !strings.Contains(string(html), want) {
			t.Errorf("for hint %q got %s, %v; want %q", hint, html, err, want)
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
