package netstack

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// Relays are the two ends of a relay between two hosts of one process.
type relays struct {
	a, b  *Relay
	close func()
}

// at is where the other end of a pipe seems to be, for a host that asks.
var at = netip.MustParseAddrPort("192.0.2.7:443")

// newRelays attaches a relay between a and b. It is closed with the test.
func newRelays(t testing.TB, a, b *host) *relays {
	t.Helper()
	p := new(relays)
	toA, toB := make(chan [][]byte, 128), make(chan [][]byte, 128)
	stop := make(chan struct{})
	put := func(to chan [][]byte) func([][]byte) {
		return func(datagrams [][]byte) {
			var copies [][]byte
			for _, d := range datagrams {
				copies = append(copies, bytes.Clone(d))
			}
			select {
			case to <- copies:
			default: // lost, as on any full line
			}
		}
	}
	var err error
	if p.a, err = a.AttachRelay(b.key, at, put(toB)); err != nil {
		t.Fatal(err)
	}
	if p.b, err = b.AttachRelay(a.key, at, put(toA)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	carry := func(from chan [][]byte, to *Relay) {
		for {
			select {
			case datagrams := <-from:
				if to.Receive(datagrams) != nil {
					return
				}
			case <-stop:
				return
			}
		}
	}
	wg.Go(func() { carry(toA, p.a) })
	wg.Go(func() { carry(toB, p.b) })
	p.close = sync.OnceFunc(func() {
		close(stop)
		p.a.Detach()
		p.b.Detach()
		wg.Wait()
	})
	t.Cleanup(p.close)
	return p
}

// newDialer returns a host that chooses its carriers, and the one that it dials. They
// are peers and have not met.
func newDialer(t testing.TB) (node, gateway *host) {
	t.Helper()
	node = (&host{private: newPrivateKey(t)}).start(t, Config{Address: overlay(1), FixedEndpoints: true})
	gateway = newHost(t, 2)
	gateway.mustSetPeers(t, node.hidden())
	return node, gateway
}

// newRelayed returns hosts as newDialer does, with relays by which they go, and a
// connection that works.
func newRelayed(t testing.TB) (node, gateway *host, p *relays, a, b *tcpConn) {
	t.Helper()
	node, gateway = newDialer(t)
	node.mustSetPeers(t, gateway.peer)
	p = newRelays(t, node, gateway)
	if err := node.SetRelayed(gateway.key, true); err != nil {
		t.Fatal(err)
	}
	a, b = connect(t, node, gateway)
	mustEcho(t, a, b)
	return node, gateway, p, a, b
}

// swallower swallows what is sent there, for as long as the test runs.
func swallower(t testing.TB) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestRelayCarriesWhatUDPDoesNot(t *testing.T) {
	node, gateway := newDialer(t)
	lost := gateway.peer
	lost.Endpoint = swallower(t)
	node.mustSetPeers(t, lost)
	newRelays(t, node, gateway)
	if err := node.SetRelayed(gateway.key, true); err != nil {
		t.Fatal(err)
	}
	a, b := connect(t, node, gateway)
	mustEcho(t, a, b)
	for _, h := range []*host{node, gateway} {
		if s := h.status1(t); !s.Relayed || s.Endpoint != at || s.Handshake.IsZero() {
			t.Errorf("got status %+v, want that of a relay at %v", s, at)
		}
	}
}

func TestConnectionsSurviveSwitches(t *testing.T) {
	node, gateway := newDialer(t)
	node.mustSetPeers(t, gateway.peer)
	newRelays(t, node, gateway)
	a, b := connect(t, node, gateway)
	for i, relayed := range []bool{false, true, true, false, true, false} {
		if err := node.SetRelayed(gateway.key, relayed); err != nil {
			t.Fatal(err)
		}
		mustEcho(t, a, b)
		if s := node.status1(t); s.Relayed != relayed {
			t.Errorf("step %d: got %+v", i, s)
		}
		eventually(t, "roaming at the gateway", func() bool { return gateway.status1(t).Relayed == relayed })
	}
}

// What comes by the other carrier moves a host that chooses its carriers nowhere.
func TestFixedEndpointStays(t *testing.T) {
	node, gateway := newDialer(t)
	node.mustSetPeers(t, gateway.peer)
	newRelays(t, node, gateway)
	a, b := connect(t, node, gateway)
	mustEcho(t, a, b)
	// The gateway sends by the relay, as if it had heard from there last.
	line := "public_key=" + hex.EncodeToString(node.key[:]) + "\nupdate_only=true\nendpoint=" + relayPrefix + hex.EncodeToString(node.key[:]) + "\n"
	if err := gateway.device.IpcSet(line); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, b, a)
	if s := node.status1(t); s.Relayed {
		t.Errorf("the node moved: %+v", s)
	}
}

