package netstack

import "time"

// A model is what one believes of the path to a peer: how much it carries and how
// long it takes. From that it says how fast to send, and how much may be in flight.
// It goes by the rate at which the other end receives, and not by every loss, which on
// many paths says nothing of how busy they are. It is BBR's
// (draft-ietf-ccwg-bbr): delivery rate samples as in its section 4.1, the phases of
// section 4.3, an upper bound of what is in flight from loss as in section 4.5.10.
// What differs, since a path is one sender to a peer however many connections:
//
//   - Loss counts as congestion above 1 % beside a standing queue, or if it is heavy. BBR
//     takes 2 % for congestion wherever it meets them; a line that loses 3 % by chance
//     would be given up.
//   - A rate is sampled once a round trip. The best of all that can be computed
//     meanwhile would be the one that acknowledgements which came in a heap exaggerate
//     most.
//   - A queue that stays after probing, though none was filled on purpose, is let go.
//
// It has no clock. Times are since its path was made, sizes in bytes.
type model struct {
	inFlight int // sent, and neither delivered nor lost

	minRTT, minRTTAt instant // the shortest lately, and when it was measured last
	srtt, rttvar     instant // RFC 6298, section 2

	// Delivered is all that ever arrived; a round ends when what was sent at its
	// beginning arrives.
	delivered   int64
	deliveredAt instant
	firstSent   instant // of what is in flight, the first when the last delivered was sent
	appLimited  int64   // until this much is delivered, there was less to send than fits; 0: not
	nextRound   int64   // delivered, at the end of the round
	rates       [rateRounds]float64
	rateRound   int

	phase      phase
	fullRate   float64 // the best rate of startup or of probing up, and rounds since it grew
	fullRounds int
	rounds     int     // that have ended since the phase began
	probedAt   instant // when probing up began last

	// Of probing for the round trip.
	restEnd instant
	restRTT instant // the shortest since it began; 0: none
	resume  phase   // that goes on afterwards

	round struct {
		delivered int64   // when it began
		lost      int     // bytes
		packets   int     // lost
		minRTT    instant // 0: none measured
		inFlight  int     // the most
	}
	standing bool // the last round met a queue, if a short one

	inflightHi int // bound of inFlight, by loss; 0: none
}

// An instant is a time since a path was made.
type instant = time.Duration

// A phase is what the model is finding out.
//
//	startup ──▶ drain ──▶ cruise ──▶ probeUp ──▶ probeDown ──▶ cruise …
//
// and probeRTT at times, from each of them and back.
type phase uint8

const (
	startup   phase = iota // how much the path carries: twice as much each round
	drain                  // the queue that startup built goes
	cruise                 // at what the path carries
	probeUp                // whether it carries more by now
	probeDown              // the queue that probeUp built goes
	probeRTT               // how long it takes, without a queue of ours
)

// Section 2.4 and the following of the draft, but for what says otherwise.
const (
	startupGain   = 2.77 // 4 ln 2: doubles the rate each round
	drainGain     = 0.5
	probeUpGain   = 1.25
	probeDownGain = 0.75 // of BBR's first version, which needs to be left sooner
	inflightGain  = 2    // of the path's bandwidth-delay product: BBRDefaultCwndGain
	lossThreshold = 0.01 // BBRLossThresh is 0.02, and without a queue
	beta          = 0.7  // BBRBeta

	fullGrowth = 1.25 // rates that do not grow so for
	fullRounds = 3    // rounds are all that the path carries

	probeGrowth = 1.15 // by probing up says that there is much more

	probeEvery    = 2 * time.Second  // section 4.3.3.5.3: 2 to 3 s
	rateRounds    = 10               // for how many rounds a rate is remembered
	minRTTFilter  = 10 * time.Second // MinRTTFilterLen
	probeRTTFor   = 200 * time.Millisecond
	heavyLoss     = 0.1 // is congestion without a queue, as a policer's
	lossFew       = 8   // packets lost in a round say nothing of congestion
	initialWindow = 64 << 10
	minWindow     = 16 << 10
)

