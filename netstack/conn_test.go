package netstack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

func TestConn(t *testing.T) {
	node, gateway := newPair(t)
	ln := node.mustListen(t, 443)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		if c1, err = gateway.DialContext(t.Context(), addrPort(ln)); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = ln.Accept(); err != nil {
			c1.Close()
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

func TestAddresses(t *testing.T) {
	node, gateway := newPair(t)
	dialed, accepted := connect(t, gateway, node)
	if got, want := dialed.RemoteAddr().String(), accepted.LocalAddr().String(); got != want {
		t.Errorf("dialed to %v, accepted at %v", got, want)
	}
	if got, want := accepted.RemoteAddr().String(), dialed.LocalAddr().String(); got != want {
		t.Errorf("accepted from %v, dialed from %v", got, want)
	}
	if got := accepted.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != gateway.address {
		t.Errorf("accepted from %v, want %v", got, gateway.address)
	}
}

func TestHalfClose(t *testing.T) {
	node, gateway := newPair(t)
	for _, tt := range []struct {
		name     string
		from, to *host
	}{
		{"dialer first", gateway, node},
		{"acceptor first", node, gateway},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, second := connect(t, tt.from, tt.to)
			if tt.name == "acceptor first" {
				first, second = second, first
			}
			if _, err := io.WriteString(first, "question"); err != nil {
				t.Fatal(err)
			}
			if err := first.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(second); string(got) != "question" || err != nil {
				t.Fatalf("got %q, %v, want the question to its end", got, err)
			}
			if _, err := first.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("write after CloseWrite: got %v, want EPIPE", err)
			}
			if _, err := io.WriteString(second, "answer"); err != nil {
				t.Fatal(err)
			}
			second.Close()
			if got, err := io.ReadAll(first); string(got) != "answer" || err != nil {
				t.Fatalf("got %q, %v, want the answer to its end", got, err)
			}
		})
	}
}

func TestCloseReadEndsReads(t *testing.T) {
	node, gateway := newPair(t)
	c, _ := connect(t, gateway, node)
	if err := c.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
}

func TestLargeTransfer(t *testing.T) {
	const size = 8 << 20
	node, gateway := newPair(t)
	a, b := connect(t, gateway, node)
	var wg sync.WaitGroup
	for _, dir := range []struct {
		name     string
		from, to *tcpConn
	}{{"up", a, b}, {"down", b, a}} {
		sent, got := sha256.New(), sha256.New()
		sending := make(chan struct{})
		wg.Go(func() {
			defer close(sending)
			src := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
			if _, err := io.Copy(io.MultiWriter(dir.from, sent), src); err != nil {
				t.Errorf("%s: send: %v", dir.name, err)
			}
			dir.from.CloseWrite()
		})
		wg.Go(func() {
			n, err := io.Copy(got, dir.to)
			<-sending
			if n != size || err != nil || !bytes.Equal(got.Sum(nil), sent.Sum(nil)) {
				t.Errorf("%s: received %d bytes, %v, hash %x, want %d, hash %x", dir.name, n, err, got.Sum(nil), size, sent.Sum(nil))
			}
		})
	}
	wg.Wait()
}

// A connection that broke must not look like one that ended.
func TestResetIsNotEOF(t *testing.T) {
	node, gateway := newPair(t)
	a, b := connect(t, gateway, node)
	if _, err := io.WriteString(a, "left unread"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "data", func() bool {
		n, _ := b.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
		return n > 0
	})
	b.Close() // with something left to read: a reset
	for i := range 3 {
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %d: got %v, want ECONNRESET", i, err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write %d: got %v, want ECONNRESET", i, err)
		}
	}
}

func TestErrorsAfterClose(t *testing.T) {
	node, gateway := newPair(t)
	c, _ := connect(t, gateway, node)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"read":       func() error { _, err := c.Read(make([]byte, 1)); return err },
		"write":      func() error { _, err := c.Write([]byte("x")); return err },
		"close":      c.Close,
		"closeRead":  c.CloseRead,
		"closeWrite": c.CloseWrite,
	} {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: got %v, want net.ErrClosed", name, err)
		}
	}
}

func TestDeadlines(t *testing.T) {
	node, gateway := newPair(t)
	c, _ := connect(t, gateway, node)
	check := func(op string, err error) {
		t.Helper()
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%s: got %v, want a timeout", op, err)
		}
	}
	c.SetDeadline(time.Now().Add(-time.Second))
	_, err := c.Read(make([]byte, 1))
	check("read", err)
	_, err = c.Write([]byte("x"))
	check("write", err)

	c.SetDeadline(time.Time{})
	reading := make(chan error, 1)
	go func() { _, err := c.Read(make([]byte, 1)); reading <- err }()
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	check("blocked read", within(t, "read", func() error { return <-reading }))

	// Nobody reads at the other end: the buffers fill and Write blocks.
	total := 0
	eventually(t, "write that blocks after others that did not", func() bool {
		c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := c.Write(make([]byte, 4*bufferMax))
		check("blocked write", err)
		total += n
		return n == 0 && total > 0
	})
}

