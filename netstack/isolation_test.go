package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// inject sends a packet to the peer that has its destination address, past the
// host's own TCP stack.
func (h *host) inject(t testing.TB, packet []byte) {
	t.Helper()
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet)})
	defer p.DecRef()
	if !h.link.ring.push(p) {
		t.Fatal("the ring is closed")
	}
}

// delivered is how many packets of peers entered the host.
func (h *host) delivered() uint64 { return h.stack.Stats().NICs.Rx.Packets.Value() }

// syn is a TCP packet that opens a connection.
func syn(src, dst netip.AddrPort) []byte {
	tcp := header.TCP(make([]byte, header.TCPMinimumSize))
	tcp.Encode(&header.TCPFields{
		SrcPort: src.Port(), DstPort: dst.Port(), SeqNum: 1,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1 << 15,
	})
	pseudo := header.PseudoHeaderChecksum(header.TCPProtocolNumber,
		tcpip.AddrFrom16(src.Addr().As16()), tcpip.AddrFrom16(dst.Addr().As16()), uint16(len(tcp)))
	tcp.SetChecksum(^tcp.CalculateChecksum(checksum.Checksum(nil, pseudo)))
	return ipv6Packet(src.Addr(), dst.Addr(), uint8(header.TCPProtocolNumber), tcp)
}

func ipv6Packet(src, dst netip.Addr, next uint8, payload []byte) []byte {
	p := header.IPv6(make([]byte, header.IPv6MinimumSize))
	p.Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(payload)), TransportProtocol: tcpip.TransportProtocolNumber(next), HopLimit: 64,
		SrcAddr: tcpip.AddrFrom16(src.As16()), DstAddr: tcpip.AddrFrom16(dst.As16()),
	})
	return append(p, payload...)
}

// A node that lies to its own WireGuard sends the gateway packets for others and
// from others. None goes anywhere: the gateway takes what is for itself, from
// the node's own address, and forwards nothing.
func TestNodeCannotReachNode(t *testing.T) {
	gateway, liar, victim := newHost(t, 2), newHost(t, 1), newHost(t, 3)
	gateway.mustSetPeers(t, liar.hidden(), victim.peer)
	toVictim := gateway.peer // "the gateway is the victim's address"
	toVictim.Address = victim.address
	liar.mustSetPeers(t, toVictim)
	victim.mustSetPeers(t, gateway.peer)
	victim.mustListen(t, 443)

	from, to := netip.AddrPortFrom(liar.address, 1000), netip.AddrPortFrom(victim.address, 443)
	fragment := []byte{uint8(header.TCPProtocolNumber), 0, 0, 1, 0, 0, 0, 1}
	echo := []byte{128, 0, 0, 0, 0, 0, 0, 0}
	for _, p := range [][]byte{
		syn(from, to),
		syn(netip.AddrPortFrom(gateway.address, 1000), to), // as if from the gateway
		syn(netip.AddrPortFrom(victim.address, 1000), to),
		ipv6Packet(from.Addr(), to.Addr(), 17, make([]byte, 8)), // UDP
		ipv6Packet(from.Addr(), to.Addr(), 58, echo),            // ICMPv6
		ipv6Packet(from.Addr(), to.Addr(), 44, append(fragment, make([]byte, 64)...)),
		ipv6Packet(from.Addr(), to.Addr(), 0, append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, echo...)),  // hop-by-hop
		ipv6Packet(from.Addr(), to.Addr(), 43, append([]byte{58, 0, 0, 0, 0, 0, 0, 0}, echo...)), // routing
		ipv6Packet(from.Addr(), to.Addr(), 41, syn(from, to)),                                    // IPv6 in IPv6
	} {
		liar.inject(t, p)
	}
	received := gateway.statusOf(t, liar).Received
	ctx, cancel := context.WithCancel(t.Context())
	dialed := make(chan error, 1)
	go func() { _, err := liar.DialContext(ctx, to); dialed <- err }()
	eventually(t, "the lies at the gateway", func() bool { return gateway.statusOf(t, liar).Received > received })

	// The control: once the liar tells the truth, its packets do enter, after
	// all the others on the same path.
	cancel()
	if err := within(t, "dial", func() error { return <-dialed }); !errors.Is(err, context.Canceled) {
		t.Errorf("dial of the victim: got %v, want to wait for ever", err)
	}
	liar.mustSetPeers(t, gateway.peer)
	if _, err := liar.DialContext(t.Context(), netip.AddrPortFrom(gateway.address, 443)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial of the gateway: got %v, want ECONNREFUSED", err)
	}
	if got := gateway.delivered(); got != 1 {
		t.Errorf("%d packets of the liar entered the gateway, want the control's alone", got)
	}
	// The gateway itself reaches the victim, so it could have forwarded, and its
	// own packets come after those that it would have.
	gateway.mustDial(t, to)
	if got := victim.delivered(); got < 1 || got > 2 {
		t.Errorf("%d packets reached the victim, want the gateway's SYN and ACK alone", got)
	}
}

