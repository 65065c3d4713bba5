package acme

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

func leaf(from time.Time, life time.Duration, i int) *x509.Certificate {
	sig := sha256.Sum256([]byte(fmt.Sprint(i)))
	return &x509.Certificate{SerialNumber: big.NewInt(int64(i)), NotBefore: from, NotAfter: from.Add(life), Signature: sig[:]}
}

// Without a word of the authority, a third of the life is left at a renewal, and not
// all are renewed at once.
func TestThird(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, life := range []time.Duration{6 * 24 * time.Hour, 45 * 24 * time.Hour, 90 * 24 * time.Hour} {
		seen := map[time.Time]bool{}
		for i := range 100 {
			l := leaf(from, life, i)
			at := third(l)
			if at.Before(l.NotAfter.Add(-life/3)) || at.After(l.NotAfter.Add(-life/3*9/10)) || at != third(l) {
				t.Errorf("life of %v: renewal at %v", life, at)
			}
			seen[at] = true
		}
		if len(seen) < 50 {
			t.Errorf("life of %v: %d moments for 100 certificates", life, len(seen))
		}
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const life = 90 * 24 * time.Hour
	l := leaf(from, life, 5)
	day := func(n int) time.Time { return from.Add(time.Duration(n) * 24 * time.Hour) }
	for _, tt := range []struct {
		name     string
		ari      ari
		min, max time.Time
	}{
		{"nothing said", ari{}, third(l), third(l)},
		{"a window", ari{start: day(50), end: day(52)}, day(50), day(52)},
		{"in the past", ari{start: day(-2), end: day(-1)}, day(-2), day(-1)},
		{"in the past, and acted upon", ari{start: day(-2), end: day(-1), acted: day(1)}, day(1).Add(usual.urgent), day(1).Add(usual.urgent)},
		{"acted upon long ago", ari{start: day(50), end: day(52), acted: day(1)}, day(50), day(52)},
		{"after its end", ari{start: day(300), end: day(301)}, latest(l), latest(l)},
	} {
		if got := tt.ari.due(l, usual.urgent); got.Before(tt.min) || got.After(tt.max) {
			t.Errorf("%s: got %v, want %v to %v", tt.name, got, tt.min, tt.max)
		}
	}
}

// A thousand certificates that are late at the start are not renewed in one minute.
func TestLateAtTheStart(t *testing.T) {
	t.Parallel()
	now := time.Now()
	m, err := New(Config{Dir: t.TempDir() + "/new", clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	const life = 90 * 24 * time.Hour
	minutes := map[int]int{}
	for i := range 1000 {
		h := &host{}
		l := leaf(now.Add(-70*24*time.Hour), life, i)
		m.adopt(h, &tls.Certificate{Leaf: l}, origin{})
		minutes[int(h.next.Sub(now)/time.Minute)]++
		if h.next.Before(now) || h.next.After(now.Add(maxSpread+time.Second)) {
			t.Fatalf("next at %v", h.next)
		}
	}
	for minute, n := range minutes {
		if n > 200 {
			t.Errorf("%d in minute %d", n, minute)
		}
	}
	h := &host{}
	m.adopt(h, &tls.Certificate{Leaf: leaf(now.Add(-100*24*time.Hour), life, 1)}, origin{})
	if h.next.After(now) {
		t.Error("what has expired waits")
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 3: 4 * time.Minute, 7: time.Hour, 1000000: time.Hour} {
		for range 100 {
			if got := backoff(time.Minute, failures, time.Hour); got < want/2 || got > want {
				t.Errorf("%d failures: %v, want up to %v", failures, got, want)
			}
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", "", 0},
		{"120", "", 2 * time.Minute},
		{"-5", "", 0},
		{"soon", "", 0},
		{"99999999999999999999", "", 0},
		{"Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 1999 23:58:59 GMT", time.Minute},
		{"Fri, 31 Dec 1999 23:59:59 GMT", "Sat, 01 Jan 2000 00:58:59 GMT", 0},
	} {
		h := http.Header{"Retry-After": {tt.value}, "Date": {tt.date}}
		if got := retryAfter(h); got != tt.want {
			t.Errorf("%q at %q: got %v, want %v", tt.value, tt.date, got, tt.want)
		}
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("attempt 3: %w", acme.Problem{Type: "urn:x", Title: "title"}), "urn:x: title"},
		{fmt.Errorf("order: %w", &acme.Problem{Type: "urn:x"}), "urn:x"},
		{acme.Problem{Detail: "no type"}, "about:blank: no type"},
		{errors.New("a\r\n\tb\u202ec\xff"), "a b?c?"},
	} {
		if got := plain(tt.err).Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	if got := clean(strings.Repeat("é", 5000)); len([]rune(got)) != maxWords+1 {
		t.Errorf("%d characters", len([]rune(got)))
	}
	if plain(nil) != nil {
		t.Error("no error became one")
	}
}