func TestNewerRelayTakesOver(t *testing.T) {
	node, gateway, older, a, b := newRelayed(t)
	newRelays(t, node, gateway)
	older.close() // and leaves the newer one alone
	mustEcho(t, a, b)
	if err := older.a.Receive([][]byte{{1}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a detached relay received: %v", err)
	}
}

func TestRelayOfNoPeer(t *testing.T) {
	node, gateway := newDialer(t)
	if _, err := node.AttachRelay(gateway.key, at, nil); err == nil {
		t.Error("a relay to who is no peer was attached")
	}
	if err := node.SetRelayed(gateway.key, true); err == nil {
		t.Error("a carrier to who is no peer was chosen")
	}
	node.mustSetPeers(t, gateway.hidden())
	if err := node.SetRelayed(gateway.key, false); err == nil {
		t.Error("UDP to a peer without address was chosen")
	}
	r, err := node.AttachRelay(gateway.key, at, func([][]byte) {})
	if err != nil {
		t.Fatal(err)
	}
	node.Close()
	if err := within(t, "Receive", func() error { return r.Receive([][]byte{{1, 2}}) }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed host received: %v", err)
	}
}

// What strangers put into a relay moves nothing and breaks nothing.
func TestRelayGarbage(t *testing.T) {
	node, gateway := newDialer(t)
	node.mustSetPeers(t, gateway.peer)
	p := newRelays(t, node, gateway)
	a, b := connect(t, node, gateway)
	long := make([]byte, 1<<16-1)
	for kind := range 8 {
		long[0] = byte(kind)
		for _, n := range []int{1, 4, 31, 32, 92, 148, 1500, len(long)} {
			datagrams := make([][]byte, 300) // more than a batch
			for i := range datagrams {
				datagrams[i] = long[:n]
			}
			if err := p.b.Receive(datagrams); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustEcho(t, a, b)
	if s := gateway.status1(t); s.Relayed {
		t.Errorf("garbage moved the peer: %+v", s)
	}
}

// While there is no UDP socket nobody takes what comes by a relay: who waits for that is let
// go when the relay is detached.
func TestRelayWithoutSocket(t *testing.T) {
	node, gateway := newDialer(t)
	node.mustSetPeers(t, gateway.peer)
	r, err := node.AttachRelay(gateway.key, at, func([][]byte) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.device.BindClose(); err != nil {
		t.Fatal(err)
	}
	received := make(chan error, 1)
	go func() { received <- r.Receive([][]byte{make([]byte, 32)}) }()
	r.Detach()
	if err := within(t, "Receive", func() error { return <-received }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := node.Rebind(); err != nil {
		t.Fatal(err)
	}
	a, b := connect(t, node, gateway)
	mustEcho(t, a, b)
}

func TestRelaysOutliveRebind(t *testing.T) {
	node, gateway, _, a, b := newRelayed(t)
	if err := errors.Join(node.Rebind(), gateway.Rebind()); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, a, b)
}

// A session that only one side has is made anew at once, and connections go on.
func TestGreet(t *testing.T) {
	node, gateway := newPair(t)
	a, b := connect(t, node, gateway)
	mustEcho(t, a, b)
	if err := node.Greet(gateway.key); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, a, b)
}

func TestEchoBesideTheTunnel(t *testing.T) {
	node, gateway := newDialer(t)
	node.mustSetPeers(t, gateway.peer)
	ask := func(key [32]byte, limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := node.Echo(ctx, key, defaultMTU)
		return err
	}
	if err := ask(gateway.key, patience); err != nil {
		t.Errorf("no echo: %v", err)
	}
	const short = 50 * time.Millisecond
	if err := ask(newHost(t, 3).key, short); err == nil {
		t.Error("an echo of who is no peer")
	}
	// Who does not know the key gets no answer, nor does who asks one that only asks.
	wrong := gateway.peer
	wrong.PublicKey = newHost(t, 4).key
	node.mustSetPeers(t, wrong)
	if err := ask(wrong.PublicKey, short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	other := (&host{private: newPrivateKey(t)}).start(t, Config{Address: overlay(5), FixedEndpoints: true})
	node.mustSetPeers(t, other.peer)
	if err := ask(other.key, short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if n := len(node.carriers.echo.waiting); n != 0 {
		t.Errorf("%d questions are remembered", n)
	}
}

// sends counts what is sent, and how long the longest was.
type sends struct {
	conn.Bind
	count, longest int
}

func (s *sends) Send(bufs [][]byte, _ conn.Endpoint) error {
	s.count += len(bufs)
	for _, b := range bufs {
		s.longest = max(s.longest, len(b))
	}
	return nil
}

func FuzzUDPEcho(f *testing.F) {
	key := Key{1}
	ask := make([]byte, 64)
	ask[0] = echoAsk
	sealEcho(ask, echoKey(key))
	f.Add(ask)
	f.Add([]byte{echoAnswer})
	f.Add([]byte{echoAsk, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e := newEcho(key, true)
		out := new(sends)
		good := len(b) >= echoHeader && b[0] == echoAsk && sealedEcho(b, *e.key.Load())
		receive := e.receiver(out, func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			sizes[0] = copy(bufs[0], b)
			return 1, nil
		})
		sizes := make([]int, 1)
		if n, err := receive([][]byte{make([]byte, 1<<16)}, sizes, make([]conn.Endpoint, 1)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		// Never more than was asked, and nothing for who does not know the key.
		if out.count > 1 || out.longest > len(b) || (out.count == 1) != good {
			t.Errorf("%d answers of %d bytes at most to %d bytes, good %t", out.count, out.longest, len(b), good)
		}
		if len(b) > 0 && b[0] >= 1 && b[0] <= 4 && sizes[0] != min(len(b), 1<<16) {
			t.Error("a message of WireGuard's was swallowed")
		}
	})
}
