package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// drainTimeout is how long requests under way may go on once shutdown began.
const drainTimeout = 10 * time.Second

// openListener listens on address, either "host:port" or "unix:" and a path. A
// socket file that a dead process left behind is replaced; one that somebody
// answers on is an error. The caller closes the listener.
func openListener(address string) (net.Listener, error) {
	network, addr := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, addr = "unix", path
		if err := removeStaleSocket(path); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", address, err)
	}
	return ln, nil
}

// removeStaleSocket removes the socket file at path if nobody answers on it.
func removeStaleSocket(path string) error {
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("listen on unix:%s: in use by another process", path), c.Close())
	case errors.Is(err, syscall.ECONNREFUSED):
		if st, err := os.Lstat(path); err != nil || st.Mode().Type() != os.ModeSocket {
			return fmt.Errorf("listen on unix:%s: the path exists and is no socket", path)
		}
		return os.Remove(path)
	default:
		return nil
	}
}

// listenerURL is where a person finds what listens on ln.
func listenerURL(ln net.Listener) string {
	if ln.Addr().Network() == "unix" {
		return "unix:" + ln.Addr().String()
	}
	return "http://" + ln.Addr().String()
}

// Serve answers requests on ln until ctx is done, then ends the event streams,
// gives other requests under way ten seconds, and returns when all is over.
// It closes ln. An App serves once.
func (a *App) Serve(ctx context.Context, ln net.Listener) error { return a.serve(ctx, ln, a.Handler()) }

// serve is Serve with h in front of the App.
func (a *App) serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	srv.RegisterOnShutdown(a.endStreams)

	var drained error
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { wg.Go(func() { drained = drain(ctx, srv) }) })
	err := srv.Serve(ln)
	if stop() {
		return fmt.Errorf("serve on %v: %w", ln.Addr(), err)
	}
	wg.Wait()
	return drained
}

// drain ends srv in good order, or harshly once drainTimeout has passed.
func drain(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("drain: %w", err), srv.Close())
	}
	return nil
}
