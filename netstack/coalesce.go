package netstack

import (
	"bytes"
	"math"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A coalescer joins consecutive TCP segments of one flow into one long one (GRO),
// so that TCP works once for dozens of packets. What it cannot join passes
// through. It looks at one batch at a time and keeps nothing, so it delays
// nothing, and the order within a flow stays.
//
// Segments are joined if the second begins where the first ends, and headers
// differ in nothing but sequence number, length, checksum and PSH: above all not
// in an acknowledgement, a window, a timestamp or a SACK block. Checksums of what
// is joined are not put right: nobody looks at them (linkEndpoint.Capabilities).
type coalescer struct {
	packets [batchSize][]byte // of the batch, not copied
	next    [batchSize]uint8  // by packet: which one follows in its run
	count   int               // of packets

	runs [batchSize]run
	used int // of runs

	// latest is the last run of each flow, by a hash of its ports: its place in
	// runs plus one. A flow that lost its place to another begins a new run.
	latest [64]uint8
}

// A run is the packets of a batch that are delivered as one.
type run struct {
	first, last uint8  // packets, by their place in the batch
	open        bool   // whether it may go on
	push        bool   // whether a packet after the first has PSH
	headers     int    // bytes, IPv6 and TCP
	size        int    // bytes of the whole, headers included
	seq         uint32 // that would follow
}

var coalescers = sync.Pool{New: func() any { return new(coalescer) }}

// add takes p, which is an IPv6 packet that link.admits admitted, into the batch,
// which has room. The caller leaves p alone until flush.
func (c *coalescer) add(p []byte) {
	i := uint8(c.count)
	c.packets[i] = p
	c.count++
	r := run{first: i, last: i, size: len(p)}
	slot := 0
	if len(p) >= header.IPv6MinimumSize+header.TCPMinimumSize {
		tcp := header.TCP(p[header.IPv6MinimumSize:])
		slot = int(tcp.SourcePort()^tcp.DestinationPort()) % len(c.latest)
		r.headers = header.IPv6MinimumSize + int(tcp.DataOffset())
		r.seq = tcp.SequenceNumber() + uint32(len(p)-r.headers)
		r.push = tcp.Flags().Contains(header.TCPFlagPsh)
		r.open = tcp.DataOffset() >= header.TCPMinimumSize && len(p) > r.headers &&
			tcp.Flags()&^header.TCPFlagPsh == header.TCPFlagAck
	}
	if at := c.latest[slot]; at > 0 && r.open {
		if b := &c.runs[at-1]; b.takes(c.packets[b.first], p, r) {
			c.next[b.last] = i
			b.last, b.seq = i, r.seq
			b.size += r.size - r.headers
			b.push = b.push || r.push
			return
		}
	}
	c.runs[c.used] = r
	c.used++
	c.latest[slot] = uint8(c.used)
}

// flush hands the batch to d, copied, and begins the next.
func (c *coalescer) flush(d stack.NetworkDispatcher) {
	for i := range c.used {
		p := c.join(&c.runs[i])
		d.DeliverNetworkPacket(header.IPv6ProtocolNumber, p)
		p.DecRef()
	}
	clear(c.packets[:c.count])
	c.count, c.used = 0, 0
	clear(c.latest[:])
}

// takes reports whether p, which would be the run r, continues the run b, which
// begins with first.
func (b *run) takes(first, p []byte, r run) bool {
	if !b.open || b.headers != r.headers || b.size+len(p)-r.headers > math.MaxUint16 {
		return false
	}
	tcp := header.TCP(p[header.IPv6MinimumSize:])
	return b.seq == tcp.SequenceNumber() && sameFlow(first[:r.headers], p[:r.headers])
}

// sameFlow compares headers, IPv6 and TCP, of one length.
func sameFlow(a, b []byte) bool {
	const (
		length   = 4                               // of the payload, and the next header, which is TCP
		hops     = 7                               // hop limit, then the addresses
		tcp      = header.IPv6MinimumSize          // ports
		seq      = tcp + header.TCPSeqNumOffset    //
		ack      = tcp + header.TCPAckNumOffset    // and the data offset
		flags    = tcp + header.TCPFlagsOffset     //
		window   = tcp + header.TCPWinSizeOffset   //
		sum      = tcp + header.TCPChecksumOffset  //
		urgent   = tcp + header.TCPUrgentPtrOffset // and options
		withPush = byte(header.TCPFlagPsh)         //
	)
	return bytes.Equal(a[:length], b[:length]) &&
		bytes.Equal(a[hops:seq], b[hops:seq]) &&
		bytes.Equal(a[ack:flags], b[ack:flags]) &&
		a[flags]|withPush == b[flags]|withPush &&
		bytes.Equal(a[window:sum], b[window:sum]) &&
		bytes.Equal(a[urgent:], b[urgent:])
}

// join returns the packets of r as one. Headers have memory of their own: the stack
// copies all that a header shares memory with when it reads it again.
func (c *coalescer) join(r *run) *stack.PacketBuffer {
	first := c.packets[r.first]
	headers := min(r.headers, len(first))
	if headers == 0 {
		headers = len(first)
	}
	head := buffer.NewView(headers)
	head.Write(first[:headers])
	if r.first != r.last {
		ip := header.IPv6(head.AsSlice())
		ip.SetPayloadLength(uint16(r.size - header.IPv6MinimumSize))
		if r.push {
			tcp := header.TCP(ip[header.IPv6MinimumSize:])
			tcp.SetFlags(uint8(tcp.Flags() | header.TCPFlagPsh))
		}
	}
	whole := buffer.MakeWithView(head)
	if r.size > headers {
		data := buffer.NewView(r.size - headers)
		data.Write(first[headers:])
		for i := r.first; i != r.last; {
			i = c.next[i]
			data.Write(c.packets[i][headers:])
		}
		whole.Append(data)
	}
	return stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: whole})
}
