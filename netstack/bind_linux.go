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
// (UDP_GRO). What a kernel, a card or a path refuses is done without.
//
// The way out is send_linux.go, the way in receive_linux.go.
type bind struct {
	// Static after newBind.
	logger *slog.Logger
	kernel kernel

	// sockets is nil while the bind is closed. opening is held while it is
	// changed.
	opening sync.Mutex
	sockets atomic.Pointer[sockets]
}

// sockets are a bind's. One is nil where this machine lacks the family.
type sockets struct{ v4, v6 *socket }

func (s *sockets) each(yield func(*socket) bool) {
	_ = (s.v4 == nil || yield(s.v4)) && (s.v6 == nil || yield(s.v6))
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
	if b.sockets.Load() != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	sockets, err := b.listen(port)
	for range anyPortTries {
		if port != 0 || !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		sockets, err = b.listen(0)
	}
	if err != nil {
		return nil, 0, err
	}
	b.sockets.Store(sockets)
	var receive []conn.ReceiveFunc
	for s := range sockets.each {
		receive = append(receive, newReceiver(s).receive)
		port = s.port
	}
	return receive, port, nil
}

// listen opens both sockets on one port.
func (b *bind) listen(port uint16) (*sockets, error) {
	v4, err := listen("udp4", port, b.kernel, b.logger)
	if err != nil && !noFamily(err) {
		return nil, err
	}
	if v4 != nil {
		port = v4.port
	}
	v6, err6 := listen("udp6", port, b.kernel, b.logger)
	if v4 == nil && v6 == nil {
		return nil, err6
	}
	if err6 != nil && !noFamily(err6) {
		v4.conn.Close()
		return nil, err6
	}
	return &sockets{v4, v6}, nil
}

// noFamily reports whether err says that there are no addresses of that family.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// Close closes the sockets. What waits on them returns net.ErrClosed.
func (b *bind) Close() error {
	b.opening.Lock()
	defer b.opening.Unlock()
	sockets := b.sockets.Swap(nil)
	if sockets == nil {
		return nil
	}
	var errs []error
	for s := range sockets.each {
		errs = append(errs, s.conn.Close())
	}
	return errors.Join(errs...)
}

// SetMark gives every packet from here on the mark that routing rules and
// filters see.
func (b *bind) SetMark(mark uint32) error {
	sockets := b.sockets.Load()
	if sockets == nil {
		return net.ErrClosed
	}
	for s := range sockets.each {
		if err := s.setMark(mark); err != nil {
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
	sockets := b.sockets.Load()
	if sockets == nil {
		return net.ErrClosed
	}
	s := sockets.v4
	if ep.is6() {
		s = sockets.v6
	}
	if s == nil {
		return fmt.Errorf("send to %v: %w", ep.dst, unix.EAFNOSUPPORT)
	}
	return s.send(bufs, ep)
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
