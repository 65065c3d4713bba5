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

// A Site is what answers at the portal's host name.
type Site interface {
	http.Handler // browsers, and programs that people let in

	// ServeToken answers a node's request at postern.PathToken (RFC 6749, section
	// 4.1.3). The node is proven to be one of those that serve hosts, and may
	// redeem what is for one of them, and nothing else.
	ServeToken(w http.ResponseWriter, r *http.Request, hosts []string)

	// EndStreams ends the answers that would go on for ever: the server is to stop.
	EndStreams()
}

// Serve answers members and operators on the control port, and site at the
// portal's host name, until ctx is done or ln fails, and closes ln. It returns
// when all connections are closed; the error is nil if ctx was done. Without a
// site, which may be nil, there is no portal.
//
// ln gives TCP connections. Inside is TLS; who is spoken to is chosen by server
// name (RFC 6066, section 3), and the protocol by ALPN (RFC 7301): HTTP/2 or
// HTTP/1.1, or, at the control names, postern.EdgeProtocol, see edge.
func (c *Coordinator) Serve(ctx context.Context, ln net.Listener, site Site) error {
	d := c.newDoor(site)
	e := newEdge(c, ln.Addr(), d)
	srv := c.newServer(d)
	srv.http.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		postern.EdgeProtocol: e.pipe,
		postern.ACMEProtocol: hangUp,
	}
	srv.http.RegisterOnShutdown(c.presence.endAll)
	if site != nil {
		srv.http.RegisterOnShutdown(site.EndStreams)
	}
	srv.http.ConnContext = withVisitor
	direct := tls.NewListener(crowdListener{ln, c.crowd}, d.tlsConfig("h2", "http/1.1", postern.EdgeProtocol))
	beside := []func(context.Context) error{c.checkAudit, c.keepSeen, c.proveClaims, c.keepLookups}
	err := srv.run(ctx, beside, direct, e)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	c.storeSeen(last)
	return err
}

// ServeAdmin answers operators on ln until ctx is done or ln fails, and closes
// ln. Whoever reaches ln may do everything: it is for a unix socket that only
// the coordinator's own user may open. Local answers there what is not the admin API's;
// if nil, nothing does.
func (c *Coordinator) ServeAdmin(ctx context.Context, ln net.Listener, local http.Handler) error {
	api := as(c.Local(), c.adminHandler())
	if local == nil {
		return c.newServer(api).run(ctx, nil, ln)
	}
	mux := http.NewServeMux()
	mux.Handle(postern.PathAdmin+"/", api)
	mux.Handle("/", local)
	return c.newServer(mux).run(ctx, nil, ln)
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

// run serves lns, and runs beside, until ctx is done or one fails.
func (s *server) run(ctx context.Context, beside []func(context.Context) error, lns ...net.Listener) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, ln := range lns {
		g.Go(func() error { return s.serve(ln) })
	}
	for _, fn := range beside {
		g.Go(func() error { return fn(gctx) })
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
