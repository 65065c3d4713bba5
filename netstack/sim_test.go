package netstack

import (
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A sim is a world of its own whose time goes from event to event: senders, each
// with a receiver, that share a line. It is a tcpip.Clock.
type sim struct {
	now    time.Duration
	events events
	count  uint64
	chance *rand.Rand
	line   simLine
	lag    time.Duration // timers fire so much too late at most, as on a busy machine
}

// A simLine is a bottleneck in one direction: chance, which loses packets, a drop-tail
// queue, a sender of constant rate, a wire. Acknowledgements come back by a wire alone.
type simLine struct {
	rate  float64 // bytes a second
	delay time.Duration
	queue int     // bytes that may wait
	loss  float64 // the part of the packets that is lost, there and back
	late  float64 // the part that arrives after others, by 1 ms
	free  time.Duration

	sent, dropped int
}

func newSim(line simLine) *sim { return &sim{chance: rand.New(rand.NewPCG(1, 1)), line: line} }

type event struct {
	at    time.Duration
	order uint64
	do    func()
}

// events are a heap by time.
type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	x := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return x
}

func (s *sim) after(d time.Duration, do func()) *event {
	s.count++
	e := &event{s.now + d, s.count, do}
	heap.Push(&s.events, e)
	return e
}

// run lets the time pass until end.
func (s *sim) run(end time.Duration) {
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(*event)
		s.now = max(s.now, e.at)
		if e.do != nil {
			e.do()
		}
	}
	s.now = end
}

func (s *sim) Now() time.Time                    { return time.Unix(0, 0).Add(s.now) }
func (s *sim) NowMonotonic() tcpip.MonotonicTime { return tcpip.MonotonicTime{}.Add(s.now) }
func (s *sim) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	t := &simTimer{sim: s, do: f}
	t.Reset(d)
	return t
}

type simTimer struct {
	sim   *sim
	do    func()
	event *event
}

func (t *simTimer) Stop() bool {
	running := t.event != nil && t.event.do != nil
	if running {
		t.event.do = nil
	}
	return running
}

func (t *simTimer) Reset(d time.Duration) {
	t.Stop()
	if t.sim.lag > 0 {
		d += time.Duration(t.sim.chance.Int64N(int64(t.sim.lag)))
	}
	t.event = t.sim.after(d, nil)
	e := t.event
	e.do = func() { e.do = nil; t.do() }
}

// forward has a packet of size bytes arrive at the other end, if it does.
func (s *sim) forward(size int, arrive func()) {
	l := &s.line
	l.sent++
	if s.chance.Float64() < l.loss {
		return
	}
	l.free = max(l.free, s.now)
	if (l.free-s.now).Seconds()*l.rate+float64(size) > float64(l.queue) {
		l.dropped++
		return
	}
	l.free += time.Duration(float64(size) / l.rate * float64(time.Second))
	s.after(l.free-s.now+l.delay+s.lateness(), arrive)
}

// back has an acknowledgement arrive at the sender, if it does.
func (s *sim) back(arrive func()) {
	if s.chance.Float64() >= s.line.loss {
		s.after(s.line.delay+s.lateness(), arrive)
	}
}

func (s *sim) lateness() time.Duration {
	if s.line.late > 0 && s.chance.Float64() < s.line.late {
		return time.Millisecond
	}
	return 0
}

// A simSender has as much to send as there is.
type simSender interface {
	goodput() int // bytes that arrived, each counted once
}

// A simPath is a host of ours as far as it matters: a path, and above it connections
// whose congestion control knows nothing of losses and which have a window of 8 MiB.
type simPath struct {
	*sim
	t     *testing.T
	paths *paths
	path  *path
	flows []*simFlow
	bufs  [][]byte
	got   int
}

const (
	simMTU    = 1420
	tunnel    = 80 // what WireGuard, UDP and IPv6 add to a packet
	simWindow = 8 << 20
)

// A simFlow is both ends of a connection.
type simFlow struct {
	local     uint16
	next, una uint32 // of the sender
	rcvNext   uint32
	ahead     []span // what the receiver has after rcvNext, in order
	recent    span   // that grew last
}

