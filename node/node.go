// Package node is the machine in the customer's office: it joins the overlay,
// and is the HTTPS server that browsers talk to. The TLS keys are made or kept
// here, and what it decrypts goes to the application beside it and nowhere else.
//
// A Go program can be a node of its own: Serve joins and serves a handler, Listen
// gives a listener for an http.Server. What is beyond them, such as several
// services, is Open, Dir.Join, New and Node.Run. Who may open a service is said by its
// Access; people sign in at the portal, and a handler asks UserOf who they are:
//
//	err := node.Serve(ctx, node.ListenConfig{Data: dir, Token: token},
//		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//			user, _ := node.UserOf(r.Context())
//			fmt.Fprintln(w, "Hello,", user.Login)
//		}))
//
// Listen hands over connections, so that there a handler has to be wrapped:
//
//	ln, err := node.Listen(ctx, node.ListenConfig{Data: dir, Token: token})
//	...
//	err = http.Serve(ln, ln.Protect(handler))
//
// A connection's path, in order:
//
//	netstack               a TCP connection to [virtual address]:443
//	entrance.admit         from a gateway of the current map; its PROXY header
//	server.configForClient the server name is ours, and the one the gateway routed by
//	net/http               TLS, HTTP/1.1 or HTTP/2
//	server.ServeHTTP       the request is for that server name; 421 otherwise
//	ownResource            below /.well-known/postern/: signing in, among others
//	gate.serve             who sent it may open that path of the service; see gate
//	service.serve          reverse proxy, folder or Go handler
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"postern"
	"postern/internal/accesslog"
	"postern/internal/acme"
	"postern/internal/connect"
	"postern/internal/member"
	"postern/internal/monitor"
	"postern/netstack"
)

// Config says how a node runs.
type Config struct {
	// Dir is a data directory that has joined. The caller closes it.
	Dir *Dir

	// Services are what the node publishes, until SetServices says otherwise.
	// There may be none.
	Services []Service

	// Remember lets the local API replace Services, and has Dir remember what it
	// was told.
	Remember bool

	// File is a configuration file that says what is published, in place of
	// Services, SignIn, Authorities and Keepalive; see File. It is read again when it changes. What is
	// wrong with it then shows in the Status, and what it said before stays. If
	// empty, there is none.
	File string

	// SignIn says how people sign in, beside Services.
	SignIn SignIn

	// Authorities are the public certificate authorities to ask, in this order, in
	// place of those that the deployment names, beside Services. If there are none,
	// the deployment's.
	Authorities []Authority

	// Keepalive is how often a packet keeps the way through NAT open, in whole
	// seconds. If zero, 25 s.
	Keepalive time.Duration

	// Port is the UDP port of the tunnel. If zero, any free one.
	Port uint16

	// MTU is the largest packet inside the tunnel, in bytes. If zero, 1420.
	MTU int

	// HideLoss is as in netstack.Config: of what this node sends.
	HideLoss bool

	// Proxy is the HTTP proxy by which the coordinator and gateways are reached over
	// TCP: a URL such as http://USER:PASSWORD@HOST:PORT, or "direct" for none. If
	// empty, the one that File says; if that says none, what HTTPS_PROXY and NO_PROXY
	// in the environment say.
	Proxy string

	// Drain is how long requests under way may go on once Run is to end. If
	// zero, 30 s.
	Drain time.Duration

	// Metrics is the HOST:PORT to serve metrics at, for Prometheus. If empty, they are
	// at the local API alone.
	Metrics string

	// AccessLog is a file to append one line of JSON to for each request, "-" for
	// standard output. A full or slow disk costs lines and keeps no request waiting. If
	// empty, requests are not logged.
	AccessLog string

	// Version is the program's, for people to read.
	Version string

	// Logger is told what happens. If nil, nobody is.
	Logger *slog.Logger
}

const (
	defaultKeepalive = 25 * time.Second
	defaultDrain     = 30 * time.Second
)

// A Node is a joined machine. Its methods are safe for concurrent use.
type Node struct {
	cfg     Config
	log     *slog.Logger
	id      *member.Identity
	client  *member.Client
	server  *server
	issuer  *issuer // the private CA's certificates
	public  *public // public authorities'
	lookout *lookout
	proxy   connect.Proxy

	setting   sync.Mutex // held while published changes
	published atomic.Pointer[published]
	probed    chan struct{}         // holds one token while probe has not seen published
	news      chan struct{}         // holds one token while report has not told of a change
	refused   atomic.Pointer[error] // of the last time that the coordinator was told
	tabling   sync.Mutex            // held while the server's table is made

	signIn    SignIn                // when New read it
	issuers   []acme.Issuer         // the same
	keepalive atomic.Int64          // nanoseconds
	fileStamp stamp                 // of Config.File when New read it
	fileErr   atomic.Pointer[error] // of the last time it was read

	taker chan<- net.Conn // of connections, in place of an HTTP server; nil: none

	started atomic.Pointer[time.Time]
	running atomic.Pointer[running] // nil before Run
	latest  atomic.Pointer[postern.Map]
	changed chan struct{} // holds one token while latest is not worked in
	moved   chan struct{} // holds one token while gateways are to be looked up anew
	closed  chan struct{}
	close   sync.Once
}

