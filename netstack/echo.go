package netstack

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/conn"
)

// An echo tells whether datagrams of its length pass to a peer and back over UDP, and
// leaves the tunnel alone:
//
//	kind(1) 0(3) nonce(16) mac(16) padding
//
// The kinds are none of WireGuard's message types (whitepaper, section 5.4). The MAC is
// keyed BLAKE2s over all before it, and its key the hash of a label and the public key of
// who answers: who does not know that gets no answer, as with WireGuard's own mac1. The
// answer is as long as the question, goes where that came from, and nothing is kept of
// it; the nonce in it shows that it is no guess of somebody who cannot see the question.
const (
	echoAsk    = 0xE0
	echoAnswer = 0xE1

	echoNonce  = 16
	echoMACAt  = 4 + echoNonce
	echoHeader = echoMACAt + blake2s.Size128
)

// echoRate is how many questions are answered in a second, from all together: one every
// 5 s of each of 20,000 busy nodes. Longer answers than questions there are none.
const echoRate = 4000

type echo struct {
	key atomic.Pointer[[32]byte] // of the MACs of what we are asked

	// Static after newEcho.
	answers bool // to be given; else questions are ours to ask
	limit   *rate.Limiter

	mu      sync.Mutex
	waiting map[[echoNonce]byte]*question
}

// A question is one that was asked.
type question struct {
	key  [32]byte
	done chan struct{} // closed by the answer
}

func newEcho(own Key, answers bool) *echo {
	e := &echo{
		answers: answers,
		limit:   rate.NewLimiter(echoRate, echoRate/10), waiting: map[[echoNonce]byte]*question{},
	}
	e.setKey(own)
	return e
}

// setKey has what we are asked under another public key answered from now on.
func (e *echo) setKey(own Key) {
	key := echoKey(own)
	e.key.Store(&key)
}

func echoKey(k Key) [32]byte {
	return blake2s.Sum256(append([]byte("postern echo v1\x00"), k[:]...))
}

// sealEcho writes the MAC of b.
func sealEcho(b []byte, key [32]byte) {
	h, err := blake2s.New128(key[:])
	if err != nil {
		panic("netstack: blake2s refuses a key of 32 bytes: " + err.Error())
	}
	h.Write(b[:echoMACAt])
	h.Sum(b[:echoMACAt])
}

// sealedEcho reports whether b has the right MAC.
func sealedEcho(b []byte, key [32]byte) bool {
	var c [echoHeader]byte
	copy(c[:], b[:echoMACAt])
	sealEcho(c[:], key)
	return subtle.ConstantTimeCompare(c[:], b[:echoHeader]) == 1
}

// receiver returns receive without echoes, which it sees to, sending by udp.
func (e *echo) receiver(udp conn.Bind, receive conn.ReceiveFunc) conn.ReceiveFunc {
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		n, err := receive(bufs, sizes, eps)
		for i, size := range sizes[:n] {
			if size >= echoHeader && bufs[i][0]&^1 == echoAsk {
				e.take(bufs[i][:size], udp, eps[i])
				sizes[i] = 0
			}
		}
		return n, err
	}
}

// take sees to an echo.
func (e *echo) take(b []byte, udp conn.Bind, from conn.Endpoint) {
	if b[0] == echoAsk {
		if key := *e.key.Load(); e.answers && sealedEcho(b, key) && e.limit.Allow() {
			b[0] = echoAnswer
			sealEcho(b, key)
			_ = udp.Send([][]byte{b}, from) // as good as lost, which any may be
		}
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	nonce := [echoNonce]byte(b[4:])
	if q := e.waiting[nonce]; q != nil && sealedEcho(b, q.key) {
		close(q.done)
		delete(e.waiting, nonce)
	}
}

// ask sends a question of size bytes to the peer with that key at to, and waits for the
// answer until ctx is done.
func (e *echo) ask(ctx context.Context, peer Key, size int, udp conn.Bind, to conn.Endpoint) error {
	q := &question{key: echoKey(peer), done: make(chan struct{})}
	b := make([]byte, max(size, echoHeader))
	b[0] = echoAsk
	rand.Read(b[4:echoMACAt])
	nonce := [echoNonce]byte(b[4:])
	sealEcho(b, q.key)
	e.mu.Lock()
	e.waiting[nonce] = q
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.waiting, nonce)
		e.mu.Unlock()
	}()
	if err := udp.Send([][]byte{b}, to); err != nil {
		return err
	}
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Echo asks peer over UDP, beside the tunnel, and returns how long the answer took.
// Question and answer are as long as the datagram of a packet of mtu bytes in the tunnel.
// It fails when ctx is done, or at once if no interface of this machine carries that. Who
// is asked is a Net without Config.FixedEndpoints.
func (n *Net) Echo(ctx context.Context, peer [32]byte, mtu int) (time.Duration, error) {
	n.configuring.Lock()
	p, ok := n.peers[peer]
	n.configuring.Unlock()
	if !ok || !p.Endpoint.IsValid() {
		return 0, errors.New("echo: no peer with this key has a udp endpoint")
	}
	if n.isClosed() {
		return 0, net.ErrClosed
	}
	to, err := n.carriers.Bind.ParseEndpoint(p.Endpoint.String())
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := n.carriers.echo.ask(ctx, peer, mtu+Overhead, n.carriers.Bind, to); err != nil {
		return 0, fmt.Errorf("echo of %v: %w", p.Endpoint, err)
	}
	return time.Since(start), nil
}
