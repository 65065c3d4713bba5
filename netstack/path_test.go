package netstack

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A manualPath is a path whose time is the test's, and what TCP and the other end say
// on a connection to port 443.
type manualPath struct {
	*path
	t       testing.TB
	sim     *sim
	packets []*stack.PacketBuffer // of TCP's, with a reference each
}

// newManualPath returns a path of 40 ms there and back.
func newManualPath(t testing.TB) *manualPath {
	t.Helper()
	s := newSim(simLine{})
	ps := &paths{clock: s, wake: func() {}, longRTT: longRTT, byPeer: map[[16]byte]*path{}}
	m := &manualPath{path: ps.to(overlay(2).As16()), t: t, sim: s}
	m.sack = true
	m.model.measure(0, 40*time.Millisecond)
	t.Cleanup(m.release)
	return m
}

// release ends the path and checks that it holds nothing any more.
func (m *manualPath) release() {
	m.paths.close()
	for i, p := range m.packets {
		if got := p.ReadRefs(); got != 1 {
			m.t.Errorf("segment %d of TCP's: got %d references, want ours alone", i, got)
		}
		p.DecRef()
	}
	m.packets = nil
	if m.model.inFlight != 0 || len(m.flows) != 0 {
		m.t.Errorf("%d bytes in flight and %d flows are left", m.model.inFlight, len(m.flows))
	}
}

const manualMSS = 1000

// tcp has TCP send a segment from a local port, of n bytes, and reports whether the path
// took it.
func (m *manualPath) tcp(local uint16, seq uint32, flags header.TCPFlags, n int) bool {
	m.t.Helper()
	b := segment{src: netip.AddrPortFrom(hereAddr, local), seq: seq, flags: flags, window: 1000, data: make([]byte, n)}
	p := b.long(manualMSS)
	m.packets = append(m.packets, p)
	return m.add(p, simMTU)
}

// sent takes what may be sent now, and returns the sequence numbers.
func (m *manualPath) sent() (seqs []uint32) {
	var dst [8]piece
	for n := m.paths.take(dst[:]); n > 0; n = m.paths.take(dst[:]) {
		for _, p := range dst[:n] {
			var c cutter
			c.start(p)
			for buf := make([]byte, simMTU); !c.done(); {
				size := c.next(buf)
				seqs = append(seqs, header.TCP(buf[header.IPv6MinimumSize:size]).SequenceNumber())
			}
		}
	}
	return seqs
}

// all takes what is sent within d.
func (m *manualPath) all(d time.Duration) (seqs []uint32) {
	for end := m.sim.now + d; ; m.sim.run(m.sim.now + time.Millisecond) {
		seqs = append(seqs, m.sent()...)
		if m.sim.now >= end {
			return seqs
		}
	}
}

func (m *manualPath) acked(local uint16, ack uint32, sacks ...span) {
	m.heard(answer(local, ack, sacks))
}

// syn has the other end send a SYN with options.
func (m *manualPath) syn(local uint16, flags header.TCPFlags, options []byte) {
	b := answer(local, 1, nil)
	tcp := append(header.TCP(b[header.IPv6MinimumSize:]), options...)
	tcp.SetDataOffset(uint8(len(tcp)))
	tcp.SetFlags(uint8(flags))
	m.heard(ipv6Packet(thereAddr, hereAddr, uint8(header.TCPProtocolNumber), tcp))
}

const (
	ackFlag = header.TCPFlagAck
	finFlag = header.TCPFlagAck | header.TCPFlagFin
	synFlag = header.TCPFlagSyn
)

// seqs are those of n full packets from first on.
func seqs(first uint32, n int) (out []uint32) {
	for i := range n {
		out = append(out, first+uint32(i)*manualMSS)
	}
	return out
}

func TestPathSendsLostPacketsAgain(t *testing.T) {
	m := newManualPath(t)
	m.tcp(1, 0, ackFlag, 10*manualMSS)
	if got, want := m.all(20*time.Millisecond), seqs(0, 10); !slices.Equal(got, want) {
		t.Fatalf("sent %v, want %v", got, want)
	}
	m.sim.run(m.sim.now + 30*time.Millisecond)
	m.acked(1, 2000, span{3000, 5000})
	if got := m.sent(); got != nil {
		t.Fatalf("sent %v again after two that overtook it", got)
	}
	m.acked(1, 2000, span{3000, 6000})
	if got, want := m.all(time.Millisecond), seqs(2000, 1); !slices.Equal(got, want) {
		t.Fatalf("sent %v again, want %v", got, want)
	}
	m.acked(1, 10000)
	if len(m.flows) != 0 {
		t.Error("a flow of which all is acknowledged is left")
	}
}