// running is what exists while Run does.
type running struct {
	net     *netstack.Net
	steerer *steerer
	key     *member.TunnelKey
	peers   atomic.Pointer[error] // of the last look-up of endpoints

	access atomic.Pointer[accesslog.Log] // nil: there is none, or not yet
}

// New checks cfg and everything on disk that it names. It starts nothing. It
// fails with ErrNotJoined if the directory has not joined yet.
func New(cfg Config) (*Node, error) {
	if cfg.Drain == 0 {
		cfg.Drain = defaultDrain
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	id, err := member.LoadIdentity(cfg.Dir.dir)
	if err != nil {
		return nil, err
	}
	if id.Role != postern.RoleNode {
		return nil, fmt.Errorf("the membership is a %s's, want a node's", id.Role)
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, id: id,
		probed:  make(chan struct{}, 1),
		news:    make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		moved:   make(chan struct{}, 1),
		closed:  make(chan struct{}),
	}
	if err := n.configure(); err != nil {
		return nil, err
	}
	if n.client, err = member.NewClient(cfg.Dir.dir, id, n.proxy, cfg.Logger); err != nil {
		return nil, err
	}
	n.lookout = newLookout(n.certificate, func() { wake(n.news) }, n.proxy, cfg.Logger)
	n.issuer = newIssuer(cfg.Dir.Path("certs"), n.sign, n.certificatesChanged, cfg.Logger)
	if n.public, err = newPublic(cfg.Dir.Path("acme"), n.client.Challenge, n.certificatesChanged, cfg.Logger); err != nil {
		return nil, err
	}
	n.public.setOwn(n.issuers)
	sc := serverConfig{
		certificate: n.certificate, challenge: n.public.challenge, version: cfg.Version, drain: cfg.Drain, log: cfg.Logger,
		dir: cfg.Dir.dir, redeem: n.client.Redeem,
	}
	if cfg.AccessLog != "" {
		sc.tell = func(a access) { n.accessLog().Add(a) }
	}
	n.server, err = newServer(sc)
	if err != nil {
		return nil, err
	}
	if err := n.setSignIn(n.signIn); err != nil {
		return nil, err
	}
	return n, nil
}

// configure takes what Config or its File say.
func (n *Node) configure() error {
	proxy := n.cfg.Proxy
	services, signIn, keepalive, authorities := n.cfg.Services, n.cfg.SignIn, n.cfg.Keepalive, n.cfg.Authorities
	if n.cfg.File != "" {
		if len(services) > 0 || keepalive != 0 || signIn != (SignIn{}) || len(authorities) > 0 {
			return errors.New("want either a configuration file, or services, sign-in, authorities and a keepalive")
		}
		n.fileStamp = stampOf(n.cfg.File)
		f, err := ReadFile(n.cfg.File)
		if err != nil {
			return err
		}
		services, signIn, keepalive, authorities = f.Services, f.SignIn, f.Keepalive, f.Authorities
		proxy = cmp.Or(proxy, f.Proxy)
	}
	var err error
	if n.issuers, err = readAuthorities(authorities); err != nil {
		return err
	}
	if n.proxy, err = connect.ParseProxy(proxy); err != nil {
		return err
	}
	if err := signIn.check(); err != nil {
		return err
	}
	if err := checkRequired(services, signIn.Issuer != nil); err != nil {
		return err
	}
	if keepalive != 0 {
		if err := checkKeepalive(keepalive); err != nil {
			return err
		}
	}
	p, err := newPublished(services, nil, n.log)
	if err != nil {
		return err
	}
	n.published.Store(p)
	n.signIn = signIn
	n.setKeepalive(keepalive)
	return nil
}

// Run keeps the node on the overlay until ctx is done, and then lets requests
// under way end, for as long as Config.Drain at most or until Close. It returns
// nil after that, or what it could not go on without: ErrRemoved when the
// coordinator removed the node. It is to be called once.
func (n *Node) Run(ctx context.Context) error {
	key, _ := n.client.WireGuard()
	stack, err := netstack.New(netstack.Config{
		PrivateKey: key, Address: n.id.Enrollment.Address,
		Port: n.cfg.Port, MTU: n.cfg.MTU, HideLoss: n.cfg.HideLoss, FixedEndpoints: true, Logger: n.log,
	})
	if err != nil {
		return err
	}
	defer stack.Close()
	defer n.client.Close()
	defer n.closeIdle()
	run := &running{net: stack, steerer: &steerer{node: n, stack: stack, proxy: n.proxy, steer: map[string]*steered{}}}
	run.key = member.NewTunnelKey(n.client, func(key postern.WireGuardPrivate) error { return stack.SetPrivateKey(key) }, run.steerer.stuck)
	if !n.running.CompareAndSwap(nil, run) {
		return errors.New("the node was run before")
	}
	now := time.Now()
	n.started.Store(&now)
	ln, err := stack.Listen(postern.HTTPSPort)
	if err != nil {
		return fmt.Errorf("listen on the overlay: %w", err)
	}
	local, err := listenLocal(n.cfg.Dir.Path(Socket))
	if errors.Is(err, ErrNoSockets) {
		n.log.Warn("no command of this machine reaches the node while it runs", "err", err)
	} else if err != nil {
		ln.Close()
		return err
	}
	scraped, err := monitor.Listen(n.cfg.Metrics)
	if err != nil {
		closeAll(ln, local)
		return err
	}
	accesses, err := accesslog.Open(n.cfg.AccessLog, os.Stdout, n.log)
	if err != nil {
		closeAll(ln, local, scraped)
		return err
	}
	run.access.Store(accesses)
	n.log.Info("node up", "tenant", n.id.Enrollment.Tenant, "node", n.id.Enrollment.Name,
		"address", n.id.Enrollment.Address, "udp_port", stack.Port())

	// The map is followed, and the tunnels are kept, until the drain is over.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	g.Go(func() error { return n.awaitClose(work) })
	g.Go(func() error { return n.client.Follow(work, n.client.Resume(n.apply), n.apply) })
	g.Go(func() error { return n.client.FollowLease(work, func() { wake(n.changed) }) })
	g.Go(func() error { return run.key.Run(work) })
	g.Go(func() error { return n.workMap(work, run) })
	g.Go(func() error { return n.roam(work, run) })
	g.Go(func() error { return n.publish(work) })
	g.Go(func() error { return n.report(work) })
	g.Go(func() error { return n.issuer.run(work) })
	g.Go(func() error { return n.public.manager.Run(work) })
	g.Go(func() error { return n.lookout.run(work) })
	g.Go(func() error { return n.probe(work) })
	g.Go(func() error { return n.server.gate.run(work) })
	g.Go(func() error { return n.server.gate.sessions.run(work) })
	g.Go(func() error { return n.server.proofs.run(work) })
	g.Go(func() error { return n.followFile(work) })
	g.Go(func() error { return accesses.Run(work) })
	if local != nil {
		g.Go(func() error { return monitor.Serve(work, local, n.localAPI(), n.log) })
	}
	g.Go(func() error { return monitor.ServeMetrics(work, scraped, metricsHandler(n.Status), nil, n.log) })
	if n.taker != nil {
		err = n.server.hand(ctx, work, ln, n.taker)
	} else {
		err = n.server.serve(ctx, work, ln)
	}
	stop()
	if err = errors.Join(err, g.Wait()); errors.Is(err, errClosed) {
		return nil
	}
	return err
}

// accessLog returns the access log, nil if there is none.
func (n *Node) accessLog() *accesslog.Log {
	if run := n.running.Load(); run != nil {
		return run.access.Load()
	}
	return nil
}

// ReopenAccessLog goes on with a new file at Config.AccessLog: the old one was renamed.
func (n *Node) ReopenAccessLog() { n.accessLog().Reopen() }

// certificatesChanged has others look at certificates that changed, or at their state.
func (n *Node) certificatesChanged() {
	n.lookout.again()
	wake(n.news)
}

// errClosed ends the goroutines of Run.
var errClosed = errors.New("closed")

func (n *Node) awaitClose(ctx context.Context) error {
	select {
	case <-n.closed:
		return errClosed
	case <-ctx.Done():
		return nil
	}
}

// Close ends Run at once, drain or not. It does not wait for it.
func (n *Node) Close() error {
	n.close.Do(func() { close(n.closed) })
	return nil
}

// closeIdle drops the idle connections to the applications.
func (n *Node) closeIdle() {
	for _, s := range n.published.Load().order {
		if s.transport != nil {
			s.transport.CloseIdleConnections()
		}
	}
}
