package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postern"
)

// stopGrace is how long requests may take to end once a server is to stop.
const stopGrace = 5 * time.Second

// Serve answers members and operators on the control port until ctx is done or
// ln fails, and closes ln. It returns when all connections are closed; the error
// is nil if ctx was done.
//
// ln gives TCP connections. Inside is TLS 1.3; the protocol is chosen by ALPN
// (RFC 7301): HTTP/2 or HTTP/1.1, or postern.EdgeProtocol, see edge.
func (c *Coordinator) Serve(ctx context.Context, ln net.Listener) error {
	e := newEdge(c, ln.Addr())
	srv := c.newServer(c.controlHandler())
	srv.http.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){postern.EdgeProtocol: e.pipe}
	srv.http.RegisterOnShutdown(c.presence.endAll)
	srv.http.ConnContext = withVisitor
	direct := tls.NewListener(crowdListener{ln, c.crowd}, c.tlsConfig("h2", "http/1.1", postern.EdgeProtocol))
	err := srv.run(ctx, c.keepSeen, direct, e)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	c.storeSeen(last)
	return err
}

// ServeAdmin answers operators on ln until ctx is done or ln fails, and closes
// ln. Whoever reaches ln may do everything: it is for a unix socket that only
// the coordinator's own user may open.
func (c *Coordinator) ServeAdmin(ctx context.Context, ln net.Listener) error {
	return c.newServer(as(c.Local(), c.adminHandler())).run(ctx, nil, ln)
}

// tlsConfig returns the control port's settings for protos. The client's
// certificate is asked for and not verified: who enrols has none yet, and
// authenticate verifies it with other rules than crypto/tls has.
func (c *Coordinator) tlsConfig(protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		ClientAuth: tls.RequestClientCert,
		ClientCAs:  c.roots, // a hint, so that browsers do not offer their user's others
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.cfg.Authority.ServerCertificate()
		},
	}
}

// A server is an HTTP server on several listeners that knows when its last
// connection is closed.
type server struct {
	http *http.Server
	open sync.WaitGroup // connections
}

func (c *Coordinator) newServer(h http.Handler) *server {
	s := &server{}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	s.http = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		Protocols:         protocols,
		// A member that vanished is missed after half a minute.
		HTTP2:     &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		ConnState: s.count,
		ErrorLog:  slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	return s
}

func (s *server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.open.Done()
	}
}

// run serves lns, and runs beside if not nil, until ctx is done or one fails.
func (s *server) run(ctx context.Context, beside func(context.Context) error, lns ...net.Listener) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, ln := range lns {
		g.Go(func() error { return s.serve(ln) })
	}
	if beside != nil {
		g.Go(func() error { return beside(gctx) })
	}
	g.Go(func() error { return s.stop(gctx) })
	err := g.Wait()
	s.open.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *server) serve(ln net.Listener) error {
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %v: %w", ln.Addr(), err)
	}
	return nil
}

// stop waits for ctx, gives requests time to end, and closes what is left.
func (s *server) stop(ctx context.Context) error {
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if s.http.Shutdown(grace) != nil {
		return s.http.Close()
	}
	return nil
}

// httpsURL returns the URL of host's root.
func httpsURL(host string, port uint16) string {
	if port == postern.HTTPSPort {
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(int(port)))
}
