package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A path is the way to one peer. On a long one it stands between TCP and the tunnel:
// it holds back what would only wait in a queue on the way, and sends again what was
// lost there, so that TCP, which would take every loss for congestion, sees none.
// The other end has no part in it, beyond what any TCP with SACK does.
//
// TCP's segments come in by add. From there take picks among the connections in turn,
// as fast as the model says. What the peer sends passes heard, which learns from it
// what has arrived there and hides from TCP what has not. A timer sees to what is lost
// and has nothing after it that would tell.
//
// The path acknowledges nothing: TCP hears from nobody but the other end, and its own
// timeout, which is longer than the path's, is the last resort and gives up in its own
// time. What TCP sends again is sent again, unless it just was. So a flow may be
// forgotten at any time, and is if its peer stays silent.
//
// No lock is held while TCP or WireGuard is called; TCP calls add with its own held.
type path struct {
	// Static after newPath.
	paths *paths // that it is one of
	peer  [16]byte
	epoch tcpip.MonotonicTime // instants are since then

	mu     sync.Mutex
	closed bool
	sack   bool // the other end said so when it last opened a connection
	model  model
	flows  map[uint32]*flow // by ports
	ready  deque[*flow]     // with something to send; each at most once
	mtu    int              // when TCP sent last

	nextSend      instant // by the model's pacing rate
	reorderWindow instant // how late something may be after what was sent later
	timer         tcpip.Timer
	alarm         instant // when the timer fires; 0: it does not

	trial trial

	queued bool // it is in paths.ready, whose lock guards this
}

const (
	// quantum is how much of a flow is sent at once, as a time at the pacing rate.
	quantum = time.Millisecond

	// What a late wake-up kept from being sent is sent after it: for minSlack, or for
	// a slackShare of the round trip. Else a busy machine would find the path slow,
	// and be slower for it, and so on.
	minSlack   = 2 * time.Millisecond
	slackShare = 8

	// minQuantum is the least that is sent at once, in bytes: as draft-ietf-ccwg-bbr,
	// section 4.6.3, two full packets.
	minQuantum = 3 << 10

	// maxTimeouts is how many PTOs in a row, each twice as long, a flow's silence is
	// waited for before it is left to TCP.
	maxTimeouts = 7

	// maxSpareUnits bounds a flow that is kept to be used again.
	maxSpareUnits = 64
)

// flows that are not used.
var flows = sync.Pool{New: func() any { return new(flow) }}

func newPath(ps *paths, peer [16]byte) *path {
	p := &path{paths: ps, peer: peer, epoch: ps.clock.NowMonotonic(), flows: map[uint32]*flow{}}
	p.timer = ps.clock.AfterFunc(time.Hour, p.ring)
	p.timer.Stop()
	return p
}

func (p *path) now() instant { return p.paths.clock.NowMonotonic().Sub(p.epoch) + 1 }

// ports returns those of a segment, the local one first.
func ports(local, remote uint16) uint32 { return uint32(local)<<16 | uint32(remote) }

// add takes over a packet of TCP's, with a reference of its own. It reports false if
// the packet is to be sent as if there were no path. mtu bounds what it is cut into.
func (p *path) add(packet *stack.PacketBuffer, mtu int) bool {
	tcp := header.TCP(packet.TransportHeader().Slice())
	flags, size := tcp.Flags(), packet.Data().Size()
	key := ports(tcp.SourcePort(), tcp.DestinationPort())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mtu = mtu
	f := p.flows[key]
	if f != nil {
		f.ack, f.window = tcp.AckNumber(), tcp.WindowSize()
	}
	fin := flags.Contains(header.TCPFlagFin)
	switch {
	case flags.Intersects(header.TCPFlagSyn | header.TCPFlagRst): // a connection begins or ends
		if f != nil {
			p.forget(f)
		}
		if flags.Contains(header.TCPFlagSyn) && (p.model.minRTT == 0 || p.short()) {
			p.try(p.now(), key, tcp.SequenceNumber()+1)
		}
		return false
	case size == 0 && !fin:
		return false
	}
	now := p.now()
	seq, end := tcp.SequenceNumber(), tcp.SequenceNumber()+uint32(size)
	if fin {
		end++
	}
	if !p.covers() && (f == nil || !f.sendable()) {
		p.try(now, key, end)
		return false
	}
	if f == nil {
		f = flows.Get().(*flow)
		f.start(key, seq)
		f.ack, f.window = tcp.AckNumber(), tcp.WindowSize()
		p.flows[key] = f
	}
	if seq != f.end {
		if !f.repeat(now, seq, end, &p.model) {
			return false
		}
	} else {
		mss := cuts(packet, mtu)
		if mss == 0 {
			mss = max(size, 1)
		}
		f.push(packet, mss)
	}
	p.schedule(f)
	p.stir(now)
	return true
}

// forget leaves f to TCP.
func (p *path) forget(f *flow) {
	f.drop(&p.model)
	delete(p.flows, f.ports)
	f.gone = true
	if !f.queued {
		f.recycle()
	}
}

// recycle has f, which is gone, used again.
func (f *flow) recycle() {
	if f.units.cap() <= maxSpareUnits && f.transmissions.cap() <= maxSpareUnits {
		flows.Put(f)
	}
}

