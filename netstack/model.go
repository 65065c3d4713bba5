package netstack

import "time"

// A model is what one believes of the path to a peer: how much it carries and how
// long it takes. From that it says how much may be on its way, and how fast to send.
// It goes by the rate at which the other end receives, and not by loss, which on
// many paths says nothing of how busy they are: the model of BBR
// (draft-cardwell-iccrg-bbr-congestion-control), with a bound from loss where that
// comes with a queue or is heavy.
//
// It has no clock. Times are since its path was made, sizes in bytes.
type model struct {
	inflight int // sent, and neither delivered nor lost

	minRTT, minRTTAt instant // the shortest lately, and when it was measured last
	srtt, rttvar     instant // RFC 6298, section 2

	// Delivered is all that ever arrived; a round ends when what was sent at its
	// beginning arrives.
	delivered   int64
	deliveredAt instant
	firstSent   instant // of what is on its way, the first when the last delivered was sent
	limited     int64   // until this much is delivered, there was less to send than fits
	nextRound   int64   // delivered, at the end of the round
	rates       [rateRounds]float64
	rateRound   int

	phase      phase
	fullRate   float64 // the best rate of starting up, and rounds since it grew
	fullRounds int
	standing   bool    // the last round met a queue, if a short one
	gain       int     // of probing: its place in gains
	gainRounds int     // that have ended since it began
	probedAt   instant // when gains[0] began last

	// Of resting.
	restEnd instant
	restRTT instant // the shortest since it began; 0: none
	resume  phase   // that goes on afterwards

	// Of the round.
	roundSent, roundLost int // packets
	roundRTT             instant

	bound int // of inflight, by loss; 0: none
}

// An instant is a time since a path was made.
type instant = time.Duration

// A phase is what the model is finding out.
//
//	starting ──▶ draining ──▶ probing
//
// and resting at times, from each of them and back.
type phase uint8

const (
	starting phase = iota // how much the path carries: twice as much each round
	draining              // the queue that starting built goes
	probing               // whether it carries more by now, and again less
	resting               // how long it takes, without a queue of ours
)

const (
	probeEvery = time.Second
	rateRounds = 10 // for how many rounds a rate is remembered
	restAfter  = 10 * time.Second
	restFor    = 200 * time.Millisecond

	startGain = 2.89 // 2/ln 2: doubles the rate each round

	// initialWindow may be on its way before anything is known.
	initialWindow = 64 << 10
	minWindow     = 16 << 10

	// lossFew packets lost in a round say nothing of congestion.
	lossFew = 8
)

// Gains of probing: for more, for two rounds; then for less, until the queue that it
// built is gone; then for what the path carries.
var gains = [...]float64{up: 1.25, down: 0.75, steady: 1}

const (
	up = iota
	down
	steady
)

// A snapshot is the model's state when something was sent.
type snapshot struct {
	sent        instant
	delivered   int64
	deliveredAt instant
	firstSent   instant
	limited     bool
}

// send counts size bytes as on their way.
func (m *model) send(now instant, size int) snapshot {
	if m.inflight == 0 {
		m.deliveredAt, m.firstSent = now, now
	}
	m.inflight += size
	m.roundSent++
	return snapshot{now, m.delivered, m.deliveredAt, m.firstSent, m.limited > 0}
}

// arrive counts size bytes as delivered. Call update when all of an acknowledgement
// are counted.
func (m *model) arrive(now instant, size int) {
	m.delivered += int64(size)
	m.deliveredAt = now
}

// land takes size bytes off what is on its way: they arrived, or are lost.
func (m *model) land(size int) { m.inflight -= size }

// lose counts a packet as lost.
func (m *model) lose() { m.roundLost++ }

// idle says that there is no more to send, though more would fit.
func (m *model) idle() { m.limited = m.delivered + int64(max(m.inflight, 1)) }

// update learns from an acknowledgement: s is of the last sent of what it delivers,
// sent once unless again is set.
func (m *model) update(now instant, s snapshot, again bool) {
	if !again {
		m.measure(now, now-s.sent)
	}
	if m.delivered > m.limited {
		m.limited = 0
	}
	m.firstSent = s.sent
	if s.delivered >= m.nextRound {
		m.nextRound = m.delivered
		m.rateOf(now, s)
		m.endRound(s.limited)
	}
	m.advance(now)
}

// measure takes a round trip time into account.
func (m *model) measure(now, rtt instant) {
	if m.srtt == 0 {
		m.srtt, m.rttvar = rtt, rtt/2
	} else {
		m.rttvar += (max(m.srtt-rtt, rtt-m.srtt) - m.rttvar) / 8
		m.srtt += (rtt - m.srtt) / 8
	}
	if m.roundRTT == 0 || rtt < m.roundRTT {
		m.roundRTT = rtt
	}
	if m.phase == resting && (m.restRTT == 0 || rtt < m.restRTT) {
		m.restRTT = rtt
	}
	switch {
	case m.minRTT == 0 || rtt < m.minRTT:
		m.minRTT, m.minRTTAt = rtt, now
	case rtt <= m.minRTT+m.minRTT/32: // as good as
		m.minRTTAt = now
	}
}

