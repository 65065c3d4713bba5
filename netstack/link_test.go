package netstack

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/ipv6"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

var (
	hereAddr  = overlay(1)
	thereAddr = overlay(2)
	herePort  = netip.AddrPortFrom(hereAddr, 443)
	therePort = netip.AddrPortFrom(thereAddr, 1000)
)

func TestAdmits(t *testing.T) {
	l := newLink(hereAddr, 1420)
	good := syn(therePort, herePort)
	for _, tt := range []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"SYN", good, true},
		{"empty", nil, false},
		{"header cut short", good[:39], false},
		{"payload cut short", good[:len(good)-1], false},
		{"longer than it says", append(bytes.Clone(good), 0), false},
		{"IPv4", append([]byte{0x45}, good[1:]...), false},
		{"for another", syn(therePort, netip.AddrPortFrom(overlay(3), 443)), false},
		{"for all", syn(therePort, netip.MustParseAddrPort("[ff02::1]:443")), false},
		{"UDP", ipv6Packet(thereAddr, hereAddr, 17, make([]byte, 8)), false},
		{"ICMPv6", ipv6Packet(thereAddr, hereAddr, 58, make([]byte, 8)), false},
		{"fragment", ipv6Packet(thereAddr, hereAddr, 44, make([]byte, 8)), false},
		{"hop-by-hop options", ipv6Packet(thereAddr, hereAddr, 0, make([]byte, 8)), false},
		{"nothing", ipv6Packet(thereAddr, hereAddr, 59, nil), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := l.admits(tt.packet); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// Whatever a peer sends, only plain TCP to the host's address enters, and the
// host answers a packet with at most one, a TCP packet to the address that the
// packet came from.
func FuzzInbound(f *testing.F) {
	f.Add(syn(therePort, herePort))
	f.Add(syn(therePort, netip.AddrPortFrom(hereAddr, 80)))
	f.Add(syn(herePort, herePort))
	f.Add(ipv6Packet(thereAddr, hereAddr, 6, nil))
	f.Add(ipv6Packet(thereAddr, hereAddr, 6, bytes.Repeat([]byte{0xff}, 60)))
	f.Add(ipv6Packet(thereAddr, hereAddr, 58, []byte{128, 0, 0, 0, 0, 0, 0, 0}))
	f.Add(ipv6Packet(thereAddr, hereAddr, 44, make([]byte, 40)))
	f.Add([]byte{0x60})
	f.Fuzz(func(t *testing.T, packet []byte) {
		l := newLink(hereAddr, 1420)
		s, err := newStack(linkEndpoint{l}, queue{l}, hereAddr, plainTimeouts)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Destroy()
		const offset = 16
		before := bytes.Clone(packet)
		if n, err := (tunDevice{l}).Write([][]byte{append(make([]byte, offset), packet...)}, offset); n != 1 || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
		if entered, want := s.Stats().NICs.Rx.Packets.Value() == 1, admitsSlowly(before, hereAddr); entered != want {
			t.Fatalf("entered: got %v, want %v", entered, want)
		}
		l.ring.mu.Lock()
		defer l.ring.mu.Unlock()
		if l.ring.count > 1 {
			t.Fatalf("%d answers to one packet", l.ring.count)
		}
		for i := range l.ring.count {
			p := l.ring.packets[i].ToView().AsSlice()
			h, err := ipv6.ParseHeader(p)
			if err != nil {
				t.Fatal(err)
			}
			asked, err := ipv6.ParseHeader(before)
			if err != nil {
				t.Fatalf("an answer to no packet: %v", h)
			}
			if h.NextHeader != int(header.TCPProtocolNumber) || !h.Dst.Equal(asked.Src) || !h.Src.Equal(asked.Dst) {
				t.Fatalf("got the answer %v to %v", h, asked)
			}
		}
	})
}

// admitsSlowly is what admits should be, by another parser.
func admitsSlowly(packet []byte, here netip.Addr) bool {
	h, err := ipv6.ParseHeader(packet)
	return err == nil && h.Version == 6 && h.NextHeader == 6 && h.PayloadLen == len(packet)-ipv6.HeaderLen && h.Dst.Equal(here.AsSlice())
}

func numbered(i int) *stack.PacketBuffer {
	return stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData([]byte{byte(i), byte(i >> 8)})})
}

// push makes a packet, pushes it and lets go of it.
func (r *ring) pushNumbered(i int) bool {
	p := numbered(i)
	defer p.DecRef()
	return r.push(p)
}

func (r *ring) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// next is pop that waits for the first. It returns 0 once the ring is closed.
func (r *ring) next(dst []*stack.PacketBuffer) int {
	for {
		if n := r.pop(dst); n > 0 || !r.wait() {
			return n
		}
	}
}

