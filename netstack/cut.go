package netstack

import (
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A piece is what of a packet's payload is sent.
type piece struct {
	packet   *stack.PacketBuffer // with a reference
	size     int                 // of the payload of each packet of the tunnel; 0: packet is one, as it is
	from, to int                 // the part of the payload

	// What to say of the other direction, if size is not 0.
	ack    uint32
	window uint16
}

// whole returns all of p, with its reference.
func whole(p *stack.PacketBuffer, mtu int) piece {
	w := piece{packet: p, size: cuts(p, mtu)}
	if w.size > 0 {
		tcp := header.TCP(p.TransportHeader().Slice())
		w.to, w.ack, w.window = p.Data().Size(), tcp.AckNumber(), tcp.WindowSize()
	}
	return w
}

// cuts returns the payload of each packet of the tunnel, but the last, that p is to
// be cut into, or 0 if p is one.
func cuts(p *stack.PacketBuffer, mtu int) int {
	gso := p.GSOOptions
	if gso.Type != stack.GSOTCPv6 || !gso.NeedsCsum {
		return 0
	}
	size := mtu - header.IPv6MinimumSize - len(p.TransportHeader().Slice())
	if mss := int(gso.MSS); mss > 0 && mss < size {
		size = mss
	}
	return size
}

// A cutter takes packets of the TCP stack apart into packets of the tunnel. TCP
// hands out segments many times as long as the MTU (GSO), so that it works once
// for dozens of packets; they are cut here, straight into WireGuard's buffers.
// The zero cutter is empty. It is not safe for concurrent use.
type cutter struct {
	packet *stack.PacketBuffer // being cut, with a reference; nil: none
	rest   reader              // of its payload
	left   int                 // bytes of it
	size   int                 // payload of each packet but the last
	seq    uint32              // of the next

	// headers are those of the packet, IPv6 and TCP, as they are in the first of
	// its segments.
	headers [header.IPv6MinimumSize + header.TCPHeaderMaximumSize]byte
	length  int
}

// done reports whether there is nothing left to cut.
func (c *cutter) done() bool { return c.packet == nil }

// start makes p, whose reference becomes the cutter's, what is cut next. It reports
// false if p is to be sent as it is.
func (c *cutter) start(p piece) bool {
	if p.size == 0 {
		return false
	}
	c.packet = p.packet
	c.rest = newReader(p.packet)
	c.length = header.IPv6MinimumSize + len(p.packet.TransportHeader().Slice())
	c.rest.read(c.headers[:c.length])
	c.rest.skip(p.from)
	c.left, c.size = p.to-p.from, p.size
	tcp := header.TCP(c.headers[header.IPv6MinimumSize:])
	tcp.SetAckNumber(p.ack)
	tcp.SetWindowSize(p.window)
	c.seq = tcp.SequenceNumber() + uint32(p.from)
	if p.to < p.packet.Data().Size() {
		tcp.SetFlags(uint8(tcp.Flags() &^ (header.TCPFlagFin | header.TCPFlagPsh)))
	}
	return true
}

// next writes the next packet to dst and returns its length. The last one lets
// go of what was cut.
func (c *cutter) next(dst []byte) int {
	n := min(c.left, c.size)
	dst = dst[:c.length+n]
	copy(dst, c.headers[:c.length])
	c.rest.read(dst[c.length:])
	c.left -= n

	ip, tcp := header.IPv6(dst), header.TCP(dst[header.IPv6MinimumSize:])
	ip.SetPayloadLength(uint16(len(tcp)))
	tcp.SetSequenceNumber(c.seq)
	c.seq += uint32(n)
	if c.left > 0 {
		tcp.SetFlags(uint8(tcp.Flags() &^ (header.TCPFlagFin | header.TCPFlagPsh)))
	}
	tcp.SetChecksum(0)
	tcp.SetChecksum(^checksum.Checksum(tcp, pseudoHeader(ip)))
	if c.left == 0 {
		c.drop()
	}
	return len(dst)
}

// drop lets go of what is left.
func (c *cutter) drop() {
	if c.packet != nil {
		c.packet.DecRef()
		*c = cutter{}
	}
}

// pseudoHeader returns the checksum of ip's part in the TCP checksum (RFC 8200,
// section 8.1).
func pseudoHeader(ip header.IPv6) uint16 {
	const addresses, length = 8, 2 * header.IPv6AddressSize
	sum := checksum.Checksum(ip[addresses:addresses+length], uint16(header.TCPProtocolNumber))
	return checksum.Combine(sum, ip.PayloadLength())
}

// A reader reads a packet's bytes without a copy of its own. It holds no
// reference.
type reader struct {
	view *buffer.View
	at   int // in view
}

func newReader(p *stack.PacketBuffer) reader {
	views, offset := p.AsViewList()
	return reader{views.Front(), offset}
}

// read fills b and returns its length, or less at the packet's end.
func (r *reader) read(b []byte) int {
	n := 0
	for r.view != nil {
		k := copy(b[n:], r.view.AsSlice()[r.at:])
		n += k
		r.at += k
		if r.at < r.view.Size() {
			break
		}
		r.view, r.at = r.view.Next(), 0
	}
	return n
}

// skip reads n bytes, which are nobody's.
func (r *reader) skip(n int) {
	for n > 0 && r.view != nil {
		k := min(n, r.view.Size()-r.at)
		n -= k
		if r.at += k; r.at == r.view.Size() {
			r.view, r.at = r.view.Next(), 0
		}
	}
}
