package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"postern"
)

// A ListenConfig says how a Go program is a node of its own.
type ListenConfig struct {
	// Data is the path of the data directory, made if it is not there. It holds
	// the membership, so keep it.
	Data string

	// Token is the text of a join token. It is used while Data has not joined yet,
	// and of no account after that.
	Token string

	// Name is a wish for when it joins. If empty, made from the host's.
	Name string

	// Service says at which of the tenant's names the program answers, what people
	// read of it, and its own certificate if it has one. The zero Service answers
	// at the tenant's own name. Upstream and Handler are empty. Who may open it is
	// said by its Access; the tenant's members if not given.
	Service Service

	// SignIn says how long people stay signed in.
	SignIn SignIn

	// Drain is how long what is under way may go on once all is to end. If zero,
	// 30 s.
	Drain time.Duration

	// Version is the program's, for people to read.
	Version string

	// Logger is told what happens. If nil, nobody is.
	Logger *slog.Logger
}

// open returns the node that cfg describes, joined, and its directory for the
// caller to close. h answers in place of an application.
func (cfg ListenConfig) open(ctx context.Context, h http.Handler) (*Node, *Dir, error) {
	service, err := cfg.service(h)
	if err != nil {
		return nil, nil, err
	}
	dir, err := Open(cfg.Data)
	if err != nil {
		return nil, nil, err
	}
	n, err := cfg.join(ctx, dir, service)
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	return n, dir, nil
}

// service returns the service with h behind it.
func (cfg ListenConfig) service(h http.Handler) (Service, error) {
	s := cfg.Service
	if s.Upstream != "" || s.Handler != nil {
		return s, errors.New("want a service without upstream or handler: the program itself answers")
	}
	s.Handler = h
	return s, nil
}

func (cfg ListenConfig) join(ctx context.Context, dir *Dir, service Service) (*Node, error) {
	_, err := dir.Membership()
	if errors.Is(err, ErrNotJoined) && cfg.Token != "" {
		var token postern.Token
		if token, err = postern.ParseToken(cfg.Token); err == nil {
			_, err = dir.Join(ctx, token, cfg.Name, cfg.Version)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("join as a node: %w", err)
	}
	return New(Config{
		Dir: dir, Services: []Service{service}, SignIn: cfg.SignIn,
		Drain: cfg.Drain, Version: cfg.Version, Logger: cfg.Logger,
	})
}

// Serve joins, if it has not been done yet, and has h answer what comes to the
// service's addresses, until ctx is done and what was under way has ended. It
// returns nil then, or what it could not go on without.
//
// h sees the browser's address as RemoteAddr, and requests for its own host names
// only, of whom the service's Access lets in: UserOf tells who it is. HTTP/1.1 and
// HTTP/2 are served.
func Serve(ctx context.Context, cfg ListenConfig, h http.Handler) error {
	if h == nil {
		h = http.DefaultServeMux
	}
	n, dir, err := cfg.open(ctx, h)
	if err != nil {
		return err
	}
	return errors.Join(n.Run(ctx), dir.Close())
}

// Listen joins, if it has not been done yet, and returns a listener for the
// service's addresses. ctx bounds the joining alone.
//
// Its connections are browsers': *tls.Conn, the handshake done with the node's
// own certificate, the browser's address as RemoteAddr. http.Serve takes them, in
// HTTP/1.1 and HTTP/2. The program is the HTTPS server then: unlike with Serve,
// it is for the program to bound what strangers do.
//
// Nobody is asked who they are before a connection is handed over. Protect does that
// for each request, and refuses those for other hosts besides; a program that does
// not use it gets no connections, unless the service is for everybody
// (postern.AccessPublic). It has to believe no X-Forwarded or Postern header then, and
// /.well-known/postern/ is not there.
func Listen(ctx context.Context, cfg ListenConfig) (*Listener, error) {
	n, dir, err := cfg.open(ctx, http.NotFoundHandler())
	if err != nil {
		return nil, err
	}
	l := &Listener{cfg: cfg, node: n, ready: make(chan net.Conn), ended: make(chan struct{})}
	n.taker = l.ready
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.wg.Go(func() { l.run(run, dir) })
	return l, nil
}

// A Listener is a net.Listener whose connections come through gateways. Its
// methods are safe for concurrent use.
type Listener struct {
	cfg   ListenConfig
	node  *Node
	gated atomic.Bool // whether Protect was called

	ready chan net.Conn
	stop  context.CancelFunc
	wg    sync.WaitGroup
	ended chan struct{} // closed when the node has ended, after err is set
	err   error
}

func (l *Listener) run(ctx context.Context, dir *Dir) {
	l.err = errors.Join(l.node.Run(ctx), dir.Close())
	close(l.ended)
}

// errUnprotected says that requests would get through that the service's Access keeps
// out.
var errUnprotected = errors.New("the service is not for everybody: wrap the handler with Listener.Protect, or have its Access be postern.AccessPublic")

// Protect returns a handler that lets requests through to h as Serve does: those that
// the service's Access allows, with the user for UserOf and without what strangers
// put into headers that are the node's. It answers below /.well-known/postern/ itself,
// where people sign in. Requests that came over other connections than the Listener's
// get 421.
func (l *Listener) Protect(h http.Handler) http.Handler {
	l.gated.Store(true)
	s := l.node.server
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := connOf(r); c == nil || c.entrance != s.entrance || r.TLS == nil {
			http.Error(w, misdirected.text, misdirected.status)
			return
		}
		s.answer(w, r, func(svc *service, w http.ResponseWriter, r *http.Request) { svc.serveWith(h, w, r) })
	})
}

