package netstack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"pgregory.net/rapid"
)

// A segment is a TCP segment from therePort to herePort.
type segment struct {
	src     netip.AddrPort // therePort if zero
	seq     uint32
	flags   header.TCPFlags
	window  uint16
	options []byte
	data    []byte
}

// ack is a segment with data that can be joined with others.
func ack(seq uint32, data string) segment {
	return segment{seq: seq, flags: header.TCPFlagAck, window: 1000, options: timestamps(1), data: []byte(data)}
}

// with returns s, changed.
func (s segment) with(change func(*segment)) segment {
	change(&s)
	return s
}

// timestamps are TCP options with the given TSval.
func timestamps(value uint32) []byte {
	b := []byte{1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 9}
	binary.BigEndian.PutUint32(b[4:], value)
	return b
}

// bytes returns s as an IPv6 packet, checksum and all.
func (s segment) bytes() []byte {
	src := s.src
	if !src.IsValid() {
		src = therePort
	}
	tcp := header.TCP(make([]byte, header.TCPMinimumSize+len(s.options)))
	tcp.Encode(&header.TCPFields{
		SrcPort: src.Port(), DstPort: herePort.Port(), SeqNum: s.seq, AckNum: 77,
		DataOffset: uint8(len(tcp)), Flags: s.flags, WindowSize: s.window,
	})
	copy(tcp[header.TCPMinimumSize:], s.options)
	tcp = append(tcp, s.data...)
	p := header.IPv6(ipv6Packet(src.Addr(), herePort.Addr(), uint8(header.TCPProtocolNumber), tcp))
	tcp = header.TCP(p[header.IPv6MinimumSize:])
	tcp.SetChecksum(0)
	tcp.SetChecksum(^slowChecksum(p))
	return p
}

