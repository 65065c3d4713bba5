//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"postern"
	"postern/internal/datadir"
	"postern/internal/member"
	"postern/internal/proxyproto"
	"postern/netstack"
)

// I3: a node that lies to its own WireGuard about who is where, and about who it
// is itself, reaches no other node, of its own tenant or of another, through the
// gateway or past it. (Packets other than TCP are tried in netstack's own tests.)
func TestIsolationI3NodeToNode(t *testing.T) {
	s := newStreet(t)
	gateway := s.gatewayPeer()
	mallory := newStranger(s.deployment, s.token("acme")).mustJoin("mallory")
	s.reachGateway(mallory, gateway)
	tries := 0
	for _, name := range []string{"acme-office", "globex-office"} {
		victim := s.nodeState(name)
		before := s.received(name)
		through, direct := gateway, netstack.Peer{PublicKey: victim.WireGuard, Address: victim.Address}
		through.Address = victim.Address
		direct.Endpoint = netip.MustParseAddrPort(victim.Tunnels[0].Endpoint)
		for _, tt := range []struct {
			name string
			self netip.Addr
			peer netstack.Peer
			dst  netip.Addr
		}{
			{"through the gateway", mallory.enrollment.Address, through, victim.Address},
			{"through the gateway, as the gateway", gateway.Address, through, victim.Address},
			{"through the gateway, as another node", neighbour(victim.Address), through, victim.Address},
			{"to the gateway, as the victim", victim.Address, gateway, gateway.Address},
			{"to the victim's own port", mallory.enrollment.Address, direct, victim.Address},
		} {
			n := overlay(t, mallory.wireguard, tt.self, 0, tt.peer)
			tries += s.silence(n, tt.name+" to "+name, tt.dst)
			n.Close()
		}
		// An answer to a forged source, and a packet passed on, would arrive here.
		if grown := s.received(name) - before; grown > 4<<10 {
			t.Errorf("%s received %d bytes meanwhile", name, grown)
		}
	}
	s.reachGateway(mallory, gateway) // the tunnel worked all along
	passed(t, "I3 node to another node", tries)
}

// reachGateway checks that n's owner has a working tunnel: the gateway refuses a
// connection, which takes an answer.
func (s *street) reachGateway(m *stranger, gateway netstack.Peer) {
	s.t.Helper()
	n := overlay(s.t, m.wireguard, m.enrollment.Address, 0, gateway)
	defer n.Close()
	eventually(s.t, 20*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c, err := n.DialContext(ctx, netip.AddrPortFrom(gateway.Address, 443))
		if err == nil {
			c.Close()
			s.t.Fatal("the gateway takes connections over the overlay")
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("dial of the gateway: got %w, want ECONNREFUSED", err)
		}
		return nil
	})
}

// received is what a node had from its gateway so far, in bytes.
func (s *street) received(name string) uint64 {
	s.t.Helper()
	tunnels := s.nodeStatus(name).Tunnels
	if len(tunnels) != 1 {
		s.t.Fatalf("%s has %d tunnels, want one", name, len(tunnels))
	}
	return tunnels[0].Received
}

// neighbour returns another address of the same tenant.
func neighbour(a netip.Addr) netip.Addr { return a.Next().Next() }

