package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// reorderThreshold is how many packets that were sent later have to arrive for one to
// be taken for lost: DupThresh of RFC 6675, section 5.
const reorderThreshold = 3

// A flow is what one connection has on its way to a peer: units, each what travels
// in one packet. It is there while some of it is not acknowledged. Its memory is in
// proportion to what TCP has in its send buffer, whatever the peer says.
//
// Its loss detection is RFC 8985's (RACK), but by the order of transmissions instead
// of by their time: what arrived tells of all that was sent before it, also of what
// was sent again.
type flow struct {
	ports uint32 // of both ends

	// Units are in order of their sequence numbers, without gaps. Their ids count
	// from first.
	units  deque[unit]
	first  uint64 // id of the first unit
	unsent uint64 // id of the first that was never sent
	una    uint32 // sequence number of the first unit
	end    uint32 // sequence number after the last

	// What TCP said last of the other direction: a unit says that, and not what was
	// said when it was new.
	ack    uint32
	window uint16

	lost          deque[uint64]       // ids of lost units, to be sent again
	transmissions deque[transmission] // in order; those that came to nothing are in it for a while
	order         uint64              // of the last transmission
	newest        uint64              // order of the last sent of what has arrived
	inFlight      int                 // units
	progress      instant             // when it last sent, or heard of an arrival
	timeouts      int                 // PTOs since something arrived

	queued bool // it is in path.ready
	gone   bool // it was forgotten
}

// A unit is some bytes of a flow, or its end, in one packet.
type unit struct {
	packet *stack.PacketBuffer // it is part of; with a reference
	from   int32               // place in the packet's payload
	size   int32               // of the payload
	mss    int32               // payload of the packet's other units
	seq    uint32
	end    uint32 // seq of what follows
	state  unitState
	again  bool   // it was sent more than once
	order  uint64 // of its last transmission
	run    uint64 // if SACKed: id after some SACKed units that follow; 0: not known
	snapshot
}

// waiting ──▶ inFlight ──▶ sacked
//
//	│ ▲
//	▼ │
//	lost
type unitState uint8

const (
	waiting  unitState = iota // to be sent for the first time
	inFlight                  // sent
	lost                      // to be sent again
	sacked                    // at the other end
)

// A transmission is a unit's, by id.
type transmission struct {
	id    uint64
	order uint64
}

// packetOverhead is what a packet counts beside its payload: the headers inside the
// tunnel and the tunnel's own.
const packetOverhead = 140

func (u *unit) bytes() int { return int(u.size) + packetOverhead }

// before reports whether sequence number a is before b (RFC 9293, section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

// start makes f, which is empty, one that begins with seq.
func (f *flow) start(ports, seq uint32) {
	*f = flow{ports: ports, una: seq, end: seq, units: f.units, lost: f.lost, transmissions: f.transmissions}
}

func (f *flow) unit(id uint64) *unit { return f.units.at(int(id - f.first)) }

// has reports whether id is still that of a unit.
func (f *flow) has(id uint64) bool { return id >= f.first }

// next returns the id of the unit that will be pushed next.
func (f *flow) next() uint64 { return f.first + uint64(f.units.len()) }

// push appends the payload of p, or its FIN, as units of at most mss bytes.
func (f *flow) push(p *stack.PacketBuffer, mss int) {
	tcp := header.TCP(p.TransportHeader().Slice())
	u := unit{packet: p, mss: int32(mss), seq: tcp.SequenceNumber()}
	for left := int32(p.Data().Size()); left > 0; left -= u.size {
		p.IncRef()
		u.size = min(u.mss, left)
		u.end = u.seq + uint32(u.size)
		f.units.push(u)
		u.from += u.size
		u.seq = u.end
	}
	if tcp.Flags().Contains(header.TCPFlagFin) {
		if u.from > 0 { // with data, which gVisor does not do
			f.units.at(f.units.len()-1).end++
			u.end++
		} else {
			p.IncRef()
			u.end = u.seq + 1
			f.units.push(u)
		}
	}
	f.end = u.end
}

// sendable reports whether there is a unit to be sent. While the other end is silent
// there is one at a time, so that what is gone keeps nobody else from sending.
func (f *flow) sendable() bool {
	if f.timeouts > 1 && f.inFlight > 0 {
		return false
	}
	for f.lost.len() > 0 {
		if id := *f.lost.at(0); f.has(id) && f.unit(id).state == lost {
			return true
		}
		f.lost.pop()
	}
	return f.unsent < f.next()
}

// cut returns the units to send next, whose number is n: some that follow each other
// in one packet, up to budget bytes but at least one. There must be one. While the other
// end is silent it is the first that did not arrive.
func (f *flow) cut(budget int) (id uint64, n int) {
	switch {
	case f.timeouts > 1: // the other end may have room for what it waits for alone
		budget = 0
		for id = f.first; f.unit(id).state == sacked; id++ {
		}
	case f.lost.len() > 0: // which sendable saw to be so
		id = f.lost.pop()
	default:
		id = f.unsent
	}
	u := f.unit(id)
	for ; id+uint64(n) < f.next(); n++ {
		v := f.unit(id + uint64(n))
		budget -= v.bytes()
		if v.packet != u.packet || v.state != u.state || n > 0 && budget < 0 {
			break
		}
	}
	f.unsent = max(f.unsent, id+uint64(n))
	return id, n
}

// send notes that a unit is sent.
func (f *flow) send(now instant, id uint64, m *model) {
	u := f.unit(id)
	f.order++
	u.again = u.state == lost
	u.state, u.order = inFlight, f.order
	u.snapshot = m.send(now, u.bytes())
	f.inFlight++
	f.progress = now
	f.transmissions.push(transmission{id, f.order})
}

