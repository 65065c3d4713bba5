package monitor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// deadlines are those that an answer was given.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

func TestSlow(t *testing.T) {
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	Slow(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "late") })(d, httptest.NewRequest("GET", "/", nil))
	if len(d.set) != 1 || !d.set[0].IsZero() || d.Body.String() != "late" {
		t.Errorf("deadlines %v, answer %q", d.set, d.Body)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs fn on a listener, and returns its URL.
func serve(t *testing.T, fn func(context.Context, net.Listener) error) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := fn(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return "http://" + ln.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// Who asks whether it is ready is told, and why not.
func TestReady(t *testing.T) {
	var why atomic.Pointer[error]
	none := error(nil)
	why.Store(&none)
	url := serve(t, func(ctx context.Context, ln net.Listener) error {
		return ServeMetrics(ctx, ln, Metrics(), func() error { return *why.Load() }, slog.New(slog.DiscardHandler))
	})
	if code, body := get(t, url+PathReady); code != http.StatusOK || body != "ready\n" {
		t.Errorf("got %d, %q", code, body)
	}
	stopping := errors.New("it is stopping")
	why.Store(&stopping)
	if code, body := get(t, url+PathReady); code != http.StatusServiceUnavailable || body != "it is stopping\n" {
		t.Errorf("got %d, %q", code, body)
	}
}

// Over TCP there are metrics and no profiles.
func TestServeMetrics(t *testing.T) {
	url := serve(t, func(ctx context.Context, ln net.Listener) error {
		return ServeMetrics(ctx, ln, Metrics(), nil, slog.New(slog.DiscardHandler))
	})
	if code, body := get(t, url+PathMetrics); code != http.StatusOK || !strings.Contains(body, "go_goroutines ") {
		t.Errorf("metrics: %d\n%s", code, body)
	}
	for _, path := range []string{"/", PathReady, PathProfiles, PathProfiles + "heap", PathProfiles + "cmdline"} {
		if code, _ := get(t, url+path); code != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, code)
		}
	}
}

// A profile may take longer than the server gives other answers.
func TestProfiles(t *testing.T) {
	url := serve(t, func(ctx context.Context, ln net.Listener) error {
		return Serve(ctx, ln, Profiles(), slog.New(slog.DiscardHandler))
	})
	for _, path := range []string{"", "heap", "goroutine?debug=1", "profile?seconds=1"} {
		if code, body := get(t, url+PathProfiles+path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	url = serve(t, func(ctx context.Context, ln net.Listener) error {
		return Serve(ctx, ln, patient(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if d := r.Context().Value(http.ServerContextKey).(*http.Server).WriteTimeout; d != 0 {
				t.Errorf("the server seems to give %v", d)
			}
		})), slog.New(slog.DiscardHandler))
	})
	if code, body := get(t, url+"/?seconds=60"); code != http.StatusOK {
		t.Errorf("a minute's profile: %d %s", code, body)
	}
}

func TestListenNowhere(t *testing.T) {
	ln, err := Listen("")
	if ln != nil || err != nil {
		t.Fatalf("got %v, %v", ln, err)
	}
	if err := ServeMetrics(t.Context(), ln, nil, nil, nil); err != nil {
		t.Error(err)
	}
}