// silence dials many ports of dst at once and checks that nothing answers, not
// even a refusal. It returns how many.
func (s *street) silence(n *netstack.Net, what string, dst netip.Addr) int {
	s.t.Helper()
	ports := []uint16{22, 53, 80, 443, 8080, 8443, 9000, uint16(s.udp), uint16(s.https), uint16(s.control)}
	for port := uint16(1024); port < 1224; port++ {
		ports = append(ports, port)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var work errgroup.Group
	for _, port := range ports {
		work.Go(func() error {
			c, err := n.DialContext(ctx, netip.AddrPortFrom(dst, port))
			if err == nil {
				c.Close()
				return fmt.Errorf("%s: port %d takes connections", what, port)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("%s: port %d answered: %w", what, port, err)
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		s.t.Error(err)
	}
	return len(ports)
}

// I4: a node reaches nothing at the gateway over the overlay: all ports refuse,
// and what listens on the gateway's machine hears nothing.
func TestIsolationI4NodeToGateway(t *testing.T) {
	s := newStreet(t)
	gateway := s.gatewayPeer()
	mallory := newStranger(s.deployment, s.token("acme")).mustJoin("mallory")
	s.reachGateway(mallory, gateway)

	canary, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer canary.Close()
	var heard atomic.Int64
	var listening sync.WaitGroup
	defer listening.Wait()
	defer canary.Close()
	listening.Go(func() {
		for {
			c, err := canary.Accept()
			if err != nil {
				return
			}
			heard.Add(1)
			c.Close()
		}
	})
	port := uint16(canary.Addr().(*net.TCPAddr).Port)
	tries := s.scan(mallory.wireguard, mallory.enrollment.Address, gateway, 0, nil)

	// Addresses that a host could take for its own, or translate to its own.
	for _, addr := range append(hostAddrs(t), "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::1") {
		lie := gateway
		lie.Address = netip.MustParseAddr(addr)
		n := overlay(t, mallory.wireguard, mallory.enrollment.Address, 0, lie)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if c, err := n.DialContext(ctx, netip.AddrPortFrom(lie.Address, port)); err == nil {
			c.Close()
			t.Errorf("%v port %d takes connections", lie.Address, port)
		}
		cancel()
		n.Close()
		tries++
	}
	if got := heard.Load(); got != 0 {
		t.Errorf("the listener of the gateway's machine had %d connections", got)
	}
	c, err := net.Dial("tcp", loopback(int(port)))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	eventually(t, 5*time.Second, func() error {
		if heard.Load() != 1 {
			return errors.New("the listener is deaf")
		}
		return nil
	})
	passed(t, "I4 node to a service of the gateway", tries)
}

// hostAddrs returns the IPv6 addresses of this machine that an overlay could have.
func hostAddrs(t *testing.T) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsGlobalUnicast() {
			all = append(all, p.Addr().String())
		}
	}
	return all
}

// scan dials every port of peer, as a host with that key and address, and
// checks that just those in open take connections and all others refuse. It
// returns how many ports that were.
func (s *street) scan(key postern.WireGuardPrivate, self netip.Addr, peer netstack.Peer, udp int, open []uint16) int {
	s.t.Helper()
	n := overlay(s.t, key, self, udp, peer)
	defer n.Close()
	want := map[uint16]bool{}
	for _, port := range open {
		want[port] = true
	}
	ports := make(chan uint16)
	var work errgroup.Group
	for range 128 {
		work.Go(func() error {
			var wrong error
			for port := range ports {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				c, err := n.DialContext(ctx, netip.AddrPortFrom(peer.Address, port))
				cancel()
				if err == nil {
					c.Close()
				}
				if (err == nil) != want[port] || err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
					wrong = errors.Join(wrong, fmt.Errorf("port %d: got %v, want open %t", port, err, want[port]))
				}
			}
			return wrong
		})
	}
	const last = 65535
	for port := 1; port <= last; port++ {
		ports <- uint16(port)
	}
	close(ports)
	if err := work.Wait(); err != nil {
		s.t.Error(err)
	}
	return last
}

// I5: with all that a gateway has, its identity and its tunnels, nothing of a
// node is reached but its HTTPS port; and there, no site but one of its own
// under the very name that the gateway says it routed by.
func TestIsolationI5GatewayToNode(t *testing.T) {
	s := newStreet(t)
	node := s.nodeState("acme-office")
	s.gateway.kill()
	dir, err := datadir.Open(s.data("gateway"), postern.RoleGateway)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	id, err := member.LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	peer := netstack.Peer{
		PublicKey: node.WireGuard, Address: node.Address, Endpoint: netip.MustParseAddrPort(node.Tunnels[0].Endpoint),
	}
	tries := s.scan(id.WireGuard, id.Enrollment.Address, peer, s.udp, []uint16{postern.HTTPSPort})

	n := overlay(t, id.WireGuard, id.Enrollment.Address, s.udp, peer)
	acme, globex := "acme."+base, "globex."+base
	header := func(authority string) []byte {
		client := netip.MustParseAddrPort("198.51.100.9:1234")
		b, err := proxyproto.Header{Src: client, Dst: client, Authority: authority, UniqueID: "1"}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name   string
		header []byte
		server string
		good   bool
	}{
		{"routed by its name", header(acme), acme, true},
		{"no header", nil, acme, false},
		{"routed by another service's name", header("books." + acme), acme, false},
		{"routed by another tenant's name", header(globex), acme, false},
		{"another tenant's name", header(globex), globex, false},
		{"no server name", header(acme), "", false},
		{"a header of another protocol", []byte("PROXY TCP4 198.51.100.9 198.51.100.9 1 443\r\n"), acme, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := n.DialContext(ctx, netip.AddrPortFrom(node.Address, postern.HTTPSPort))
		if err != nil {
			t.Fatal(err)
		}
		c.Write(tt.header)
		err = tls.Client(c, &tls.Config{ServerName: tt.server, InsecureSkipVerify: true}).HandshakeContext(ctx)
		if (err == nil) != tt.good {
			t.Errorf("%s: TLS handshake: got %v, want success %t", tt.name, err, tt.good)
		}
		c.Close()
		cancel()
		tries++
	}
	passed(t, "I5 gateway to anything but a node's HTTPS", tries)
	proved(t, 5, "It cannot lead people elsewhere, or speak to anything but the site they asked for.",
		fmt.Sprintf("With a gateway's keys, %d ports of a node were tried, and its HTTPS port with one name in the gateway's header and another in the hello, "+
			"with another company's name, with none, and with a forged header.", tries),
		"Nothing but the HTTPS port answered, and no handshake was done but for a name of the node's own that the gateway had routed by.")
}
