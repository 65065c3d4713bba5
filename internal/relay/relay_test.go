package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"postern"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// A world is a gateway with one node in its map.
type world struct {
	t       *testing.T
	server  *Server
	gateway postern.Gateway
	node    Node
	links   chan *link
	ended   chan error // of each Serve

	mu    sync.Mutex
	known map[string]postern.IdentityPublic
}

// A link takes note of what comes.
type link struct {
	remote   netip.AddrPort
	send     func([][]byte)
	came     chan []byte
	detached chan struct{}
}

func (l *link) Receive(datagrams [][]byte) error {
	for _, d := range datagrams {
		l.came <- bytes.Clone(d)
	}
	return nil
}

func (l *link) Detach() { close(l.detached) }

func newWorld(t *testing.T) *world { return newWorldWith(t, provingTime) }

// newWorldWith returns a world whose gateway waits so long for proofs.
func newWorldWith(t *testing.T, proving time.Duration) *world {
	t.Helper()
	w := &world{t: t, links: make(chan *link, 16), ended: make(chan error, 64), known: map[string]postern.IdentityPublic{}}
	key := postern.NewIdentityPrivate()
	w.node = Node{ID: "n1", Key: postern.NewIdentityPrivate().Key()}
	w.know("n1", postern.IdentityPublic(w.node.Key.Public().(ed25519.PublicKey)))
	w.server = NewServer(ServerConfig{
		Gateway: "g1", Certificate: certificate(t, key.Key()),
		Identity: func(id string) (postern.IdentityPublic, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			k, ok := w.known[id]
			return k, ok
		},
		Attach: func(node string, remote netip.AddrPort, send func([][]byte)) (Link, error) {
			l := &link{remote, send, make(chan []byte, 1024), make(chan struct{})}
			w.links <- l
			return l, nil
		},
	})
	w.server.time = proving
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.gateway = postern.Gateway{ID: "g1", Name: "g", Public: ln.Addr().String(), Identity: key.Public()}
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { w.ended <- w.server.Serve(ctx, c, addrPort(c.RemoteAddr())) })
		}
	})
	t.Cleanup(func() { ln.Close(); cancel(); conns.Wait() })
	return w
}

func (w *world) know(id string, key postern.IdentityPublic) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[id] = key
}

func (w *world) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, id)
}

func certificate(t *testing.T, key ed25519.PrivateKey) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// open opens the node's relay and runs it until the test ends or the channel says why.
func (w *world) open(receive func([][]byte) error) (*Conn, *link, <-chan error) {
	w.t.Helper()
	c, err := w.node.Dial(w.t.Context(), w.gateway, dial)
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { done <- c.Run(ctx, receive) })
	w.t.Cleanup(func() { cancel(); run.Wait() })
	return c, await(w.t, w.links), done
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("nothing within %v", patience)
		panic("unreachable")
	}
}

func TestBothWays(t *testing.T) {
	w := newWorld(t)
	back := make(chan []byte, 16)
	c, l, _ := w.open(func(d [][]byte) error {
		for _, b := range d {
			back <- bytes.Clone(b)
		}
		return nil
	})
	if !l.remote.Addr().IsLoopback() || l.remote.Port() == 0 {
		t.Errorf("the node is seen at %v", l.remote)
	}
	for _, n := range []int{1, 148, 1456, 40_000, maxDatagram} {
		want := bytes.Repeat([]byte{byte(n)}, n)
		c.Send([][]byte{want, {7}})
		for _, want := range [][]byte{want, {7}} {
			if got := await(t, l.came); !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, want %d", len(got), len(want))
			}
		}
		l.send([][]byte{want})
		if got := await(t, back); !bytes.Equal(got, want) {
			t.Errorf("back: got %d bytes, want %d", len(got), len(want))
		}
	}
}

func TestNewestWins(t *testing.T) {
	w := newWorld(t)
	_, first, ended := w.open(func([][]byte) error { return nil })
	c, second, _ := w.open(func([][]byte) error { return nil })
	await(t, ended)
	await(t, first.detached)
	if err := await(t, w.ended); !errors.Is(err, errNewer) {
		t.Errorf("the first ended with %v", err)
	}
	c.Send([][]byte{{1}})
	await(t, second.came)
	if n := w.server.Open(); n != 1 {
		t.Errorf("%d are open", n)
	}
}

func TestRemovedNode(t *testing.T) {
	w := newWorld(t)
	_, l, ended := w.open(func([][]byte) error { return nil })
	w.forget("n1")
	w.server.Retain()
	await(t, l.detached)
	await(t, ended)
	if _, err := w.node.Dial(t.Context(), w.gateway, dial); err == nil {
		t.Error("a removed node was let in")
	}
}

