package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A tcpConn is a TCP connection: a net.Conn with CloseRead, CloseWrite and
// ReadReady. Its errors are those of a net.TCPConn, and io.EOF is only ever the
// peer's FIN or an own CloseRead: a connection that broke says so on every call.
type tcpConn struct {
	// Static after newConn.
	ep            tcpip.Endpoint
	local, remote *net.TCPAddr

	closed  atomic.Bool
	failure atomic.Pointer[error] // the first error that ended the connection

	in  half
	dst tcpip.SliceWriter // of the Read whose turn it is
	out half
	src bytes.Reader // of the Write whose turn it is
}

// newConn takes over ep, which is connected or was.
func newConn(ep tcpip.Endpoint, events *waiter.Queue) *tcpConn {
	id := ep.Info().(*stack.TransportEndpointInfo).ID
	c := &tcpConn{
		ep:     ep,
		local:  tcpAddr(id.LocalAddress, id.LocalPort),
		remote: tcpAddr(id.RemoteAddress, id.RemotePort),
	}
	c.in.open(events, readable)
	c.out.open(events, writable)
	return c
}

// What may change for who waits to read or to write.
const (
	readable = waiter.ReadableEvents | waiter.EventHUp
	writable = waiter.WritableEvents | waiter.EventHUp
)

func (c *tcpConn) LocalAddr() net.Addr  { return c.local }
func (c *tcpConn) RemoteAddr() net.Addr { return c.remote }

// Read implements net.Conn.
func (c *tcpConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in.turn.Lock()
	defer c.in.turn.Unlock()
	n, err := c.read(b)
	if err == io.EOF {
		return 0, err
	}
	return n, c.opError("read", err)
}

func (c *tcpConn) read(b []byte) (int, error) {
	for {
		c.in.rest()
		if c.in.late() {
			return 0, os.ErrDeadlineExceeded
		}
		n, err := c.take(b)
		if err != errWouldBlock {
			return n, err
		}
		c.in.sleep()
	}
}

// take reads what is there.
func (c *tcpConn) take(b []byte) (int, error) {
	c.dst = b
	res, err := c.ep.Read(&c.dst, tcpip.ReadOptions{})
	c.dst = nil
	if err != nil {
		return 0, c.explain(err)
	}
	c.ep.ModerateRecvBuf(res.Count)
	return res.Count, nil
}

// ReadReady reports whether Read would return at once. If not, f is called when
// it would or might, once, by whoever brings that about: it must neither block nor
// call a method of c. Who waits so needs neither a buffer nor a goroutine until
// there is something to read. One at a time may wait so.
func (c *tcpConn) ReadReady(f func()) bool {
	c.in.watch(f)
	if !c.closed.Load() && !c.in.late() && c.ep.Readiness(readable) == 0 {
		return false
	}
	return c.in.unwatch() // else f was called just now
}

// Heard returns how many TCP segments came from the peer: more than before say that
// it is there.
func (c *tcpConn) Heard() uint64 { return c.ep.Stats().(*tcp.Stats).SegmentsReceived.Value() }

// Write implements net.Conn. Concurrent writes do not mix.
func (c *tcpConn) Write(b []byte) (int, error) {
	c.out.turn.Lock()
	defer c.out.turn.Unlock()
	c.src.Reset(b)
	defer c.src.Reset(nil)
	err := c.write()
	return len(b) - c.src.Len(), c.opError("write", err)
}

// write writes src.
func (c *tcpConn) write() error {
	for {
		c.out.rest()
		if c.out.late() {
			return os.ErrDeadlineExceeded
		}
		switch err := c.put(); {
		case err == errWouldBlock:
			c.out.sleep()
		case err != nil || c.src.Len() == 0:
			return err
		}
	}
}

// put writes what there is room for.
func (c *tcpConn) put() error {
	left := c.src.Len()
	if left == 0 {
		return nil
	}
	n, err := c.ep.Write(&c.src, tcpip.WriteOptions{})
	// The endpoint may have read more of src than it found room for.
	c.src.Seek(c.src.Size()-int64(left)+n, io.SeekStart)
	if err != nil {
		return c.explain(err)
	}
	return nil
}

// Close implements net.Conn. What was written is still sent, unless there is
// something left to read: then the connection is reset (RFC 2525, section 2.17).
// A peer that takes none of it for closeTimeout gets no more.
func (c *tcpConn) Close() error {
	if c.closed.Swap(true) {
		return c.opError("close", net.ErrClosed)
	}
	timeout := tcpip.TCPUserTimeoutOption(closeTimeout)
	c.ep.SetSockOpt(&timeout) // it cannot fail
	c.ep.Close()
	c.in.close()
	c.out.close()
	return nil
}

// CloseRead makes reads return io.EOF.
func (c *tcpConn) CloseRead() error { return c.shutdown(tcpip.ShutdownRead) }

// CloseWrite sends a FIN after what was written.
func (c *tcpConn) CloseWrite() error { return c.shutdown(tcpip.ShutdownWrite) }

func (c *tcpConn) shutdown(how tcpip.ShutdownFlags) error {
	if c.closed.Load() {
		return c.opError("close", net.ErrClosed)
	}
	if err := c.ep.Shutdown(how); err != nil {
		return c.opError("close", c.explain(err))
	}
	return nil
}

// SetDeadline implements net.Conn.
func (c *tcpConn) SetDeadline(t time.Time) error {
	c.in.setDeadline(t)
	c.out.setDeadline(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *tcpConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *tcpConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(t)
	return nil
}

// explain turns what the endpoint says into what a net.TCPConn would say. The
// endpoint tells why it failed once, to whoever asks first, and then only that
// it is closed.
func (c *tcpConn) explain(err tcpip.Error) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	broken := tcp.EndpointState(c.ep.State()) == tcp.StateError
	switch err.(type) {
	case *tcpip.ErrWouldBlock:
		return errWouldBlock
	case *tcpip.ErrClosedForReceive:
		if !broken {
			return io.EOF
		}
		return c.broke(syscall.ECONNRESET)
	case *tcpip.ErrClosedForSend:
		if !broken {
			return syscall.EPIPE
		}
		return c.broke(syscall.ECONNRESET)
	}
	return c.broke(goError(err))
}

// broke returns the error that ended the connection: err, unless it is known.
func (c *tcpConn) broke(err error) error {
	c.failure.CompareAndSwap(nil, &err)
	return *c.failure.Load()
}

func (c *tcpConn) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// errWouldBlock never leaves this file.
var errWouldBlock = errors.New("would block")

// goError is the error of a connection or of an attempt at one, such that
// errors.Is finds it.
func goError(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionReset:
		return syscall.ECONNRESET
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return syscall.ECONNABORTED
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrPortInUse:
		return syscall.EADDRINUSE
	}
	return errors.New(err.String())
}

func tcpAddr(a tcpip.Address, port uint16) *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addrFrom(a), port))
}

// addrFrom returns the zero Addr for an address that is not set.
func addrFrom(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFrom16(a.Addr().As16()), Port: a.Port()}
}
