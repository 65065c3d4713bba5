// Package gateway is the public door. It accepts browsers, reads the server
// name in the TLS ClientHello, and splices the still encrypted bytes to the node
// that serves that name. It holds no TLS key and ends nobody's TLS. What is for the
// gateway itself, its nodes' relays, it hands to who has that key.
//
// The way of a connection, in order, one goroutine per direction:
//
//	Serve            accepts, while there is room in all
//	clientAddrs      who it is, from a PROXY header where one is required
//	limiter.enter    too many from there?
//	readClientHello  the server name; what is no hello is told so
//	Table.Lookup     whose name that is; nobody's, and a relay is asked for: serveRelay
//	flows.admitted   is it let in from there?
//	limiter.beginDial  too many to there?
//	dial             a node that answers, within a few seconds: on a spare that was
//	                 dialed before, if there is one; PROXY v2 header, then the hello's bytes
//	splice.Paced     until both sides are done, or the route is gone; what is moved when
//	                 the line is full is each tenant's part of it
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"postern/internal/fair"
)

// Config is what a Gateway needs. The zero Config works: it knows no names.
type Config struct {
	// Dial connects to a node's address in the overlay. It must return soon
	// after ctx ends. If its conns have the methods ReadReady and Heard, as those of
	// a netstack, some are dialed before a client needs them. If nil, all nodes are
	// offline.
	Dial func(ctx context.Context, dst netip.AddrPort) (net.Conn, error)

	// DialCoordinator opens an edge pipe (postern.EdgeProtocol) for a
	// connection to one of the coordinator's own names. If nil, those names
	// are unknown.
	DialCoordinator func(ctx context.Context) (net.Conn, error)

	// Relay serves a connection whose hello asks for postern.RelayProtocol, from its
	// first byte on, of who is at remote. It is not asked for names that lead to a
	// tenant. It must return soon after ctx ends, and closes conn. It lives until all
	// that is spliced has ended, which may pass through it. If nil, there are no relays.
	Relay func(ctx context.Context, conn net.Conn, remote netip.AddrPort) error

	// HTTPSPort is the public port that ServeRedirect sends browsers to. If
	// zero, 443.
	HTTPSPort uint16

	// ProxyFrom are the load balancers in front of Serve's listener: a
	// connection from there must begin with a PROXY v2 header, and counts as
	// the client's that it names. From everywhere else such a header is
	// garbage. ServeRedirect expects none. If nil, nowhere.
	ProxyFrom []netip.Prefix

	// Now is the coordinator's clock, by which a map says until when a source is
	// admitted. If nil, time.Now.
	Now func() time.Time

	Limits Limits

	// Behind reports whether this machine is behind with what comes from nodes or goes to
	// them: tenants then get equal parts of what it carries, as with Limits.Bandwidth. It
	// is asked while bytes are moved, and must be quick. If nil, it never is.
	Behind func() bool

	FirstByteTimeout time.Duration // for a client's first byte. If zero, 5 s.
	HelloTimeout     time.Duration // for its whole hello, from the same start. If zero, 10 s.
	DialTimeout      time.Duration // for a node to answer, while the client waits. If zero, 3 s.
	DrainTimeout     time.Duration // for open connections when Serve is to end. If zero, 30 s.

	// Access is told of each connection when it has ended, those excepted that a
	// limit refused: there may be too many. It must not block. If nil, nobody is told.
	Access func(Access)

	Logger *slog.Logger // If nil, nothing is logged.
}

// A Gateway routes connections by server name. Its methods are safe for
// concurrent use.
type Gateway struct {
	cfg  Config // no field of it is zero that has a default
	log  *slog.Logger
	stop chan struct{} // closed by Close

	closeOnce sync.Once
	routes    atomic.Pointer[Table]
	limiter   *limiter
	room      chan struct{} // holds one for every open connection
	flows     flows
	prober    *prober
	spares    *spares
	counters  counters
	tally     tally

	reportMu      sync.Mutex
	reported      [reasons]int64 // refusals that were logged
	reportedFull  int64          // the same of counters.full
	reportedWaits fair.Waits     // the same of limiter.waits
}

// New returns a Gateway that knows no names yet. It starts nothing.
func New(cfg Config) *Gateway {
	cfg.HTTPSPort = cmp.Or(cfg.HTTPSPort, 443)
	cfg.FirstByteTimeout = cmp.Or(cfg.FirstByteTimeout, 5*time.Second)
	cfg.HelloTimeout = cmp.Or(cfg.HelloTimeout, 10*time.Second)
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 3*time.Second)
	cfg.DrainTimeout = cmp.Or(cfg.DrainTimeout, 30*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Dial == nil {
		cfg.Dial = func(context.Context, netip.AddrPort) (net.Conn, error) {
			return nil, errors.New("no way into the overlay")
		}
	}
	g := &Gateway{
		cfg:     cfg,
		log:     cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		stop:    make(chan struct{}),
		limiter: newLimiter(cfg.Limits, cfg.Behind),
	}
	g.spares = newSpares(g.dialSpare)
	g.prober = newProber(g.probeNode, g.flows.busy)
	g.room = make(chan struct{}, g.limiter.limits.Conns)
	g.routes.Store(&Table{})
	return g
}

