// Package monitor shows how a process does: metrics in Prometheus' format, on a socket
// or a TCP port, and profiles, on a socket alone.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Paths of the handlers that are made here.
const (
	PathMetrics  = "/metrics"
	PathProfiles = "/debug/pprof/"
	PathReady    = "/readyz"
)

// Metrics answers with what all collect, and with what the Go runtime and the system say
// of the process.
func Metrics(all ...prometheus.Collector) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(all...)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// defaultProfile is how long a profile takes that is asked for without a time, as
// package pprof has it, and maxProfile how long one may.
const (
	defaultProfile = 30 * time.Second
	maxProfile     = 5 * time.Minute
)

// Profiles answers below PathProfiles with the process' memory, goroutines and CPU time.
// They tell what is in memory, and cost time to make: they are for a socket that only
// the process' own user may open.
func Profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathProfiles, pprof.Index)
	mux.HandleFunc("GET "+PathProfiles+"cmdline", pprof.Cmdline)
	mux.HandleFunc("GET "+PathProfiles+"profile", pprof.Profile)
	mux.HandleFunc("GET "+PathProfiles+"symbol", pprof.Symbol)
	mux.HandleFunc("GET "+PathProfiles+"trace", pprof.Trace)
	return patient(mux)
}

// patient gives next the time that the request names in seconds, whatever the server
// gives other answers.
func patient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		span := defaultProfile
		if s, err := strconv.ParseFloat(r.FormValue("seconds"), 64); err == nil && s > 0 {
			span = time.Duration(min(s, maxProfile.Seconds()) * float64(time.Second))
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(span + 30*time.Second)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		// Package pprof asks the server for its WriteTimeout, which no longer holds.
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, &http.Server{})))
	})
}

// Slow lets h, which bounds its time itself, take longer than other answers may.
func Slow(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h(w, r)
	}
}

// Listen listens at addr, for ServeMetrics. If addr is empty, it listens nowhere: the
// listener is nil.
func Listen(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return ln, nil
}

// ServeMetrics answers at PathMetrics with h, until ctx is done, and closes ln. A nil ln is
// none. At PathReady it answers 200 while ready returns nil, and 503 and the reason while it
// does not: for load balancers. If ready is nil, there is nothing.
func ServeMetrics(ctx context.Context, ln net.Listener, h http.Handler, ready func() error, log *slog.Logger) error {
	if ln == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+PathMetrics, h)
	if ready != nil {
		mux.HandleFunc("GET "+PathReady, func(w http.ResponseWriter, _ *http.Request) {
			if err := ready(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ready")
		})
	}
	return Serve(ctx, ln, mux, log)
}

// Serve answers with h until ctx is done, and closes ln. It returns when that is over.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	hs := &http.Server{
		Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { <-ctx.Done(); hs.Close() })
	if err := hs.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %v: %w", ln.Addr(), err)
	}
	return nil
}
