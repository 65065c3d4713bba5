package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"postern"
)

// ServeRedirect answers plain HTTP on ln with 308 to the same place over HTTPS,
// whether the host is known or not, and with 400 if it is no host name. It never
// serves content. It returns nil soon after ctx or Close, and always closes ln.
func (g *Gateway) ServeRedirect(ctx context.Context, ln net.Listener) error {
	var conns sync.WaitGroup
	srv := &http.Server{
		Handler:           http.HandlerFunc(g.redirect),
		ReadHeaderTimeout: g.cfg.FirstByteTimeout,
		ReadTimeout:       g.cfg.FirstByteTimeout,
		WriteTimeout:      g.cfg.FirstByteTimeout,
		MaxHeaderBytes:    8 << 10,

		DisableGeneralOptionsHandler: true, // which says 200 to OPTIONS *

		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed:
				conns.Done()
			}
		},
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	srv.SetKeepAlivesEnabled(false)
	ctx, cancel := context.WithCancel(ctx)
	var closer sync.WaitGroup
	closer.Go(func() {
		select {
		case <-ctx.Done():
		case <-g.stop:
		}
		srv.Close()
	})
	err := srv.Serve(netutil.LimitListener(&limitedListener{ln, g}, maxRedirects))
	cancel()
	closer.Wait()
	conns.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("redirect on %v: %w", ln.Addr(), err)
}

// maxRedirects is how many connections may wait for a redirect at once.
const maxRedirects = 1000

func (g *Gateway) redirect(w http.ResponseWriter, r *http.Request) {
	name, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		name = r.Host
	}
	name = lower(strings.TrimSuffix(name, "."))
	if postern.CheckHost(name) != nil || !strings.HasPrefix(r.URL.Path, "/") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if g.cfg.HTTPSPort != 443 {
		name = net.JoinHostPort(name, strconv.Itoa(int(g.cfg.HTTPSPort)))
	}
	w.Header().Set("Location", "https://"+name+r.URL.RequestURI())
	w.WriteHeader(http.StatusPermanentRedirect)
}

// A limitedListener accepts only what the limits per source allow.
type limitedListener struct {
	net.Listener
	g *Gateway
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := addrPort(c.RemoteAddr()).Addr()
		if l.g.isProxy(addr) {
			addr = netip.Addr{} // which client it is for remains unknown
		}
		v, err := l.g.limiter.enter(time.Now(), c, addr)
		if err == nil {
			return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { l.g.limiter.leave(v) })}, nil
		}
		var r refusal
		if errors.As(err, &r) {
			l.g.counters.refused[r.reason].Add(1)
		}
		reset(c)
	}
}

// A limitedConn is counted until it is closed.
type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
