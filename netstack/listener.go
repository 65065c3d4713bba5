package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections may wait to be accepted.
const backlog = 1024

// A listener accepts TCP connections from peers.
type listener struct {
	net    *Net
	ep     tcpip.Endpoint
	events *waiter.Queue
	addr   *net.TCPAddr
	close  sync.Once
}

// Listen accepts TCP connections from peers to a port of the host's virtual
// address; port 0 is any free one. Connections have CloseRead and CloseWrite
// like a net.TCPConn. Accept returns net.ErrClosed once the listener or the Net
// is closed. The caller closes it.
func (n *Net) Listen(port uint16) (net.Listener, error) {
	l, err := n.listen(port)
	if err != nil {
		return nil, fmt.Errorf("listen on port %d of %v: %w", port, n.address, err)
	}
	return l, nil
}

func (n *Net) listen(port uint16) (*listener, error) {
	n.open.RLock()
	defer n.open.RUnlock()
	if n.closed {
		return nil, net.ErrClosed
	}
	events := new(waiter.Queue)
	ep, err := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, events)
	if err != nil {
		return nil, goError(err)
	}
	if err := ep.Bind(fullAddress(netip.AddrPortFrom(n.address, port))); err != nil {
		ep.Close()
		return nil, goError(err)
	}
	if err := ep.Listen(backlog); err != nil {
		ep.Close()
		return nil, goError(err)
	}
	local, err := ep.GetLocalAddress()
	if err != nil {
		ep.Close()
		return nil, goError(err)
	}
	return &listener{net: n, ep: ep, events: events, addr: tcpAddr(local.Addr, local.Port)}, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp)
	l.events.EventRegister(&entry)
	defer l.events.EventUnregister(&entry)
	for {
		ep, events, err := l.ep.Accept(nil)
		switch err.(type) {
		case nil:
			if c := l.adopt(ep, events); c != nil {
				return c, nil
			}
		case *tcpip.ErrWouldBlock:
			<-ready
		default:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		}
	}
}

// adopt makes an accepted endpoint a connection. It returns nil if the peer was
// removed while the endpoint waited, or broke the connection.
func (l *listener) adopt(ep tcpip.Endpoint, events *waiter.Queue) net.Conn {
	c := newConn(ep, events)
	// In this order: an address that is reachable again, behind another key, is
	// so after SetPeers aborted what was there.
	if l.net.reachable(c.remote.AddrPort().Addr()) != nil ||
		tcp.EndpointState(ep.State()) == tcp.StateError || harden(ep) != nil {
		ep.Abort()
		return nil
	}
	return c
}

// Close implements net.Listener. Connections not yet accepted are reset.
func (l *listener) Close() error {
	l.close.Do(l.ep.Close)
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }
