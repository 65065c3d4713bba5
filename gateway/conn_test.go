package gateway

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/proxyproto"
)

// TestMatrix sends everything that strangers send, whole and byte by byte, and
// looks at what they get: the exact reply and then an end, not a reset.
func TestMatrix(t *testing.T) {
	for _, tt := range helloCases {
		for _, bytewise := range []bool{false, true} {
			name := tt.name
			if bytewise {
				name += ", byte by byte"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testCase(t, tt.in, tt.want, tt.reason, tt.alert, tt.more, bytewise) })
			})
		}
	}
}

func testCase(t *testing.T, in []byte, want string, reason Reason, a alert, more, bytewise bool) {
	w := newWorld(t, Config{}, mapOf(section("acme", "other.example", "fd00::1")))
	if want != "" {
		w.g.SetRoutes(NewTable(mapOf(section("acme", want, "fd00::1"))))
	}
	c := w.client()
	if bytewise {
		for i := range in {
			if _, err := c.Write(in[i : i+1]); err != nil {
				break // refused already
			}
			synctest.Wait()
		}
	} else {
		c.Write(in)
	}
	if want != "" {
		node, h := w.accept(w.node("fd00::1"))
		if h.Authority != want {
			t.Errorf("authority: got %q, want %q", h.Authority, want)
		}
		w.expect(node, string(in))
		w.talk(c, node)
		return
	}
	reply := ""
	switch {
	case more:
		reason = HelloTimeout
	case reason == PlainHTTP:
		reply = httpAnswer
	case a != 0:
		reply = fatal(a)
	}
	if got, err := readAll(c); got != reply || err != nil && reply != "" {
		t.Errorf("got %q, %v; want %q", got, err, reply)
	}
	c.Close()
	synctest.Wait()
	w.refused(reason, 1)
	if n := len(w.node("fd00::1").conns); n > 0 {
		t.Error("the node was dialed")
	}
	if open := w.g.Stats().Open; open != 0 {
		t.Errorf("%d connections open, want 0", open)
	}
}

// TestCapturedThrough: real hellos reach the node byte for byte.
func TestCapturedThrough(t *testing.T) {
	for name, b := range captured(t) {
		if name == "openssl-nosni-1" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(section("acme", capturedName, "fd00::1")))
				c := w.say(b)
				node, _ := w.accept(w.node("fd00::1"))
				w.expect(node, string(b))
				w.talk(c, node)
			})
		})
	}
}

func TestHelloTimeouts(t *testing.T) {
	hello := helloFor("a.example")
	for _, tt := range []struct {
		name  string
		bytes int           // that are sent
		after time.Duration // since the start
		want  time.Duration // when the gateway gives up
	}{
		{"nothing", 0, 0, 5 * time.Second},
		{"one byte at once", 1, 0, 10 * time.Second},
		{"one byte after 4.9 s", 1, 4900 * time.Millisecond, 10 * time.Second},
		{"all but one byte", len(hello) - 1, time.Second, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1")))
				start := time.Now()
				c := w.client()
				<-time.After(tt.after)
				c.Write(hello[:tt.bytes])
				got, _ := readAll(c)
				if took := time.Since(start); got != "" || took != tt.want {
					t.Errorf("got %q after %v, want nothing after %v", got, took, tt.want)
				}
				synctest.Wait()
				w.refused(HelloTimeout, 1)
			})
		})
	}
}

// TestClientLeaves: a client that ends its half before its hello is whole.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1")))
		c := w.say(helloFor("a.example")[:20])
		c.CloseWrite()
		if got, _ := readAll(c); got != "" {
			t.Errorf("got %q, want nothing", got)
		}
		synctest.Wait()
		w.refused(HelloGone, 1)
	})
}

// TestAlertLingers: after an alert the client's bytes are read for a second, and
// no longer.
func TestAlertLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf())
		c := w.say(helloFor("a.example"))
		start := time.Now()
		if got, err := readAll(c); got != fatal(112) || err != nil {
			t.Fatalf("got %q, %v; want alert 112 and an end", got, err)
		}
		for {
			if _, err := c.Write([]byte("still talking")); err != nil {
				break
			}
			<-time.After(10 * time.Millisecond)
		}
		if took := time.Since(start); took < lingerTimeout || took > lingerTimeout+10*time.Millisecond {
			t.Errorf("closed after %v, want %v", took, lingerTimeout)
		}
		synctest.Wait()
		if open := w.g.Stats().Open; open != 0 {
			t.Errorf("%d connections open, want 0", open)
		}
	})
}

