package netstack

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"
)

func TestSetPeersRefuses(t *testing.T) {
	h := newHost(t, 1)
	good := Peer{PublicKey: Key{1}, Address: overlay(2)}
	h.mustSetPeers(t, good)
	with := func(f func(*Peer)) Peer {
		p := Peer{PublicKey: Key{2}, Address: overlay(3)}
		f(&p)
		return p
	}
	for _, tt := range []struct {
		name  string
		peers []Peer
		want  string
	}{
		{"same key", []Peer{good, with(func(p *Peer) { p.PublicKey = good.PublicKey })}, "key is taken"},
		{"own key", []Peer{with(func(p *Peer) { p.PublicKey = h.key })}, "key is taken"},
		{"same address", []Peer{good, with(func(p *Peer) { p.Address = good.Address })}, "is taken by"},
		{"own address", []Peer{with(func(p *Peer) { p.Address = h.address })}, "is taken by"},
		{"no address", []Peer{with(func(p *Peer) { p.Address = netip.Addr{} })}, "no IPv6 address"},
		{"IPv4", []Peer{with(func(p *Peer) { p.Address = netip.MustParseAddr("10.0.0.1") })}, "no IPv6 address"},
		{"loopback", []Peer{with(func(p *Peer) { p.Address = netip.IPv6Loopback() })}, "no IPv6 address"},
		{"endpoint without port", []Peer{with(func(p *Peer) { p.Endpoint = netip.MustParseAddrPort("127.0.0.1:0") })}, "endpoint"},
		{"negative keepalive", []Peer{with(func(p *Peer) { p.Keepalive = -time.Second })}, "keepalive"},
		{"broken keepalive", []Peer{with(func(p *Peer) { p.Keepalive = 1500 * time.Millisecond })}, "keepalive"},
		{"long keepalive", []Peer{with(func(p *Peer) { p.Keepalive = 65536 * time.Second })}, "keepalive"},
		{"too many", make([]Peer, 1<<16+1), "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := h.SetPeers(tt.peers)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if got := h.status1(t); got.PublicKey != good.PublicKey || got.Address != good.Address {
				t.Errorf("the set was changed: %+v", got)
			}
		})
	}
}

func TestPeers(t *testing.T) {
	h := newHost(t, 1)
	want := map[Key]Peer{}
	for i := range byte(20) {
		p := Peer{PublicKey: Key{i, 1}, Address: overlay(10 + i)}
		if i%2 == 0 {
			p.Endpoint = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1000+uint16(i))
		}
		want[p.PublicKey] = p
	}
	check := func(t *testing.T) {
		t.Helper()
		var set []Peer
		for _, p := range want {
			set = append(set, p)
		}
		h.mustSetPeers(t, set...)
		got := h.Peers()
		if len(got) != len(want) {
			t.Errorf("got %d peers, want %d", len(got), len(want))
		}
		for _, p := range got {
			if w := want[p.PublicKey]; p.Address != w.Address || p.Endpoint != w.Endpoint {
				t.Errorf("got %+v, want %+v", p, w)
			}
			if !p.Handshake.IsZero() || p.Received != 0 {
				t.Errorf("a peer that never called has handshake %v, %d bytes received", p.Handshake, p.Received)
			}
		}
	}
	edit := func(i byte, f func(*Peer)) {
		p := want[Key{i, 1}]
		f(&p)
		want[p.PublicKey] = p
	}
	t.Run("all", check)
	t.Run("remove", func(t *testing.T) { delete(want, Key{3, 1}); check(t) })
	t.Run("add", func(t *testing.T) { want[Key{99}] = Peer{PublicKey: Key{99}, Address: overlay(99)}; check(t) })
	t.Run("endpoint", func(t *testing.T) {
		edit(4, func(p *Peer) { p.Endpoint = netip.MustParseAddrPort("[::1]:5") })
		check(t)
	})
	t.Run("IPv4 endpoint in IPv6", func(t *testing.T) {
		edit(4, func(p *Peer) { p.Endpoint = netip.MustParseAddrPort("[::ffff:127.0.0.1]:5") })
		p := want[Key{4, 1}]
		h.mustSetPeers(t, p)
		if got := h.status1(t).Endpoint.String(); got != "127.0.0.1:5" {
			t.Errorf("got %v, want 127.0.0.1:5", got)
		}
		edit(4, func(p *Peer) { p.Endpoint = netip.MustParseAddrPort("127.0.0.1:5") })
		check(t)
	})
	t.Run("address", func(t *testing.T) { edit(5, func(p *Peer) { p.Address = overlay(200) }); check(t) })
	t.Run("swap addresses", func(t *testing.T) {
		a, b := want[Key{6, 1}].Address, want[Key{7, 1}].Address
		edit(6, func(p *Peer) { p.Address = b })
		edit(7, func(p *Peer) { p.Address = a })
		check(t)
	})
	t.Run("address to a new key", func(t *testing.T) {
		old := want[Key{8, 1}]
		delete(want, Key{8, 1})
		want[Key{98}] = Peer{PublicKey: Key{98}, Address: old.Address}
		check(t)
	})
	t.Run("none", func(t *testing.T) { clear(want); check(t) })
}