func TestKeepaliveIsSetOnBothEnds(t *testing.T) {
	node, gateway := newPair(t)
	a, b := connect(t, gateway, node)
	for name, c := range map[string]*tcpConn{"dialed": a, "accepted": b} {
		var idle tcpip.KeepaliveIdleOption
		var interval tcpip.KeepaliveIntervalOption
		var timeout tcpip.TCPUserTimeoutOption
		for _, o := range []tcpip.GettableSocketOption{&idle, &interval, &timeout} {
			if err := c.ep.GetSockOpt(o); err != nil {
				t.Fatal(err)
			}
		}
		count, err := c.ep.GetSockOptInt(tcpip.KeepaliveCountOption)
		if err != nil {
			t.Fatal(err)
		}
		// A user timeout would end a connection whose other end only pauses.
		if !c.ep.SocketOptions().GetKeepAlive() || time.Duration(idle) != keepaliveIdle ||
			time.Duration(interval) != keepaliveInterval || count != keepaliveCount || timeout != 0 {
			t.Errorf("%s: keepalive %v, idle %v, interval %v, count %d, user timeout %v", name,
				c.ep.SocketOptions().GetKeepAlive(), time.Duration(idle), time.Duration(interval), count, time.Duration(timeout))
		}
		if c.ep.SocketOptions().GetDelayOption() {
			t.Errorf("%s: Nagle's algorithm is on", name)
		}
	}
	var retries tcpip.TCPMaxRetriesOption
	if err := node.stack.TransportProtocolOption(tcp.ProtocolNumber, &retries); err != nil || uint64(retries) != plainTimeouts.maxRetries {
		t.Errorf("retries: got %d, %v, want %d", retries, err, plainTimeouts.maxRetries)
	}
}

// What is left when a connection is closed is not kept for a peer that takes
// nothing, however often it answers.
func TestCloseSetsATimeLimit(t *testing.T) {
	node, gateway := newPair(t)
	c, _ := connect(t, gateway, node)
	c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	c.Write(make([]byte, 4*bufferMax)) // until the peer's window is closed
	c.Close()
	var timeout tcpip.TCPUserTimeoutOption
	if err := c.ep.GetSockOpt(&timeout); err != nil || time.Duration(timeout) != closeTimeout {
		t.Errorf("user timeout: got %v, %v, want %v", time.Duration(timeout), err, closeTimeout)
	}
}

// What ReadReady says, and whom it tells.
func TestReadReady(t *testing.T) {
	node, gateway := newPair(t)
	for _, tt := range []struct {
		name string
		do   func(c, peer *tcpConn) // something that Read would return for
	}{
		{"bytes", func(_, peer *tcpConn) { io.WriteString(peer, "x") }},
		{"end", func(_, peer *tcpConn) { peer.CloseWrite() }},
		{"own end", func(c, _ *tcpConn) { c.CloseRead() }},
		{"reset", func(_, peer *tcpConn) { peer.ep.Abort() }},
		{"close", func(c, _ *tcpConn) { c.Close() }},
		{"deadline", func(c, _ *tcpConn) { c.SetReadDeadline(time.Now().Add(time.Millisecond)) }},
		{"deadline in the past", func(c, _ *tcpConn) { c.SetReadDeadline(time.Now().Add(-time.Second)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, peer := connect(t, gateway, node)
			told := make(chan struct{}, 2)
			tell := func() { told <- struct{}{} }
			if c.ReadReady(tell) {
				t.Fatal("ready with nothing to read")
			}
			tt.do(c, peer)
			// It may be told in vain, and then asks again.
			for within(t, "call", func() struct{} { return <-told }); !c.ReadReady(tell); {
				within(t, "call", func() struct{} { return <-told })
			}
			if len(told) > 0 {
				t.Error("told once more than asked")
			}
			within(t, "Read", func() error { _, err := c.Read(make([]byte, 1)); return err })
		})
	}
}

// A peer that takes what is sent is heard of, if it says nothing itself.
func TestHeard(t *testing.T) {
	node, gateway := newPair(t)
	c, _ := connect(t, gateway, node)
	before := c.Heard()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "acknowledgement", func() bool { return c.Heard() > before })
}

// Neither a Read that waits nor a Write allocates.
func TestHalfAllocatesNothing(t *testing.T) {
	var events waiter.Queue
	var h half
	h.open(&events, readable)
	watcher := func() {}
	if n := testing.AllocsPerRun(100, func() {
		h.rest()
		h.watch(watcher)
		events.Notify(waiter.ReadableEvents)
		h.sleep()
	}); n != 0 {
		t.Errorf("a half allocates %v times to wait, want 0", n)
	}
}
