package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

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

func (n *Net) dial(ctx context.Context, dst netip.AddrPort) (*tcpConn, error) {
	if err := n.reachable(dst.Addr()); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var events waiter.Queue
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	events.EventRegister(&entry)
	defer events.EventUnregister(&entry)
	ep, err := n.connect(dst, &events)
	if err != nil {
		return nil, err
	}
	// SetPeers aborts the endpoints that it finds, so ask again now that it
	// finds ours.
	if err := n.reachable(dst.Addr()); err != nil {
		ep.Close()
		return nil, err
	}
	select {
	case <-ctx.Done():
		ep.Close()
		return nil, ctx.Err()
	case <-ready:
	}
	if terr := ep.LastError(); terr != nil {
		ep.Close()
		return nil, n.dialError(dst.Addr(), terr)
	}
	return newConn(ep, &events), nil
}

// connect sends the SYN.
func (n *Net) connect(dst netip.AddrPort, events *waiter.Queue) (tcpip.Endpoint, error) {
	n.open.RLock()
	defer n.open.RUnlock()
	if n.closed {
		return nil, net.ErrClosed
	}
	ep, err := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, events)
	if err != nil {
		return nil, goError(err)
	}
	if err := harden(ep); err != nil {
		ep.Close()
		return nil, goError(err)
	}
	err = ep.Connect(fullAddress(dst))
	if _, ok := err.(*tcpip.ErrConnectStarted); err != nil && !ok {
		ep.Close()
		return nil, goError(err)
	}
	return ep, nil
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