// Setting the same peers, and others beside them, leaves a session alone.
func TestSetPeersKeepsSessions(t *testing.T) {
	node, gateway := newPair(t)
	a, b := connect(t, gateway, node)
	mustEcho(t, a, b)
	before := gateway.status1(t)
	for _, tt := range []struct {
		name  string
		peers []Peer
	}{
		{"same", []Peer{node.hidden()}},
		{"another beside it", []Peer{{PublicKey: Key{1}, Address: overlay(9)}, node.hidden()}},
		{"another removed", []Peer{node.hidden()}},
		{"endpoint confirmed", []Peer{node.peer}},
		{"endpoint forgotten", []Peer{node.hidden()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gateway.mustSetPeers(t, tt.peers...)
			mustEcho(t, a, b)
			for _, after := range gateway.Peers() {
				if after.PublicKey != node.key {
					continue
				}
				if after.Handshake != before.Handshake {
					t.Errorf("there was a new handshake")
				}
				if after.Endpoint != before.Endpoint {
					t.Errorf("endpoint: got %v, want %v", after.Endpoint, before.Endpoint)
				}
				if after.Received <= before.Received {
					t.Errorf("counters went back: %d bytes, before %d", after.Received, before.Received)
				}
				return
			}
			t.Error("the peer is gone")
		})
	}
}

// A changed endpoint is where the next packet goes.
func TestSetPeersMovesEndpoint(t *testing.T) {
	node, gateway := newPair(t)
	nat := newNAT(t, gateway.peer.Endpoint)
	before := node.status1(t).Handshake
	p := gateway.peer
	p.Endpoint = nat.address()
	node.mustSetPeers(t, p)
	a, b := connect(t, node, gateway)
	mustEcho(t, a, b)
	if got := nat.forwarded(); got == 0 {
		t.Errorf("nothing went to the new endpoint")
	}
	if got := node.status1(t); got.Handshake != before || got.Endpoint != nat.address() {
		t.Errorf("got endpoint %v, handshake %v, want %v, %v", got.Endpoint, got.Handshake, nat.address(), before)
	}
}

// The node's NAT forgets it and gives it another port: the gateway follows, and
// connections go on.
func TestRoaming(t *testing.T) {
	node, gateway := newHost(t, 1), newHost(t, 2)
	nat := newNAT(t, gateway.peer.Endpoint)
	seen := node.peer
	seen.Endpoint = nat.outside()
	gateway.mustSetPeers(t, seen)
	p := gateway.peer
	p.Endpoint = nat.address()
	p.Keepalive = 25 * time.Second
	node.mustSetPeers(t, p)
	// Not both at once, or both initiations are lost and WireGuard waits 5 s.
	eventually(t, "handshake", func() bool { return !gateway.status1(t).Handshake.IsZero() })
	a, b := connect(t, gateway, node)
	mustEcho(t, a, b)
	before := gateway.status1(t)

	nat.rebind(t)
	if err := node.Rebind(); err != nil { // greets the gateway from the new port
		t.Fatal(err)
	}
	eventually(t, "new endpoint", func() bool { return gateway.status1(t).Endpoint == nat.outside() })
	if nat.outside() == before.Endpoint {
		t.Fatal("the NAT did not move")
	}
	mustEcho(t, a, b)
	if got := gateway.status1(t).Handshake; got != before.Handshake {
		t.Errorf("there was a new handshake")
	}
	// The same endpoint as ever must not send the gateway back to where the node
	// was, also when something else changes.
	for _, keepalive := range []time.Duration{0, 30 * time.Second} {
		seen.Keepalive = keepalive
		gateway.mustSetPeers(t, seen)
		if got := gateway.status1(t).Endpoint; got != nat.outside() {
			t.Errorf("keepalive %v: got endpoint %v, want %v", keepalive, got, nat.outside())
		}
		mustEcho(t, a, b)
	}
}

func TestRemovedPeer(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(t *testing.T, gateway, node *host)
	}{
		{"removed", func(t *testing.T, gateway, _ *host) { gateway.mustSetPeers(t) }},
		{"another key", func(t *testing.T, gateway, node *host) {
			p := node.hidden()
			p.PublicKey = Key{1}
			gateway.mustSetPeers(t, p)
		}},
		{"another address", func(t *testing.T, gateway, node *host) {
			p := node.hidden()
			p.Address = overlay(77)
			gateway.mustSetPeers(t, p)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { testRemovedPeer(t, tt.set) })
	}
}