// rateOf takes into account how fast things arrived since s. It is called once a
// round: the best of all that could be computed meanwhile would be the one that
// acknowledgements which came in a heap exaggerate most.
func (m *model) rateOf(now instant, s snapshot) {
	took := max(now-s.deliveredAt, s.sent-s.firstSent) // whichever was the slower
	if took <= 0 || took < m.minRTT {
		return
	}
	rate := float64(m.delivered-s.delivered) / took.Seconds()
	if s.limited && rate <= m.best() {
		return
	}
	m.rateRound = (m.rateRound + 1) % rateRounds
	m.rates[m.rateRound] = rate
}

// best returns what the path carries, in bytes a second; 0: not known.
func (m *model) best() float64 {
	best := 0.0
	for _, r := range m.rates {
		best = max(best, r)
	}
	return best
}

// holds returns how many bytes the path holds without a queue.
func (m *model) holds() int { return int(m.best() * m.minRTT.Seconds()) }

// queueing reports whether the round met a queue, be it our own.
func (m *model) queueing() bool {
	return m.roundRTT > m.minRTT+max(m.minRTT/4, 4*time.Millisecond)
}

// congested reports whether the round's loss is more than chance: some with a queue,
// or much.
func (m *model) congested() bool {
	lost := float64(m.roundLost) / float64(max(m.roundSent, 1))
	return m.roundLost >= lossFew && (lost > 0.1 || lost > 0.02 && m.queueing())
}

func (m *model) endRound(limited bool) {
	congested := m.congested()
	if congested {
		m.bound = max(m.window()*7/8, m.holds()/2, minWindow)
	} else if m.bound > 0 {
		if m.bound += m.bound / 16; m.bound > 4*m.holds() {
			m.bound = 0
		}
	}
	best := m.best()
	switch {
	case m.phase == starting:
		if best >= 1.25*m.fullRate {
			m.fullRate, m.fullRounds = best, 0
		} else if !limited {
			m.fullRounds++
		}
		if m.holds() >= initialWindow && (m.fullRounds >= 3 || congested || m.queueing()) {
			m.phase = draining
		}
	case m.phase == probing:
		m.gainRounds++
		// It took all that there was more, and at once.
		if m.gain == up && !limited && !congested && !m.queueing() && best >= 1.15*m.fullRate {
			m.phase, m.fullRate, m.fullRounds = starting, best, 0
		}
	}
	m.standing = m.roundRTT > m.minRTT+max(m.minRTT/16, 2*time.Millisecond)
	m.roundSent, m.roundLost, m.roundRTT = 0, 0, 0
}

// advance goes on to the next phase if it is time.
func (m *model) advance(now instant) {
	switch m.phase {
	case draining:
		if m.inflight <= m.holds() {
			m.probe(now, steady)
		}
	case probing:
		if gain := m.nextGain(now); gain != m.gain {
			m.probe(now, gain)
		}
	case resting:
		if now >= m.restEnd && m.restRTT > 0 {
			m.minRTT, m.minRTTAt = m.restRTT, now
			m.phase, m.gainRounds = m.resume, 0
		}
		return
	}
	if now-m.minRTTAt > restAfter {
		m.resume, m.phase = m.phase, resting
		m.restEnd, m.restRTT = now+max(restFor, m.srtt), 0
	}
}

// nextGain returns the gain of probing whose time it is.
func (m *model) nextGain(now instant) int {
	switch {
	case m.gain == up && m.gainRounds >= 2:
		return down
	case m.gain == down && (m.gainRounds >= 2 || m.inflight <= m.holds()):
		return steady
	case m.gain == steady && now-m.probedAt > max(probeEvery, 8*m.minRTT):
		return up
	case m.gain == steady && m.standing && m.gainRounds >= 4:
		return down
	}
	return m.gain
}

// probe begins a gain of probing.
func (m *model) probe(now instant, gain int) {
	m.phase, m.gain, m.gainRounds, m.fullRate = probing, gain, 0, m.best()
	if gain == up {
		m.probedAt = now
	}
}

// window returns how much may be on its way.
func (m *model) window() int {
	holds, w := m.holds(), initialWindow
	switch m.phase {
	case starting:
		w = max(w, int(startGain*float64(holds)))
	case draining:
		w = int(startGain * float64(holds))
	case probing:
		w = holds*5/4 + initialWindow
	case resting:
		w = holds / 2
	}
	if m.bound > 0 {
		w = min(w, m.bound)
	}
	return max(w, minWindow)
}

// rate returns how fast to send, in bytes a second; 0: as fast as one can.
func (m *model) rate() float64 {
	if m.srtt == 0 {
		return 0
	}
	rate, least := m.best(), minWindow/m.srtt.Seconds()
	switch m.phase {
	case starting:
		rate, least = startGain*rate, startGain*initialWindow/m.srtt.Seconds()
	case draining:
		rate /= startGain
	case probing:
		rate *= gains[m.gain]
	}
	return max(rate, least)
}

// timeout is after how long without news something is taken for lost: when an answer
// is overdue by more than answers vary.
func (m *model) timeout() instant {
	if m.srtt == 0 {
		return time.Second
	}
	return m.srtt + max(4*m.rttvar, 10*time.Millisecond)
}
