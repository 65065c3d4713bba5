package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"postern/internal/proxyproto"
	"postern/internal/splice"
)

// A client is a connection on its way through the gateway. As a net.Conn it
// counts its bytes; what it knows of itself grows with the way.
type client struct {
	net.Conn
	counters *counters
	keep     func() bool // keeps the end of the context from closing the conn
	up, down int64       // bytes; up belongs to the reader, down to the writer

	start    time.Time
	src, dst netip.AddrPort // the client's own and what it dialed
	name     string         // server name
	target   Target         // where it leads
	node     Node           // that it reached
	visit    *visit         // nil: not let in
	flow     *flow
	id       string // the same in the gateway's and the node's logs
	reached  bool   // it was spliced
	relayed  bool   // it was, or was to be, a relay
}

func (c *client) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.up += int64(n)
	c.counters.up.Add(int64(n))
	return n, err
}

func (c *client) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.down += int64(n)
	c.counters.down.Add(int64(n))
	return n, err
}

// SyscallConn lets who splices wait for bytes without a buffer. It is not for
// reading, which would not be counted.
func (c *client) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// CloseWrite half-closes the conn, or closes it if it can only do that.
func (c *client) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// serveConn takes conn the whole way and closes it, at once when ctx ends. If what is
// asked for is a relay, it returns what serves that and closes conn.
func (g *Gateway) serveConn(ctx context.Context, conn net.Conn) (relay func(context.Context)) {
	g.counters.accepted.Add(1)
	g.counters.open.Add(1)
	defer func() {
		if relay == nil {
			g.counters.open.Add(-1)
			conn.Close()
		}
	}()
	c := &client{Conn: conn, counters: &g.counters, start: time.Now(), id: newID()}
	c.keep = context.AfterFunc(ctx, func() { conn.Close() })
	defer func() { c.keep() }()
	err := g.route(ctx, c)
	var asked *relayAsked
	if errors.As(err, &asked) {
		return func(ctx context.Context) { g.serveRelay(ctx, c, asked.hello) }
	}
	var r refusal
	if errors.As(err, &r) {
		g.counters.refused[r.reason].Add(1)
		g.refuse(ctx, c, r)
	}
	g.done(ctx, c, err)
	return nil
}

// newID returns an id that no other connection of any gateway has.
func newID() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// route takes c to where its server name leads, and returns when both sides are
// done. A refusal means that the client has yet to be told.
func (g *Gateway) route(ctx context.Context, c *client) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.flow = &flow{client: c.Conn, cancel: cancel}
	node, err := g.connect(ctx, c)
	if errors.As(err, new(*relayAsked)) {
		return err // it goes on, and counts
	}
	defer g.leave(c)
	if err != nil {
		return err
	}
	g.counters.spliced.Add(1)
	c.reached = true
	// From here on, that is what splice.Paced does, and nothing is to be held for it.
	c.keep()
	c.keep = func() bool { return false }
	harden(c.Conn)
	_, _, err = splice.Paced(ctx, c, node, g.limiter.pace(c.visit))
	return err
}

// leave forgets c, whatever it was counted among.
func (g *Gateway) leave(c *client) {
	g.flows.remove(c.flow, g.cfg.Now())
	if c.visit != nil {
		g.limiter.leave(c.visit)
	}
}

// clientAddrs finds out between which addresses c really is.
func (g *Gateway) clientAddrs(c *client) error {
	c.src, c.dst = addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	if !g.isProxy(c.src.Addr()) {
		return nil
	}
	c.SetReadDeadline(time.Now().Add(g.cfg.FirstByteTimeout))
	h, err := proxyproto.ReadForeign(c.Conn)
	if err != nil {
		return refusal{reason: ProxyHeader, detail: err.Error()}
	}
	if !h.Local {
		c.src, c.dst = h.Src, h.Dst
	}
	return nil
}