// An acknowledgement is what the other end says, and what it changes.
type acknowledgement struct {
	ack   uint32
	sacks []span

	arrived  int      // units
	last     snapshot // of the last sent of them
	order    uint64   // of that
	again    bool     // it was sent more than once
	spurious bool     // one arrived before its being sent again could be why
}

// A span is sequence numbers from start to before end.
type span struct{ start, end uint32 }

// acknowledge takes a into account and completes it. What a says of anything but the
// flow's units is left aside.
func (f *flow) acknowledge(now instant, a *acknowledgement, m *model) {
	for _, s := range a.sacks {
		if !before(s.start, f.una) && !before(f.end, s.end) && before(s.start, s.end) {
			f.sack(now, s, a, m)
		}
	}
	ack := a.ack
	if before(f.end, ack) { // it is of what went another way, too
		ack = f.end
	}
	for f.units.len() > 0 && !before(ack, f.units.at(0).end) {
		f.arrive(now, f.units.at(0), a, m)
		f.pop()
	}
	if a.arrived > 0 {
		f.newest = max(f.newest, a.order)
		f.progress, f.timeouts = now, 0
	}
}

// sack has arrived the units that lie in s. It passes over those that are known to
// have: a block is repeated in many acknowledgements, and grows.
func (f *flow) sack(now instant, s span, a *acknowledgement, m *model) {
	lo, hi := f.search(s.start), f.next()
	if before(s.end, f.end) {
		if hi = f.search(s.end); hi > lo && before(s.end, f.unit(hi-1).end) {
			hi-- // the last lies in s in part
		}
	}
	for id := lo; id < hi; {
		u := f.unit(id)
		next := id + 1
		if u.state == sacked {
			next = max(next, u.run)
		}
		f.arrive(now, u, a, m)
		if u.state == sacked {
			u.run = max(u.run, hi)
		}
		id = next
	}
}

// search returns the id of the first unit that does not begin before seq.
func (f *flow) search(seq uint32) uint64 {
	lo, hi := 0, f.units.len()
	for lo < hi {
		if mid := (lo + hi) / 2; before(f.units.at(mid).seq, seq) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return f.first + uint64(lo)
}

func (f *flow) arrive(now instant, u *unit, a *acknowledgement, m *model) {
	switch u.state {
	case sacked, waiting: // what was not sent cannot arrive
		return
	case inFlight:
		f.inFlight--
		m.land(u.bytes())
	}
	if u.state == lost || u.again && now-u.sent < m.minRTT*7/8 {
		a.spurious = true
	}
	u.state = sacked
	m.deliver(now, u.bytes())
	a.arrived++
	if u.order > a.order {
		a.last, a.order, a.again = u.snapshot, u.order, u.again
	}
}

// pop lets go of the first unit.
func (f *flow) pop() {
	u := f.units.pop()
	u.packet.DecRef()
	f.una = u.end
	f.first++
	f.unsent = max(f.unsent, f.first)
}

// drop lets go of all units.
func (f *flow) drop(m *model) {
	for f.units.len() > 0 {
		if u := f.units.at(0); u.state == inFlight {
			f.inFlight--
			m.land(u.bytes())
		}
		f.pop()
	}
	f.lost.clear()
	f.transmissions.clear()
}

// detect takes for lost what was overtaken: units sent before reorderThreshold that
// have arrived, and the reordering window before newest, when the last of them was
// sent (RFC 8985, section 6.2).
func (f *flow) detect(newest instant, reorderWindow instant, m *model) {
	for f.transmissions.len() > 0 {
		t := *f.transmissions.at(0)
		if f.has(t.id) {
			if u := f.unit(t.id); u.state == inFlight && u.order == t.order {
				if t.order+reorderThreshold > f.newest || u.sent+reorderWindow > newest {
					return
				}
				f.lose(t.id, m)
			}
		}
		f.transmissions.pop()
	}
}

// probe takes for lost the last unit on its way, after a PTO: the answer to its being
// sent again will tell of others before it (RFC 8985, section 7). If that was done
// already, it takes all of them.
func (f *flow) probe(m *model) {
	for id := f.unsent; id > f.first; id-- {
		if f.unit(id-1).state != inFlight {
			continue
		}
		f.lose(id-1, m)
		if f.timeouts == 1 {
			return
		}
	}
}

// repeat takes for lost what TCP sends again, from seq to end, since nothing was heard
// of it for an RTO: unless it was sent within the last PTO. What was SACKed is not
// believed any more (RFC 2018, section 8). It reports false for what is not the
// flow's.
func (f *flow) repeat(now instant, seq, end uint32, m *model) bool {
	if before(seq, f.una) || before(f.end, end) || !before(seq, end) {
		return false
	}
	for i := range f.units.len() { // runs are no more of SACKed units alone
		f.units.at(i).run = 0
	}
	id := f.search(seq)
	if id > f.first && before(seq, f.unit(id-1).end) { // a part of it was acknowledged
		id--
	}
	for ; id < f.unsent; id++ {
		u := f.unit(id)
		if !before(u.seq, end) {
			break
		}
		if u.state == lost || u.state == waiting || now-u.sent < m.pto() {
			continue
		}
		if u.state == sacked {
			u.state = inFlight
			f.inFlight++
			m.inFlight += u.bytes()
		}
		f.lose(id, m)
	}
	return true
}

// lose takes a unit that is in flight for lost.
func (f *flow) lose(id uint64, m *model) {
	u := f.unit(id)
	u.state = lost
	f.inFlight--
	m.land(u.bytes())
	m.lose(u.bytes())
	f.lost.push(id)
}