func (s *sim) newPath(t *testing.T, flows int) *simPath {
	p := &simPath{sim: s, t: t}
	p.paths = &paths{clock: s, byPeer: map[[16]byte]*path{}}
	busy := false
	p.paths.wake = func() {
		if !busy {
			busy = true
			s.after(0, func() { busy = false; p.pump() })
		}
	}
	p.path = p.paths.to(overlay(2).As16())
	p.path.sack = true
	p.path.model.measure(0, 2*s.line.delay) // as the handshake would
	for i := range flows {
		f := &simFlow{local: uint16(1000 + i), next: uint32(i) - 1e6, una: uint32(i) - 1e6, rcvNext: uint32(i) - 1e6}
		p.flows = append(p.flows, f)
		s.after(time.Duration(i)*10*time.Millisecond, func() { p.fill(f) })
	}
	t.Cleanup(p.paths.close)
	return p
}

func (p *simPath) goodput() int { return p.got }

// fill has the connection's window full.
func (p *simPath) fill(f *simFlow) {
	const mss = simMTU - header.IPv6MinimumSize - header.TCPMinimumSize
	const long = 40 * mss
	for f.next-f.una+long <= simWindow {
		b := segment{src: netip.AddrPortFrom(hereAddr, f.local), seq: f.next, flags: header.TCPFlagAck, window: 1000, data: make([]byte, long)}
		packet := b.long(mss)
		f.next += long
		if !p.path.add(packet, simMTU) {
			p.t.Fatal("the path refused a segment")
		}
		packet.DecRef()
	}
}

// pump sends what there is to send now.
func (p *simPath) pump() {
	var pieces [8]piece
	for n := p.paths.take(pieces[:]); n > 0; n = p.paths.take(pieces[:]) {
		for _, piece := range pieces[:n] {
			var c cutter
			c.start(piece)
			for !c.done() {
				var buf []byte
				if k := len(p.bufs); k > 0 {
					buf, p.bufs = p.bufs[k-1], p.bufs[:k-1]
				} else {
					buf = make([]byte, simMTU)
				}
				size := c.next(buf)
				p.forward(size+tunnel, func() { p.receive(buf[:size]) })
			}
		}
	}
}

// receive is the other end: TCP with SACK that acknowledges each packet.
func (p *simPath) receive(b []byte) {
	tcp := header.TCP(b[header.IPv6MinimumSize:])
	f := p.flows[tcp.SourcePort()-1000]
	s := span{tcp.SequenceNumber(), tcp.SequenceNumber() + uint32(len(tcp)-int(tcp.DataOffset()))}
	p.bufs = append(p.bufs, b[:cap(b)])
	if before(s.start, f.rcvNext) && !before(f.rcvNext, s.end) {
		p.acknowledge(f)
		return
	}
	i := 0
	for i < len(f.ahead) && before(f.ahead[i].end, s.start) {
		i++
	}
	j := i
	fresh := int(s.end - s.start)
	for ; j < len(f.ahead) && !before(s.end, f.ahead[j].start); j++ {
		a := f.ahead[j]
		if !before(s.start, a.start) && !before(a.end, s.end) {
			fresh = 0
		}
		if before(a.start, s.start) {
			s.start = a.start
		}
		if before(s.end, a.end) {
			s.end = a.end
		}
	}
	f.ahead = slices.Replace(f.ahead, i, j, s)
	p.got += fresh
	f.recent = s
	if f.ahead[0].start == f.rcvNext {
		f.rcvNext = f.ahead[0].end
		f.ahead = slices.Delete(f.ahead, 0, 1)
	}
	p.acknowledge(f)
}

func (p *simPath) acknowledge(f *simFlow) {
	blocks := make([]span, 0, 3)
	if slices.Contains(f.ahead, f.recent) {
		blocks = append(blocks, f.recent)
	}
	for _, s := range slices.Backward(f.ahead) {
		if len(blocks) == 3 {
			break
		}
		if s != f.recent {
			blocks = append(blocks, s)
		}
	}
	ack := f.rcvNext
	b := answer(f.local, ack, blocks)
	p.back(func() {
		p.path.heard(b)
		tcp := header.TCP(b[header.IPv6MinimumSize:])
		if len(header.ParseTCPOptions(tcp[header.TCPMinimumSize:tcp.DataOffset()]).SACKBlocks) > 0 {
			p.t.Fatal("TCP would see a SACK block")
		}
		if before(f.una, ack) {
			f.una = ack
			p.fill(f)
		}
	})
}