// A node that ends its relay, as doctor's probes do, is no error in the log; others are.
func TestClosedInLog(t *testing.T) {
	tests := []struct {
		name string
		end  func(*world, *Conn)
		want bool // an error
	}{
		{"by the node", func(_ *world, c *Conn) { c.Close() }, false},
		{"by the gateway", func(w *world, _ *Conn) { w.forget("n1"); w.server.Retain() }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			var log bytes.Buffer
			w.server.log = slog.New(slog.NewTextHandler(&log, nil))
			c, l, _ := w.open(func([][]byte) error { return nil })
			c.Send([][]byte{{1}})
			await(t, l.came) // by then it is open
			tt.end(w, c)
			await(t, w.ended)
			_, line, ok := strings.Cut(log.String(), `msg="relay closed"`)
			if got := strings.Contains(line, " err="); !ok || got != tt.want {
				t.Errorf("an error: %v, want %v; logged:\n%s", got, tt.want, log.String())
			}
		})
	}
}

func TestNodeRefusesOthers(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*postern.Gateway){
		"another identity": func(g *postern.Gateway) { g.Identity = postern.NewIdentityPrivate().Public() },
		"no identity":      func(g *postern.Gateway) { g.Identity = postern.IdentityPublic{} },
		"no address":       func(g *postern.Gateway) { g.Public = "" },
		"another gateway":  func(g *postern.Gateway) { g.ID = "g2" }, // whose proof this one must not take
	} {
		t.Run(name, func(t *testing.T) {
			g := w.gateway
			change(&g)
			if c, err := w.node.Dial(t.Context(), g, dial); err == nil {
				c.Close()
				t.Error("it was dialed")
			}
		})
	}
}

// enter opens a WebSocket as far as the nonce, by hand.
func (w *world) enter(t *testing.T) (ws *websocket.Conn, nonce, binding []byte) {
	t.Helper()
	raw, err := dial(t.Context(), w.gateway.Public)
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, &tls.Config{NextProtos: []string{postern.RelayProtocol}, InsecureSkipVerify: true})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ws, err = upgrade(t.Context(), conn, w.gateway.Public); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow(); raw.Close() })
	state := conn.ConnectionState()
	if binding, err = state.ExportKeyingMaterial(postern.ChannelBinding, nil, 32); err != nil {
		t.Fatal(err)
	}
	if _, nonce, err = ws.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	return ws, nonce, binding
}

func TestHostileProofs(t *testing.T) {
	w := newWorld(t)
	stranger := postern.NewIdentityPrivate().Key()
	_, oldNonce, oldBinding := w.enter(t)
	sign := func(key ed25519.PrivateKey, message []byte) []byte { return ed25519.Sign(key, message) }
	for name, proof := range map[string]func(nonce, binding []byte) any{
		"another's key": func(n, b []byte) any {
			return postern.RelayProof{Node: "n1", Signature: sign(stranger, postern.RelayMessage(n, b, "g1"))}
		},
		"an unknown node": func(n, b []byte) any {
			return postern.RelayProof{Node: "n2", Signature: sign(w.node.Key, postern.RelayMessage(n, b, "g1"))}
		},
		"an old nonce": func(n, b []byte) any {
			return postern.RelayProof{Node: "n1", Signature: sign(w.node.Key, postern.RelayMessage(oldNonce, b, "g1"))}
		},
		"another connection's": func(n, b []byte) any {
			return postern.RelayProof{Node: "n1", Signature: sign(w.node.Key, postern.RelayMessage(n, oldBinding, "g1"))}
		},
		"another gateway's": func(n, b []byte) any {
			return postern.RelayProof{Node: "n1", Signature: sign(w.node.Key, postern.RelayMessage(n, b, "g2"))}
		},
		"no signature": func(n, b []byte) any { return postern.RelayProof{Node: "n1"} },
		"no proof":     func(n, b []byte) any { return "hello" },
		"a long one":   func(n, b []byte) any { return postern.RelayProof{Node: strings.Repeat("n", 10_000)} },
	} {
		t.Run(name, func(t *testing.T) {
			ws, nonce, binding := w.enter(t)
			text, err := json.Marshal(proof(nonce, binding))
			if err != nil {
				t.Fatal(err)
			}
			ws.Write(t.Context(), websocket.MessageText, text) // which may be cut short
			if _, answer, err := ws.Read(t.Context()); err == nil {
				t.Errorf("the answer is %s", answer)
			}
		})
	}
	if len(w.links) > 0 {
		t.Error("somebody was let in")
	}
}