// isProxy reports whether addr is a load balancer of Config.ProxyFrom.
func (g *Gateway) isProxy(addr netip.Addr) bool {
	return slices.ContainsFunc(g.cfg.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// addrPort returns a TCP address, the zero AddrPort for others.
func addrPort(a net.Addr) netip.AddrPort {
	if a, ok := a.(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// helloBuffers hold what was read of a hello. Few hellos are longer.
var helloBuffers = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// connect lets c in, reads its hello, dials where it leads and says it there.
func (g *Gateway) connect(ctx context.Context, c *client) (net.Conn, error) {
	if err := g.clientAddrs(c); err != nil {
		return nil, err
	}
	v, err := g.limiter.enter(time.Now(), c.Conn, c.src.Addr())
	if err != nil {
		return nil, err
	}
	f := c.flow
	c.visit, f.src = v, c.src.Addr()

	buf := helloBuffers.Get().(*[4 << 10]byte)
	defer helloBuffers.Put(buf)

	g.limiter.beginHello(v)
	said, raw, err := readClientHello(c, buf[:0], g.cfg.FirstByteTimeout, g.cfg.HelloTimeout)
	g.limiter.endHello(v)
	switch {
	case v.shed.Load() != 0:
		return nil, refusal{reason: Reason(v.shed.Load())}
	case err != nil:
		return nil, err
	}
	c.name = said.name

	target, ok := g.lookup(c.name)
	if said.relay && target.Tenant == "" && g.cfg.Relay != nil {
		return nil, &relayAsked{slices.Clone(raw)}
	}
	if !ok {
		return nil, errUnknownName
	}
	c.target = target
	f.hello, f.tenant = said, target.Tenant
	// Before the tenant's limits: who is not admitted uses none of them up.
	if !g.flows.admitted(f, &g.routes, g.cfg.Now()) {
		return nil, errNotAdmitted
	}
	if err := g.limiter.beginDial(time.Now(), v, target.Tenant); err != nil {
		return nil, err
	}
	defer g.limiter.endDial(v)
	opening, err := c.opening(raw)
	if err != nil {
		return nil, offline(err)
	}
	a, err := g.dial(ctx, f, opening)
	if err != nil {
		return nil, err
	}
	defer a.free()
	c.node = a.node
	if len(a.first) > 0 { // so little that the kernel takes it without waiting, if it has memory
		if err := g.say(ctx, c, a.first); err != nil {
			a.conn.Close()
			return nil, err
		}
	}
	if g.routes.Load().dialsAhead(a.node) {
		g.spares.came(a.node, a.conn)
	}
	return a.conn, nil
}

// readClientHello reads one TLS ClientHello from c, as parseHello does.
//
// raw is every byte read from c, for replay, appended to buf: the hello and
// whatever came with it. The first byte must come within first and all of the
// hello within whole; what does not, or is no hello, is a refusal.
func readClientHello(c net.Conn, buf []byte, first, whole time.Duration) (h hello, raw []byte, err error) {
	start := time.Now()
	c.SetReadDeadline(start.Add(first))
	defer c.SetReadDeadline(time.Time{})
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, min(cap(buf), maxRaw)) // doubles
		}
		n, readErr := c.Read(buf[len(buf):cap(buf)])
		if len(buf) == 0 && n > 0 {
			c.SetReadDeadline(start.Add(whole))
		}
		buf = buf[:len(buf)+n]
		switch h, _, err := parseHello(buf); {
		case err != errMore:
			return h, buf, err
		case errors.Is(readErr, os.ErrDeadlineExceeded):
			return hello{}, buf, refusal{reason: HelloTimeout}
		case readErr != nil:
			return hello{}, buf, refusal{reason: HelloGone}
		}
	}
}

// opening returns what is said to a node first: who the client is, then what the
// client said.
func (c *client) opening(raw []byte) ([]byte, error) {
	h := proxyproto.Header{Src: c.src, Dst: c.dst, Authority: c.name, UniqueID: c.id}
	b, err := h.AppendBinary(make([]byte, 0, proxyproto.MaxSize+len(raw)))
	return append(b, raw...), err
}

// greet says opening to who answered, unless it was said or ctx ends first.
func (g *Gateway) greet(ctx context.Context, a answer, opening []byte) (answer, error) {
	if a.said {
		return a, nil
	}
	err := g.say(ctx, a.conn, opening)
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() == nil:
		err = offline(fmt.Errorf("forward the hello: %w", err))
	}
	a.close()
	return answer{}, err
}

// say writes b to conn, for as long as a node may take to answer and until ctx
// ends: whoever takes no bytes must not stay among those that are being dialed.
func (g *Gateway) say(ctx context.Context, conn net.Conn, b []byte) error {
	conn.SetWriteDeadline(time.Now().Add(g.cfg.DialTimeout))
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if ctx.Err() != nil { // cut since the dial, and the conn not closed yet
		return context.Cause(ctx)
	}
	if _, err := conn.Write(b); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	conn.SetWriteDeadline(time.Time{})
	return nil
}

// refuse tells the client of r. Who is over a tenant's limits is kept waiting a
// moment, so that clients who try again at once do not do it in step.
func (g *Gateway) refuse(ctx context.Context, c *client, r refusal) {
	if r.reason == TenantRate || r.reason == TenantConns || r.reason == TenantDials {
		select {
		case <-time.After(50*time.Millisecond + mathrand.N(250*time.Millisecond)):
		case <-ctx.Done():
		}
	}
	r.tell(c.Conn)
}