// A snapshot is the model's state when something was sent.
type snapshot struct {
	sent        instant
	delivered   int64
	deliveredAt instant
	firstSent   instant
	appLimited  bool
}

// send counts size bytes as in flight.
func (m *model) send(now instant, size int) snapshot {
	if m.inFlight == 0 {
		m.deliveredAt, m.firstSent = now, now
	}
	m.inFlight += size
	m.round.inFlight = max(m.round.inFlight, m.inFlight)
	return snapshot{now, m.delivered, m.deliveredAt, m.firstSent, m.appLimited > 0}
}

// deliver counts size bytes as delivered. Call update when all of an acknowledgement
// are counted.
func (m *model) deliver(now instant, size int) {
	m.delivered += int64(size)
	m.deliveredAt = now
}

// land takes size bytes off what is in flight: they were delivered, or are lost.
func (m *model) land(size int) { m.inFlight -= size }

// lose counts a packet of size bytes as lost.
func (m *model) lose(size int) {
	m.round.lost += size
	m.round.packets++
}

// limit says that there is no more to send, though more would fit.
func (m *model) limit() { m.appLimited = m.delivered + int64(max(m.inFlight, 1)) }

// update learns from an acknowledgement: s is of the last sent of what it delivers,
// sent once unless again is set.
func (m *model) update(now instant, s snapshot, again bool) {
	if !again {
		m.measure(now, now-s.sent)
	}
	if m.delivered > m.appLimited {
		m.appLimited = 0
	}
	m.firstSent = s.sent
	if s.delivered >= m.nextRound {
		m.nextRound = m.delivered
		m.sample(now, s)
		m.endRound(s.appLimited)
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
	if m.round.minRTT == 0 || rtt < m.round.minRTT {
		m.round.minRTT = rtt
	}
	if m.phase == probeRTT && (m.restRTT == 0 || rtt < m.restRTT) {
		m.restRTT = rtt
	}
	switch {
	case m.minRTT == 0 || rtt < m.minRTT:
		m.minRTT, m.minRTTAt = rtt, now
	case rtt <= m.minRTT+m.minRTT/32: // as good as
		m.minRTTAt = now
	}
}

// sample takes into account how fast things arrived since s.
func (m *model) sample(now instant, s snapshot) {
	took := max(now-s.deliveredAt, s.sent-s.firstSent) // whichever was the slower
	if took <= 0 || took < m.minRTT {
		return
	}
	rate := float64(m.delivered-s.delivered) / took.Seconds()
	if s.appLimited && rate <= m.maxRate() {
		return
	}
	m.rateRound = (m.rateRound + 1) % rateRounds
	m.rates[m.rateRound] = rate
}

// maxRate returns what the path carries, in bytes a second; 0: not known.
func (m *model) maxRate() float64 {
	best := 0.0
	for _, r := range m.rates {
		best = max(best, r)
	}
	return best
}

// bdp returns how many bytes the path holds without a queue: its bandwidth-delay
// product.
func (m *model) bdp() int { return int(m.maxRate() * m.minRTT.Seconds()) }

// queueing reports whether the round met a standing queue, be it our own.
func (m *model) queueing() bool {
	return m.round.minRTT > m.minRTT+max(m.minRTT/8, 2*time.Millisecond)
}

// congested reports whether the round's loss is more than chance.
func (m *model) congested() bool {
	delivered := m.delivered - m.round.delivered
	loss := float64(m.round.lost) / float64(int64(m.round.lost)+delivered)
	return m.round.packets >= lossFew && (loss > heavyLoss || loss > lossThreshold && m.queueing())
}

// endRound draws conclusions from a round. limited says that what began it was
// limited by the application.
func (m *model) endRound(limited bool) {
	congested := m.congested()
	if congested {
		m.inflightHi = max(int(beta*float64(m.round.inFlight)), int(beta*float64(m.bdp())), minWindow)
	} else if m.inflightHi > 0 && m.round.inFlight >= m.inflightHi*7/8 {
		if m.inflightHi += m.inflightHi / 16; m.inflightHi > 4*m.bdp() {
			m.inflightHi = 0
		}
	}
	rate := m.maxRate()
	m.rounds++
	switch {
	case m.phase == startup:
		if rate >= fullGrowth*m.fullRate {
			m.fullRate, m.fullRounds = rate, 0
		} else if !limited {
			m.fullRounds++
		}
		if m.fullRounds >= fullRounds || congested && m.bdp() >= initialWindow {
			m.begin(drain)
		}
	case (m.phase == probeUp || m.phase == probeDown) && !limited && !congested && !m.queueing() && rate >= probeGrowth*m.fullRate:
		// It took all that there was more, and at once. That of the second round of
		// probing up is heard of after it.
		m.begin(startup)
		m.fullRate, m.fullRounds = rate, 0
	}
	m.standing = m.round.minRTT > m.minRTT+max(m.minRTT/16, 2*time.Millisecond)
	m.round.delivered, m.round.lost, m.round.packets, m.round.minRTT, m.round.inFlight = m.delivered, 0, 0, 0, m.inFlight
}

// advance goes on to the next phase if it is time.
func (m *model) advance(now instant) {
	switch {
	case m.phase == probeRTT:
		if now >= m.restEnd && m.restRTT > 0 {
			m.minRTT, m.minRTTAt = m.restRTT, now
			m.begin(m.resume)
		}
		return
	case m.phase == drain && m.inFlight <= m.bdp(),
		m.phase == probeDown && (m.rounds >= 2 || m.inFlight <= m.bdp()):
		m.begin(cruise)
	case m.phase == probeUp && m.rounds >= 2:
		m.begin(probeDown)
	case m.phase == cruise && now-m.probedAt > max(probeEvery, 8*m.minRTT):
		m.begin(probeUp)
		m.fullRate, m.probedAt = m.maxRate(), now
	case m.phase == cruise && m.standing && m.rounds >= 4:
		m.begin(probeDown)
		m.fullRate = m.maxRate()
	}
	if now-m.minRTTAt > minRTTFilter {
		m.resume, m.restEnd, m.restRTT = m.phase, now+max(probeRTTFor, m.srtt), 0
		m.begin(probeRTT)
	}
}

func (m *model) begin(p phase) { m.phase, m.rounds = p, 0 }

// window returns how much may be in flight.
func (m *model) window() int {
	if m.srtt == 0 {
		return minWindow
	}
	bdp, w := m.bdp(), initialWindow
	switch m.phase {
	case startup:
		w = max(w, inflightGain*bdp)
	case probeRTT:
		w = bdp / 2
	default:
		w = inflightGain * bdp
	}
	if m.inflightHi > 0 {
		w = min(w, m.inflightHi)
	}
	return max(w, minWindow)
}

// pacingRate returns how fast to send, in bytes a second; 0: as fast as one can.
func (m *model) pacingRate() float64 {
	if m.srtt == 0 {
		return 0
	}
	rate, least := m.maxRate(), minWindow/m.srtt.Seconds()
	switch m.phase {
	case startup:
		rate, least = startupGain*rate, startupGain*initialWindow/m.srtt.Seconds()
	case drain:
		rate *= drainGain
	case probeUp:
		rate *= probeUpGain
	case probeDown:
		rate *= probeDownGain
	}
	return max(rate, least)
}

// pto is after how long without news something is taken for lost, the probe timeout:
// when an answer is overdue by more than answers vary. RFC 8985, section 7.2, has
// 2 SRTT, with 200 ms for acknowledgements that are delayed, which the other end's
// are not.
func (m *model) pto() instant {
	if m.srtt == 0 {
		return time.Second
	}
	return m.srtt + max(4*m.rttvar, 10*time.Millisecond)
}
