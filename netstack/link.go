package netstack

import (
	"net/netip"
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
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

	// Owned by tunDevice.Read.
	batch [batchSize]*stack.PacketBuffer
}

func newLink(address netip.Addr, mtu int) *link {
	return &link{address: address.As16(), mtu: mtu, ring: newRing(), events: make(chan tun.Event)}
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

// Read moves packets from the ring into bufs.
func (t tunDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n := t.ring.pop(t.batch[:min(len(bufs), batchSize)])
	if n == 0 {
		return 0, os.ErrClosed
	}
	for i, p := range t.batch[:n] {
		size := 0
		for _, part := range p.AsSlices() {
			size += copy(bufs[i][offset+size:], part)
		}
		sizes[i] = size
		p.DecRef()
		t.batch[i] = nil
	}
	return n, nil
}

// Write hands the packets of one peer to the stack. It is called concurrently
// for different peers.
func (t tunDevice) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		if !t.admits(b[offset:]) {
			continue
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b[offset:])})
		t.dispatcher.DeliverNetworkPacket(header.IPv6ProtocolNumber, p)
		p.DecRef()
	}
	return len(bufs), nil
}

func (t tunDevice) Close() error {
	t.close.Do(func() {
		t.ring.close()
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

var _ stack.LinkEndpoint = linkEndpoint{}

// WritePackets queues packets for WireGuard. The stack keeps its own references.
func (e linkEndpoint) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	for i, p := range packets.AsSlice() {
		if !e.ring.push(p) {
			return i, &tcpip.ErrClosedForSend{}
		}
	}
	return packets.Len(), nil
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
