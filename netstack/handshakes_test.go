package netstack

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

func TestLimitedAs(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"192.0.2.1", "192.0.2.1"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"fe80::1%eth0", "fe80::"},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.1"},
	} {
		if got := limitedAs(netip.MustParseAddr(tt.addr)); got.String() != tt.want {
			t.Errorf("%s counts as %v, want %s", tt.addr, got, tt.want)
		}
	}
	if got := limitedAs(netip.Addr{}); got.IsValid() {
		t.Errorf("no address counts as %v", got)
	}
}

// initiation returns a handshake initiation (whitepaper, section 5.4.2) of nobody for a
// host whose public key is key: its first MAC, which takes no secret, is good.
func initiation(key Key) []byte {
	b := make([]byte, device.MessageInitiationSize)
	rand.Read(b)
	binary.LittleEndian.PutUint32(b, device.MessageInitiationType)
	at := len(b) - 2*blake2s.Size128
	secret := blake2s.Sum256(append([]byte(device.WGLabelMAC1), key[:]...))
	mac, err := blake2s.New128(secret[:])
	if err != nil {
		panic(err)
	}
	mac.Write(b[:at])
	mac.Sum(b[:at])
	clear(b[at+blake2s.Size128:])
	return b
}

// TestHandshakeFlood: handshakes of nobody, each of which costs a multiplication on the
// curve, are answered with cookies when they are too many. Those with a session do not
// notice, and the flood leaves little behind.
func TestHandshakeFlood(t *testing.T) {
	node, gateway := newPair(t)
	dialed, accepted := connect(t, node, gateway)
	mustEcho(t, dialed, accepted)
	c, err := net.Dial("udp", gateway.peer.Endpoint.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before := heap()
	const sent = 20_000
	for i := range sent {
		if _, err := c.Write(initiation(gateway.key)); err != nil {
			t.Fatal(err)
		}
		if i%2000 == 0 {
			mustEcho(t, dialed, accepted)
		}
	}
	mustEcho(t, dialed, accepted)
	after := heap()
	t.Logf("%d initiations, %d refused; heap %d KiB before, %d KiB after", sent, gateway.RefusedHandshakes(), before>>10, after>>10)
	if gateway.RefusedHandshakes() < 100 {
		t.Errorf("of %d initiations %d were refused, want 100", sent, gateway.RefusedHandshakes())
	}
	if after > before+128<<20 {
		t.Errorf("the flood left %d KiB behind", (after-before)>>10)
	}
}

// A shaker is somebody who shakes hands from addr, and keeps the cookie that it gets.
type shaker struct {
	macs device.CookieGenerator
	end  *relayEnd
}

func newShaker(key Key, addr string) *shaker {
	s := &shaker{end: new(relayEnd)}
	s.macs.Init(device.NoisePublicKey(key))
	at := netip.MustParseAddrPort(addr)
	s.end.remote.Store(&at)
	return s
}

// hello and answer return messages whose macs are good, if the key is.
func (s *shaker) hello() []byte {
	return s.message(device.MessageInitiationType, device.MessageInitiationSize)
}

func (s *shaker) answer() []byte {
	return s.message(device.MessageResponseType, device.MessageResponseSize)
}

func (s *shaker) message(kind uint32, size int) []byte {
	b := make([]byte, size)
	rand.Read(b)
	binary.LittleEndian.PutUint32(b, kind)
	clear(b[len(b)-blake2s.Size128:])
	s.macs.AddMacs(b)
	return b
}

// processors are those of the machine that shakes are on.
const processors = 2

// shakes are handshakes whose receiver runs until end.
type shakes struct {
	*carriers
	end func()

	mu      sync.Mutex
	cookies map[conn.Endpoint][]byte // the last to each
	went    []time.Time              // when one went on
}

func newShakes(key Key) *shakes {
	s := &shakes{carriers: newCarriers(nil, key, newEcho(key, true)), cookies: map[conn.Endpoint][]byte{}}
	s.handshakes.pace = paceOf(processors)
	s.handshakes.send = func(bufs [][]byte, to conn.Endpoint) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cookies[to] = bufs[0]
		return nil
	}
	closed, ended := make(chan struct{}), make(chan struct{})
	receive := s.receiver(closed)
	s.end = func() { close(closed); <-ended; s.handshakes.close() }
	go func() {
		defer close(ended)
		bufs, sizes, eps := [][]byte{make([]byte, 2048)}, make([]int, 1), make([]conn.Endpoint, 1)
		for {
			n, err := receive(bufs, sizes, eps)
			if err != nil {
				return
			}
			s.mu.Lock()
			for range n {
				s.went = append(s.went, time.Now())
			}
			s.mu.Unlock()
		}
	}()
	return s
}