// Whoever does not say who it is in time is closed, wherever it stopped.
func TestUnprovenAreClosed(t *testing.T) {
	w := newWorldWith(t, 300*time.Millisecond)
	cfg := &tls.Config{NextProtos: []string{postern.RelayProtocol}, InsecureSkipVerify: true}
	for name, stop := range map[string]func(net.Conn){
		"at once":      func(net.Conn) {},
		"in the hello": func(c net.Conn) { c.Write([]byte{22, 3, 1, 2, 0, 1}) },
		"after TLS":    func(c net.Conn) { tls.Client(c, cfg).Handshake() },
		"in the request": func(c net.Conn) {
			tls.Client(c, cfg).Write([]byte("GET /v1/relay HTTP/1.1\r\nHost: x\r\n"))
		},
		"with a long request": func(c net.Conn) {
			tls.Client(c, cfg).Write([]byte("GET /v1/relay HTTP/1.1\r\nHost: " + strings.Repeat("x", 1<<16)))
		},
		"elsewhere": func(c net.Conn) {
			tls.Client(c, cfg).Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		},
		"after the nonce": func(c net.Conn) {
			if ws, err := upgrade(t.Context(), tls.Client(c, cfg), "g"); err == nil {
				ws.Read(t.Context())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dial(t.Context(), w.gateway.Public)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			stop(c)
			if err := await(t, w.ended); err == nil {
				t.Error("it was served")
			}
		})
	}
	if len(w.server.proving) != 0 || len(w.links) != 0 {
		t.Errorf("%d still prove, %d were let in", len(w.server.proving), len(w.links))
	}
}

func TestTooManyProving(t *testing.T) {
	s := NewServer(ServerConfig{})
	for range maxProving {
		s.proving <- struct{}{}
	}
	a, b := net.Pipe()
	defer a.Close()
	if err := s.Serve(t.Context(), b, netip.AddrPort{}); !errors.Is(err, errTooMany) {
		t.Errorf("got %v", err)
	}
	if got := s.Crowded(); got != 1 {
		t.Errorf("got %d turned away, want 1", got)
	}
}

// A node that has been let in and sends what is no datagrams loses its relay and no more.
func TestHostileFrames(t *testing.T) {
	w := newWorld(t)
	for name, message := range map[string][]byte{
		"empty":         {},
		"half a length": {1},
		"cut short":     {0, 10, 1, 2, 3},
		"nothing in it": {0, 0},
		"too long":      make([]byte, maxMessage+1),
	} {
		t.Run(name, func(t *testing.T) {
			ws, nonce, binding := w.enter(t)
			text, _ := json.Marshal(postern.RelayProof{
				Node: "n1", Signature: ed25519.Sign(w.node.Key, postern.RelayMessage(nonce, binding, "g1")),
			})
			if err := ws.Write(t.Context(), websocket.MessageText, text); err != nil {
				t.Fatal(err)
			}
			if _, _, err := ws.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
			l := await(t, w.links)
			ws.Write(t.Context(), websocket.MessageBinary, message)
			await(t, l.detached)
			if len(l.came) > 0 {
				t.Errorf("%d datagrams came", len(l.came))
			}
		})
	}
	c, l, _ := w.open(func([][]byte) error { return nil })
	c.Send([][]byte{{1}})
	await(t, l.came)
}

func TestQueue(t *testing.T) {
	q, now := newQueue(), time.Now()
	for i := range maxQueued + 10 {
		q.put([][]byte{binary.BigEndian.AppendUint16(nil, uint16(i))}, now)
	}
	message, more := q.take(nil, now)
	got, err := split(nil, message)
	if err != nil || more || len(got) != maxQueued || q.dropped != 10 {
		t.Fatalf("got %d, more %t, dropped %d, %v", len(got), more, q.dropped, err)
	}
	if first := binary.BigEndian.Uint16(got[0]); first != 10 {
		t.Errorf("the oldest is %d, want 10", first)
	}
	q.put([][]byte{{1}, nil, make([]byte, maxDatagram+1)}, now)
	q.put([][]byte{{2}}, now.Add(maxSojourn))
	if message, _ = q.take(nil, now.Add(maxSojourn+1)); !bytes.Equal(message, []byte{0, 1, 2}) {
		t.Errorf("got %v, want the one that did not wait too long", message)
	}
	long := make([]byte, fullMessage)
	q.put([][]byte{{1}, long, {2}}, now)
	for i, want := range []int{3, lengthSize + len(long), 3} {
		message, more := q.take(nil, now)
		if len(message) != want || more != (i < 2) {
			t.Errorf("message %d has %d bytes, more %t, want %d", i, len(message), more, want)
		}
	}
}

// Nobody reads: what is sent is bounded, and Send never waits.
func TestFloodIsBounded(t *testing.T) {
	w := newWorld(t)
	_, l, _ := w.open(func([][]byte) error {
		<-t.Context().Done()
		return nil
	})
	datagram := make([]byte, 1456)
	for range 200_000 {
		l.send([][]byte{datagram})
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{0, 1, 2})
	f.Add([]byte{0, 0})
	f.Add(join(join(nil, []byte("one")), []byte("two")))
	f.Fuzz(func(t *testing.T, message []byte) {
		datagrams, err := split(nil, message)
		if err != nil {
			return
		}
		var again []byte
		for _, d := range datagrams {
			if len(d) == 0 {
				t.Fatal("an empty datagram")
			}
			again = join(again, d)
		}
		if !bytes.Equal(again, message) {
			t.Errorf("got %x from %x", again, message)
		}
	})
}