func testRemovedPeer(t *testing.T, set func(t *testing.T, gateway, node *host)) {
	node, gateway := newPair(t)
	absent := Peer{PublicKey: Key{9}, Address: overlay(9)}
	gateway.mustSetPeers(t, node.hidden(), absent)
	unread, sender := connect(t, gateway, node)
	idle, _ := connect(t, gateway, node)
	_, accepted := connect(t, node, gateway)
	busy, _ := connect(t, gateway, node)
	closing, _ := connect(t, gateway, node)
	ln := gateway.mustListen(t, 443)
	node.mustDial(t, addrPort(ln)) // waits to be accepted

	if _, err := sender.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "unread data", func() bool { return unread.ep.Readiness(waiter.ReadableEvents) != 0 })
	closing.Close()
	errs := make(chan error)
	go func() { _, err := idle.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := busy.Write(make([]byte, 4*bufferMax)); errs <- err }()
	go func() {
		_, err := gateway.DialContext(t.Context(), netip.AddrPortFrom(absent.Address, 443))
		errs <- err
	}()
	eventually(t, "dial under way", func() bool { return len(gateway.endpointsTo(absent.Address)) > 0 })

	set(t, gateway, node)
	for range 3 {
		if err := within(t, "a call", func() error { return <-errs }); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("call under way: got %v, want ECONNABORTED", err)
		}
	}
	for name, c := range map[string]*tcpConn{"unread": unread, "idle": idle, "accepted": accepted, "busy": busy} {
		if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("%s: read %d bytes, %v, want ECONNABORTED", name, n, err)
		}
		if n, err := c.Write([]byte("x")); n != 0 || !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("%s: wrote %d bytes, %v, want ECONNABORTED", name, n, err)
		}
	}
	for _, gone := range []netip.Addr{node.address, absent.Address} {
		if got := len(gateway.endpointsTo(gone)); got != 0 {
			t.Errorf("%d connections to %v are left", got, gone)
		}
	}
	accepting := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			t.Errorf("accepted %v", c.RemoteAddr())
			c.Close()
		}
		accepting <- err
	}()
	eventually(t, "empty queue", func() bool { return ln.(*listener).ep.Readiness(waiter.ReadableEvents) == 0 })
	ln.Close()
	if err := within(t, "accept", func() error { return <-accepting }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: got %v, want net.ErrClosed", err)
	}
}

// endpointsTo returns what TCP holds of connections to a.
func (h *host) endpointsTo(a netip.Addr) (eps []stack.TransportEndpoint) {
	for _, ep := range h.stack.RegisteredEndpoints() {
		if addrFrom(ep.(tcpip.Endpoint).Info().(*stack.TransportEndpointInfo).ID.RemoteAddress) == a {
			eps = append(eps, ep)
		}
	}
	return eps
}

// A nat is a home router on loopback: it forwards between whoever last sent to
// its inside and one server, from an outside port that rebind changes.
type nat struct {
	server netip.AddrPort
	in     *net.UDPConn

	mu     sync.Mutex
	out    *net.UDPConn
	client netip.AddrPort
	count  int

	wg sync.WaitGroup
}

func newNAT(t *testing.T, server netip.AddrPort) *nat {
	t.Helper()
	n := &nat{server: server, in: listenUDP(t)}
	n.rebind(t)
	n.wg.Go(n.forward)
	t.Cleanup(func() {
		n.in.Close()
		n.mu.Lock()
		n.out.Close()
		n.mu.Unlock()
		n.wg.Wait()
	})
	return n
}

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (n *nat) address() netip.AddrPort { return n.in.LocalAddr().(*net.UDPAddr).AddrPort() }

func (n *nat) outside() netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.out.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (n *nat) forwarded() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count
}

// rebind moves the outside to another port; packets to the old one are lost.
func (n *nat) rebind(t *testing.T) {
	t.Helper()
	out := listenUDP(t)
	n.mu.Lock()
	old := n.out
	n.out = out
	n.mu.Unlock()
	if old != nil {
		old.Close()
	}
	n.wg.Go(func() { n.backward(out) })
}

func (n *nat) forward() {
	buf := make([]byte, 1<<16)
	for {
		k, from, err := n.in.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		n.client = from
		n.count++
		n.out.WriteToUDPAddrPort(buf[:k], n.server)
		n.mu.Unlock()
	}
}

func (n *nat) backward(out *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		k, _, err := out.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		n.in.WriteToUDPAddrPort(buf[:k], n.client)
		n.mu.Unlock()
	}
}