// passed returns when handshakes went on.
func (s *shakes) passed() []time.Time {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.went)
}

// cookie returns the last that was sent to one.
func (s *shakes) cookie(to conn.Endpoint) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cookies[to]
}

// greet has who shake hands say hello, and returns how many go on within a second.
func (s *shakes) greet(t *testing.T, who ...*shaker) int {
	t.Helper()
	before := len(s.passed())
	for _, w := range who {
		if !s.handshakes.take(w.hello(), w.end) {
			t.Fatal("it is taken for something else")
		}
	}
	<-time.After(time.Second)
	return len(s.passed()) - before
}

// strangers returns n who shake hands, each from elsewhere.
func strangers(key Key, n int) (who []*shaker) {
	for i := range n {
		who = append(who, newShaker(key, fmt.Sprintf("192.0.%d.%d:1", i/256, i%256)))
	}
	return who
}

// TestHandshakesInPace: handshakes go on a few at a time, so that those in between have
// the processor.
func TestHandshakesInPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShakes(Key{1})
		defer s.end()
		start := time.Now()
		const n = crowd - 10
		if got := s.greet(t, strangers(Key{1}, n)...); got != n || s.handshakes.refused.Load() != 0 {
			t.Fatalf("%d of %d went on, %d were refused", got, n, s.handshakes.refused.Load())
		}
		for i, at := range s.passed() {
			most := processors*(handshakesAtOnce+handshakesPerSecond*at.Sub(start).Seconds()) + 1
			if float64(i) > most {
				t.Fatalf("%d went on within %v, want %.0f at most", i+1, at.Sub(start), most)
			}
		}
	})
}

// TestHandshakesInACrowd: in a crowd, those who show that they are where they say go on,
// and of one address not too many.
func TestHandshakesInACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := Key{1}
		s := newShakes(key)
		defer s.end()
		crowded := func(who ...*shaker) int {
			t.Helper()
			return s.greet(t, append(strangers(key, 4*crowd), who...)...)
		}
		honest := newShaker(key, "[2001:db8::1]:1")
		if got := crowded(honest); got > crowd {
			t.Errorf("%d went on that brought no cookie", got)
		}
		var cookie device.MessageCookieReply
		if err := binary.Read(bytes.NewReader(s.cookie(honest.end)), binary.LittleEndian, &cookie); err != nil {
			t.Fatalf("no cookie: %v", err)
		}
		if !honest.macs.ConsumeReply(&cookie) {
			t.Fatal("the cookie is not for who got it")
		}
		base := crowded()
		if got := crowded(honest) - base; got != 1 {
			t.Errorf("%d of one with a cookie went on", got)
		}
		// A network has one limit, and a cookie is of one address.
		thief := newShaker(key, "[2001:db8:0:1::]:1")
		thief.macs.ConsumeReply(&cookie)
		if got := crowded(thief) - base; got != 0 {
			t.Errorf("%d with another's cookie went on", got)
		}
		many := make([]*shaker, 200)
		for i := range many {
			many[i] = honest
		}
		if got := crowded(many...) - base; got < 5 || got > 30 {
			t.Errorf("of 200 in a second from one address %d went on, want 5 at once and 20 a second", got)
		}
		<-time.After(crowdTime)
		if got := s.greet(t, newShaker(key, "192.0.2.1:1")); got != 1 {
			t.Errorf("%d went on without a crowd", got)
		}
	})
}

// TestAnswersInACrowd: those whom we greeted answer, as many as there are, and no crowd of
// others is in their way; but they go on a few at a time, too.
func TestAnswersInACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := Key{1}
		s := newShakes(key)
		defer s.end()
		start := time.Now()
		const n = maxHandshakes
		for _, w := range strangers(key, n) {
			if !s.handshakes.take(w.answer(), w.end) {
				t.Fatal("it is taken for something else")
			}
		}
		s.greet(t, strangers(key, 4*crowd)...)
		if got := len(s.passed()); got < n || got > n+crowd {
			t.Errorf("%d went on, want %d answers and a few that are none", got, n)
		}
		for i, at := range s.passed() {
			most := 2 * (processors*(handshakesAtOnce+handshakesPerSecond*at.Sub(start).Seconds()) + 1)
			if float64(i) > most {
				t.Fatalf("%d went on within %v, want %.0f at most", i+1, at.Sub(start), most)
			}
		}
	})
}

