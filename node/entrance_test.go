package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern"
	"postern/internal/proxyproto"
)

// pipeListener is a listener for one connection in memory.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.once.Do(func() { close(l.done) }); return nil }

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection that comes from addr.
type from struct {
	net.Conn
	addr netip.AddrPort
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(f.addr) }

func TestEntrance(t *testing.T) {
	gateway := netip.MustParseAddrPort("[fd00::1]:40000")
	stranger := netip.MustParseAddrPort("[fd00::2]:40000")
	good := goodHeader(t)
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	tests := []struct {
		name     string
		peer     netip.AddrPort
		send     []byte
		admitted bool
		after    time.Duration // when it is closed, at the latest
		refused  uint64
	}{
		{"gateway", gateway, good, true, 0, 0},
		{"stranger", stranger, good, false, 0, 1},
		{"no header: TLS at once", gateway, []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and the rest of a hello"), false, 0, 1},
		{"no header: HTTP", gateway, []byte("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"), false, 0, 1},
		{"PROXY version 1", gateway, []byte("PROXY TCP4 203.0.113.7 198.51.100.1 50123 443\r\n"), false, 0, 1},
		{"wrong checksum", gateway, broken, false, 0, 1},
		{"longer than 536 bytes", gateway, append(append([]byte(nil), good[:14]...), 0x10, 0), false, 0, 1},
		{"half a header", gateway, good[:20], false, headerTimeout, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEntrance(discard)
				e.setGateways(map[netip.Addr]string{gateway.Addr(): "gw-1"})
				ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
				var wg sync.WaitGroup
				wg.Go(func() {
					if err := e.run(ln); err != nil {
						t.Errorf("run: %v", err)
					}
				})
				admitted := make(chan net.Conn, 1)
				wg.Go(func() {
					if c, err := e.Accept(); err == nil {
						admitted <- c
					}
				})
				ours, theirs := net.Pipe()
				ln.conns <- from{theirs, tt.peer}
				began := time.Now()
				wg.Go(func() { ours.Write(tt.send) })
				if tt.admitted {
					c := (<-admitted).(*conn)
					if got, want := c.RemoteAddr().String(), browser.String(); got != want {
						t.Errorf("RemoteAddr is %v, want %v", got, want)
					}
					if c.gateway != "gw-1" || c.id != "f00d" || c.header.Authority != "a.test" {
						t.Errorf("admitted as %+v", c)
					}
					c.Close()
				} else {
					// Whoever is not let in is told nothing.
					if n, err := ours.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
						t.Errorf("read %d bytes, %v, want EOF", n, err)
					}
					if got := time.Since(began); got != tt.after {
						t.Errorf("closed after %v, want %v", got, tt.after)
					}
				}
				synctest.Wait()
				if got := e.counts(); got.Open != 0 || got.Accepted != 1 || got.Refused != tt.refused {
					t.Errorf("counts are %+v, want %d refused", got, tt.refused)
				}
				e.Close()
				ours.Close()
				wg.Wait()
			})
		})
	}
}

// An entry is an entrance that runs, with one gateway.
type entry struct {
	*entrance
	ln *pipeListener
	wg sync.WaitGroup
}

var entryGateway = netip.MustParseAddrPort("[fd00::1]:40000")

func newEntry(t *testing.T) *entry {
	e := &entry{
		entrance: newEntrance(discard),
		ln:       &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})},
	}
	e.setGateways(map[netip.Addr]string{entryGateway.Addr(): "gw-1"})
	e.wg.Go(func() { e.run(e.ln) })
	t.Cleanup(func() { e.Close(); e.wg.Wait() })
	return e
}

// dial has a gateway dial a connection and say nothing.
func (e *entry) dial(gateway netip.AddrPort) net.Conn {
	ours, theirs := net.Pipe()
	e.ln.conns <- from{theirs, gateway}
	synctest.Wait()
	return ours
}

func (e *entry) mustCount(t *testing.T, want Connections) {
	t.Helper()
	synctest.Wait()
	if got := e.counts(); got != want {
		t.Errorf("counts are %+v, want %+v", got, want)
	}
}

// mustBeClosed checks that the node closed c without a word.
func mustBeClosed(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, %v, want EOF", n, err)
	}
}

func goodHeader(t *testing.T) []byte {
	b, err := proxyproto.Header{
		Src: browser, Dst: netip.MustParseAddrPort("198.51.100.1:443"), Authority: "a.test", UniqueID: "f00d",
	}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// probeHeader is what a gateway's probe says.
func probeHeader(t testing.TB) []byte {
	t.Helper()
	b, err := proxyproto.Header{Local: true}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A gateway's probe is answered, however many connections wait, and counts nowhere; a
// stranger's is not, nor any when the node is about to end.
func TestEntranceAnswersProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntry(t)
		var waiting []net.Conn
		for range maxWaiting {
			waiting = append(waiting, e.dial(entryGateway))
		}
		probe := func(from netip.AddrPort) string {
			c := e.dial(from)
			defer c.Close()
			go c.Write(probeHeader(t))
			got, _ := io.ReadAll(c)
			return string(got)
		}
		if got := probe(entryGateway); got != postern.ProbeAnswer {
			t.Errorf("a probe was answered with %q, want %q", got, postern.ProbeAnswer)
		}
		e.mustCount(t, Connections{Waiting: maxWaiting - 1}) // the oldest made room
		if got := probe(netip.MustParseAddrPort("[fd00::2]:40000")); got != "" {
			t.Errorf("a stranger's probe was answered with %q", got)
		}
		e.mustCount(t, Connections{Waiting: maxWaiting - 1, Accepted: 1, Refused: 1})

		late := e.dial(entryGateway)
		late.Write(probeHeader(t)[:20])
		e.Close()
		late.Write(probeHeader(t)[20:])
		if got, _ := io.ReadAll(late); len(got) > 0 {
			t.Errorf("a node that is about to end answered %q", got)
		}
		for _, c := range waiting {
			c.Close()
		}
	})
}

