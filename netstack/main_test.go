package netstack

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// A host is a Net and what others need to reach it.
type host struct {
	*Net
	private [32]byte
	peer    Peer // as others see it, on loopback
}

// newHost starts the host fd00::n, without peers.
func newHost(t testing.TB, n byte) *host {
	t.Helper()
	h := &host{private: newPrivateKey(t)}
	return h.start(t, Config{Address: overlay(n)})
}

func (h *host) start(t testing.TB, cfg Config) *host {
	t.Helper()
	cfg.PrivateKey = h.private
	var err error
	if h.Net, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	h.peer = Peer{
		PublicKey: h.key,
		Address:   cfg.Address,
		Endpoint:  netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), h.Port()),
	}
	return h
}

// newPair returns two hosts that are peers. The first knows where the second is,
// as a node does of its gateway; the second waits to be called.
func newPair(t testing.TB) (node, gateway *host) {
	t.Helper()
	node, gateway = newHost(t, 1), newHost(t, 2)
	meet(t, node, gateway)
	return node, gateway
}

// meet makes each the other's only peer and waits until they have shaken hands.
func meet(t testing.TB, node, gateway *host) {
	t.Helper()
	gateway.mustSetPeers(t, node.hidden())
	toGateway := gateway.peer
	toGateway.Keepalive = 25 * time.Second
	node.mustSetPeers(t, toGateway)
	eventually(t, "handshake", func() bool { return !gateway.status1(t).Handshake.IsZero() })
}

// hidden is the host as one that must call first.
func (h *host) hidden() Peer {
	p := h.peer
	p.Endpoint = netip.AddrPort{}
	return p
}

func (h *host) mustSetPeers(t testing.TB, peers ...Peer) {
	t.Helper()
	if err := h.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
}

// status1 is the status of the only peer.
func (h *host) status1(t testing.TB) PeerStatus {
	t.Helper()
	all := h.Peers()
	if len(all) != 1 {
		t.Fatalf("got %d peers, want 1", len(all))
	}
	return all[0]
}

func (h *host) mustListen(t testing.TB, port uint16) net.Listener {
	t.Helper()
	ln, err := h.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func (h *host) mustDial(t testing.TB, dst netip.AddrPort) *tcpConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := h.DialContext(ctx, dst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*tcpConn)
}

// connect returns both ends of a connection from one host to port 443 of the other.
func connect(t testing.TB, from, to *host) (dialed, accepted *tcpConn) {
	t.Helper()
	ln := to.mustListen(t, 0)
	dialed = from.mustDial(t, addrPort(ln))
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	t.Cleanup(func() { c.Close() })
	return dialed, c.(*tcpConn)
}

// mustEcho checks that bytes pass both ways.
func mustEcho(t testing.TB, a, b net.Conn) {
	t.Helper()
	for _, dir := range [][2]net.Conn{{a, b}, {b, a}} {
		msg := []byte(rand.Text())
		deadline := time.Now().Add(patience)
		dir[0].SetWriteDeadline(deadline)
		dir[1].SetReadDeadline(deadline)
		if _, err := dir[0].Write(msg); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(msg))
		if _, err := io.ReadFull(dir[1], got); err != nil {
			t.Fatal(err)
		}
		if string(got) != string(msg) {
			t.Fatalf("got %q, want %q", got, msg)
		}
	}
	a.SetDeadline(time.Time{})
	b.SetDeadline(time.Time{})
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// within returns what f returns, and fails if it does not return.
func within[T any](t testing.TB, what string, f func() T) T {
	t.Helper()
	done := make(chan T, 1)
	go func() { done <- f() }()
	select {
	case v := <-done:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not return within %v", what, patience)
		panic("unreachable")
	}
}

func newPrivateKey(t testing.TB) [32]byte {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(k.Bytes())
}

func overlay(n byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 15: n})
}

func addrPort(ln net.Listener) netip.AddrPort { return ln.Addr().(*net.TCPAddr).AddrPort() }
