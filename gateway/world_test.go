package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern"
	"postern/internal/proxyproto"
)

// A world is a Gateway that serves, and what it can reach: all in memory.
type world struct {
	t    testing.TB
	g    *Gateway
	ln   *memListener
	stop context.CancelFunc // graceful
	done chan error         // what Serve returned

	mu    sync.Mutex
	nodes map[netip.AddrPort]*memNode
	coord *memNode
	port  uint16 // of the client that dialed last
}

// A memNode is a node's listener, or the coordinator's.
type memNode struct {
	conns chan *memConn
	delay time.Duration // before it answers, if it does
	down  bool          // it never answers
	tells bool          // its conns can be spares
	heard atomic.Uint64 // packets that it sent on one of those

	wrap func(net.Conn) net.Conn // the gateway's end; nil: as it is

	mu     sync.Mutex
	lost   int // dials that are yet to get no answer
	dialed int // that got one
}

var gatewayAddr = netip.MustParseAddrPort("198.51.100.1:443")

// newWorld serves the routes of m.
func newWorld(t testing.TB, cfg Config, m postern.Map) *world {
	t.Helper()
	w := &world{
		t: t, ln: newMemListener(gatewayAddr.String()), done: make(chan error, 1),
		nodes: map[netip.AddrPort]*memNode{},
	}
	for _, s := range m.Sections {
		for _, n := range s.Nodes {
			w.node(n.Address.String())
		}
	}
	cfg.Dial = w.dialNode
	if m.Deployment() != nil {
		w.coord = &memNode{conns: make(chan *memConn, 1024)}
		cfg.DialCoordinator = func(ctx context.Context) (net.Conn, error) { return w.coord.dial(ctx, netip.AddrPort{}) }
	}
	w.g = New(cfg)
	w.g.SetRoutes(NewTable(m))
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	var wg sync.WaitGroup
	wg.Go(func() { w.done <- w.g.Serve(ctx, w.ln) })
	t.Cleanup(func() { stop(); w.g.Close(); wg.Wait() })
	return w
}

var unlimited = Limits{
	SourceRate: -1, SourceBurst: -1, SourceConns: -1, SourceHellos: -1, Hellos: -1,
	TenantRate: -1, TenantBurst: -1, TenantConns: -1, TenantDials: -1,
}

// node returns the node at an overlay address, and makes it if need be.
func (w *world) node(addr string) *memNode {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := netip.AddrPortFrom(netip.MustParseAddr(addr), 443)
	if w.nodes[key] == nil {
		w.nodes[key] = &memNode{conns: make(chan *memConn, 1024)}
	}
	return w.nodes[key]
}

// remove takes a node off the overlay.
func (w *world) remove(addr string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.nodes, netip.AddrPortFrom(netip.MustParseAddr(addr), 443))
}

func (w *world) dialNode(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	n := w.nodes[dst]
	w.mu.Unlock()
	if n == nil {
		return nil, syscall.ECONNREFUSED
	}
	return n.dial(ctx, dst)
}

// lose reports whether another dial is to be lost.
func (n *memNode) lose() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost == 0 {
		return false
	}
	n.lost--
	return true
}

func (n *memNode) dial(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	if n.down || n.lose() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if n.delay > 0 {
		select {
		case <-time.After(n.delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	near, far := memPipe(netip.MustParseAddrPort("[fd00::9]:1024"), dst)
	n.mu.Lock()
	n.dialed++
	n.mu.Unlock()
	n.conns <- far
	var c net.Conn = near
	if n.tells {
		c = tellingConn{near, &n.heard}
	}
	if n.wrap != nil {
		c = n.wrap(c)
	}
	return c, nil
}

// client connects to the gateway from an address of its own, or from src.
func (w *world) client(src ...string) *memConn {
	w.t.Helper()
	w.mu.Lock()
	w.port++
	from := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), w.port)
	w.mu.Unlock()
	if len(src) > 0 {
		from = netip.MustParseAddrPort(src[0])
	}
	c, err := w.ln.dial(from)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// whoTriesFirst returns an address of a client that is taken to the node at addr before
// the others of host's.
func (w *world) whoTriesFirst(host, addr string) string {
	w.t.Helper()
	target, _ := w.g.lookup(host)
	for i := range 256 {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 40000)
		nodes, _ := w.g.order(&flow{src: src.Addr(), tenant: target.Tenant}, target)
		if nodes[0].Addr == addr443(addr) {
			return src.String()
		}
	}
	w.t.Fatalf("nobody is taken to %s first", addr)
	panic("unreachable")
}

// say connects and sends b.
func (w *world) say(b []byte, src ...string) *memConn {
	w.t.Helper()
	c := w.client(src...)
	if _, err := c.Write(b); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// accept returns the next connection to n and the header that it began with.
func (w *world) accept(n *memNode) (*memConn, proxyproto.Header) {
	w.t.Helper()
	select {
	case c := <-n.conns:
		w.t.Cleanup(func() { c.Close() })
		h, err := proxyproto.Read(c)
		if err != nil {
			w.t.Fatal(err)
		}
		return c, h
	case <-time.After(time.Minute):
		w.t.Fatal("no connection reached the node")
		panic("unreachable")
	}
}

// expect reads exactly want from c.
func (w *world) expect(c io.Reader, want string) {
	w.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); string(got) != want {
		w.t.Fatalf("got %q, %v; want %q", got[:n], err, want)
	}
}

// talk checks that bytes pass both ways between a client and a node.
func (w *world) talk(client, node net.Conn) {
	w.t.Helper()
	fmt.Fprint(client, "question")
	w.expect(node, "question")
	fmt.Fprint(node, "answer")
	w.expect(client, "answer")
}

// refused checks how often a reason was counted.
func (w *world) refused(r Reason, want int64) {
	w.t.Helper()
	if got := w.g.Stats().Refused[r]; got != want {
		w.t.Errorf("refused for %v: got %d, want %d; all: %v", r, got, want, w.g.Stats().Refused)
	}
}

// mapOf returns a map of these sections.
func mapOf(sections ...postern.Section) postern.Map {
	m := postern.Map{Version: 1, Sections: map[string]postern.Section{}}
	for _, s := range sections {
		m.Sections[s.Tenant] = s
	}
	return m
}

// section returns a tenant's, with one name that leads to nodes at addrs. A
// node's id is its address.
func section(tenant, host string, addrs ...string) postern.Section {
	s := postern.Section{Tenant: tenant, Version: 1}
	r := postern.Route{Host: host, Service: postern.DefaultService}
	for _, a := range addrs {
		s.Nodes = append(s.Nodes, postern.Node{ID: a, Name: a, Address: netip.MustParseAddr(a)})
		r.Nodes = append(r.Nodes, a)
	}
	s.Routes = []postern.Route{r}
	return s
}

// deployment returns the deployment's section, with the coordinator's own names.
func deployment(names ...string) postern.Section {
	return postern.Section{Version: 1, Deployment: &postern.Deployment{ID: "d", Base: "example", Names: names}}
}

// fatal returns the record of a fatal alert.
func fatal(a alert) string { return string([]byte{21, 3, 3, 0, 2, 2, byte(a)}) }