// SetRoutes makes t the table for all connections from now on. Open connections
// whose name no longer leads to the node that they reached, or whose tenant no
// longer admits the client's address, have been told to end when it returns: a node
// that was not greeted yet hears nothing, and what a splice is passing on just then
// may be the last.
func (g *Gateway) SetRoutes(t *Table) {
	g.routes.Store(t)
	g.flows.cut(&g.routes, g.cfg.Now())
	g.prober.want(t.traits)
	g.spares.keep(t.dialsAhead)
	tenants := t.tenants()
	g.limiter.retain(func(name string) bool { return tenants[name] })
}

// Close ends all connections and all calls of Serve and ServeRedirect at once.
// It waits for nothing; those calls return when all is done.
func (g *Gateway) Close() error {
	g.closeOnce.Do(func() { close(g.stop) })
	return nil
}

// reportInterval is how often refusals and reached limits are logged, and how long at
// most a connection outlives its window.
const reportInterval = time.Minute

// Serve accepts connections from ln and routes each, until ctx ends. Then it
// closes ln, ends the pipes to the coordinator, lets the other open connections
// go on for at most Config.DrainTimeout, closes those that are left, and returns
// nil once all are done. Close shortens that to nothing. If ln fails, it does the
// same and returns why. It always closes ln.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	// Connections outlive ctx, for as long as they may drain.
	connCtx, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	relayCtx, endRelays := context.WithCancelCause(connCtx)
	defer endRelays(nil)
	ctx, stopAccepting := context.WithCancel(ctx)
	var watch, conns, relays sync.WaitGroup
	watch.Go(func() { g.watch(connCtx, func() { stopAccepting(); kill(net.ErrClosed) }) })
	defer watch.Wait()
	defer kill(nil)

	watch.Go(func() { g.spares.run(ctx) })

	closeListener := context.AfterFunc(ctx, func() { ln.Close() })
	err := g.accept(ctx, ln, func(c net.Conn) {
		conns.Go(func() {
			relay := g.serveConn(connCtx, c)
			if relay == nil {
				<-g.room
				return
			}
			// Not among those that are waited for: it ends with the last of them.
			relays.Go(func() {
				defer func() { <-g.room }()
				relay(relayCtx)
			})
		})
	})
	closeListener()
	ln.Close()
	stopAccepting()

	g.flows.endPipes()
	drain := time.AfterFunc(g.cfg.DrainTimeout, func() { kill(errDrained) })
	defer drain.Stop()
	conns.Wait()
	endRelays(errDrained)
	relays.Wait()
	return err
}

var errDrained = errors.New("the gateway is shutting down")

// watch calls end when the Gateway is closed, logs refusals, and ends connections
// whose time is over or whose client is gone, until ctx ends.
func (g *Gateway) watch(ctx context.Context, end func()) {
	report := time.NewTicker(reportInterval)
	defer report.Stop()
	silent := time.NewTicker(silenceInterval)
	defer silent.Stop()
	defer g.logRefused(context.WithoutCancel(ctx))
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.stop:
			end()
			return
		case <-silent.C:
			g.endSilent(ctx)
		case <-report.C:
			g.logRefused(ctx)
			g.flows.cut(&g.routes, g.cfg.Now())
		}
	}
}

// makeRoom waits until there is room for another connection, and takes it. It reports
// false if ctx ended first.
func (g *Gateway) makeRoom(ctx context.Context) bool {
	select {
	case g.room <- struct{}{}:
		return true
	default:
	}
	g.counters.full.Add(1)
	select {
	case g.room <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

const (
	// maxAcceptFailures is how often in a row Accept may fail before it is given up.
	maxAcceptFailures = 10
	// acceptPause is the longest that one waits after a failure.
	acceptPause = time.Second
)

// passes reports whether err, of Accept, says that the system has not enough of something,
// such as open files: connections that end give it back, and a gateway that ended itself
// would cost all.
func passes(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}, func(short error) bool {
		return errors.Is(err, short)
	})
}

// accept hands the connections of ln to serve, as long as there is room, until
// ctx ends (nil) or ln is of no more use.
func (g *Gateway) accept(ctx context.Context, ln net.Listener, serve func(net.Conn)) error {
	failures := 0
	for {
		if !g.makeRoom(ctx) {
			return nil
		}
		c, err := ln.Accept()
		if err == nil {
			failures = 0
			serve(c)
			continue
		}
		<-g.room
		failures++
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed) || failures >= maxAcceptFailures && !passes(err):
			return fmt.Errorf("accept on %v: %w", ln.Addr(), err)
		}
		if failures == 1 || failures%60 == 0 { // about once a minute
			g.log.Warn("accept; trying again", "err", err, "failures", failures)
		}
		select {
		case <-time.After(min(time.Duration(failures)*50*time.Millisecond, acceptPause)):
		case <-ctx.Done():
		}
	}
}
