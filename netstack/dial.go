package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// DialContext connects to dst, an address of a peer, over TCP. It fails at once
// if no peer has that address or the peer refuses, and otherwise when ctx is
// done: a peer that is not there now may come while we wait. The caller closes
// the connection, which has CloseRead and CloseWrite like a net.TCPConn, and
// ReadReady for who would not have a goroutine wait for bytes; ctx has no hold on
// it.
func (n *Net) DialContext(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	c, err := n.dial(ctx, dst)
	if err != nil {
		return nil, fmt.Errorf("dial %v: %w", dst, err)
	}
	return c, nil
}

// A connection that is not there after dialAgain is asked for again beside the
// first, up to dialTries times: TCP itself would wait a second before it takes a
// SYN, or the answer to it, for lost (RFC 6298, section 2), and does not let that
// be changed. The peer may see connections that end before they have begun.
const (
	dialAgain = 250 * time.Millisecond
	dialTries = 3
)

func (n *Net) dial(ctx context.Context, dst netip.AddrPort) (*tcpConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ready := make(chan *try, dialTries)
	first, err := n.try(dst, ready)
	if err != nil {
		return nil, err
	}
	tries := []*try{first}
	defer func() {
		for _, t := range tries {
			t.abandon()
		}
	}()
	again := time.NewTicker(dialAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-again.C:
			if len(tries) == dialTries {
				again.Stop()
			} else if t, err := n.try(dst, ready); err == nil {
				tries = append(tries, t)
			}
		case t := <-ready:
			if terr := t.ep.LastError(); terr != nil {
				return nil, n.dialError(dst.Addr(), terr)
			}
			return t.take(), nil
		}
	}
}

// A try is a connection that was asked for. It is taken or abandoned.
type try struct {
	ep     tcpip.Endpoint
	events waiter.Queue
	entry  waiter.Entry
	once   sync.Once
	taken  bool
}

// try sends a SYN to dst, if a peer has that address. The try goes to ready, which
// has room for it, when it has connected or failed.
func (n *Net) try(dst netip.AddrPort, ready chan<- *try) (*try, error) {
	if err := n.reachable(dst.Addr()); err != nil {
		return nil, err
	}
	t, err := n.connect(dst, ready)
	if err != nil {
		return nil, err
	}
	// SetPeers aborts the endpoints that it finds, so ask again now that it finds
	// ours.
	if err := n.reachable(dst.Addr()); err != nil {
		t.abandon()
		return nil, err
	}
	return t, nil
}

func (n *Net) connect(dst netip.AddrPort, ready chan<- *try) (*try, error) {
	n.open.RLock()
	defer n.open.RUnlock()
	if n.closed {
		return nil, net.ErrClosed
	}
	t := new(try)
	ep, err := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, &t.events)
	if err != nil {
		return nil, goError(err)
	}
	t.ep = ep
	t.entry = waiter.NewFunctionEntry(waiter.WritableEvents|waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) {
		t.once.Do(func() { ready <- t })
	})
	t.events.EventRegister(&t.entry)
	if err := harden(ep); err != nil {
		t.abandon()
		return nil, goError(err)
	}
	err = ep.Connect(fullAddress(dst))
	if _, ok := err.(*tcpip.ErrConnectStarted); err != nil && !ok {
		t.abandon()
		return nil, goError(err)
	}
	return t, nil
}

// take turns t, which is connected, into a connection.
func (t *try) take() *tcpConn {
	t.taken = true
	t.events.EventUnregister(&t.entry)
	return newConn(t.ep, &t.events)
}

// abandon gives t up, unless it was taken.
func (t *try) abandon() {
	if !t.taken {
		t.events.EventUnregister(&t.entry)
		t.ep.Close()
	}
}

// dialError says why a dial was aborted, if we did it.
func (n *Net) dialError(dst netip.Addr, err tcpip.Error) error {
	if _, ok := err.(*tcpip.ErrAborted); ok {
		if n.isClosed() {
			return net.ErrClosed
		}
		return errors.Join(n.reachable(dst), goError(err))
	}
	return goError(err)
}