// schedule puts f among the ready, if it has something to send.
func (p *path) schedule(f *flow) {
	if !f.queued && f.sendable() {
		f.queued = true
		p.ready.push(f)
	}
}

// stir sees to it that take is called when there is something to take, be it later.
func (p *path) stir(now instant) {
	if p.ready.len() == 0 || p.model.inFlight >= p.model.window() {
		return
	}
	if p.nextSend > now {
		p.wake(now, p.nextSend)
		return
	}
	p.paths.schedule(p)
}

// wake has the timer fire at t, if it does not before.
func (p *path) wake(now, t instant) {
	if p.closed || p.alarm != 0 && p.alarm <= t {
		return
	}
	p.alarm = t
	p.timer.Reset(max(t-now, 0))
}

// ring is called by the timer.
func (p *path) ring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.alarm = 0
	now := p.now()
	p.timeouts(now)
	p.stir(now)
}

// timeouts sends again what was lost and has nothing after it that would tell.
func (p *path) timeouts(now instant) {
	next := instant(0)
	for _, f := range p.flows {
		if f.inFlight == 0 {
			continue
		}
		due := f.progress + p.model.pto()<<f.timeouts
		if due <= now {
			if f.timeouts++; f.timeouts > maxTimeouts {
				p.forget(f)
				continue
			}
			f.probe(&p.model)
			p.schedule(f)
			due = now + p.model.pto()<<f.timeouts
		}
		if next == 0 || due < next {
			next = due
		}
	}
	if next != 0 {
		p.wake(now, next)
	}
}

// take moves what is to be sent now into dst, and returns how many pieces. It has
// one caller at a time.
func (p *path) take(dst []piece) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.nextSend = max(p.nextSend, now-max(minSlack, p.model.minRTT/slackShare))
	rate := p.model.pacingRate()
	for n < len(dst) && p.ready.len() > 0 && p.nextSend <= now {
		room := p.model.window() - p.model.inFlight
		if room <= 0 {
			break
		}
		f := p.ready.pop()
		f.queued = false
		if f.gone {
			f.recycle()
			continue
		}
		if !f.sendable() {
			continue
		}
		if rate > 0 {
			room = min(room, max(int(rate*quantum.Seconds()), minQuantum))
		}
		sent := 0
		dst[n], sent = p.send(now, f, room)
		n++
		if rate > 0 {
			p.nextSend += instant(float64(sent) / rate * float64(time.Second))
		}
		p.schedule(f)
	}
	if p.ready.len() == 0 && p.model.inFlight < p.model.window() {
		p.model.limit()
	}
	if p.model.inFlight > 0 {
		p.wake(now, now+p.model.pto())
	}
	p.stir(now)
	return n
}

// send returns a piece of f to send, of room bytes if it is more than a packet, and how
// many bytes it counts.
func (p *path) send(now instant, f *flow, room int) (piece, int) {
	id, n := f.cut(room)
	was := p.model.inFlight
	for i := range n {
		f.send(now, id+uint64(i), &p.model)
	}
	first, last := f.unit(id), f.unit(id+uint64(n)-1)
	size := int(first.mss)
	if now := cuts(first.packet, p.mtu); now > 0 { // the path may carry less than when it was new
		size = min(size, now)
	}
	return piece{
		packet: first.packet.IncRef(), size: size,
		from: int(first.from), to: int(last.from + last.size),
		ack: f.ack, window: f.window,
	}, p.model.inFlight - was
}

// heard learns from a packet of the peer's what has arrived there, and removes from
// it what TCP is not to know. The caller has checked that it is TCP, in IPv6 without
// extensions.
func (p *path) heard(packet []byte) {
	tcp := header.TCP(packet[header.IPv6MinimumSize:])
	if len(tcp) < header.TCPMinimumSize {
		return
	}
	length, flags := int(tcp.DataOffset()), tcp.Flags()
	if length < header.TCPMinimumSize || length > len(tcp) {
		return
	}
	options := tcp[header.TCPMinimumSize:length]
	p.mu.Lock()
	defer p.mu.Unlock()
	if flags.Contains(header.TCPFlagSyn) {
		p.sack = header.ParseSynOptions(options, flags.Contains(header.TCPFlagAck)).SACKPermitted
	}
	key := ports(tcp.DestinationPort(), tcp.SourcePort())
	now := p.now()
	f := p.flows[key]
	if flags.Contains(header.TCPFlagRst) {
		if f != nil {
			p.forget(f)
			p.stir(now)
		}
		return
	}
	if !flags.Contains(header.TCPFlagAck) {
		return
	}
	p.answer(now, key, tcp.AckNumber())
	if f == nil {
		return
	}
	var sacks [maxSACKs]span
	a := acknowledgement{ack: tcp.AckNumber(), sacks: hideSACK(options, sacks[:0])}
	f.acknowledge(now, &a, &p.model)
	if a.arrived > 0 {
		if a.spurious {
			p.reorderWindow = p.model.minRTT / 4 // RFC 8985, section 6.2, step 4
		}
		p.model.update(now, a.last, a.again)
		f.detect(a.last.sent, p.reorderWindow, &p.model)
		p.schedule(f)
	}
	if f.units.len() == 0 {
		p.forget(f)
	}
	p.stir(now)
}

// close lets go of everything.
func (p *path) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.timer.Stop()
	for _, f := range p.flows {
		p.forget(f)
	}
}