// TestAlertSurvivesUnreadBytes is TestAlertLingers over real TCP, where a close
// with unread bytes would be a reset.
func TestAlertSurvivesUnreadBytes(t *testing.T) {
	g := New(Config{})
	ln := listen(t)
	serve(t, g, ln)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(append(helloFor("a.example"), make([]byte, 1<<20)...)); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	if got, err := readAll(c); got != fatal(112) || err != nil {
		t.Errorf("got %q, %v; want alert 112 and an end", got, err)
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// serve serves g on ln until the test ends.
func serve(t testing.TB, g *Gateway, ln net.Listener) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.Serve(t.Context(), ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { g.Close(); wg.Wait() })
}

// TestForward follows one connection: the header, bytes that came with the
// hello, both halves' ends, the counters.
func TestForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1")))
		hello := string(helloFor("a.example"))
		c := w.say([]byte(hello+"0-RTT"), "203.0.113.7:40000")
		node, h := w.accept(w.node("fd00::1"))
		if len(h.UniqueID) < 16 || strings.Trim(h.UniqueID, "0123456789abcdef") != "" {
			t.Errorf("unique id %q: want 16 or more hexadecimal characters", h.UniqueID)
		}
		h.UniqueID = ""
		want := proxyproto.Header{Src: netip.MustParseAddrPort("203.0.113.7:40000"), Dst: gatewayAddr, Authority: "a.example"}
		if h != want {
			t.Errorf("got %+v, want %+v", h, want)
		}
		w.expect(node, hello+"0-RTT") // before any answer
		w.talk(c, node)
		c.CloseWrite()
		if got, err := readAll(node); got != "" || err != nil {
			t.Errorf("node got %q, %v; want the end", got, err)
		}
		node.Write([]byte("last"))
		node.CloseWrite()
		if got, err := readAll(c); got != "last" || err != nil {
			t.Errorf("client got %q, %v; want the last bytes and the end", got, err)
		}
		synctest.Wait()
		s := w.g.Stats()
		up, down := int64(len(hello)+len("0-RTT")+len("question")), int64(len("answer")+len("last"))
		if s.Accepted != 1 || s.Spliced != 1 || s.Open != 0 || s.UpBytes != up || s.DownBytes != down || len(s.Refused) != 0 {
			t.Errorf("got %+v, want one connection, %d bytes up and %d down", s, up, down)
		}
	})
}

// TestHeaderAddresses: the header names both addresses, mapped ones as IPv4.
func TestHeaderAddresses(t *testing.T) {
	for _, tt := range []struct{ name, src, dst, wantSrc, wantDst string }{
		{"IPv4", "192.0.2.1:5", "198.51.100.1:443", "192.0.2.1:5", "198.51.100.1:443"},
		{"mapped", "[::ffff:192.0.2.1]:5", "[::ffff:198.51.100.1]:443", "192.0.2.1:5", "198.51.100.1:443"},
		{"IPv6", "[2001:db8::1]:5", "[2001:db8::2]:443", "[2001:db8::1]:5", "[2001:db8::2]:443"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1")))
				w.ln.addr = netip.MustParseAddrPort(tt.dst)
				w.say(helloFor("a.example"), tt.src)
				_, h := w.accept(w.node("fd00::1"))
				if h.Src.String() != tt.wantSrc || h.Dst.String() != tt.wantDst {
					t.Errorf("got %v, %v; want %v, %v", h.Src, h.Dst, tt.wantSrc, tt.wantDst)
				}
			})
		})
	}
}

// TestNodeResets: the client of a node that resets is not left waiting.
func TestNodeResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1")))
		hello := helloFor("a.example")
		c := w.say(hello)
		node, _ := w.accept(w.node("fd00::1"))
		w.expect(node, string(hello))
		reset(node)
		readAll(c)
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("got %v, want a closed connection", err)
		}
	})
}

// TestCoordinator: its own names go to it over the edge pipe, and are unknown
// where there is none.
func TestCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(deployment("portal.example"), section("acme", "a.example", "fd00::1")))
		hello := helloFor("portal.example")
		c := w.say(hello)
		pipe, h := w.accept(w.coord)
		if h.Authority != "portal.example" || !h.Src.IsValid() {
			t.Errorf("got %+v", h)
		}
		w.expect(pipe, string(hello))
		w.talk(c, pipe)

		without := New(Config{})
		without.SetRoutes(NewTable(mapOf(deployment("portal.example"))))
		if _, ok := without.lookup("portal.example"); ok {
			t.Error("the name is known without a way to the coordinator")
		}
	})
}

