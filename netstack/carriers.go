package netstack

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// Carriers are all that carries WireGuard's datagrams: UDP and, beside it, relays.
// WireGuard sends to a peer by the carrier of its endpoint, which is that of the last
// packet that it could authenticate or, with Config.FixedEndpoints, the one last set.
//
// It also keeps apart, on the way in over UDP, what is no datagram of WireGuard's (see
// echo), and has handshakes wait (see handshakes).
type carriers struct {
	conn.Bind  // UDP
	echo       *echo
	handshakes *handshakes

	deliveries chan *delivery // from Relay.Receive to the one ReceiveFunc of all relays
	dead       chan struct{}  // closed by shut: nobody receives any more
	shutOnce   sync.Once

	mu     sync.Mutex
	closed chan struct{} // closed by Close, anew with each Open; nil: not open
	ends   map[Key]*relayEnd
}

var _ conn.Bind = (*carriers)(nil)

func newCarriers(udp conn.Bind, own Key, e *echo) *carriers {
	c := &carriers{
		Bind: udp, echo: e, ends: map[Key]*relayEnd{},
		deliveries: make(chan *delivery), dead: make(chan struct{}),
	}
	c.handshakes = newHandshakes(own, c.Send)
	return c
}

// Open implements conn.Bind.
func (c *carriers) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	receive, port, err := c.Bind.Open(port)
	if err != nil {
		return nil, 0, err
	}
	for i, f := range receive {
		receive[i] = c.handshakes.receiver(c.echo.receiver(c.Bind, f))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = make(chan struct{})
	return append(receive, c.receiver(c.closed)), port, nil
}

// Close implements conn.Bind. Relays go on when it is opened again.
func (c *carriers) Close() error {
	c.mu.Lock()
	if c.closed != nil {
		close(c.closed)
		c.closed = nil
	}
	c.mu.Unlock()
	return c.Bind.Close()
}

// shut has every Relay.Receive return.
func (c *carriers) shut() { c.shutOnce.Do(func() { close(c.dead) }) }

// Send implements conn.Bind. To a peer whose relay is not open, or slow, datagrams are
// lost as they may be anywhere.
func (c *carriers) Send(bufs [][]byte, to conn.Endpoint) error {
	c.handshakes.count(bufs)
	end, ok := to.(*relayEnd)
	if !ok {
		return c.Bind.Send(bufs, to)
	}
	if r := end.relay.Load(); r != nil {
		r.send(bufs)
	}
	return nil
}

// ParseEndpoint implements conn.Bind. Beside addresses it takes relayPrefix and a
// peer's key in hex: that peer's relay, open or not.
func (c *carriers) ParseEndpoint(s string) (conn.Endpoint, error) {
	text, ok := strings.CutPrefix(s, relayPrefix)
	if !ok {
		return c.Bind.ParseEndpoint(s)
	}
	var key Key
	if n, err := hex.Decode(key[:], []byte(text)); err != nil || n != len(key) {
		return nil, fmt.Errorf("relay of %q: want a key in hex", text)
	}
	return c.end(key), nil
}

// end returns the endpoint that stands for the relay of peer. It is the same for as
// long as the peer is one, so that a relay opened anew takes over where one ended.
func (c *carriers) end(peer Key) *relayEnd {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.ends[peer]
	if e == nil {
		e = new(relayEnd)
		c.ends[peer] = e
	}
	return e
}

// inherit makes the relay of a peer that of the same peer with another key.
func (c *carriers) inherit(peer, heir Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.ends[peer]; e != nil {
		c.ends[heir] = e
	}
}

// forget drops what is kept for a peer that is none any more.
func (c *carriers) forget(peer Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ends, peer)
}

// A delivery is what came over a relay at a time.
type delivery struct {
	datagrams [][]byte
	from      *relayEnd
	taken     chan struct{} // gets one when datagrams were copied; holds one
}

// receiver returns the conn.ReceiveFunc of all relays, and of handshakes, until closed is.
func (c *carriers) receiver(closed <-chan struct{}) conn.ReceiveFunc {
	var left *delivery // not taken yet, or nil
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int, err error) {
		for left == nil {
			var m *handshake
			begun, answers := c.handshakes.next()
			select {
			case left = <-c.deliveries:
				continue
			case m = <-begun:
				if !c.handshakes.passes(m) {
					continue
				}
			case m = <-answers:
				c.handshakes.spend(time.Now(), answerCost)
			case <-c.handshakes.rest:
				c.handshakes.rest = nil
				continue
			case <-closed:
				return 0, net.ErrClosed
			}
			sizes[0], eps[0] = copy(bufs[0], m.message), m.from
			return 1, nil
		}
		for ; n < len(bufs) && len(left.datagrams) > 0; left.datagrams = left.datagrams[1:] {
			if d := left.datagrams[0]; !c.handshakes.take(d, left.from) {
				sizes[n] = copy(bufs[n], d) // a longer one is no datagram of WireGuard's
				eps[n] = left.from
				n++
			}
		}
		if len(left.datagrams) == 0 {
			left.taken <- struct{}{}
			left = nil
		}
		return n, nil
	}
}

// relayPrefix tells a relay's endpoint in WireGuard's configuration from an address.
const relayPrefix = "relay:"

// A relayEnd is a peer's endpoint that is reached by its relay.
type relayEnd struct {
	relay  atomic.Pointer[Relay] // nil: not open
	remote atomic.Pointer[netip.AddrPort]
}

var _ conn.Endpoint = (*relayEnd)(nil)

// at returns where the peer is, or last was.
func (e *relayEnd) at() netip.AddrPort {
	if p := e.remote.Load(); p != nil {
		return *p
	}
	return netip.AddrPort{}
}

// DstIP is the peer's own address, so that limits on handshakes are each client's own.
func (e *relayEnd) DstIP() netip.Addr { return e.at().Addr() }

// DstToBytes is what a cookie is bound to (whitepaper, section 5.4.7).
func (e *relayEnd) DstToBytes() []byte {
	b, _ := e.at().MarshalBinary()
	return b
}

// DstToString shows in WireGuard's status.
func (e *relayEnd) DstToString() string {
	if at := e.at(); at.IsValid() {
		return relayPrefix + at.String()
	}
	return relayPrefix
}

func (e *relayEnd) ClearSrc()           {}
func (e *relayEnd) SrcToString() string { return "" }
func (e *relayEnd) SrcIP() netip.Addr   { return netip.Addr{} }
