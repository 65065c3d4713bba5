package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the program with args and returns the line that it prints once it
// listens; the test's end stops it and wants it to have ended well.
func start(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		err = run(ctx, args, in, io.Discard)
		in.CloseWithError(err)
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err != nil {
			t.Errorf("run %q: %v", args, err)
		}
	})
	line, readErr := bufio.NewReader(out).ReadString('\n')
	if readErr != nil {
		t.Fatalf("run %q printed %q: %v", args, line, readErr)
	}
	return strings.TrimSuffix(line, "\n")
}

func TestRunOverTCP(t *testing.T) {
	line := start(t, "-listen", "127.0.0.1:0", "-data", filepath.Join(t.TempDir(), "books.db"), "-sample", "globex", "-title", "Globex books")
	url, ok := strings.CutPrefix(line, "ledger: listening on ")
	if !ok || !strings.HasPrefix(url, "http://127.0.0.1:") || strings.HasSuffix(url, ":0") {
		t.Fatalf("got the line %q, want one with the real port", line)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Globex books", "Globex Trading"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the first page lacks %q", want)
		}
	}
}

func TestRunOverUnixSocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	// What a killed process leaves behind is in nobody's way.
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()

	if got, want := start(t, "-listen", "unix:"+socket, "-data", filepath.Join(dir, "books.db")), "ledger: listening on unix:"+socket; got != want {
		t.Fatalf("got the line %q, want %q", got, want)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get("http://ledger/api/companies")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got, want := res.StatusCode, http.StatusOK; got != want {
		t.Errorf("got status %d, want %d", got, want)
	}
	if _, err := openListener("unix:" + socket); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("listen on a socket in use: got error %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("no socket"), 0o600); err != nil {
		t.Fatal(err)
	}
	books := filepath.Join(dir, "books.db")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"a flag that is none", []string{"-nonsense"}, "wrong usage"},
		{"an argument", []string{"books.db"}, "wrong usage"},
		{"a token without a directory", []string{"-postern-token", plain}, "wrong usage"},
		{"trust in nobody", []string{"-postern-data", dir, "-trust-postern"}, "wrong usage"},
		{"an access that is none", []string{"-data", books, "-postern-data", filepath.Join(dir, "node"), "-postern-access", "friends"}, "wrong usage"},
		{"a token that is none", []string{"-data", books, "-postern-data", filepath.Join(dir, "node"), "-postern-token", plain}, "join as a node: not a usable token"},
		{"no token file", []string{"-data", books, "-postern-data", filepath.Join(dir, "node"), "-postern-token", filepath.Join(dir, "none")}, "no such file"},
		{"not joined, no token", []string{"-data", books, "-postern-data", filepath.Join(dir, "node")}, "join as a node: not joined yet"},
		{"a sample that is none", []string{"-data", books, "-sample", "initech"}, `no sample "initech": there are acme and globex`},
		{"a folder that is not there", []string{"-data", filepath.Join(dir, "no", "books.db")}, "no such file or directory"},
		{"a port in use", []string{"-data", books, "-listen", taken.Addr().String()}, "address already in use"},
		{"a file in the place of a socket", []string{"-data", books, "-listen", "unix:" + plain}, "is no socket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := run(t.Context(), tt.args, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestServeEndsStreams holds shutdown to its word: an open event stream is
// ended, not waited for.
func TestServeEndsStreams(t *testing.T) {
	store := openTest(t)
	app := NewApp(Config{Store: store})
	ln, err := openListener("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- app.Serve(ctx, ln) })
	defer wg.Wait()

	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(listenerURL(ln) + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Errorf("the stream broke off: %v", err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(drainTimeout / 2):
		t.Error("the server waits for the stream")
	}
}
