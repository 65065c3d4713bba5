package gateway

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
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// A memConn is one end of a TCP-like connection in memory: half-close, resets
// (also by a Close with unread bytes), buffers of memBuffer bytes. Its clock is
// the time package's, so that testing/synctest rules it.
type memConn struct {
	in, out       *stream
	local, remote net.Addr

	mu     sync.Mutex
	linger int // as SetLinger said; -1: Close delivers what was written
}

const memBuffer = 64 << 10

// memPipe returns the two ends of a connection that near dialed.
func memPipe(near, far netip.AddrPort) (c, d *memConn) {
	up, down := newStream(), newStream()
	n, f := net.TCPAddrFromAddrPort(near), net.TCPAddrFromAddrPort(far)
	return &memConn{in: down, out: up, local: n, remote: f, linger: -1},
		&memConn{in: up, out: down, local: f, remote: n, linger: -1}
}

func (c *memConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *memConn) CloseWrite() error           { c.out.end(io.EOF); return nil }
func (c *memConn) LocalAddr() net.Addr         { return c.local }
func (c *memConn) RemoteAddr() net.Addr        { return c.remote }

func (c *memConn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger = sec
	return nil
}

func (c *memConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if unread := c.in.close(net.ErrClosed, true); unread > 0 || c.linger == 0 {
		c.out.reset()
	} else {
		c.out.end(io.EOF)
	}
	c.out.close(net.ErrClosed, false)
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
func (c *memConn) SetReadDeadline(t time.Time) error  { c.in.readBy.set(c.in, t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { c.out.writeBy.set(c.out, t); return nil }

// A stream is one direction of a memConn.
type stream struct {
	mu              sync.Mutex
	changed         *sync.Cond
	buf             []byte
	ended           error // what a reader gets after buf; nil while it is open
	readErr         error // the reader's end was closed
	writeErr        error // the writer's end was closed
	readBy, writeBy memDeadline
	watcher         func() // called once when there is something to read
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.readErr != nil:
			return 0, s.readErr
		case s.readBy.past():
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case len(s.buf) > 0:
			n := copy(b, s.buf)
			if s.buf = s.buf[n:]; len(s.buf) == 0 {
				s.buf = nil // an idle fake costs little
			}
			s.changed.Broadcast()
			return n, nil
		case s.ended != nil:
			return 0, s.ended
		}
		s.changed.Wait()
	}
}

func (s *stream) write(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.writeErr != nil:
			return n, s.writeErr
		case s.writeBy.past():
			return n, os.ErrDeadlineExceeded
		case s.readErr != nil, s.ended != nil:
			return n, syscall.EPIPE
		case len(b) == 0:
			return n, nil
		}
		if m := min(memBuffer-len(s.buf), len(b)); m > 0 {
			s.buf = append(s.buf, b[:m]...)
			b, n = b[m:], n+m
			s.tell()
			continue
		}
		s.changed.Wait()
	}
}

// end is what the reader gets after all that was written.
func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = err
	}
	s.tell()
}

// reset loses what was written.
func (s *stream) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf, s.ended = nil, syscall.ECONNRESET
	s.tell()
}

// close closes the reader's or the writer's end and returns what is unread.
func (s *stream) close(err error, reader bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reader {
		s.readErr = err
	} else {
		s.writeErr = err
	}
	s.tell()
	return len(s.buf)
}

// tell wakes who waits. The lock is held.
func (s *stream) tell() {
	s.changed.Broadcast()
	if f := s.watcher; f != nil && s.readable() {
		s.watcher = nil
		f()
	}
}

// readable reports whether there is something to read, or no more. The lock is held.
func (s *stream) readable() bool { return s.readErr != nil || s.ended != nil || len(s.buf) > 0 }

// A tellingConn is a memConn that can be a spare.
type tellingConn struct {
	*memConn
	heard *atomic.Uint64
}

func (c tellingConn) Heard() uint64 { return c.heard.Load() }

func (c tellingConn) ReadReady(f func()) bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	if c.in.readable() {
		return true
	}
	c.in.watcher = f
	return false
}

type memDeadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *memDeadline) past() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *memDeadline) set(s *stream, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.changed.Broadcast()
		})
	}
	s.changed.Broadcast()
}

func TestMemConn(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c, d := memPipe(a, b)
		return c, d, func() { c.Close(); d.Close() }, nil
	})
	t.Run("CloseWithUnreadBytesResets", func(t *testing.T) {
		c, d := memPipe(a, b)
		c.Write([]byte("unread"))
		d.Write([]byte("lost"))
		d.Close()
		if n, err := c.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %d bytes, %v; want a reset", n, err)
		}
		c.Close()
	})
}

// A memListener accepts the memConns that dial gives it.
type memListener struct {
	addr  netip.AddrPort
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemListener(addr string) *memListener {
	return &memListener{
		addr:  netip.MustParseAddrPort(addr),
		conns: make(chan net.Conn, 1024),
		done:  make(chan struct{}),
	}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *memListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// dial connects from src, an address and port. The gateway has an IPv6 address, too.
func (l *memListener) dial(src netip.AddrPort) (*memConn, error) {
	dst := l.addr
	if src.Addr().Unmap().Is6() && dst.Addr().Is4() {
		dst = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), dst.Port())
	}
	c, d := memPipe(src, dst)
	select {
	case <-l.done:
		return nil, syscall.ECONNREFUSED
	default:
		l.conns <- d
		return c, nil
	}
}

// readAll reads c to its end, whatever that is.
func readAll(c net.Conn) (string, error) {
	var b bytes.Buffer
	_, err := b.ReadFrom(c)
	return b.String(), err
}
