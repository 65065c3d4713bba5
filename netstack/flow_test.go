package netstack

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Whatever the other end says, nothing panics, what is held stays in proportion to
// what TCP gave and did not hear acknowledged, and what is in flight is what is counted.
func FuzzPath(f *testing.F) {
	f.Add([]byte{0, 5, 1, 3, 2, 10, 3, 50, 2, 200, 3, 255})
	f.Add([]byte{0, 60, 1, 0, 1, 0, 4, 7, 9, 4, 3, 2, 4, 0, 60, 3, 200, 1, 0, 2, 60})
	f.Add([]byte{0, 20, 1, 1, 3, 250, 3, 250, 3, 250, 5, 0, 1, 1, 6, 3, 2, 255})
	f.Fuzz(func(t *testing.T, script []byte) {
		const mss = 100
		m := newManualPath(t)
		m.t = t
		seq, acked := ^uint32(0)-1000, ^uint32(0)-1000 // of TCP: it wraps
		next := func() (b uint32) {
			if len(script) > 0 {
				b, script = uint32(script[0]), script[1:]
			}
			return b
		}
		for ops := 0; len(script) > 0 && ops < 300; ops++ {
			switch next() % 8 {
			case 0: // TCP sends
				if n := int(next()%64) * mss; n > 0 && len(m.packets) < 200 {
					m.tcp(1, seq, ackFlag, n)
					seq += uint32(n)
				}
			case 1:
				m.sent()
			case 2: // the other end acknowledges, something or other
				ack := acked + next()*mss/4
				m.acked(1, ack)
				if before(acked, ack) && !before(seq, ack) { // or TCP does not believe it
					acked = ack
				}
			case 3:
				m.sim.run(m.sim.now + time.Duration(next())*4*time.Millisecond)
			case 4, 5: // blocks of any kind
				var sacks []span
				for range 1 + next()%maxSACKs {
					start := acked + next()*mss/3
					sacks = append(sacks, span{start, start + (next()-20)*mss/2})
				}
				m.acked(1, acked, sacks...)
			case 6: // TCP sends again, and the window is probed
				if before(acked, seq) {
					m.tcp(1, acked, ackFlag, int(min(seq-acked, 5*mss)))
				}
				m.tcp(1, acked-1, ackFlag, 1)
			case 7:
				if next()%16 == 0 {
					m.syn(1, header.TCPFlagRst, nil)
				}
			}
			m.mustHold(int(seq - acked))
		}
	})
}

// mustHold checks the books of the path, whose TCP has most bytes that are not
// acknowledged.
func (m *manualPath) mustHold(most int) {
	m.t.Helper()
	counted, bytes := 0, 0
	for _, f := range m.flows {
		flying := 0
		for i := range f.units.len() {
			u := f.units.at(i)
			bytes += int(u.size)
			if u.state == inFlight {
				flying++
				counted += u.bytes()
			}
			if i > 0 && f.units.at(i-1).end != u.seq {
				m.t.Fatal("units have a gap")
			}
		}
		if flying != f.inFlight {
			m.t.Fatalf("%d units in flight are counted as %d", flying, f.inFlight)
		}
		if most := 8*f.units.len() + 64; f.transmissions.len() > most || f.lost.len() > most {
			m.t.Fatalf("%d transmissions and %d lost for %d units", f.transmissions.len(), f.lost.len(), f.units.len())
		}
	}
	if counted != m.model.inFlight {
		m.t.Fatalf("%d bytes in flight are counted as %d", counted, m.model.inFlight)
	}
	if slack := 64 * 1000; bytes > most+slack {
		m.t.Fatalf("%d bytes are held, of %d", bytes, most)
	}
}

// SACK blocks in any order have the same units arrive as when each block is looked at
// unit by unit.
func TestSACKSameAsSlowly(t *testing.T) {
	const units = 200
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		m := newManualPath(t)
		for i := range units / 50 {
			m.tcp(1, uint32(i*50*manualMSS), ackFlag, 50*manualMSS)
		}
		f := m.flows[ports(1, 443)]
		for f.unsent < units { // all in flight, whatever the model says
			id, n := f.cut(1 << 20)
			for i := range n {
				f.send(m.now(), id+uint64(i), &m.model)
			}
		}
		want := make([]bool, units)
		for range 60 {
			start, end := rng.IntN(units*manualMSS), rng.IntN(units*manualMSS)
			if rng.IntN(4) > 0 {
				start -= start % manualMSS
			}
			s := span{uint32(min(start, end)), uint32(max(start, end))}
			a := acknowledgement{sacks: []span{s}}
			f.acknowledge(m.now(), &a, &m.model)
			for i := range want {
				if seq := uint32(i * manualMSS); s.start <= seq && seq+manualMSS <= s.end {
					want[i] = true
				}
			}
			got := make([]bool, units)
			for i := range got {
				got[i] = f.units.at(i).state == sacked
			}
			if !slices.Equal(got, want) {
				t.Fatalf("after %v: got %v, want %v", s, got, want)
			}
		}
		m.release()
	}
}
