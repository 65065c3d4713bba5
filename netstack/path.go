package netstack

import (
	"encoding/binary"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A path is the way to one peer. On a long one it stands between TCP and the tunnel:
// it holds back what would only wait in a queue on the way, and sends again what was
// lost there, so that TCP, which would take every loss for congestion, sees none.
// The other end has no part in it.
//
// TCP's segments go out by add and take. In between, take picks among the
// connections in turn, as fast as the model says. What comes in passes heard, which
// learns from it what has arrived and hides from TCP what has not. A timer sees to
// what is lost without anything that follows. TCP's own timeout is the last resort:
// what it sends again, and is not about to be sent or just was, is sent again.
type path struct {
	// Static after newPath.
	paths *paths // that it is one of
	peer  [16]byte
	epoch time.Time // instants are since then

	mu     sync.Mutex
	closed bool
	model  model
	flows  map[uint32]*flow // by ports
	ready  deque[*flow]     // that have something to send; each at most once

	nextSend instant // by the model's rate
	trouble  instant // until then the path may lose something, short or not
	patience instant // how late something may be after what was sent later
	timer    *time.Timer
	alarm    instant // when the timer fires; 0: it does not

	spare []*flow // to be used again

	// Of one segment at a time while the path is short.
	glance struct {
		ports uint32
		end   uint32 // sequence number after it; valid if sent is not 0
		sent  instant
		next  instant // when the next may be sent
	}

	marked bool // it is in paths.ready, whose lock guards this
}

const (
	// longTrip is what makes a path long. A shorter one is a local network's, which
	// loses nothing and has no time to waste.
	longTrip = 3 * time.Millisecond

	// lookEvery is how often a path is looked at that was short.
	lookEvery = time.Second

	// troubled is for how long a short path that lost something is as good as long.
	troubled = 10 * time.Second

	// slack is how long nothing may be sent for lack of a wake-up, without that the
	// rate suffers; and pace is how much is sent at once.
	slack = 2 * time.Millisecond
	pace  = time.Millisecond

	// maxOverdue is how often in a row a flow's silence is waited for, ever longer,
	// before it is left to TCP.
	maxOverdue = 9

	// So many flows, of at most so many units, wait to be used again.
	maxSpare   = 16
	spareUnits = 64
)

func newPath(ps *paths, peer [16]byte) *path {
	p := &path{paths: ps, peer: peer, epoch: time.Now(), flows: map[uint32]*flow{}}
	p.timer = time.AfterFunc(time.Hour, p.ring)
	p.timer.Stop()
	return p
}

func (p *path) now() instant { return time.Since(p.epoch) + 1 }

// ports returns those of a segment, the local one first.
func ports(local, remote uint16) uint32 { return uint32(local)<<16 | uint32(remote) }

// add takes over a packet of TCP's, with a reference of its own. It reports false if
// the packet is to be sent as if there were no path. mtu bounds what it is cut into.
func (p *path) add(packet *stack.PacketBuffer, mtu int) bool {
	tcp := header.TCP(packet.TransportHeader().Slice())
	flags, size := tcp.Flags(), packet.Data().Size()
	if flags.Contains(header.TCPFlagSyn) {
		return false
	}
	key := ports(tcp.SourcePort(), tcp.DestinationPort())
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.flows[key]
	if f != nil {
		f.ack, f.window = tcp.AckNumber(), tcp.WindowSize()
	}
	switch {
	case flags.Contains(header.TCPFlagRst):
		if f != nil {
			p.forget(f)
		}
		return false
	case size == 0 && !flags.Contains(header.TCPFlagFin):
		return false
	}
	now := p.now()
	seq, end := tcp.SequenceNumber(), tcp.SequenceNumber()+uint32(size)
	if p.closed || p.short() && now > p.trouble && (f == nil || !f.sendable()) {
		p.look(now, key, end)
		return false
	}
	if f == nil {
		f = p.newFlow(key, seq)
		f.ack, f.window = tcp.AckNumber(), tcp.WindowSize()
	}
	if seq != f.end {
		return p.repeat(now, f, seq, end)
	}
	mss := cuts(packet, mtu)
	if mss == 0 {
		mss = max(size, 1)
	}
	f.push(packet, mss)
	p.sendable(f)
	p.stir(now)
	return true
}

// newFlow returns a flow that begins with seq.
func (p *path) newFlow(key, seq uint32) *flow {
	var f *flow
	if n := len(p.spare); n > 0 {
		f, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		f = new(flow)
	}
	f.ports, f.start, f.end = key, seq, seq
	p.flows[key] = f
	return f
}

// forget removes f, which is not used any more.
func (p *path) forget(f *flow) {
	f.drop(&p.model)
	delete(p.flows, f.ports)
	f.gone = true
	if !f.ready {
		p.keep(f)
	}
}

// keep has f used again, if it is small.
func (p *path) keep(f *flow) {
	if len(p.spare) < maxSpare && f.units.cap() <= spareUnits && f.history.cap() <= spareUnits {
		f.reset()
		p.spare = append(p.spare, f)
	}
}

// short reports whether the path is known to be short.
func (p *path) short() bool { return p.model.minRTT > 0 && p.model.minRTT < longTrip }

// look begins to measure the round trip by a segment that ends at end.
func (p *path) look(now instant, key, end uint32) {
	if now >= p.glance.next {
		p.glance.ports, p.glance.end, p.glance.sent = key, end, now
		p.glance.next = now + lookEvery
	}
}

// seen measures the round trip if ack is of what was looked at.
func (p *path) seen(key, ack uint32) {
	if p.glance.sent == 0 || p.glance.ports != key || before(ack, p.glance.end) {
		return
	}
	now := p.now()
	if p.short() {
		p.model.minRTT = 0
	}
	p.model.measure(now, now-p.glance.sent)
	p.glance.sent = 0
}

// repeat is for what TCP sends again, because nothing was heard of it for so long. It
// reports false for what is not the flow's.
func (p *path) repeat(now instant, f *flow, seq, end uint32) bool {
	if before(seq, f.start) || before(f.end, end) || before(f.end, seq) {
		return false
	}
	for i := range f.units.len() {
		u := f.units.at(i)
		if !before(u.seq, end) {
			break
		}
		if !before(seq, u.end) || u.state == lost || u.state == waiting || now-u.sent < p.model.timeout() {
			continue
		}
		if u.state == arrived { // and the other end has changed its mind
			u.state = flying
			f.flying++
			p.model.inflight += u.bytes()
		}
		f.lose(f.first+uint64(i), &p.model)
	}
	p.sendable(f)
	p.stir(now)
	return true
}

// sendable puts f among the ready, if it has something to send.
func (p *path) sendable(f *flow) {
	if !f.ready && f.sendable() {
		f.ready = true
		p.ready.push(f)
	}
}

// stir sees to it that take is called when there is something to take, be it later.
func (p *path) stir(now instant) {
	if p.ready.len() == 0 || p.model.inflight >= p.model.window() {
		return
	}
	if p.nextSend > now {
		p.wake(p.nextSend)
		return
	}
	p.paths.mark(p)
}

// wake has the timer fire at t, if it does not before.
func (p *path) wake(t instant) {
	if p.closed || p.alarm != 0 && p.alarm <= t {
		return
	}
	p.alarm = t
	p.timer.Reset(time.Until(p.epoch.Add(t)))
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
	p.overdue(now)
	p.stir(now)
}

// overdue sends again what was lost and has nothing after it that would tell.
func (p *path) overdue(now instant) {
	next := instant(0)
	for _, f := range p.flows {
		if f.flying == 0 {
			continue
		}
		due := f.progress + p.model.timeout()<<f.overdue
		if due <= now {
			if f.overdue++; f.overdue > maxOverdue {
				p.forget(f)
				continue
			}
			p.suspect(f)
			due = now + p.model.timeout()<<f.overdue
		}
		if next == 0 || due < next {
			next = due
		}
	}
	if next != 0 {
		p.wake(next)
	}
}

// suspect takes for lost the last unit on its way: its answer will tell of others
// before it. If it was that already, all of them.
func (p *path) suspect(f *flow) {
	for i := f.units.len() - 1; i >= 0; i-- {
		if f.units.at(i).state == flying {
			f.lose(f.first+uint64(i), &p.model)
			if f.overdue == 1 {
				break
			}
		}
	}
	p.sendable(f)
}

// take moves what is to be sent now into dst, and returns how many pieces. It has
// one caller at a time.
func (p *path) take(dst []piece) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.nextSend = max(p.nextSend, now-slack)
	rate := p.model.rate()
	for ; n < len(dst) && p.ready.len() > 0; n++ {
		room := p.model.window() - p.model.inflight
		if room <= 0 || p.nextSend > now {
			break
		}
		f := p.ready.pop()
		f.ready = false
		if f.gone {
			p.keep(f)
		}
		if !f.sendable() {
			n--
			continue
		}
		if rate > 0 {
			room = min(room, max(int(rate*pace.Seconds()), 2<<10))
		}
		sent := 0
		dst[n], sent = p.send(now, f, room)
		if rate > 0 {
			p.nextSend += instant(float64(sent) / rate * float64(time.Second))
		}
		p.sendable(f)
	}
	if p.ready.len() == 0 && p.model.inflight < p.model.window() {
		p.model.idle()
	}
	if p.model.inflight > 0 {
		p.wake(now + p.model.timeout())
	}
	p.stir(now)
	return n
}