// Accept returns the next *tls.Conn. It fails if the service is not for everybody and
// nothing is protected, and with net.ErrClosed after Close, or once the node has ended
// by itself; Wait says why.
func (l *Listener) Accept() (net.Conn, error) {
	for _, s := range l.node.Services() {
		if !l.gated.Load() && !s.allPublic() {
			return nil, errUnprotected
		}
	}
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.node.server.entrance.closed:
		return nil, net.ErrClosed
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and does not wait. Connections that were accepted go on
// until they are closed, for as long as the drain lasts. Wait waits for that.
func (l *Listener) Close() error {
	l.stop()
	l.node.server.entrance.Close()
	return nil
}

// Wait waits until the node has ended, after Close or by itself, and the data
// directory is free again. It returns what the node could not go on without.
func (l *Listener) Wait() error {
	l.wg.Wait()
	return l.err
}

// Addr returns the port that browsers dial. AwaitReady tells the addresses.
func (l *Listener) Addr() net.Addr { return l.node.server.entrance.Addr() }

// SetService changes the service's words, entries and access while it is served.
func (l *Listener) SetService(s Service) error {
	s, err := (ListenConfig{Service: s}).service(http.NotFoundHandler())
	switch {
	case err != nil:
		return err
	case !l.gated.Load() && !s.allPublic():
		return errUnprotected
	}
	return l.node.SetServices([]Service{s})
}

// AwaitReady waits until every address has been seen through a gateway with the
// certificate made here, and returns them, such as https://acme.apps.example.com.
// Those of a tenant that does not admit this machine's address are taken on trust.
func (l *Listener) AwaitReady(ctx context.Context) ([]string, error) {
	tick := time.NewTicker(linkInterval)
	defer tick.Stop()
	for {
		if urls := l.node.Status().readyURLs(); urls != nil {
			return urls, nil
		}
		select {
		case <-tick.C:
		case <-l.ended:
			return nil, errors.Join(net.ErrClosed, l.err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readyURLs returns where browsers find the node's services, nil until all are
// ready.
func (s Status) readyURLs() (urls []string) {
	for _, r := range s.Routes {
		if r.State != RouteReady && r.State != RouteClosed {
			return nil
		}
		urls = append(urls, r.URL)
	}
	return urls
}

// hand is serve for who answers by itself: browsers' connections go to taker once
// their handshake is done. When ctx is done those that are open may go on until
// they are closed, for as long as the drain lasts or until hard is done.
func (s *server) hand(ctx, hard context.Context, ln net.Listener, taker chan<- net.Conn) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 1)
	wg.Go(func() { failed <- s.entrance.run(ln) })
	wg.Go(func() { s.greet(hard, taker) })

	var err error
	select {
	case <-ctx.Done():
	case <-hard.Done():
	case err = <-failed:
	}
	s.draining.Store(true)
	s.entrance.Close()
	s.awaitIdle(hard)
	s.finish(hard)
	return err
}

// greet does the handshake with every connection and hands it to taker.
func (s *server) greet(ctx context.Context, taker chan<- net.Conn) {
	var wg sync.WaitGroup
	defer wg.Wait()
	cfg := s.tlsConfig()
	for {
		c, err := s.entrance.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { s.handOver(ctx, tls.Server(c, cfg), taker) })
	}
}

func (s *server) handOver(ctx context.Context, c *tls.Conn, taker chan<- net.Conn) {
	within, cancel := context.WithTimeout(ctx, readHeaderTimeout)
	defer cancel()
	if err := c.HandshakeContext(within); err != nil {
		s.log.Debug("TLS handshake", "remote", c.RemoteAddr(), "err", err)
		c.Close()
		return
	}
	if c.ConnectionState().NegotiatedProtocol == postern.ACMEProtocol {
		c.Close() // a certificate authority has seen what it came for
		return
	}
	select {
	case taker <- c:
	case <-s.entrance.closed:
		c.Close()
	}
}

// awaitIdle waits until no connection is open, for as long as the drain lasts or
// until hard is done.
func (s *server) awaitIdle(hard context.Context) {
	ctx, cancel := context.WithTimeout(hard, s.drain)
	defer cancel()
	tick := time.NewTicker(idleInterval)
	defer tick.Stop()
	for s.entrance.counts().Open > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.log.Warn("connections are cut off", "open", s.entrance.counts().Open)
			return
		}
	}
}

const idleInterval = 20 * time.Millisecond // between looks for open connections