// A connection may wait for its header, which once it begins has to be quick.
func TestEntranceWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntry(t)
		used, half, never := e.dial(entryGateway), e.dial(entryGateway), e.dial(entryGateway)
		start := time.Now()
		e.mustCount(t, Connections{Waiting: 3})
		<-time.After(waitTimeout - 2*time.Second)

		header := goodHeader(t)
		used.Write(header[:20])
		<-time.After(headerTimeout / 2)
		used.Write(header[20:])
		c, err := e.Accept()
		if err != nil {
			t.Fatal(err)
		}
		e.mustCount(t, Connections{Open: 1, Waiting: 2, Accepted: 1})

		began := time.Now()
		half.Write(header[:20])
		mustBeClosed(t, half)
		if got := time.Since(began); got != headerTimeout {
			t.Errorf("half a header was waited for %v, want %v", got, headerTimeout)
		}
		e.mustCount(t, Connections{Open: 1, Waiting: 1, Accepted: 2, Refused: 1})

		mustBeClosed(t, never)
		if got := time.Since(start); got != waitTimeout {
			t.Errorf("it waited %v, want %v", got, waitTimeout)
		}
		e.mustCount(t, Connections{Open: 1, Accepted: 2, Refused: 1})

		// What was let in has no deadline any more.
		<-time.After(waitTimeout)
		go used.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("read: %v", err)
		}
		c.Close()
		e.mustCount(t, Connections{Accepted: 2, Refused: 1})
	})
}

// A gateway may have so many wait, and one that has more loses its oldest. Other
// gateways do not, nor do connections in use.
func TestEntranceBoundsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntry(t)
		other := netip.MustParseAddrPort("[fd00::2]:40000")
		e.setGateways(map[netip.Addr]string{entryGateway.Addr(): "gw-1", other.Addr(): "gw-2"})
		others := e.dial(other)
		used := e.dial(entryGateway)
		used.Write(goodHeader(t))
		c, err := e.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var conns []net.Conn
		for range maxWaiting + 3 {
			conns = append(conns, e.dial(entryGateway))
		}
		for _, c := range conns[:3] {
			mustBeClosed(t, c)
		}
		e.mustCount(t, Connections{Open: 1, Waiting: maxWaiting + 1, Accepted: 1})
		conns[0].Close()

		// One that the gateway gives up makes room for one.
		conns[3].Close()
		e.mustCount(t, Connections{Open: 1, Waiting: maxWaiting, Accepted: 1})
		conns = append(conns, e.dial(entryGateway))
		e.mustCount(t, Connections{Open: 1, Waiting: maxWaiting + 1, Accepted: 1})

		e.setGateways(map[netip.Addr]string{other.Addr(): "gw-2"})
		for _, c := range append(conns[4:], used) {
			mustBeClosed(t, c)
		}
		e.mustCount(t, Connections{Waiting: 1, Accepted: 1})
		others.Close()
	})
}

// What waits when the entrance closes is closed at once.
func TestEntranceClosesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntry(t)
		waiting, half := e.dial(entryGateway), e.dial(entryGateway)
		half.Write(goodHeader(t)[:20])
		start := time.Now()
		e.Close()
		mustBeClosed(t, waiting)
		if got := time.Since(start); got != 0 {
			t.Errorf("closed after %v, want at once", got)
		}
		mustBeClosed(t, half)
		e.wg.Wait()
		if got := time.Since(start); got != headerTimeout {
			t.Errorf("run ended after %v, want %v", got, headerTimeout)
		}
		e.mustCount(t, Connections{Accepted: 1, Refused: 1})
	})
}

func TestServeEndsWhenTheOverlayDoes(t *testing.T) {
	s := mustServer(t, serverConfig{
		certificate: func(string) (*certificate, error) { return nil, errNoCertificate }, drain: time.Second, log: discard,
	})
	err := s.serve(t.Context(), context.Background(), &brokenListener{})
	if !errors.Is(err, errBroken) {
		t.Errorf("serve returned %v, want %v", err, errBroken)
	}
}

var errBroken = errors.New("broken")

type brokenListener struct{ pipeListener }

func (*brokenListener) Accept() (net.Conn, error) { return nil, errBroken }
func (*brokenListener) Close() error              { return nil }

func TestCleanID(t *testing.T) {
	tests := []struct{ name, id, want string }{
		{"hex", "00ff", "00ff"},
		{"plain", "a-Z_0.9", "a-Z_0.9"},
		{"empty", "", ""},
		{"line break", "a\r\nX: y", "610d0a583a2079"},
		{"not ASCII", "é", "c3a9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := cleanID(tt.id); got != tt.want {
				t.Errorf("cleanID(%q) = %q, want %q", tt.id, got, tt.want)
			}
		})
	}
}
