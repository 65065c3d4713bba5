package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// overtakenBy is how many later units have to arrive for one to be taken for lost.
const overtakenBy = 3

// A flow is what one connection has on its way to a peer: units, each what travels
// in one packet. It is there while some of it is not acknowledged.
type flow struct {
	ports uint32 // of both ends

	// Units are in order of their sequence numbers, without gaps. Their ids count
	// from first.
	units  deque[unit]
	first  uint64 // id of the first unit
	unsent uint64 // id of the first that was never sent
	start  uint32 // sequence number of the first unit ever
	end    uint32 // sequence number after the last

	// What TCP said last of the other direction: a unit says that, and not what was
	// said when it was new.
	ack    uint32
	window uint16

	scoreboard scoreboard

	lost     deque[uint64]       // ids of lost units, to be sent again
	history  deque[transmission] // in order; those that came to nothing are in it for a while
	order    uint64              // of the last transmission
	newest   uint64              // order of the last sent of what has arrived
	flying   int                 // units on their way
	progress instant             // when it last sent, or heard of an arrival
	overdue  int                 // how often since then nothing was heard for too long

	ready bool // it is in path.ready
	gone  bool // it was forgotten
}

// A unit is some bytes of a flow, or its end, in one packet.
type unit struct {
	packet *stack.PacketBuffer // it is part of; with a reference
	from   int32               // place in the packet's payload
	size   int32               // of the payload
	seq    uint32
	end    uint32 // seq of what follows
	mss    int32  // payload of the packet's other units
	state  unitState
	again  bool   // it was sent more than once
	order  uint64 // of its last transmission
	snapshot
}

// waiting ──▶ flying ──▶ arrived
//
//	│ ▲         ▲
//	▼ │         │
//	lost ───────┘
type unitState uint8

const (
	waiting unitState = iota // to be sent for the first time
	flying                   // sent
	lost                     // to be sent again
	arrived                  // at the other end
)

// A transmission is a unit's, by id.
type transmission struct {
	id    uint64
	order uint64
}

// unitOverhead is what a unit counts beside its payload.
const unitOverhead = 100

func (u *unit) bytes() int { return int(u.size) + unitOverhead }

// before reports whether sequence number a is before b (RFC 9293, section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

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
	if tcp.Flags().Contains(header.TCPFlagFin) { // which TCP sends without data
		p.IncRef()
		u.end = u.seq + 1
		f.units.push(u)
	}
	f.end = u.end
}

// sendable reports whether there is a unit to be sent. While the other end is silent
// there is one at a time, so that what is gone keeps nobody else from sending.
func (f *flow) sendable() bool {
	if f.overdue > 1 && f.flying > 0 {
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
// in one packet, up to budget bytes but at least one. There must be one.
func (f *flow) cut(budget int) (id uint64, n int) {
	if f.lost.len() > 0 { // which sendable saw to be so
		id = f.lost.pop()
	} else {
		id = f.unsent
	}
	u := f.unit(id)
	if f.overdue > 1 {
		budget = 0
	}
	for ; ; n++ {
		next := id + uint64(n)
		if next == f.next() {
			break
		}
		v := f.unit(next)
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
	u.state, u.order = flying, f.order
	u.snapshot = m.send(now, u.bytes())
	f.flying++
	f.progress = now
	f.history.push(transmission{id, f.order})
}

// An acknowledgement is what the other end says, and what it changes.
type acknowledgement struct {
	ack   uint32
	sacks []span

	arrived int      // units
	last    snapshot // of the last sent of them
	order   uint64   // of that
	again   bool     // it was sent more than once
	early   bool     // one that was sent again arrived before that could be why
}

// acknowledge takes a into account and completes it.
func (f *flow) acknowledge(now instant, a *acknowledgement, m *model) {
	for _, s := range a.sacks {
		if !before(s.start, f.start) && !before(f.end, s.end) {
			f.scoreboard.add(s, func(s span) { f.cover(now, s, a, m) })
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
	f.scoreboard.forget(ack)
	if a.arrived > 0 {
		f.newest = max(f.newest, a.order)
		f.progress, f.overdue = now, 0
	}
}

// cover has arrived what lies in s.
func (f *flow) cover(now instant, s span, a *acknowledgement, m *model) {
	lo, hi := 0, f.units.len()
	for lo < hi {
		if mid := (lo + hi) / 2; before(f.units.at(mid).seq, s.start) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for ; lo < f.units.len() && !before(s.end, f.units.at(lo).end); lo++ {
		f.arrive(now, f.units.at(lo), a, m)
	}
}

func (f *flow) arrive(now instant, u *unit, a *acknowledgement, m *model) {
	switch u.state {
	case arrived, waiting: // a unit that was not sent cannot arrive
		return
	case flying:
		f.flying--
		m.land(u.bytes())
	}
	if u.state == lost || u.again && now-u.sent < m.minRTT*7/8 {
		a.early = true
	}
	u.state = arrived
	m.arrive(now, u.bytes())
	a.arrived++
	if u.order > a.order {
		a.last, a.order, a.again = u.snapshot, u.order, u.again
	}
}

// pop lets go of the first unit.
func (f *flow) pop() {
	u := f.units.pop()
	u.packet.DecRef()
	f.first++
	f.unsent = max(f.unsent, f.first)
}

// drop lets go of all units.
func (f *flow) drop(m *model) {
	for f.units.len() > 0 {
		if u := f.units.at(0); u.state == flying {
			f.flying--
			m.land(u.bytes())
		}
		f.pop()
	}
	f.lost.clear()
	f.history.clear()
}

// reset makes f, which was dropped, new.
func (f *flow) reset() {
	*f = flow{units: f.units, lost: f.lost, history: f.history, scoreboard: scoreboard{f.scoreboard.spans[:0]}}
}

// detect takes for lost what was overtaken: units sent before three that have
// arrived, or, if what is late may still come, so long before the last of them.
func (f *flow) detect(newest instant, patience instant, m *model) {
	for f.history.len() > 0 {
		t := *f.history.at(0)
		if f.has(t.id) {
			if u := f.unit(t.id); u.state == flying && u.order == t.order {
				if t.order+overtakenBy > f.newest || u.sent+patience > newest {
					return
				}
				f.lose(t.id, m)
			}
		}
		f.history.pop()
	}
}

// lose takes a unit that is on its way for lost.
func (f *flow) lose(id uint64, m *model) {
	u := f.unit(id)
	u.state = lost
	f.flying--
	m.land(u.bytes())
	m.lose()
	f.lost.push(id)
}