// A packet at the end has nothing after it that would tell of its loss.
func TestPathProbesItsTail(t *testing.T) {
	m := newManualPath(t)
	m.tcp(1, 0, ackFlag, 2*manualMSS)
	m.all(10 * time.Millisecond)
	pto := m.model.pto()
	if got := m.all(pto - 15*time.Millisecond); got != nil {
		t.Fatalf("sent %v again too soon", got)
	}
	if got, want := m.all(20*time.Millisecond), seqs(1000, 1); !slices.Equal(got, want) {
		t.Fatalf("sent %v again, want the last, %v", got, want)
	}
	m.acked(1, 0, span{1000, 2000})
	m.all(3 * pto)
	m.acked(1, 2000)
}

// While a peer is silent, what is sent gets less and less; then the flow is TCP's.
func TestPathLeavesSilentPeers(t *testing.T) {
	m := newManualPath(t)
	m.tcp(1, 0, ackFlag, 60*manualMSS)
	m.all(2 * time.Second)
	var gaps []time.Duration
	for last, end := m.sim.now, m.sim.now+2*time.Minute; m.sim.now < end; m.sim.run(m.sim.now + time.Millisecond) {
		if len(m.sent()) > 0 {
			gaps = append(gaps, m.sim.now-last)
			last = m.sim.now
		}
	}
	if len(gaps) < 3 || len(gaps) > 8 {
		t.Fatalf("sent again after %v", gaps)
	}
	for i := 2; i < len(gaps); i++ { // the first is since the test looked
		if gaps[i] < gaps[i-1]*3/2 {
			t.Errorf("sent again after %v, want ever longer", gaps)
		}
	}
	if len(m.flows) != 0 || m.model.inFlight != 0 {
		t.Errorf("%d flows and %d bytes in flight are left", len(m.flows), m.model.inFlight)
	}
	if !m.tcp(1, 0, ackFlag, manualMSS) || !slices.Equal(m.all(time.Millisecond), seqs(0, 1)) {
		t.Error("what TCP sends again was not sent")
	}
}

// Who has room for nothing but what is next, as after its window was closed, is sent that,
// and does not have to wait until all that is after it was tried in vain.
func TestPathSilentPeerGetsWhatIsNext(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sacks []span
		want  []uint32 // at first; the last comes first, for what it tells
	}{
		{"nothing arrived", nil, []uint32{4000, 0, 0, 0}},
		{"the first was thrown away", []span{{0, 1000}}, []uint32{4000, 1000, 1000, 1000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManualPath(t)
			m.tcp(1, 0, ackFlag, 5*manualMSS)
			m.all(10 * time.Millisecond)
			m.acked(1, 0, tt.sacks...)
			if got := m.all(30 * m.model.pto()); len(got) < len(tt.want) || !slices.Equal(got[:len(tt.want)], tt.want) {
				t.Errorf("sent %v again, want %v at first", got, tt.want)
			}
			if !m.tcp(1, 0, ackFlag, manualMSS) || !slices.Contains(m.all(64*m.model.pto()), 0) {
				t.Error("what is next was not sent when TCP had sent it again")
			}
		})
	}
}

// What TCP's own timeout sends again is sent again, once, and not if it just was.
func TestPathAndTCPTimeout(t *testing.T) {
	m := newManualPath(t)
	m.tcp(1, 0, ackFlag, 5*manualMSS)
	m.all(10 * time.Millisecond)
	if !m.tcp(1, 0, ackFlag, 5*manualMSS) {
		t.Fatal("the path did not take its own again")
	}
	if got := m.sent(); got != nil {
		t.Errorf("sent %v again, which was sent 10 ms ago", got)
	}
	m.acked(1, 0, span{1000, 5000}) // and throws it away afterwards (RFC 2018, section 8)
	m.all(20 * time.Second)
	m.tcp(1, 0, ackFlag, 5*manualMSS)
	got := m.all(10 * time.Millisecond)
	m.acked(1, 1000)
	got = append(got, m.all(10*time.Millisecond)...)
	for _, want := range seqs(0, 5) {
		if !slices.Contains(got, want) {
			t.Errorf("sent %v again, want %v among them", got, want)
		}
	}
	if m.tcp(1, 999, ackFlag, 1) {
		t.Error("took a probe of a closed window, which is not the flow's")
	}
}