func TestRingKeepsOrder(t *testing.T) {
	const packets = 10*ringSize + 7
	r := newRing()
	defer r.close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range packets {
			if !r.pushNumbered(i) {
				t.Error("push on an open ring was refused")
			}
		}
	}()
	dst := make([]*stack.PacketBuffer, 100)
	for next := 0; next < packets; {
		n := within(t, "pop", func() int { return r.next(dst) })
		if n == 0 || n > len(dst) {
			t.Fatalf("popped %d", n)
		}
		for _, p := range dst[:n] {
			b := p.ToView().AsSlice()
			if got := int(b[0]) | int(b[1])<<8; got != next {
				t.Fatalf("got packet %d, want %d", got, next)
			}
			p.DecRef()
			next++
		}
	}
	<-done
}

func TestFullRing(t *testing.T) {
	for _, tt := range []struct {
		name     string
		release  func(*ring)
		accepted bool // what the waiting push returns
		waiting  int  // in the ring after it
	}{
		{"pop", func(r *ring) { p := make([]*stack.PacketBuffer, 1); r.pop(p); p[0].DecRef() }, true, ringSize},
		{"lossy", func(r *ring) { r.setLossy(true) }, true, ringSize},
		{"close", func(r *ring) { r.close() }, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRing()
			defer r.close()
			for i := range ringSize {
				r.pushNumbered(i)
			}
			pushed := make(chan bool, 1)
			go func() { pushed <- r.pushNumbered(ringSize) }()
			select {
			case <-pushed:
				t.Fatal("push did not wait")
			default:
			}
			tt.release(r)
			if got := within(t, "push", func() bool { return <-pushed }); got != tt.accepted {
				t.Errorf("push: got %v, want %v", got, tt.accepted)
			}
			if got := r.waiting(); got != tt.waiting {
				t.Errorf("got %d packets in the ring, want %d", got, tt.waiting)
			}
		})
	}
}

// TestCrowdedRing: a ring says when many wait to write, and when they do not any more.
func TestCrowdedRing(t *testing.T) {
	r := newRing()
	for i := range ringSize {
		r.pushNumbered(i)
	}
	if r.crowded() {
		t.Error("a full ring that nobody waits for is crowded")
	}
	var writers sync.WaitGroup
	for range ringCrowd {
		writers.Go(func() { r.pushNumbered(0) })
	}
	eventually(t, "a crowd", r.crowded)
	r.close()
	writers.Wait()
	if r.crowded() {
		t.Error("crowded, and nobody waits")
	}
}

// TestRingIsNotOnePeers: what many send to one peer does not keep out what goes to another.
func TestRingIsNotOnePeers(t *testing.T) {
	r := newRing()
	defer r.close()
	long := make([]byte, 60<<10)
	for r.bytes < ringBytes {
		r.pushTo(1, long)
	}
	blocked := make(chan bool, 1)
	go func() { blocked <- r.pushTo(1, long) }()
	eventually(t, "a writer that waits", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.held == 1 })
	for range littleBytes/1000 + 1 {
		if !within(t, "push", func() bool { return r.pushTo(2, long[:960]) }) {
			t.Fatal("push was refused")
		}
	}
	select {
	case <-blocked:
		t.Error("the ring took more of the one peer")
	default:
	}
	empty := func() {
		dst := make([]*stack.PacketBuffer, ringSize)
		for _, p := range dst[:r.next(dst)] {
			p.DecRef()
		}
	}
	empty()
	if !within(t, "push", func() bool { return <-blocked }) {
		t.Error("push was refused")
	}
	empty()
	if r.count != 0 || r.bytes != 0 || len(r.byPeer) != 0 {
		t.Errorf("an empty ring has %d packets, %d bytes, of %d peers", r.count, r.bytes, len(r.byPeer))
	}
}

// pushTo makes a packet to peer n, pushes it and lets go of it.
func (r *ring) pushTo(n byte, payload []byte) bool {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.IPv6MinimumSize, Payload: buffer.MakeWithData(payload),
	})
	defer p.DecRef()
	to := overlay(n).As16()
	header.IPv6(p.NetworkHeader().Push(header.IPv6MinimumSize)).SetDestinationAddress(tcpip.AddrFrom16(to))
	return r.push(p)
}

func TestClosedRing(t *testing.T) {
	r := newRing()
	popped := make(chan int, 1)
	go func() { popped <- r.next(make([]*stack.PacketBuffer, 1)) }()
	r.close()
	if got := within(t, "pop", func() int { return <-popped }); got != 0 {
		t.Errorf("popped %d from a closed ring", got)
	}
	if r.pushNumbered(1) {
		t.Error("a closed ring took a packet")
	}
}

// The ring and the link let go of every packet exactly once.
func TestReferences(t *testing.T) {
	l := newLink(hereAddr, 1420)
	read, closed := numbered(1), numbered(2)
	l.ring.push(read)
	if n, err := (tunDevice{l}).Read([][]byte{make([]byte, 100)}, make([]int, 1), 16); n != 1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	l.ring.push(closed)
	(tunDevice{l}).Close()
	(tunDevice{l}).Close()
	for name, p := range map[string]*stack.PacketBuffer{"read": read, "closed": closed} {
		if got := p.ReadRefs(); got != 1 {
			t.Errorf("%s: got %d references, want ours alone", name, got)
		}
	}
}
