package netstack

import (
	"math"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// batchSize is how many packets WireGuard takes or hands over at a time.
const batchSize = conn.IdealBatchSize

// A link is the wire between the TCP stack and the WireGuard device. It has a
// face for each, since both ask for an MTU method and want different ones.
type link struct {
	// Static after newLink.
	address [16]byte
	mtu     int
	ring    *ring
	events  chan tun.Event
	close   sync.Once

	// Set when the stack makes its NIC and unset when it removes it: before the
	// device starts and after it has stopped.
	dispatcher stack.NetworkDispatcher

	credits  credits
	paths    paths
	pathMTUs pathMTUs

	// Owned by tunDevice.Read: what was taken from the ring and not sent yet.
	batch   [8]piece
	waiting []piece // a part of batch
	packets [8]*stack.PacketBuffer
	cut     cutter
}

func newLink(address netip.Addr, mtu int) *link {
	l := &link{address: address.As16(), mtu: mtu, ring: newRing(), events: make(chan tun.Event)}
	l.credits.init()
	l.paths = paths{clock: tcpip.NewStdClock(), wake: l.ring.stir, longRTT: longRTT, byPeer: map[[16]byte]*path{}}
	return l
}

// admits reports whether packet, from a peer, may enter the host: plain TCP to
// the host's own address. Everything else has no business here, and some of it
// could do harm: ICMP errors could end connections to other peers, extension
// headers and fragments (RFC 8200, section 4) take memory to reassemble.
func (l *link) admits(packet []byte) bool {
	if len(packet) < header.IPv6MinimumSize || packet[0]>>4 != 6 {
		return false
	}
	ip := header.IPv6(packet)
	return ip.NextHeader() == uint8(header.TCPProtocolNumber) &&
		header.IPv6MinimumSize+int(ip.PayloadLength()) == len(packet) &&
		[16]byte(packet[24:40]) == l.address
}

// tunDevice is the link as WireGuard sees it.
type tunDevice struct{ *link }

var _ tun.Device = tunDevice{}

// Read moves packets from the ring into bufs, long segments cut to the MTU. It
// waits for the first, and for room in the device.
func (t tunDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if !t.fill(true) {
		return 0, os.ErrClosed
	}
	room := t.credits.take(min(len(bufs), batchSize))
	if room == 0 {
		t.drop()
		return 0, os.ErrClosed
	}
	n := 0
	for ; n < room && t.fill(false); n++ {
		sizes[n] = t.next(bufs[n][offset:])
	}
	t.credits.release(room - n)
	return n, nil
}

// fill sees to it that there is something to send, and reports whether there is:
// if wait is set, unless the link is closed.
func (t tunDevice) fill(wait bool) bool {
	if !t.cut.done() || len(t.waiting) > 0 {
		return true
	}
	for {
		n := t.ring.pop(t.packets[:])
		for i, p := range t.packets[:n] {
			t.batch[i], t.packets[i] = whole(p, t.mtuTo(p)), nil
		}
		if n == 0 {
			n = t.paths.take(t.batch[:])
		}
		t.waiting = t.batch[:n]
		if n > 0 || !wait {
			return n > 0
		}
		if !t.ring.wait() {
			return false
		}
	}
}

// next writes the next packet to dst and returns its length.
func (t tunDevice) next(dst []byte) int {
	if t.cut.done() {
		p := t.waiting[0]
		t.waiting[0] = piece{}
		t.waiting = t.waiting[1:]
		if !t.cut.start(p) {
			defer p.packet.DecRef()
			r := newReader(p.packet)
			return r.read(dst)
		}
	}
	return t.cut.next(dst)
}

// drop lets go of what was to be sent.
func (t tunDevice) drop() {
	t.cut.drop()
	for _, p := range t.waiting {
		p.packet.DecRef()
	}
	t.waiting = nil
}

// Write hands the packets of one peer to the stack. It is called concurrently
// for different peers.
func (t tunDevice) Write(bufs [][]byte, offset int) (int, error) {
	c := coalescers.Get().(*coalescer)
	defer coalescers.Put(c)
	var from *path
	for batch := range slices.Chunk(bufs, batchSize) {
		for _, b := range batch {
			p := b[offset:]
			if t.heed(p) || !t.admits(p) {
				continue
			}
			if peer := [16]byte(p[8:24]); !t.paths.off && (from == nil || from.peer != peer) {
				from = t.paths.to(peer)
			}
			if from != nil {
				from.heard(p)
			}
			c.add(p)
		}
		c.flush(t.dispatcher)
	}
	return len(bufs), nil
}

func (t tunDevice) Close() error {
	t.close.Do(func() {
		t.ring.close()
		t.paths.close()
		t.credits.close()
		close(t.events)
	})
	return nil
}

func (t tunDevice) MTU() (int, error)        { return t.mtu, nil }
func (t tunDevice) BatchSize() int           { return batchSize }
func (t tunDevice) Events() <-chan tun.Event { return t.events }
func (t tunDevice) Name() (string, error)    { return "postern", nil }
func (t tunDevice) File() *os.File           { return nil }

// linkEndpoint is the link as the TCP stack sees it.
type linkEndpoint struct{ *link }

var (
	_ stack.LinkEndpoint = linkEndpoint{}
	_ stack.GSOEndpoint  = linkEndpoint{}
)

// WritePackets queues packets for WireGuard. The stack keeps its own references.
func (e linkEndpoint) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	for i, p := range packets.AsSlice() {
		if !e.ring.push(p) {
			return i, &tcpip.ErrClosedForSend{}
		}
	}
	return packets.Len(), nil
}

// SupportedGSO says that segments may be longer than the MTU.
func (e linkEndpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize bounds a segment with its headers, such that the longest is cut into
// full packets: TCP leaves room for the longest headers, and one byte, and its
// packets carry what remains of the MTU beside the longest options.
func (e linkEndpoint) GSOMaxSize() uint32 {
	const spare = header.TCPTotalHeaderMaximumSize + 1
	payload := e.mtu - header.IPv6MinimumSize - header.TCPHeaderMaximumSize
	return uint32((math.MaxUint16-spare)/payload*payload + spare)
}

// Capabilities says that checksums of what comes in are good: each packet was
// authenticated as a whole.
func (e linkEndpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func (e linkEndpoint) Attach(d stack.NetworkDispatcher)        { e.dispatcher = d }
func (e linkEndpoint) IsAttached() bool                        { return e.dispatcher != nil }
func (e linkEndpoint) MTU() uint32                             { return uint32(e.mtu) }
func (e linkEndpoint) SetMTU(uint32)                           {}
func (e linkEndpoint) MaxHeaderLength() uint16                 { return 0 }
func (e linkEndpoint) LinkAddress() tcpip.LinkAddress          { return "" }
func (e linkEndpoint) SetLinkAddress(tcpip.LinkAddress)        {}
func (e linkEndpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (e linkEndpoint) AddHeader(*stack.PacketBuffer)           {}
func (e linkEndpoint) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (e linkEndpoint) SetOnCloseAction(func())                 {}
func (e linkEndpoint) Wait()                                   {}
func (e linkEndpoint) Close()                                  {}

// A queue is the ring as the stack's queueing discipline: there is none.
type queue struct{ *link }

var _ stack.QueueingDiscipline = queue{}

// WritePacket queues p for WireGuard. The stack keeps its own reference.
func (q queue) WritePacket(p *stack.PacketBuffer) tcpip.Error {
	if !q.paths.add(p, q.mtuTo(p)) && !q.ring.push(p) {
		return &tcpip.ErrClosedForSend{}
	}
	return nil
}

func (q queue) Close() {}