// answer is an acknowledgement to a local port.
func answer(local uint16, ack uint32, sacks []span) []byte {
	var options []byte
	if len(sacks) > 0 {
		options = append(options, 1, 1, header.TCPOptionSACK, byte(2+8*len(sacks)))
		for _, s := range sacks {
			options = binary.BigEndian.AppendUint32(options, s.start)
			options = binary.BigEndian.AppendUint32(options, s.end)
		}
	}
	tcp := header.TCP(make([]byte, header.TCPMinimumSize+len(options)))
	tcp.Encode(&header.TCPFields{
		SrcPort: 443, DstPort: local, AckNum: ack, DataOffset: uint8(len(tcp)), Flags: header.TCPFlagAck, WindowSize: 1000,
	})
	copy(tcp[header.TCPMinimumSize:], options)
	return ipv6Packet(thereAddr, hereAddr, uint8(header.TCPProtocolNumber), tcp)
}

// A simRival is another's TCP: one flow of full packets, with recovery as good as it
// can be: it knows at once what arrived, sends again at once what three later ones
// overtook, and halves once a round trip, or what its congestion control does.
type simRival struct {
	*sim
	cubic    bool
	cwnd     float64 // packets
	ssthresh float64
	max      float64       // cwnd before the last loss
	epoch    time.Duration // of that
	next     int
	recover  int // packets before it belong to a loss that was heard
	inFlight []int
	minRTT   time.Duration
	heard    time.Duration
	arrived  int
}

const rivalPacket = 1500

func (s *sim) newRival(cubic bool) *simRival {
	r := &simRival{sim: s, cubic: cubic, cwnd: 10, ssthresh: 1e9}
	s.after(0, r.send)
	s.after(time.Second, r.timeout)
	return r
}

// timeout begins anew if nothing was heard for a second.
func (r *simRival) timeout() {
	if r.now-r.heard >= time.Second {
		r.ssthresh, r.cwnd, r.max, r.epoch, r.recover = max(r.cwnd/2, 2), 1, r.cwnd, r.now, r.next
		r.inFlight = r.inFlight[:0]
		r.send()
	}
	r.after(time.Second, r.timeout)
}

func (r *simRival) goodput() int { return r.arrived * (rivalPacket - 72) }

func (r *simRival) send() {
	for float64(len(r.inFlight)) < r.cwnd {
		n, at := r.next, r.now
		r.next++
		r.inFlight = append(r.inFlight, n)
		r.forward(rivalPacket, func() {
			r.arrived++
			r.back(func() { r.acked(n, r.now-at) })
		})
	}
}

func (r *simRival) acked(n int, rtt time.Duration) {
	r.heard = r.now
	if r.minRTT == 0 || rtt < r.minRTT {
		r.minRTT = rtt
	}
	lost := false
	i := 0
	for ; i < len(r.inFlight) && r.inFlight[i]+reorderThreshold <= n; i++ {
		lost = lost || r.inFlight[i] >= r.recover
	}
	r.inFlight = slices.Delete(r.inFlight, 0, i)
	if i, ok := slices.BinarySearch(r.inFlight, n); ok {
		r.inFlight = slices.Delete(r.inFlight, i, i+1)
	}
	switch {
	case lost:
		r.recover, r.max, r.epoch = r.next, r.cwnd, r.now
		if r.cubic { // RFC 9438, section 4.6
			r.cwnd *= 0.7
		} else {
			r.cwnd /= 2
		}
		r.cwnd = max(r.cwnd, 2)
		r.ssthresh = r.cwnd
	case r.cwnd < r.ssthresh:
		r.cwnd++
		if r.cubic && rtt > r.minRTT+max(r.minRTT/8, 4*time.Millisecond) { // HyStart, RFC 9406
			r.ssthresh, r.max, r.epoch = r.cwnd, r.cwnd, r.now
		}
	case r.cubic: // RFC 9438, sections 4.2 and 4.3
		t := (r.now - r.epoch + r.minRTT).Seconds()
		k := cbrt(r.max * 0.3 / 0.4)
		target := 0.4*(t-k)*(t-k)*(t-k) + r.max
		reno := r.max*0.7 + 0.53*(r.now-r.epoch).Seconds()/rtt.Seconds()
		if target = max(target, reno); target > r.cwnd {
			r.cwnd += min(target-r.cwnd, r.cwnd/2) / r.cwnd
		} else {
			r.cwnd += 0.01 / r.cwnd
		}
	default:
		r.cwnd += 1 / r.cwnd
	}
	r.send()
}

func cbrt(x float64) float64 {
	y := 1 + x/3
	for range 40 {
		y -= (y*y*y - x) / (3 * y * y)
	}
	return y
}