// TestHandshakesAreBounded: those for whom there is no room are dropped, and counted.
func TestHandshakesAreBounded(t *testing.T) {
	h := newHandshakes(Key{1}, nil)
	defer h.close()
	s := newShaker(Key{1}, "192.0.2.1:1")
	for range maxHandshakes + 100 {
		h.take(s.hello(), s.end)
		h.take(s.answer(), s.end)
	}
	if got := h.refused.Load(); got != 200 {
		t.Errorf("%d were refused, want 200", got)
	}
}

// TestHandshakesOfStrangers: who does not know our key is not heard.
func TestHandshakesOfStrangers(t *testing.T) {
	h := newHandshakes(Key{1}, nil)
	defer h.close()
	s := newShaker(Key{2}, "192.0.2.1:1")
	if !h.take(s.hello(), s.end) || len(h.begun) != 0 || h.refused.Load() != 0 {
		t.Errorf("%d wait", len(h.begun))
	}
	h.setKey(Key{2})
	if !h.take(s.hello(), s.end) || len(h.begun) != 1 {
		t.Error("who knows our new key does not wait")
	}
}

// TestHandshakesByRelay: they wait as those over UDP do, and what comes with them does not.
func TestHandshakesByRelay(t *testing.T) {
	c := newCarriers(nil, Key{1}, newEcho(Key{1}, true))
	defer c.handshakes.close()
	s := newShaker(Key{1}, "192.0.2.1:1")
	hello, data := s.hello(), []byte{device.MessageTransportType, 0, 0, 0, 1}
	d := &delivery{datagrams: [][]byte{hello, data}, from: s.end, taken: make(chan struct{}, 1)}
	go func() { c.deliveries <- d }()
	receive := c.receiver(nil)
	for _, want := range [][]byte{data, bytes.Clone(hello)} {
		bufs, sizes, eps := make([][]byte, 4), make([]int, 4), make([]conn.Endpoint, 4)
		for i := range bufs {
			bufs[i] = make([]byte, 200)
		}
		n, err := receive(bufs, sizes, eps)
		if n != 1 || err != nil || !bytes.Equal(bufs[0][:sizes[0]], want) || eps[0] != conn.Endpoint(s.end) {
			t.Errorf("got %d of %v bytes, %v; want %d bytes", n, sizes, err, len(want))
		}
		clear(hello) // its owner's again
	}
}

// TestHandshakeInAFlood: who makes a new session in a flood of handshakes gets it, as soon
// as it has brought its cookie.
func TestHandshakeInAFlood(t *testing.T) {
	node, gateway := newPair(t)
	dialed, accepted := connect(t, node, gateway)
	c, err := net.Dial("udp", gateway.peer.Endpoint.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			for range 2 * crowd {
				_, _ = c.Write(initiation(gateway.key)) // as good as lost
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	eventually(t, "a crowd", func() bool { return gateway.RefusedHandshakes() > 10*crowd })
	before := gateway.status1(t).Handshake
	if err := node.Greet(gateway.key); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, dialed, accepted)
	eventually(t, "a handshake", func() bool { return gateway.status1(t).Handshake.After(before) })
}

func FuzzHandshake(f *testing.F) {
	key := Key{1}
	f.Add(initiation(key))
	f.Add(newShaker(key, "192.0.2.1:1").answer())
	f.Add([]byte{device.MessageResponseType, 0, 0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h := newHandshakes(key, nil)
		defer h.close()
		taken := h.take(b, new(relayEnd))
		good := len(b) >= 2*blake2s.Size128 && h.checker.CheckMAC1(b)
		if taken && len(b) != device.MessageInitiationSize && len(b) != device.MessageResponseSize {
			t.Errorf("%d bytes were taken", len(b))
		}
		if waiting := len(h.begun) + len(h.answers); (waiting == 1) != (taken && good) {
			t.Errorf("%d wait, taken %t, good %t", waiting, taken, good)
		}
	})
}
