//go:build e2e

package e2e

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// A swarm is many WireGuard clients of one gateway, each at an address of its own on
// loopback, that shake hands and keep alive as nodes do, and do nothing else. They share
// a socket, and the goroutines of run.
type swarm struct {
	t       testing.TB
	gateway *net.UDPAddr
	conn    *ipv4.PacketConn
	clients []*swarmClient
	work    sync.WaitGroup
}

// A swarmClient is one of a swarm.
type swarmClient struct {
	index   uint32 // its place in the swarm, and in its handshakes
	address net.IP

	mu      sync.Mutex
	party   *party
	opening *opening  // nil: none is under way
	next    time.Time // to initiate, unless there is a session
	session *session  // nil: none
	since   time.Time // the session is good: the other end has used it
	sent    time.Time // the last packet
	cookies int
}

const (
	swarmRetry     = 5 * time.Second // Rekey-Timeout of the whitepaper, section 6.1
	swarmKeepalive = 25 * time.Second
)

// newSwarm returns a swarm with those private keys, to a gateway on loopback. It is quiet
// until join is called, and ends with the test.
func newSwarm(t testing.TB, gateway [32]byte, port int, keys [][32]byte) *swarm {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = pc.(*net.UDPConn).SetReadBuffer(8 << 20) // as much as there may be
	s := &swarm{t: t, gateway: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(loopback(port))), conn: ipv4.NewPacketConn(pc)}
	if err := s.conn.SetControlMessage(ipv4.FlagDst, true); err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		p, err := newParty(key, gateway)
		if err != nil {
			t.Fatal(err)
		}
		s.clients = append(s.clients, &swarmClient{
			index: uint32(i), address: net.IPv4(127, byte(1+i>>16), byte(i>>8), byte(i)).To4(), party: p,
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.work.Go(s.receive)
	s.work.Go(func() { s.tend(ctx) })
	t.Cleanup(func() {
		cancel()
		s.conn.Close()
		s.work.Wait()
	})
	return s
}

// join has all clients without a session ask for one within spread.
func (s *swarm) join(spread time.Duration) {
	now := time.Now()
	for _, c := range s.clients {
		c.mu.Lock()
		c.next = now.Add(rand.N(spread))
		c.mu.Unlock()
	}
}

// leave has the clients forget their sessions.
func (s *swarm) leave() {
	for _, c := range s.clients {
		c.mu.Lock()
		c.opening, c.session, c.next = nil, nil, time.Time{}
		c.mu.Unlock()
	}
}

// since returns how many clients have a session that began after t.
func (s *swarm) since(t time.Time) (n int) {
	for _, c := range s.clients {
		c.mu.Lock()
		if c.session != nil && c.since.After(t) {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// cookies returns how often the gateway was too busy to shake hands at once.
func (s *swarm) cookies() (n int) {
	for _, c := range s.clients {
		c.mu.Lock()
		n += c.cookies
		c.mu.Unlock()
	}
	return n
}

// tend initiates, and keeps alive, until ctx is done.
func (s *swarm) tend(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, c := range s.clients {
			s.act(c, time.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// act does what a client has to do now.
func (s *swarm) act(c *swarmClient, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.session != nil && now.Sub(c.sent) >= swarmKeepalive:
		s.send(c, c.session.keepalive(), now)
	case c.session == nil && !c.next.IsZero() && !now.Before(c.next):
		msg, o, err := c.party.initiate(c.index, now)
		if err != nil {
			s.t.Errorf("initiate: %v", err)
			return
		}
		c.opening, c.next = o, now.Add(swarmRetry)
		s.send(c, msg, now)
	}
}

// send sends from c's address. c is locked. What is lost is lost.
func (s *swarm) send(c *swarmClient, msg []byte, now time.Time) {
	c.sent = now
	_, _ = s.conn.WriteTo(msg, &ipv4.ControlMessage{Src: c.address}, s.gateway)
}

// receive takes what comes until the socket is closed.
func (s *swarm) receive() {
	b := make([]byte, 2048)
	for {
		n, cm, _, err := s.conn.ReadFrom(b)
		if err != nil {
			return
		}
		if cm != nil && n >= keepaliveSize {
			s.take(b[:n], cm.Dst.To4(), time.Now())
		}
	}
}

// take takes one message to a client's address.
func (s *swarm) take(msg []byte, to net.IP, now time.Time) {
	i := int(to[1]-1)<<16 | int(to[2])<<8 | int(to[3])
	if i >= len(s.clients) {
		return
	}
	c := s.clients[i]
	c.mu.Lock()
	defer c.mu.Unlock()
	switch kind := binary.LittleEndian.Uint32(msg); {
	case kind == initiationType && len(msg) == initiationSize:
		answer, session, err := c.party.respond(c.index, msg)
		if err != nil {
			s.t.Errorf("client %d: %v", i, err)
			return
		}
		c.session, c.since = session, time.Time{} // until it is used
		s.send(c, answer, now)
	case kind == responseType && len(msg) == responseSize && c.opening != nil:
		session, err := c.party.conclude(c.opening, msg)
		if err != nil {
			return // to an earlier one
		}
		c.session, c.since, c.opening = session, now, nil
		s.send(c, session.keepalive(), now)
	case kind == cookieType && len(msg) == cookieSize:
		if c.party.takeCookie(msg) == nil {
			c.cookies++
		}
	case kind == dataType && c.session != nil && c.session.hears(msg) && c.since.IsZero():
		c.since = now
	}
}
