package netstack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A tcpConn is a TCP connection: a net.Conn with CloseRead and CloseWrite. Its
// errors are those of a net.TCPConn, and io.EOF is only ever the peer's FIN or
// an own CloseRead: a connection that broke says so on every call.
type tcpConn struct {
	// Static after newConn.
	ep            tcpip.Endpoint
	events        *waiter.Queue
	local, remote *net.TCPAddr

	closed        atomic.Bool
	failure       atomic.Pointer[error] // the first error that ended the connection
	readDeadline  deadline
	writeDeadline deadline

	writing sync.Mutex // keeps the bytes of one Write together
}

// newConn takes over ep, which is connected or was.
func newConn(ep tcpip.Endpoint, events *waiter.Queue) *tcpConn {
	id := ep.Info().(*stack.TransportEndpointInfo).ID
	return &tcpConn{
		ep:            ep,
		events:        events,
		local:         tcpAddr(id.LocalAddress, id.LocalPort),
		remote:        tcpAddr(id.RemoteAddress, id.RemotePort),
		readDeadline:  newDeadline(),
		writeDeadline: newDeadline(),
	}
}

func (c *tcpConn) LocalAddr() net.Addr  { return c.local }
func (c *tcpConn) RemoteAddr() net.Addr { return c.remote }

// Read implements net.Conn.
func (c *tcpConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.read(b)
	if err == io.EOF {
		return 0, err
	}
	return n, c.opError("read", err)
}

func (c *tcpConn) read(b []byte) (int, error) {
	passed := c.readDeadline.passed()
	if isDone(passed) {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.take(b)
	if err != errWouldBlock {
		return n, err
	}
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp)
	c.events.EventRegister(&entry)
	defer c.events.EventUnregister(&entry)
	for {
		n, err := c.take(b)
		if err != errWouldBlock {
			return n, err
		}
		select {
		case <-passed:
			return 0, os.ErrDeadlineExceeded
		case <-ready:
		}
	}
}

// take reads what is there.
func (c *tcpConn) take(b []byte) (int, error) {
	w := tcpip.SliceWriter(b)
	res, err := c.ep.Read(&w, tcpip.ReadOptions{})
	if err != nil {
		return 0, c.explain(err)
	}
	c.ep.ModerateRecvBuf(res.Count)
	return res.Count, nil
}

// Write implements net.Conn. Concurrent writes do not mix.
func (c *tcpConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.write(b)
	return n, c.opError("write", err)
}

func (c *tcpConn) write(b []byte) (n int, err error) {
	passed := c.writeDeadline.passed()
	if isDone(passed) {
		return 0, os.ErrDeadlineExceeded
	}
	var (
		r     bytes.Reader
		entry waiter.Entry
		ready chan struct{}
	)
	for n < len(b) {
		r.Reset(b[n:])
		k, terr := c.ep.Write(&r, tcpip.WriteOptions{})
		n += int(k)
		if terr == nil {
			continue
		}
		if err := c.explain(terr); err != errWouldBlock {
			return n, err
		}
		if ready == nil {
			entry, ready = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp)
			c.events.EventRegister(&entry)
			defer c.events.EventUnregister(&entry)
			continue // there may have become room before we listened
		}
		select {
		case <-passed:
			return n, os.ErrDeadlineExceeded
		case <-ready:
		}
	}
	return n, nil
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
	c.SetDeadline(time.Time{}) // a timer would outlive the connection
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
	c.readDeadline.set(t)
	c.writeDeadline.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *tcpConn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *tcpConn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
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