// send returns a piece of f to send, and how many bytes it counts.
func (p *path) send(now instant, f *flow, room int) (piece, int) {
	id, n := f.cut(room)
	was := p.model.inflight
	for i := range n {
		f.send(now, id+uint64(i), &p.model)
	}
	first, last := f.unit(id), f.unit(id+uint64(n)-1)
	return piece{
		packet: first.packet.IncRef(), size: int(first.mss),
		from: int(first.from), to: int(last.from + last.size),
		ack: f.ack, window: f.window,
	}, p.model.inflight - was
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
	if length < header.TCPMinimumSize || length > len(tcp) || flags.Contains(header.TCPFlagSyn) {
		return
	}
	key := ports(tcp.DestinationPort(), tcp.SourcePort())
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.flows[key]
	if flags.Contains(header.TCPFlagRst) {
		if f != nil { // were it no valid one, TCP would send all again
			p.forget(f)
			p.stir(p.now())
		}
		return
	}
	if !flags.Contains(header.TCPFlagAck) {
		return
	}
	p.seen(key, tcp.AckNumber())
	now := p.now()
	options := tcp[header.TCPMinimumSize:length]
	if f == nil || before(tcp.AckNumber(), f.start) {
		if hasSACK(options) {
			p.trouble = now + troubled
		}
		return
	}
	var sacks [4]span
	a := acknowledgement{ack: tcp.AckNumber(), sacks: hideSACK(options, sacks[:0])}
	f.acknowledge(now, &a, &p.model)
	if a.arrived > 0 {
		p.learn(now, f, &a)
	}
	if f.units.len() == 0 {
		p.forget(f)
	}
	p.stir(now)
}

// learn draws conclusions from what has arrived.
func (p *path) learn(now instant, f *flow, a *acknowledgement) {
	if a.early {
		p.patience = p.model.minRTT / 4
	}
	p.model.update(now, a.last, a.again)
	f.detect(a.last.sent, p.patience, &p.model)
	p.sendable(f)
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

// hideSACK appends the SACK blocks in options to spans, and makes their option
// padding. TCP then neither counts an acknowledgement as a duplicate nor sends
// anything again for it (RFC 6675).
func hideSACK(options []byte, spans []span) []span {
	for len(options) > 0 {
		switch options[0] {
		case header.TCPOptionEOL:
			return spans
		case header.TCPOptionNOP:
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return spans
		}
		option := options[:options[1]]
		options = options[len(option):]
		if option[0] != header.TCPOptionSACK {
			continue
		}
		for b := option[2:]; len(b) >= 8; b = b[8:] {
			spans = append(spans, span{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])})
		}
		for i := range option {
			option[i] = header.TCPOptionNOP
		}
	}
	return spans
}

// hasSACK reports whether there are SACK blocks in options.
func hasSACK(options []byte) bool { return len(header.ParseTCPOptions(options).SACKBlocks) > 0 }
