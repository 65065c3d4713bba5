package netstack

import (
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// MinPathMTU is the least that a path to a peer has to carry inside the tunnel, in bytes:
// what a path of 1280 does (RFC 8200, section 5), which is the least that IPv6 has. It is
// less than a link of IPv6 must have, and that is no matter: TCP is all that there is, and
// its packets are cut to what passes.
const MinPathMTU = MinMTU - Overhead - 48

// Overhead is what WireGuard adds to a packet (whitepaper, section 5.4.6), beside the
// headers of UDP and IP.
const Overhead = 32

// Headers returns how much longer a packet in the tunnel is on its way to addr, over UDP.
func Headers(addr netip.Addr) int {
	ip := header.IPv6MinimumSize
	if addr.Unmap().Is4() {
		ip = header.IPv4MinimumSize
	}
	return Overhead + header.UDPMinimumSize + ip
}

// padding is to what WireGuard fills a packet up, unless that is longer than the MTU.
const padding = 16

// PathMTUs are how long packets to peers may be, where the path carries less than the
// tunnel's MTU. The link cuts what it sends to a peer to that, whatever TCP takes for its
// segment size, so that connections that are open, too, go on when a path carries less.
type pathMTUs struct {
	some atomic.Bool // there are any

	mu     sync.RWMutex
	byPeer map[[16]byte]int
}

// to returns how long packets to peer may be, where the tunnel's MTU is mtu.
func (m *pathMTUs) to(peer [16]byte, mtu int) int {
	if !m.some.Load() {
		return mtu
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if n, ok := m.byPeer[peer]; ok {
		return n
	}
	return mtu
}

// set makes packets to peer as long as n allows, where the tunnel's MTU is mtu.
func (m *pathMTUs) set(peer [16]byte, n, mtu int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n >= mtu {
		delete(m.byPeer, peer)
	} else {
		if m.byPeer == nil {
			m.byPeer = map[[16]byte]int{}
		}
		m.byPeer[peer] = max(n, MinPathMTU) / padding * padding
	}
	m.some.Store(len(m.byPeer) > 0)
}

// keep forgets all but the given peers.
func (m *pathMTUs) keep(peers map[netip.Addr]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for peer := range m.byPeer {
		if !peers[netip.AddrFrom16(peer)] {
			delete(m.byPeer, peer)
		}
	}
	m.some.Store(len(m.byPeer) > 0)
}

// mtuTo returns how long packets may be that go where p does.
func (l *link) mtuTo(p *stack.PacketBuffer) int {
	ip := header.IPv6(p.NetworkHeader().Slice())
	if len(ip) < header.IPv6MinimumSize || !l.pathMTUs.some.Load() {
		return l.mtu
	}
	return l.pathMTUs.to([16]byte(ip[24:40]), l.mtu)
}

// tooBigSize is how long a packet is that says how long others may be: an ICMPv6 Packet
// Too Big (RFC 4443, section 3.2). There is no packet in it that was too big: whose was
// lost, nobody knows.
const tooBigSize = header.IPv6MinimumSize + header.ICMPv6PacketTooBigMinimumSize

// tooBig is a packet by which from tells to how long packets to it may be.
func tooBig(from, to [16]byte, mtu int) []byte {
	b := make([]byte, tooBigSize)
	src, dst := tcpip.AddrFrom16(from), tcpip.AddrFrom16(to)
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: header.ICMPv6PacketTooBigMinimumSize, TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit: 1, SrcAddr: src, DstAddr: dst,
	})
	icmp := header.ICMPv6(b[header.IPv6MinimumSize:])
	icmp.SetType(header.ICMPv6PacketTooBig)
	icmp.SetMTU(uint32(mtu))
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: icmp, Src: src, Dst: dst}))
	return b
}

// heed learns from packet, if it is a tooBig of a peer's, how long packets to that may
// be, and reports whether it was one. It counts as it is, for more and for less: a peer
// speaks for itself alone, and WireGuard has seen to it that it is that peer.
func (l *link) heed(packet []byte) bool {
	if len(packet) != tooBigSize || packet[0]>>4 != 6 ||
		header.IPv6(packet).NextHeader() != uint8(header.ICMPv6ProtocolNumber) ||
		packet[header.IPv6MinimumSize] != byte(header.ICMPv6PacketTooBig) || [16]byte(packet[24:40]) != l.address {
		return false
	}
	mtu := binary.BigEndian.Uint32(packet[tooBigSize-4:])
	l.pathMTUs.set([16]byte(packet[8:24]), int(min(mtu, math.MaxUint16)), l.mtu)
	return true
}

// MTU returns the tunnel's MTU.
func (n *Net) MTU() int { return n.link.mtu }

// SetPathMTU says that packets of mtu bytes and no longer ones pass to the peer with that
// address and back: it sends none, and asks the peer to send none, which is not answered
// and may be lost. Connections go on. What is below MinPathMTU counts as that, and what is
// above the tunnel's MTU as none.
func (n *Net) SetPathMTU(peer netip.Addr, mtu int) error {
	if n.isClosed() {
		return net.ErrClosed
	}
	if err := n.reachable(peer); err != nil {
		return err
	}
	to := peer.As16()
	n.link.pathMTUs.set(to, mtu, n.link.mtu)
	told := n.link.pathMTUs.to(to, n.link.mtu)
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(tooBig(n.link.address, to, told))})
	defer p.DecRef()
	if !n.link.ring.push(p) {
		return net.ErrClosed
	}
	return nil
}

// Timeouts returns how often TCP has waited in vain for an acknowledgement, all
// connections told. It grows when the path to a peer loses all long packets.
func (n *Net) Timeouts() uint64 { return n.stack.Stats().TCP.Timeouts.Value() }
