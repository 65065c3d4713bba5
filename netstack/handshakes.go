package netstack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ratelimiter"
)

// Handshakes are on their way to WireGuard. One takes it a multiplication on the curve, or
// five, in which others' packets wait for the processor; and it would work on all that are
// there, one after the other. So they wait here, and go on a few at a time. When many wait
// that others begin, each is asked to show that it is from where it says, with a cookie,
// and one address has 20 a second (whitepaper, sections 5.3 and 5.4.7). WireGuard would do
// so too, but has no more to do with many, and would with those who answer us.
type handshakes struct {
	// Static after newHandshakes.
	send    func(bufs [][]byte, to conn.Endpoint) error
	begun   chan *handshake // initiations
	answers chan *handshake // to ours: responses
	checker device.CookieChecker
	limiter ratelimiter.Ratelimiter
	pace    *rate.Limiter // in the cost of cookies

	refused atomic.Uint64

	// Owned by the caller of next and passes.
	crowded time.Time        // until when it is
	rest    <-chan time.Time // until when nothing goes on; nil: it does
}

// A handshake is a message of one.
type handshake struct {
	message []byte
	from    conn.Endpoint
}

const (
	maxHandshakes = 1024 // of a kind that wait; beyond, they are dropped

	// crowd is how many begun ones wait until cookies are asked for, for crowdTime from then.
	crowd     = maxHandshakes / 8
	crowdTime = time.Second

	// A processor is to work on handshakesPerSecond, handshakesAtOnce of them in a row,
	// which take it a millisecond. An answer costs it half of that, a cookie a sixteenth.
	handshakesPerSecond = 2000
	handshakesAtOnce    = 4
	handshakeCost       = 16
	answerCost          = handshakeCost / 2
)

func newHandshakes(own Key, send func([][]byte, conn.Endpoint) error) *handshakes {
	h := &handshakes{
		send: send, begun: make(chan *handshake, maxHandshakes), answers: make(chan *handshake, maxHandshakes),
		pace: paceOf(runtime.GOMAXPROCS(0)),
	}
	h.limiter.Init()
	h.setKey(own)
	return h
}

// paceOf returns what so many processors are to work on.
func paceOf(processors int) *rate.Limiter {
	each := processors * handshakeCost
	return rate.NewLimiter(rate.Limit(each*handshakesPerSecond), each*handshakesAtOnce)
}

// setKey makes own the key that those who shake hands have to know, from now on.
func (h *handshakes) setKey(own Key) { h.checker.Init(device.NoisePublicKey(own)) }

// close ends what h has running. Nobody calls passes any more.
func (h *handshakes) close() { h.limiter.Close() }

// receiver returns receive without handshakes, which wait.
func (h *handshakes) receiver(receive conn.ReceiveFunc) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, err := receive(bufs, sizes, eps)
		for i, size := range sizes[:n] {
			if h.take(bufs[i][:size], eps[i]) {
				sizes[i] = 0
			}
		}
		return n, err
	}
}

// take reports whether b is of a handshake. It then waits, or is dropped: if there are too
// many, or if it is of somebody who does not know our key.
func (h *handshakes) take(b []byte, from conn.Endpoint) bool {
	if len(b) < 4 {
		return false
	}
	var queue chan *handshake
	switch kind := binary.LittleEndian.Uint32(b); {
	case kind == device.MessageInitiationType && len(b) == device.MessageInitiationSize:
		queue = h.begun
	case kind == device.MessageResponseType && len(b) == device.MessageResponseSize:
		queue = h.answers
	default:
		return false
	}
	if !h.checker.CheckMAC1(b) {
		return true
	}
	select {
	case queue <- &handshake{bytes.Clone(b), from}:
	default:
		h.refused.Add(1)
	}
	return true
}

// next returns where the next handshake comes from, nil while none is to.
func (h *handshakes) next() (begun, answers <-chan *handshake) {
	if h.rest != nil {
		return nil, nil
	}
	return h.begun, h.answers
}

// passes reports whether m, which was begun, is to go on to WireGuard.
func (h *handshakes) passes(m *handshake) bool {
	now := time.Now()
	if len(h.begun) >= crowd {
		h.crowded = now.Add(crowdTime)
	}
	if now.Before(h.crowded) && !h.known(m) {
		h.spend(now, 1)
		return false
	}
	h.spend(now, handshakeCost)
	return true
}

// spend has h rest if what was spent together is more than there is time for.
func (h *handshakes) spend(now time.Time, cost int) {
	if wait := h.pace.ReserveN(now, cost).DelayFrom(now); wait > 0 {
		h.rest = time.After(wait)
	}
}

// known reports whether m has a cookie that was given out to where it is from, and is not
// one of too many from there. If it has none, one is sent.
func (h *handshakes) known(m *handshake) bool {
	if h.checker.CheckMAC2(m.message, m.from.DstToBytes()) {
		if h.limiter.Allow(limitedAs(m.from.DstIP())) {
			return true
		}
		h.refused.Add(1)
		return false
	}
	sender := binary.LittleEndian.Uint32(m.message[4:])
	cookie, err := h.checker.CreateReply(m.message, sender, m.from.DstToBytes())
	if err != nil {
		panic("netstack: no cookie: " + err.Error()) // there are random numbers, and a key for them
	}
	b := make([]byte, device.MessageCookieReplySize)
	binary.LittleEndian.PutUint32(b, cookie.Type)
	binary.LittleEndian.PutUint32(b[4:], cookie.Receiver)
	copy(b[8:], cookie.Nonce[:])
	copy(b[8+len(cookie.Nonce):], cookie.Cookie[:])
	_ = h.send([][]byte{b}, m.from) // as good as lost, which any may be
	return false
}

// count looks at what is sent, by us or by WireGuard.
func (h *handshakes) count(bufs [][]byte) {
	if b := bufs[0]; len(b) == device.MessageCookieReplySize && b[0] == device.MessageCookieReplyType {
		h.refused.Add(1)
	}
}

// limitedAs returns what addr counts as: a network has 2^64 addresses of IPv6 for nothing.
func limitedAs(addr netip.Addr) netip.Addr {
	if !addr.Is6() || addr.Is4In6() {
		return addr
	}
	p, _ := addr.Prefix(64) // of an IPv6 address there is one
	return p.Addr()
}

// RefusedHandshakes returns how many handshakes were not gone on with so far, since there
// were too many: they were answered with a cookie, or dropped.
func (n *Net) RefusedHandshakes() uint64 { return n.carriers.handshakes.refused.Load() }