// statusOf is the status of one peer among others.
func (h *host) statusOf(t testing.TB, peer *host) PeerStatus {
	t.Helper()
	for _, p := range h.Peers() {
		if p.PublicKey == peer.key {
			return p
		}
	}
	t.Fatalf("%v is no peer of %v", peer.address, h.address)
	panic("unreachable")
}

// A node cannot use another's address towards the gateway, not even one that the
// gateway knows, nor reach anything but the gateway's own address.
func TestForgedAddresses(t *testing.T) {
	node, gateway := newPair(t)
	other := Peer{PublicKey: Key{3}, Address: overlay(3)}
	gateway.mustSetPeers(t, node.hidden(), other)
	before := gateway.delivered()
	own := netip.AddrPortFrom(node.address, 1000)
	at := netip.AddrPortFrom(gateway.address, 443)
	loopback := netip.AddrPortFrom(netip.IPv6Loopback(), 443)
	allNodes := netip.MustParseAddrPort("[ff02::1]:443")
	for _, p := range [][]byte{
		syn(netip.AddrPortFrom(other.Address, 1000), at),
		syn(at, at),
		syn(loopback, at),
		syn(allNodes, at),
		syn(netip.MustParseAddrPort("[fe80::1]:1000"), at),
	} {
		node.inject(t, p)
	}
	// WireGuard takes the destination from its table: lie there for the rest.
	for i, to := range []netip.AddrPort{loopback, allNodes, netip.MustParseAddrPort("[::ffff:127.0.0.1]:443"), netip.AddrPortFrom(other.Address, 443)} {
		if err := node.device.IpcSet(fmt.Sprintf("public_key=%x\nallowed_ip=%v/128\n", gateway.key[:], to.Addr())); err != nil {
			t.Fatal(err)
		}
		received := gateway.statusOf(t, node).Received
		node.inject(t, syn(own, to))
		eventually(t, fmt.Sprint("lie ", i, " at the gateway"), func() bool { return gateway.statusOf(t, node).Received > received })
	}
	// The control.
	node.inject(t, syn(own, at))
	eventually(t, "packet in the host", func() bool { return gateway.delivered() > before })
	if got := gateway.delivered() - before; got != 1 {
		t.Errorf("%d packets entered, want the control's alone", got)
	}
}

// The gateway reaches the port that the node listens on, and no other.
func TestOnlyTheListenerAnswers(t *testing.T) {
	node, gateway := newPair(t)
	node.mustListen(t, 443)
	scan(t, gateway, node.address, map[uint16]bool{443: true})
}

// The gateway has no listener, so it refuses everything, also the ports that the
// machine itself listens on.
func TestGatewayRefusesEverything(t *testing.T) {
	node, gateway := newPair(t)
	machine, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	dst := netip.AddrPortFrom(gateway.address, addrPort(machine).Port())
	if _, err := node.DialContext(t.Context(), dst); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port of the machine: got %v, want ECONNREFUSED", err)
	}
	scan(t, node, gateway.address, nil)
}

// scan dials 1,000 ports and the usual suspects, and expects open to be open.
func scan(t *testing.T, from *host, to netip.Addr, open map[uint16]bool) {
	t.Helper()
	ports := make(chan uint16)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for port := range ports {
				c, err := from.DialContext(t.Context(), netip.AddrPortFrom(to, port))
				if err == nil {
					c.Close()
				}
				if open[port] && err != nil || !open[port] && !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("port %d: got %v, open %v", port, err, open[port])
				}
			}
		})
	}
	for port := range uint16(1000) {
		ports <- port + 1
	}
	for _, port := range []uint16{3389, 5432, 8080, 8443, 9000, 9090, 51820, 65535} {
		ports <- port
	}
	close(ports)
	wg.Wait()
}
