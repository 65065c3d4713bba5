//go:build linux

package main

import (
	"math/rand/v2"
	"time"
)

// mtu is the largest packet that the line carries, in bytes.
const mtu = 1500

// lateness is how much later than others a reordered packet arrives.
const lateness = time.Millisecond

// Conditions are what befalls packets in one direction.
type conditions struct {
	delay     time.Duration // from the end of sending to the arrival
	rate      int64         // bits a second
	queue     int           // bytes that may wait for their turn; what finds them there is dropped
	loss      float64       // the part of the packets that is lost, 0 to 1
	reorder   float64       // the part that arrives late, after others
	duplicate float64       // the part that arrives twice
	seed      uint64        // of chance
}

// A pipe is one direction of the line: a sender of constant rate behind a
// drop-tail queue, and a wire of constant delay. It has no clock of its own.
type pipe struct {
	conditions
	chance *rand.Rand
	free   time.Time // when the sender has sent all that it was given

	// Both in the order in which they arrive, since the delay is constant.
	wire, late fifo
	spare      [][]byte

	carried, lost, dropped uint64 // packets
}

func newPipe(c conditions, direction uint64) *pipe {
	return &pipe{conditions: c, chance: rand.New(rand.NewPCG(c.seed, direction))}
}

// take puts a copy of packet into the queue, unless it is full or chance has it
// that the packet is lost.
func (p *pipe) take(now time.Time, packet []byte) {
	if p.happens(p.loss) {
		p.lost++
		return
	}
	if p.free.Before(now) {
		p.free = now
	}
	if p.waiting(now)+len(packet) > p.queue {
		p.dropped++
		return
	}
	p.carried++
	p.free = p.free.Add(p.airtime(len(packet)))
	arrival := p.free.Add(p.delay)
	if p.happens(p.reorder) {
		p.late.push(flight{arrival.Add(lateness), p.copy(packet)})
	} else {
		p.wire.push(flight{arrival, p.copy(packet)})
	}
	if p.happens(p.duplicate) {
		p.wire.push(flight{arrival, p.copy(packet)})
	}
}

// happens draws a lot. It leaves the sequence of lots alone if the answer is
// certain, so that one seed loses the same packets with and without reordering.
func (p *pipe) happens(probability float64) bool {
	return probability > 0 && p.chance.Float64() < probability
}

// waiting is how many bytes are in the queue.
func (p *pipe) waiting(now time.Time) int {
	return int(p.free.Sub(now).Seconds() * float64(p.rate) / 8)
}

// airtime is how long n bytes take to send.
func (p *pipe) airtime(n int) time.Duration {
	return time.Duration(int64(n) * 8 * int64(time.Second) / p.rate)
}

// give calls out with each packet that has arrived by now, in order.
func (p *pipe) give(now time.Time, out func(packet []byte) error) error {
	for {
		from := p.first()
		if from == nil || from.front().arrival.After(now) {
			return nil
		}
		packet := from.pop().packet
		err := out(packet)
		p.spare = append(p.spare, packet)
		if err != nil {
			return err
		}
	}
}

// next returns when the next packet arrives. It reports false if none is on its
// way.
func (p *pipe) next() (time.Time, bool) {
	from := p.first()
	if from == nil {
		return time.Time{}, false
	}
	return from.front().arrival, true
}

// first returns the list whose first packet arrives first, or nil.
func (p *pipe) first() *fifo {
	switch {
	case p.wire.len() == 0 && p.late.len() == 0:
		return nil
	case p.late.len() == 0:
		return &p.wire
	case p.wire.len() == 0 || p.late.front().arrival.Before(p.wire.front().arrival):
		return &p.late
	}
	return &p.wire
}

// copy copies packet into a buffer that give has done with, or a new one.
func (p *pipe) copy(packet []byte) []byte {
	var b []byte
	if n := len(p.spare); n > 0 {
		b, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		b = make([]byte, 0, mtu)
	}
	return append(b[:0], packet...)
}

// A flight is a packet on its way.
type flight struct {
	arrival time.Time
	packet  []byte
}

// A fifo is a queue in a ring that grows.
type fifo struct {
	ring  []flight // its length is a power of two
	first int
	count int
}

func (f *fifo) len() int { return f.count }

func (f *fifo) front() *flight { return &f.ring[f.first] }

func (f *fifo) push(x flight) {
	if f.count == len(f.ring) {
		grown := make([]flight, max(64, 2*len(f.ring)))
		n := copy(grown, f.ring[f.first:])
		copy(grown[n:], f.ring[:f.first])
		f.ring, f.first = grown, 0
	}
	f.ring[(f.first+f.count)%len(f.ring)] = x
	f.count++
}

func (f *fifo) pop() flight {
	x := f.ring[f.first]
	f.ring[f.first] = flight{}
	f.first = (f.first + 1) % len(f.ring)
	f.count--
	return x
}