// Sequence numbers wrap, and a flow that never runs dry sends more than half of them.
func TestPathSequenceNumbersWrap(t *testing.T) {
	const size = 60 * manualMSS
	m := newManualPath(t)
	for range 3 { // segments that take turns
		m.tcp(1, 0, ackFlag, size)
	}
	m.forget(m.flows[ports(1, 443)])
	seq, sent := ^uint32(0)-5*size, 0
	for sent < 5<<29 {
		p := m.packets[sent/size%3]
		binary.BigEndian.PutUint32(p.TransportHeader().Slice()[header.TCPSeqNumOffset:], seq)
		if !m.add(p, simMTU) {
			t.Fatalf("refused after %d bytes", sent)
		}
		seq, sent = seq+size, sent+size
		f := m.flows[ports(1, 443)]
		for f.sendable() { // whatever the model says
			id, n := f.cut(size)
			for i := range n {
				f.send(m.now(), id+uint64(i), &m.model)
			}
		}
		m.acked(1, seq-2*manualMSS, span{seq - manualMSS, seq})
		if got := f.units.at(f.units.len() - 1).state; got != sacked {
			t.Fatalf("the last unit is not SACKed after %d bytes", sent)
		}
		m.acked(1, seq-manualMSS)
		if got := f.units.len(); got != 1 {
			t.Fatalf("%d units are left after %d bytes, want 1", got, sent)
		}
	}
}

func TestPathEndsFlows(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*manualPath)
	}{
		{"acknowledged FIN", func(m *manualPath) { m.tcp(1, 5000, finFlag, 0); m.all(10 * time.Millisecond); m.acked(1, 5001) }},
		{"RST sent", func(m *manualPath) { m.tcp(1, 5000, header.TCPFlagRst, 0) }},
		{"RST heard", func(m *manualPath) { m.syn(1, header.TCPFlagRst, nil) }},
		{"SYN of the next connection", func(m *manualPath) { m.tcp(1, 1e6, synFlag, 0) }},
		{"SYN and ACK of the next", func(m *manualPath) { m.tcp(1, 1e6, synFlag|ackFlag, 0) }},
		{"other peers only", func(m *manualPath) { m.paths.keep(map[netip.Addr]bool{overlay(3): true}) }},
		{"close", func(m *manualPath) { m.paths.close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManualPath(t)
			m.tcp(1, 0, ackFlag, 5*manualMSS)
			m.all(10 * time.Millisecond)
			tt.end(m)
			if len(m.flows) != 0 || m.model.inFlight != 0 {
				t.Errorf("%d flows and %d bytes in flight are left", len(m.flows), m.model.inFlight)
			}
			if got := m.all(time.Minute); got != nil {
				t.Errorf("sent %v", got)
			}
		})
	}
}

// Who does not speak SACK, is near or is not a peer any more is sent to plainly.
func TestPathCovers(t *testing.T) {
	sackOK := []byte{1, 1, header.TCPOptionSACKPermitted, 2}
	for _, tt := range []struct {
		name string
		set  func(*manualPath)
		want bool
	}{
		{"no SYN was heard", func(m *manualPath) { m.sack = false }, false},
		{"SYN without SACK", func(m *manualPath) { m.syn(1, synFlag, nil) }, false},
		{"SYN with SACK", func(m *manualPath) { m.sack = false; m.syn(1, synFlag, sackOK) }, true},
		{"SYN and ACK with SACK", func(m *manualPath) { m.sack = false; m.syn(1, synFlag|ackFlag, sackOK) }, true},
		{"short", func(m *manualPath) { m.model.measure(0, time.Millisecond) }, false},
		{"unknown", func(m *manualPath) { m.model.minRTT = 0 }, true},
		{"closed", func(m *manualPath) { m.paths.close() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManualPath(t)
			tt.set(m)
			if got := m.tcp(1, 0, ackFlag, manualMSS); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if m.tcp(2, 0, ackFlag, 0) || m.tcp(2, 0, synFlag, 0) {
				t.Error("the path took a segment that carries nothing")
			}
		})
	}
}