func TestProxyFrom(t *testing.T) {
	header, err := proxyproto.Header{
		Src: netip.MustParseAddrPort("203.0.113.5:1"), Dst: netip.MustParseAddrPort("198.51.100.9:443"),
	}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	local, err := proxyproto.Header{Local: true}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	hello := helloFor("a.example")
	for _, tt := range []struct {
		name   string
		src    string
		in     []byte
		want   string // client's address at the node
		reason Reason
	}{
		{"proxy with header", "10.0.0.1:9", append(header, hello...), "203.0.113.5:1", 0},
		{"mapped proxy with header", "[::ffff:10.0.0.1]:9", append(header, hello...), "203.0.113.5:1", 0},
		{"proxy's own connection", "10.0.0.1:9", append(local, hello...), "10.0.0.1:9", 0},
		{"proxy without header", "10.0.0.1:9", hello, "", ProxyHeader},
		{"proxy that says nothing", "10.0.0.1:9", nil, "", ProxyHeader},
		{"other with header", "10.0.1.1:9", append(header, hello...), "", Garbage},
		{"other without header", "10.0.1.1:9", hello, "10.0.1.1:9", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}},
					mapOf(section("acme", "a.example", "fd00::1")))
				c := w.say(tt.in, tt.src)
				if tt.want == "" {
					if got, _ := readAll(c); got != "" {
						t.Errorf("got %q, want nothing", got)
					}
					synctest.Wait()
					w.refused(tt.reason, 1)
					return
				}
				node, h := w.accept(w.node("fd00::1"))
				if h.Src.String() != tt.want {
					t.Errorf("got %v, want %v", h.Src, tt.want)
				}
				w.expect(node, string(hello))
			})
		})
	}
}

// TestLogHoldsNoPayload: the log knows names and addresses, and nothing that
// came after the hello; names that could not be routed are not repeated.
func TestLogHoldsNoPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		w := newWorld(t, Config{Logger: logger}, mapOf(section("acme", "a.example", "fd00::1")))
		marker := rand.Text()
		c := w.say(append(helloFor("a.example"), marker...))
		node, h := w.accept(w.node("fd00::1"))
		io.CopyN(io.Discard, node, int64(len(helloFor("a.example"))+len(marker)))
		node.Write([]byte(marker))
		w.expect(c, marker)
		c.Close()
		node.Close()
		odd := w.say(helloFor("odd_" + marker + ".example"))
		readAll(odd)
		odd.Close()
		w.stop()
		if err := <-w.done; err != nil {
			t.Fatal(err)
		}
		w.done <- nil
		for _, want := range []string{"server_name=a.example", "tenant=acme", "node=fd00::1", "remote=192.0.2.1:1", "id=" + h.UniqueID, "unknown_name=1"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, &log)
			}
		}
		if strings.Contains(log.String(), marker) {
			t.Errorf("the log holds what a client sent:\n%s", &log)
		}
	})
}

// TestIdleIsCheap: a connection that waits costs what its goroutines' stacks and
// two small buffers do, not what it needed while it moved much.
func TestIdleIsCheap(t *testing.T) {
	const conns, most = 500, 40 << 10 // bytes each, the fakes at both ends included
	w := newWorld(t, Config{Limits: unlimited}, mapOf(section("acme", "a.example", "fd00::1")))
	hello := helloFor("a.example")
	burst := strings.Repeat("x", 100<<10)
	one := func() {
		c := w.say(hello)
		node, _ := w.accept(w.node("fd00::1"))
		w.expect(node, string(hello))
		var wg sync.WaitGroup
		wg.Go(func() { io.WriteString(c, burst) })
		w.expect(node, burst)
		wg.Wait()
		w.talk(c, node)
	}
	one()
	before := memoryInUse()
	for range conns {
		one()
	}
	if each := (memoryInUse() - before) / conns; each > most {
		t.Errorf("an idle connection costs %d bytes, want at most %d", each, most)
	} else {
		t.Logf("an idle connection costs %d bytes", each)
	}
}

func memoryInUse() int64 {
	runtime.GC()
	runtime.GC() // empties the pools as well
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
