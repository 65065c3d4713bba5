//go:build !android

package netstack

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// A bind is WireGuard's UDP sockets, one for each family of addresses, on the
// same port. Where the kernel can, many datagrams of one size pass as a single
// large one: it cuts what we send (UDP_SEGMENT) and glues what we receive
// (UDP_GRO), and both point into WireGuard's own buffers.
//
// The way out is send_linux.go, the way in receive_linux.go.
type bind struct {
	// Static after newBind.
	logger *slog.Logger
	kernel kernel

	// v4 and v6 are nil while the bind is closed, and where there is no such
	// family. opening is held while they are changed.
	opening sync.Mutex
	v4, v6  atomic.Pointer[socket]
}

var _ conn.Bind = (*bind)(nil)

// newBind returns the UDP sockets for a WireGuard device, closed.
func newBind(logger *slog.Logger) conn.Bind {
	return &bind{logger: logger, kernel: linux}
}

// anyPortTries is how often Open looks for a port that is free in both families.
const anyPortTries = 100

// Open opens both sockets on port, or on any if it is zero.
func (b *bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.opening.Lock()
	defer b.opening.Unlock()
	if b.v4.Load() != nil || b.v6.Load() != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	v4, v6, err := b.listen(port)
	for range anyPortTries {
		if port != 0 || !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		v4, v6, err = b.listen(0)
	}
	if err != nil {
		return nil, 0, err
	}
	b.v4.Store(v4)
	b.v6.Store(v6)
	var receive []conn.ReceiveFunc
	for _, s := range []*socket{v4, v6} {
		if s != nil {
			receive = append(receive, newReceiver(s).receive)
			port = s.port
		}
	}
	return receive, port, nil
}

// listen opens both sockets on one port. One of them is nil if this machine
// lacks the family.
func (b *bind) listen(port uint16) (v4, v6 *socket, err error) {
	v4, err = listen("udp4", port, b.kernel, b.logger)
	if err != nil && !noFamily(err) {
		return nil, nil, err
	}
	if v4 != nil {
		port = v4.port
	}
	v6, err6 := listen("udp6", port, b.kernel, b.logger)
	switch {
	case err6 == nil:
		return v4, v6, nil
	case noFamily(err6):
		return v4, nil, err
	case v4 != nil:
		v4.conn.Close()
	}
	return nil, nil, err6
}

// noFamily reports whether err says that there are no addresses of that family.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// Close closes the sockets. What waits on them returns net.ErrClosed.
func (b *bind) Close() error {
	b.opening.Lock()
	defer b.opening.Unlock()
	var errs []error
	for _, p := range []*atomic.Pointer[socket]{&b.v4, &b.v6} {
		if s := p.Swap(nil); s != nil {
			errs = append(errs, s.conn.Close())
		}
	}
	return errors.Join(errs...)
}

// SetMark gives every packet from here on the mark that routing rules and
// filters see (SO_MARK, socket(7)).
func (b *bind) SetMark(mark uint32) error {
	for _, s := range []*socket{b.v4.Load(), b.v6.Load()} {
		if s == nil {
			continue
		}
		if err := s.setOption(unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("mark packets from %v: %w", s.conn.LocalAddr(), err)
		}
	}
	return nil
}

// Send sends bufs to one peer, each as one datagram, in order. An error tells of
// the first that the kernel refused; the others went out.
func (b *bind) Send(bufs [][]byte, to conn.Endpoint) error {
	ep, ok := to.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	s, other := b.v4.Load(), &b.v6
	if ep.dst.Addr().Is6() {
		s, other = b.v6.Load(), &b.v4
	}
	switch {
	case s != nil:
		return s.send(bufs, ep)
	case other.Load() != nil:
		return fmt.Errorf("send to %v: %w", ep.dst, unix.EAFNOSUPPORT)
	}
	return net.ErrClosed
}

// ParseEndpoint returns the endpoint of an address and port.
func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	dst, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return newEndpoint(netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()))
}

func (b *bind) BatchSize() int { return batchSize }