// slowChecksum is the TCP checksum of p, pseudo header included, by the plainest
// arithmetic (RFC 1071).
func slowChecksum(p []byte) uint16 {
	tcp := p[header.IPv6MinimumSize:]
	words := slices.Concat(p[8:40], []byte{0, 0, byte(len(tcp) >> 8), byte(len(tcp)), 0, 0, 0, 6}, tcp)
	if len(words)%2 == 1 {
		words = append(words, 0)
	}
	sum := uint32(0)
	for i := 0; i < len(words); i += 2 {
		sum += uint32(words[i])<<8 | uint32(words[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// long returns s as TCP hands it to the link, its data in pieces as they happen to
// be in memory.
func (s segment) long(mss int, pieces ...int) *stack.PacketBuffer {
	b := s.bytes()
	headers := len(b) - len(s.data)
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: headers})
	copy(p.TransportHeader().Push(headers-header.IPv6MinimumSize), b[header.IPv6MinimumSize:headers])
	copy(p.NetworkHeader().Push(header.IPv6MinimumSize), b)
	rest := s.data
	for _, n := range append(pieces, len(s.data)) {
		n = min(n, len(rest))
		var piece buffer.Buffer
		piece.Append(buffer.NewViewWithData(rest[:n]))
		p.Data().MergeBuffer(&piece)
		rest = rest[n:]
	}
	p.GSOOptions = stack.GSO{Type: stack.GSOTCPv6, NeedsCsum: true, MSS: uint16(mss)}
	return p
}

// arrivals collects what a coalescer delivers.
type arrivals struct{ packets [][]byte }

func (a *arrivals) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, p *stack.PacketBuffer) {
	a.packets = append(a.packets, bytes.Clone(p.ToView().AsSlice()))
}

func (a *arrivals) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

func joined(packets ...[]byte) [][]byte {
	var c coalescer
	var a arrivals
	for batch := range slices.Chunk(packets, batchSize) {
		for _, p := range batch {
			c.add(bytes.Clone(p))
		}
		c.flush(&a)
	}
	return a.packets
}

// What is cut are good packets no longer than they may be, which say the same
// together; joined again they are what was cut.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mtu := rapid.SampledFrom([]int{1280, 1420, 8920}).Draw(t, "mtu")
		s := segment{
			seq:     rapid.Uint32().Draw(t, "seq"),
			flags:   header.TCPFlagAck | rapid.SampledFrom([]header.TCPFlags{0, header.TCPFlagPsh, header.TCPFlagPsh | header.TCPFlagFin}).Draw(t, "flags"),
			window:  rapid.Uint16().Draw(t, "window"),
			options: make([]byte, 4*rapid.IntRange(0, 10).Draw(t, "options")),
			data:    make([]byte, rapid.SampledFrom([]int{0, 1, 500, mtu - 60, 20000, 65000}).Draw(t, "size")),
		}
		for i := range s.data {
			s.data[i] = byte(i * 7 >> 3)
		}
		mss := rapid.SampledFrom([]int{0, 536, mtu - 100, 60000}).Draw(t, "mss")
		pieces := rapid.SliceOfN(rapid.IntRange(1, 4000), 0, 8).Draw(t, "pieces")
		p := s.long(mss, pieces...)
		defer p.DecRef()

		l := newLink(overlay(9), mtu)
		defer l.ring.close()
		l.ring.push(p)
		var got []byte
		var packets [][]byte
		for ended := false; !ended; {
			bufs, sizes := make([][]byte, rapid.IntRange(1, 128).Draw(t, "room")), make([]int, 128)
			for i := range bufs {
				bufs[i] = make([]byte, 1<<16)
			}
			n, err := (tunDevice{l}).Read(bufs, sizes, 16)
			if err != nil {
				t.Fatal(err)
			}
			l.credits.release(n)
			for i := range n {
				packets = append(packets, bufs[i][16:16+sizes[i]])
			}
			ended = p.ReadRefs() == 1
		}
		for i, b := range packets {
			last := i == len(packets)-1
			if len(b) > mtu || slowChecksum(b) != 0xffff || int(header.IPv6(b).PayloadLength()) != len(b)-header.IPv6MinimumSize {
				t.Fatalf("packet %d of %d bytes is not right: %x", i, len(b), b[:60])
			}
			tcp := header.TCP(b[header.IPv6MinimumSize:])
			want := s.flags
			if !last {
				want = header.TCPFlagAck
			}
			if tcp.SequenceNumber() != s.seq+uint32(len(got)) || tcp.Flags() != want || tcp.WindowSize() != s.window || !bytes.Equal(tcp.Options(), s.options) {
				t.Fatalf("packet %d: header %v", i, tcp)
			}
			if n := len(tcp.Payload()); mss > 0 && n > mss {
				t.Fatalf("packet %d: %d bytes, more than the MSS of %d", i, n, mss)
			}
			got = append(got, tcp.Payload()...)
		}
		if !bytes.Equal(got, s.data) {
			t.Fatalf("got %d bytes, want %d, the same ones", len(got), len(s.data))
		}
		if s.flags.Contains(header.TCPFlagFin) || len(packets) > batchSize {
			return
		}
		again := joined(packets...)
		want := s.bytes()
		if len(again) != 1 {
			t.Fatalf("%d packets were joined to %d", len(packets), len(again))
		}
		// The checksum of what was joined is nobody's.
		clear(again[0][56:58])
		clear(want[56:58])
		if !bytes.Equal(again[0], want) {
			t.Fatalf("joined: got %d bytes, want %d, the same ones", len(again[0]), len(want))
		}
	})
}

func TestCoalesce(t *testing.T) {
	other := netip.AddrPortFrom(thereAddr, therePort.Port()+1)
	sameSlot := netip.AddrPortFrom(thereAddr, therePort.Port()+64)
	for _, tt := range []struct {
		name string
		in   []segment
		want []string // data of what is delivered
	}{
		{"none", nil, nil},
		{"one", []segment{ack(1, "a")}, []string{"a"}},
		{"in order", []segment{ack(1, "ab"), ack(3, "cde"), ack(6, "f")}, []string{"abcdef"}},
		{"across the end of the sequence numbers", []segment{ack(1<<32-1, "ab"), ack(1, "c")}, []string{"abc"}},
		{"gap", []segment{ack(1, "a"), ack(3, "c")}, []string{"a", "c"}},
		{"again", []segment{ack(1, "a"), ack(1, "a")}, []string{"a", "a"}},
		{"late", []segment{ack(2, "b"), ack(1, "a"), ack(2, "b")}, []string{"b", "ab"}},
		{"two flows in turns", []segment{
			ack(1, "a"), ack(8, "x").with(func(s *segment) { s.src = other }),
			ack(2, "b"), ack(9, "y").with(func(s *segment) { s.src = other }),
		}, []string{"ab", "xy"}},
		{"two flows of one slot", []segment{
			ack(1, "a"), ack(2, "x").with(func(s *segment) { s.src = sameSlot }), ack(2, "b"), ack(3, "c"),
		}, []string{"a", "x", "bc"}},
		{"no data between", []segment{ack(1, "a"), ack(2, ""), ack(2, "b")}, []string{"a", "", "b"}},
		{"push", []segment{ack(1, "a"), ack(2, "b").with(func(s *segment) { s.flags |= header.TCPFlagPsh }), ack(3, "c")}, []string{"abc"}},
		{"FIN", []segment{ack(1, "a"), ack(2, "b").with(func(s *segment) { s.flags |= header.TCPFlagFin })}, []string{"a", "b"}},
		{"after FIN", []segment{ack(1, "a").with(func(s *segment) { s.flags |= header.TCPFlagFin }), ack(2, "b")}, []string{"a", "b"}},
		{"RST", []segment{ack(1, "a"), ack(2, "b").with(func(s *segment) { s.flags |= header.TCPFlagRst })}, []string{"a", "b"}},
		{"SYN", []segment{ack(1, "a"), ack(2, "b").with(func(s *segment) { s.flags |= header.TCPFlagSyn })}, []string{"a", "b"}},
		{"URG", []segment{ack(1, "a"), ack(2, "b").with(func(s *segment) { s.flags |= header.TCPFlagUrg })}, []string{"a", "b"}},
		{"no ACK", []segment{ack(1, "a").with(func(s *segment) { s.flags = 0 }), ack(2, "b").with(func(s *segment) { s.flags = 0 })}, []string{"a", "b"}},
		{"another window", []segment{ack(1, "a"), ack(2, "b").with(func(s *segment) { s.window++ })}, []string{"a", "b"}},
		{"another timestamp", []segment{ack(1, "a"), ack(2, "b").with(func(s *segment) { s.options = timestamps(2) })}, []string{"a", "b"}},
		{"other options", []segment{ack(1, "a"), ack(2, "b").with(func(s *segment) { s.options = nil })}, []string{"a", "b"}},
		{"a full packet", []segment{ack(1, string(make([]byte, 60000))), ack(60001, string(make([]byte, 5000))), ack(65001, "ab")},
			[]string{string(make([]byte, 65000)) + "ab"}},
		{"too long", []segment{ack(1, string(make([]byte, 60000))), ack(60001, string(make([]byte, 5470)))},
			[]string{string(make([]byte, 60000)), string(make([]byte, 5470))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in [][]byte
			for _, s := range tt.in {
				in = append(in, s.bytes())
			}
			var got []string
			push := false
			for _, p := range joined(in...) {
				tcp := header.TCP(p[header.IPv6MinimumSize:])
				if int(header.IPv6(p).PayloadLength()) != len(tcp) {
					t.Errorf("got payload length %d, want %d", header.IPv6(p).PayloadLength(), len(tcp))
				}
				got = append(got, string(tcp.Payload()))
				push = push || tcp.Flags().Contains(header.TCPFlagPsh)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if push != slices.ContainsFunc(tt.in, func(s segment) bool { return s.flags.Contains(header.TCPFlagPsh) }) {
				t.Error("PSH got lost, or came from nowhere")
			}
		})
	}
	t.Run("another acknowledgement", func(t *testing.T) {
		a, b := ack(1, "a").bytes(), ack(2, "b").bytes()
		header.TCP(b[header.IPv6MinimumSize:]).SetAckNumber(78)
		if got := len(joined(a, b)); got != 2 {
			t.Errorf("got %d packets, want 2", got)
		}
	})
	t.Run("another traffic class", func(t *testing.T) {
		a, b := ack(1, "a").bytes(), ack(2, "b").bytes()
		header.IPv6(b).SetTOS(3, 0)
		if got := len(joined(a, b)); got != 2 {
			t.Errorf("got %d packets, want 2", got)
		}
	})
}

// Whatever a peer sends in one batch, each flow's bytes and each packet that is
// not plain data arrive once and in order.
func FuzzCoalesce(f *testing.F) {
	one := func(packets ...[]byte) []byte {
		var b []byte
		for _, p := range packets {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
		}
		return b
	}
	f.Add(one(ack(1, "ab").bytes(), ack(3, "c").bytes(), ack(4, "").bytes(), ack(4, "d").bytes()))
	f.Add(one(ack(1, "ab").bytes(), ack(9, "c").bytes(), ack(3, "d").bytes()))
	f.Add(one(ack(1, "ab").bytes()[:45], syn(therePort, herePort)))
	f.Add(one(ipv6Packet(thereAddr, hereAddr, 6, nil), ipv6Packet(thereAddr, hereAddr, 6, bytes.Repeat([]byte{0xff}, 60))))
	f.Fuzz(func(t *testing.T, b []byte) {
		var in [][]byte
		l := newLink(hereAddr, 1420)
		for len(b) > 2 && len(in) < batchSize {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			if p := b[2 : 2+n]; l.admits(p) {
				in = append(in, p)
			}
			b = b[2+n:]
		}
		got, want := tokens(joined(in...)), tokens(in)
		if len(got) != len(want) {
			t.Fatalf("got %d flows, want %d", len(got), len(want))
		}
		for flow, w := range want {
			if !slices.Equal(got[flow], w) {
				t.Fatalf("flow %x: got %q, want %q", flow, got[flow], w)
			}
		}
	})
}

// tokens returns, by flow, what packets say, in an order that joining does not
// change: a byte of plain data with all that its header says of it, or a whole packet.
func tokens(packets [][]byte) map[string][]string {
	out := map[string][]string{}
	for _, p := range packets {
		flow := ""
		if len(p) >= header.IPv6MinimumSize+4 {
			flow = string(p[8:44])
		}
		if len(p) < header.IPv6MinimumSize+header.TCPMinimumSize {
			out[flow] = append(out[flow], string(p))
			continue
		}
		tcp := header.TCP(p[header.IPv6MinimumSize:])
		n := int(tcp.DataOffset())
		if n < header.TCPMinimumSize || len(tcp) <= n || tcp.Flags()&^header.TCPFlagPsh != header.TCPFlagAck {
			out[flow] = append(out[flow], string(p))
			continue
		}
		says := fmt.Sprintf("%x %x %x %x", p[:4], p[7], tcp[8:13], tcp[14:16]) + fmt.Sprintf(" %x", tcp[18:n])
		for i, c := range tcp[n:] {
			out[flow] = append(out[flow], fmt.Sprint(says, " ", tcp.SequenceNumber()+uint32(i), " ", c))
		}
	}
	return out
}

// The link lets go of what it was cutting when it is closed.
func TestCloseWhileCutting(t *testing.T) {
	l := newLink(hereAddr, 1280)
	cutting, waiting, queued := ack(1, string(make([]byte, 9000))).long(1000), numbered(1), numbered(2)
	l.ring.push(cutting)
	l.ring.push(waiting)
	one := [][]byte{make([]byte, 2000)}
	if n, err := (tunDevice{l}).Read(one, make([]int, 1), 16); n != 1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	l.ring.push(queued)
	l.credits.take(maxInside)
	l.credits.sending.Store(1) // for ever
	read := make(chan error, 1)
	go func() {
		_, err := (tunDevice{l}).Read(one, make([]int, 1), 16)
		read <- err
	}()
	(tunDevice{l}).Close()
	if err := within(t, "read", func() error { return <-read }); err != os.ErrClosed {
		t.Errorf("got %v, want os.ErrClosed", err)
	}
	for name, p := range map[string]*stack.PacketBuffer{"cutting": cutting, "waiting": waiting, "queued": queued} {
		if got := p.ReadRefs(); got != 1 {
			t.Errorf("%s: got %d references, want ours alone", name, got)
		}
	}
}

// BenchmarkSegments is the link's work without TCP and WireGuard: a segment of
// 64 KiB is cut, and the packets are joined again.
func BenchmarkSegments(b *testing.B) {
	s := ack(1, string(make([]byte, 64000)))
	l := newLink(hereAddr, 1420)
	l.dispatcher = nowhere{}
	d := tunDevice{l}
	bufs, sizes := make([][]byte, batchSize), make([]int, batchSize)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	p := s.long(1348)
	defer p.DecRef()
	packets := 0
	b.ReportAllocs()
	b.SetBytes(int64(len(s.data)))
	for b.Loop() {
		l.ring.push(p)
		n, err := d.Read(bufs, sizes, 16)
		if err != nil {
			b.Fatal(err)
		}
		l.credits.release(n)
		for i := range n {
			bufs[i] = bufs[i][:16+sizes[i]]
		}
		d.Write(bufs[:n], 16)
		for i := range n {
			bufs[i] = bufs[i][:cap(bufs[i])]
		}
		packets += n
	}
	b.ReportMetric(float64(packets)/float64(b.N), "packets/op")
}

// nowhere is where packets go in vain.
type nowhere struct{}

func (nowhere) DeliverNetworkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}
func (nowhere) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer)    {}
