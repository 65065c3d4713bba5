package netstack

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// named is the host as a peer that has an ID.
func (h *host) named(id string) Peer {
	p := h.peer
	p.ID = id
	return p
}

// rekey gives h a new key, and returns it as others see it from now on.
func (h *host) rekey(t testing.TB) {
	t.Helper()
	h.private = newPrivateKey(t)
	if err := h.SetPrivateKey(h.private); err != nil {
		t.Fatal(err)
	}
	h.peer.PublicKey = h.key
}

// A peer with a new key keeps its connections, in use and idle ones, whichever of the two
// ends has it. Both ends know each other by ID.
func TestRekey(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first func(t *testing.T, node, gateway *host, nodePeer, gatewayPeer func() Peer)
	}{
		{"node", func(t *testing.T, node, gateway *host, nodePeer, _ func() Peer) {
			next := newPrivateKey(t)
			public, err := publicKey(next)
			if err != nil {
				t.Fatal(err)
			}
			p := nodePeer()
			p.PublicKey = public
			gateway.mustSetPeers(t, p) // first, so that it knows the key
			if err := node.SetPrivateKey(next); err != nil {
				t.Fatal(err)
			}
		}},
		{"gateway", func(t *testing.T, node, gateway *host, _, gatewayPeer func() Peer) {
			gateway.rekey(t)
			node.mustSetPeers(t, gatewayPeer())
			// Not both at once, or both initiations are lost and WireGuard waits 5 s.
			eventually(t, "handshake", func() bool { return !node.status1(t).Handshake.IsZero() })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node, gateway := newHost(t, 1), newHost(t, 2)
			nodePeer := func() Peer { p := node.hidden(); p.ID = "n"; return p }
			gatewayPeer := func() Peer { p := gateway.named("g"); p.Keepalive = 25 * time.Second; return p }
			gateway.mustSetPeers(t, nodePeer())
			node.mustSetPeers(t, gatewayPeer())
			eventually(t, "handshake", func() bool { return !gateway.status1(t).Handshake.IsZero() })
			a, b := connect(t, gateway, node)
			c, d := connect(t, node, gateway)
			mustEcho(t, a, b)
			tt.first(t, node, gateway, nodePeer, gatewayPeer)
			begin := time.Now()
			mustEcho(t, a, b)
			t.Logf("bytes passed again after %v", time.Since(begin))
			mustEcho(t, c, d)
			e, f := connect(t, gateway, node)
			mustEcho(t, e, f)
			if got := gateway.status1(t); got.PublicKey != node.key || got.Handshake.IsZero() {
				t.Errorf("the gateway's peer is %+v, want key %v", got, node.key)
			}
		})
	}
}

// Who has the address of another, or lost its ID, is another.
func TestRekeyOfAnother(t *testing.T) {
	for _, tt := range []struct {
		name, before, after string
	}{
		{"another", "n1", "n2"}, {"nobody", "n1", ""}, {"who was nobody", "", "n1"}, {"neither known", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node, gateway := newPair(t)
			p := node.hidden()
			p.ID = tt.before
			gateway.mustSetPeers(t, p)
			a, b := connect(t, gateway, node)
			mustEcho(t, a, b)
			p.PublicKey, p.ID = Key{1}, tt.after
			gateway.mustSetPeers(t, p)
			if _, err := a.Write([]byte("to whom?")); err == nil {
				t.Error("the connection goes on")
			}
		})
	}
}

// A tunnel that goes by a relay goes on there when the gateway has a new key.
func TestRekeyOnRelay(t *testing.T) {
	node, gateway := newDialer(t)
	p := node.hidden()
	p.ID = "n"
	gateway.mustSetPeers(t, p)
	q := gateway.named("g")
	node.mustSetPeers(t, q)
	newRelays(t, node, gateway)
	if err := node.SetRelayed(gateway.key, true); err != nil {
		t.Fatal(err)
	}
	a, b := connect(t, node, gateway)
	mustEcho(t, a, b)

	gateway.rekey(t)
	q.PublicKey = gateway.key
	node.mustSetPeers(t, q)
	mustEcho(t, a, b)
	if got := node.status1(t); !got.Relayed {
		t.Error("the tunnel left the relay")
	}

	node.private = newPrivateKey(t)
	public, err := publicKey(node.private)
	if err != nil {
		t.Fatal(err)
	}
	p.PublicKey = public
	gateway.mustSetPeers(t, p)
	if err := node.SetPrivateKey(node.private); err != nil {
		t.Fatal(err)
	}
	mustEcho(t, a, b)
	if got := gateway.status1(t); !got.Relayed {
		t.Error("the gateway sees the tunnel off the relay")
	}
}

// A gateway that has seen a later clock than the node's takes its greetings for replays,
// until the node has another key (R9). In a bubble of synctest it is the year 2000.
func TestRekeyAfterTheClockWasSetBack(t *testing.T) {
	node, gateway := newHost(t, 1), &host{private: newPrivateKey(t)}
	refused := make(chan struct{})
	gateway.start(t, Config{Address: overlay(2), Logger: slog.New(&eavesdropper{text: "invalid initiation", heard: sync.OnceFunc(func() { close(refused) })})})
	named := func(key Key) Peer { return Peer{PublicKey: key, Address: overlay(1), ID: "n"} }
	toGateway := gateway.peer
	toGateway.Keepalive = 25 * time.Second
	gateway.mustSetPeers(t, named(node.key))
	node.mustSetPeers(t, toGateway)
	eventually(t, "handshake", func() bool { return !gateway.status1(t).Handshake.IsZero() })
	node.Close()

	next := newPrivateKey(t)
	public, err := publicKey(next)
	if err != nil {
		t.Fatal(err)
	}
	known, met, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() { // what the gateway starts is not to be in the bubble
		defer close(ended)
		<-refused
		gateway.mustSetPeers(t, named(public))
		close(known)
		eventually(t, "handshake", func() bool { return !gateway.status1(t).Handshake.IsZero() })
		close(met)
	}()
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{PrivateKey: node.private, Address: overlay(1), FixedEndpoints: true})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.SetPeers([]Peer{toGateway}); err != nil {
			t.Fatal(err)
		}
		keep := func() { immortal = append(immortal, n, n.device.LookupPeer(toGateway.PublicKey)) }
		keep()
		<-known
		defer keep() // the peer may have been made anew
		if err := n.SetPrivateKey(next); err != nil {
			t.Fatal(err)
		}
		<-met
	})
	<-ended
}

// immortal holds what has channels of a bubble. WireGuard's finalizers would read them from
// outside it, which ends the process.
var immortal []any

// An eavesdropper calls heard when something is logged that has text in it.
type eavesdropper struct {
	text  string
	heard func()
}

func (e *eavesdropper) Enabled(context.Context, slog.Level) bool { return true }
func (e *eavesdropper) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e *eavesdropper) WithGroup(string) slog.Handler            { return e }
func (e *eavesdropper) Handle(_ context.Context, r slog.Record) error {
	said := r.Message
	r.Attrs(func(a slog.Attr) bool { said += " " + a.Value.String(); return true })
	if strings.Contains(said, e.text) {
		e.heard()
	}
	return nil
}

func TestSetPrivateKeyRefuses(t *testing.T) {
	node, gateway := newPair(t)
	if err := node.SetPrivateKey(gateway.private); err == nil {
		t.Error("a peer's key was taken")
	}
	if err := node.SetPrivateKey(node.private); err != nil {
		t.Errorf("the same key again: %v", err)
	}
	node.Close()
	if err := node.SetPrivateKey(newPrivateKey(t)); err == nil {
		t.Error("a closed host took a key")
	}
}