// A short path becomes long, and a long one short; one late answer does not make it so.
func TestTrial(t *testing.T) {
	m := newManualPath(t)
	m.model.minRTT, m.model.srtt = time.Millisecond, time.Millisecond
	seq := uint32(0)
	trip := func(rtt time.Duration) {
		t.Helper()
		m.sim.run(m.sim.now + trialEvery)
		if m.tcp(1, seq, ackFlag, manualMSS) {
			t.Fatal("a short path took a segment")
		}
		m.sim.run(m.sim.now + rtt)
		seq += manualMSS
		m.acked(1, seq)
	}
	for _, ms := range []int{1, 30, 30, 1, 30, 30, 30, 30} {
		trip(time.Duration(ms) * time.Millisecond)
	}
	trip(20 * time.Millisecond)
	if m.short() || m.model.minRTT != 20*time.Millisecond {
		t.Fatalf("after %d long round trips: %v", trialCount, m.model.minRTT)
	}
	if !m.tcp(1, seq, ackFlag, manualMSS) {
		t.Fatal("a long path refused a segment")
	}
	m.sent()
	m.sim.run(m.sim.now + time.Millisecond)
	m.acked(1, seq+manualMSS)
	if !m.short() {
		t.Errorf("after a short round trip: %v", m.model.minRTT)
	}
}

// A small flow does not wait until a large one has been sent.
func TestPathTakesTurns(t *testing.T) {
	m := newManualPath(t)
	for i := range 10 {
		m.tcp(1, uint32(i)*60*manualMSS, ackFlag, 60*manualMSS)
	}
	m.all(5 * time.Millisecond)
	m.tcp(2, 7, ackFlag, 100)
	m.all(5 * time.Millisecond)
	if f := m.flows[ports(2, 443)]; f.inFlight != 1 {
		t.Error("the small flow waits")
	}
}

// BenchmarkPath is a segment of 40 packets: TCP's, cut, sent, acknowledged.
func BenchmarkPath(b *testing.B) {
	step := steadyPath(b)
	b.SetBytes(40 * manualMSS)
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}

// steadyPath returns what passes one more segment through a path that has eight on
// their way.
func steadyPath(t testing.TB) (step func()) {
	const size, ahead = 40 * manualMSS, 8
	m := newManualPath(t)
	for range ahead + 1 {
		m.tcp(1, 0, ackFlag, size)
	}
	m.path.forget(m.flows[ports(1, 443)])
	seq, turn := uint32(0), 0
	buf, dst, seg := make([]byte, simMTU), make([]piece, 8), answer(1, 0, nil)
	var c cutter
	step = func() {
		p := m.packets[turn]
		turn = (turn + 1) % len(m.packets)
		binary.BigEndian.PutUint32(p.TransportHeader().Slice()[header.TCPSeqNumOffset:], seq)
		if !m.add(p, simMTU) {
			t.Fatal("the path refused a segment")
		}
		seq += size
		m.sim.now += 40 * time.Millisecond
		for n := m.paths.take(dst); n > 0; n = m.paths.take(dst) {
			for _, piece := range dst[:n] {
				c.start(piece)
				for !c.done() {
					c.next(buf)
				}
			}
			m.sim.now += 2 * time.Millisecond
		}
		header.TCP(seg[header.IPv6MinimumSize:]).SetAckNumber(seq - (ahead-1)*size)
		m.heard(seg)
	}
	for range 200 {
		step()
	}
	return step
}

// The path to a peer goes with the peer.
func TestSetPeersEndsPaths(t *testing.T) {
	node, gateway := newHost(t, 1), &host{private: newPrivateKey(t)}
	gateway.start(t, Config{Address: overlay(2), HideLoss: true})
	meet(t, node, gateway)
	dialed, accepted := connect(t, gateway, node)
	mustEcho(t, dialed, accepted)
	paths := func() int {
		gateway.link.paths.mu.RLock()
		defer gateway.link.paths.mu.RUnlock()
		return len(gateway.link.paths.byPeer)
	}
	if got := paths(); got != 1 {
		t.Fatalf("%d paths to a peer", got)
	}
	eventually(t, "end of the path", func() bool {
		gateway.mustSetPeers(t) // again, should a packet have been on its way in
		return paths() == 0
	})
}
