package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern"
	"postern/internal/proxyproto"
)

// admitting returns s with an admission.
func admitting(s postern.Section, mode string, allowed []string, sources ...postern.Source) postern.Section {
	s.Admission = &postern.Admission{Mode: mode, Sources: sources}
	for _, p := range allowed {
		s.Admission.Allowed = append(s.Admission.Allowed, netip.MustParsePrefix(p))
	}
	return s
}

// listed returns the source prefix, which is admitted for d from now on.
func listed(prefix string, d time.Duration) postern.Source {
	return postern.Source{Prefix: netip.MustParsePrefix(prefix), Until: time.Now().Add(d)}
}

var acme = section("acme", "a.example", "fd00::1")

// reaches says a hello from src and checks that it reaches the node, and comes
// from there.
func (w *world) reaches(hello []byte, src string) (client, node *memConn) {
	w.t.Helper()
	c := w.say(hello, src)
	synctest.Wait()
	if len(w.node("fd00::1").conns) == 0 {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		got, _ := readAll(c)
		w.t.Fatalf("%s did not reach the node, and got %q", src, got)
	}
	n, h := w.accept(w.node("fd00::1"))
	if want := netip.MustParseAddrPort(src); h.Src.Addr() != want.Addr().Unmap() || h.Src.Port() != want.Port() {
		w.t.Errorf("the node is told of %v, want %v", h.Src, want)
	}
	w.expect(n, string(hello))
	w.talk(c, n)
	return c, n
}

// denied says a hello from src and checks that it gets alert 49, and that the
// node was not even dialed.
func (w *world) denied(hello []byte, src string) {
	w.t.Helper()
	before := w.g.Stats()
	c := w.say(hello, src)
	if got, err := readAll(c); got != fatal(49) || err != nil {
		w.t.Errorf("%s got %q, %v; want alert 49", src, got, err)
	}
	c.Close()
	synctest.Wait()
	if n := len(w.node("fd00::1").conns); n > 0 {
		w.t.Errorf("%s: the node was dialed %d times", src, n)
	}
	if got := w.g.Stats(); got.Spliced != before.Spliced || got.Refused[NotAdmitted] != before.Refused[NotAdmitted]+1 {
		w.t.Errorf("%s: counted %+v after %+v", src, got, before)
	}
}

// closed checks that the gateway has hung up on both ends of a connection.
func (w *world) closed(client, node net.Conn) {
	w.t.Helper()
	client.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := client.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
		w.t.Errorf("client: got %d bytes, %v; want a reset", n, err)
	}
	if got, _ := readAll(node); got != "" {
		w.t.Errorf("node: got %q, want the end", got)
	}
}

// TestAdmission: who is let in, by mode and by where they come from. Of others not
// one byte reaches the node.
func TestAdmission(t *testing.T) {
	challenge, page := offering("acme-tls/1"), offering("h2", "http/1.1")
	for _, tt := range []struct {
		name    string
		section func() postern.Section // in the test's own time
		hello   []byte
		src     string
		ok      bool
	}{
		{"open", func() postern.Section { return acme }, page, "192.0.2.1:1", true},
		{"allow-list", func() postern.Section { return admitting(acme, "allow-list", []string{"192.0.2.0/24"}) }, page, "192.0.2.1:1", true},
		{"allow-list, another", func() postern.Section { return admitting(acme, "allow-list", []string{"192.0.2.0/24"}) }, page, "192.0.3.1:1", false},
		{"allow-list, IPv6", func() postern.Section { return admitting(acme, "allow-list", []string{"2001:db8::/32"}) }, page, "[2001:db8:7::1]:1", true},
		{"allow-list, IPv4 as IPv6", func() postern.Section { return admitting(acme, "allow-list", []string{"192.0.2.0/24"}) }, page, "[::ffff:192.0.2.1]:1", true},
		{"allow-list that is empty", func() postern.Section { return admitting(acme, "allow-list", nil) }, page, "192.0.2.1:1", false},
		{"allow-list does not ask the portal", func() postern.Section {
			return admitting(acme, "allow-list", nil, listed("192.0.2.1/32", time.Hour))
		}, page, "192.0.2.1:1", false},
		{"unknown mode", func() postern.Section {
			return admitting(acme, "else", nil, listed("192.0.2.1/32", time.Hour))
		}, page, "192.0.2.1:1", false},
		{"signed in", func() postern.Section {
			return admitting(acme, "admission", nil, listed("192.0.2.1/32", time.Minute))
		}, page, "192.0.2.1:1", true},
		{"signed in, the neighbour", func() postern.Section {
			return admitting(acme, "admission", nil, listed("192.0.2.1/32", time.Minute))
		}, page, "192.0.2.2:1", false},
		{"signed in too long ago", func() postern.Section {
			return admitting(acme, "admission", nil, listed("192.0.2.1/32", 0))
		}, page, "192.0.2.1:1", false},
		{"signed in, the same /64", func() postern.Section {
			return admitting(acme, "admission", nil, listed("2001:db8:7:8::/64", time.Minute))
		}, page, "[2001:db8:7:8:ffff::1]:1", true},
		{"signed in, another /64", func() postern.Section {
			return admitting(acme, "admission", nil, listed("2001:db8:7:8::/64", time.Minute))
		}, page, "[2001:db8:7:9::1]:1", false},
		{"nobody signed in", func() postern.Section { return admitting(acme, "admission", nil) }, page, "192.0.2.1:1", false},
		{"always allowed", func() postern.Section { return admitting(acme, "admission", []string{"192.0.2.1/32"}) }, page, "192.0.2.1:1", true},
		{"challenge", func() postern.Section { return admitting(acme, "admission", nil) }, challenge, "192.0.2.1:1", true},
		{"challenge past an allow-list", func() postern.Section { return admitting(acme, "allow-list", nil) }, challenge, "192.0.2.1:1", true},
		{"challenge and more", func() postern.Section { return admitting(acme, "allow-list", nil) }, offering("acme-tls/1", "http/1.1"), "192.0.2.1:1", false},
		{"no ALPN", func() postern.Section { return admitting(acme, "allow-list", nil) }, helloFor("a.example"), "192.0.2.1:1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(tt.section(), section("other", "b.example", "fd00::2")))
				if tt.ok {
					w.reaches(tt.hello, tt.src)
				} else {
					w.denied(tt.hello, tt.src)
				}
				// Another tenant's doors are its own.
				w.say(helloFor("b.example"), tt.src)
				w.accept(w.node("fd00::2"))
			})
		})
	}
}

// TestAdmissionClock: until when a source is admitted is told by the coordinator's
// clock.
func TestAdmissionClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := func() time.Time { return time.Now().Add(-3 * time.Hour) }
		until := theirs().Add(time.Minute)
		w := newWorld(t, Config{Now: theirs}, mapOf(admitting(acme, "admission", nil,
			postern.Source{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Until: until})))
		w.reaches(helloFor("a.example"), "192.0.2.1:1")
	})
}

// TestAdmissionBehindProxy: what counts is the client's address that a load
// balancer names, not the load balancer's.
func TestAdmissionBehindProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mapOf(admitting(acme, "admission", []string{"10.0.0.1/32"}, listed("192.0.2.1/32", time.Minute)))
		w := newWorld(t, Config{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, m)
		from := func(client string) []byte {
			b, err := proxyproto.Header{Src: netip.MustParseAddrPort(client), Dst: gatewayAddr}.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			return append(b, helloFor("a.example")...)
		}
		w.say(from("192.0.2.1:7"), "10.0.0.1:1")
		node, h := w.accept(w.node("fd00::1"))
		if h.Src.String() != "192.0.2.1:7" {
			t.Errorf("the node is told of %v", h.Src)
		}
		w.expect(node, string(helloFor("a.example")))
		w.denied(from("192.0.2.2:7"), "10.0.0.1:2")
	})
}

// TestNotAdmittedUsesNoLimit: strangers at the door do not keep out who is let in.
func TestNotAdmittedUsesNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mapOf(admitting(acme, "allow-list", []string{"192.0.2.1/32"}))
		w := newWorld(t, Config{Limits: Limits{SourceRate: -1, TenantBurst: 1, TenantConns: 1, TenantDials: 1}}, m)
		for i := range 20 {
			w.denied(helloFor("a.example"), fmt.Sprintf("198.51.100.7:%d", i+1))
		}
		w.reaches(helloFor("a.example"), "192.0.2.1:1")
	})
}

// TestAdmissionChanges: a new map holds for open connections too, at once.
func TestAdmissionChanges(t *testing.T) {
	const src = "192.0.2.1:1"
	in := func(d time.Duration) postern.Source { return listed("192.0.2.1/32", d) }
	for _, tt := range []struct {
		name          string
		before, after func() postern.Section
		stays         bool
	}{
		{"opened to all",
			func() postern.Section { return admitting(acme, "admission", nil, in(time.Minute)) },
			func() postern.Section { return acme }, true},
		{"closed to who is not listed",
			func() postern.Section { return acme },
			func() postern.Section { return admitting(acme, "allow-list", []string{"192.0.3.0/24"}) }, false},
		{"closed, and listed",
			func() postern.Section { return acme },
			func() postern.Section { return admitting(acme, "allow-list", []string{"192.0.2.0/24"}) }, true},
		{"closed to who did not sign in",
			func() postern.Section { return acme },
			func() postern.Section { return admitting(acme, "admission", nil) }, false},
		{"closed, and signed in",
			func() postern.Section { return acme },
			func() postern.Section { return admitting(acme, "admission", nil, in(time.Minute)) }, true},
		{"window to list",
			func() postern.Section { return admitting(acme, "admission", nil, in(time.Minute)) },
			func() postern.Section { return admitting(acme, "allow-list", nil) }, false},
		{"window that the map need not have any more, to list",
			func() postern.Section { return admitting(acme, "admission", nil, in(30*time.Second)) },
			func() postern.Section { return admitting(acme, "allow-list", nil) }, false},
		{"list to window",
			func() postern.Section { return admitting(acme, "allow-list", []string{"192.0.2.0/24"}) },
			func() postern.Section { return admitting(acme, "admission", nil) }, false},
		{"the prefix goes",
			func() postern.Section { return admitting(acme, "allow-list", []string{"192.0.2.0/24"}) },
			func() postern.Section { return admitting(acme, "allow-list", []string{"192.0.2.128/25"}) }, false},
		{"the source's time is over",
			func() postern.Section { return admitting(acme, "admission", nil, in(30*time.Second)) },
			func() postern.Section { return admitting(acme, "admission", nil) }, true},
		{"the source is taken back",
			func() postern.Section { return admitting(acme, "admission", nil, in(10*time.Minute)) },
			func() postern.Section { return admitting(acme, "admission", nil) }, false},
		{"the source is taken back, with another left",
			func() postern.Section { return admitting(acme, "admission", nil, in(10*time.Minute)) },
			func() postern.Section {
				return admitting(acme, "admission", nil, listed("192.0.2.2/32", 10*time.Minute))
			}, false},
		{"another source is taken back",
			func() postern.Section {
				return admitting(acme, "admission", nil, in(10*time.Minute), listed("192.0.2.2/32", 10*time.Minute))
			},
			func() postern.Section { return admitting(acme, "admission", nil, in(9*time.Minute)) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(tt.before()))
				c, node := w.reaches(helloFor("a.example"), src)
				w.g.SetRoutes(NewTable(mapOf(tt.after())))
				synctest.Wait()
				if tt.stays {
					w.talk(c, node)
					w.reaches(helloFor("a.example"), "192.0.2.1:2")
				} else {
					w.closed(c, node)
					w.denied(helloFor("a.example"), "192.0.2.1:2")
				}
			})
		})
	}
}

// TestTakenBackWhileDialing: a client whose source is taken back while its node is
// awaited gets no further.
func TestTakenBackWhileDialing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		delay time.Duration // of the node; zero: it is away
	}{{"node is away", 0}, {"node answers late", 2 * time.Second}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(admitting(acme, "admission", nil, listed("192.0.2.1/32", 10*time.Minute))))
				late := w.node("fd00::1")
				if late.delay = tt.delay; tt.delay == 0 {
					w.remove("fd00::1")
				}
				c := w.say(helloFor("a.example"), "192.0.2.1:1")
				<-time.After(time.Second)
				w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil))))
				if got, _ := readAll(c); got != fatal(49) {
					t.Errorf("got %q, want alert 49", got)
				}
				for len(late.conns) > 0 {
					if got, _ := readAll(<-late.conns); got != "" {
						t.Errorf("the node got %q", got)
					}
				}
			})
		})
	}
}

// A hookedConn calls a function before it does what the function is for.
type hookedConn struct {
	*memConn
	onDeadline, onWrite func()
}

func (c hookedConn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() {
		c.onDeadline()
	}
	return c.memConn.SetWriteDeadline(t)
}

func (c hookedConn) Write(b []byte) (int, error) {
	c.onWrite()
	return c.memConn.Write(b)
}

// TestTakenBackWhileGreeting: a client whose source is taken back when its node has
// answered, and has heard nothing yet, gets no further.
func TestTakenBackWhileGreeting(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hooks func(take func()) (onDeadline, onWrite func())
	}{
		{"before the first byte", func(take func()) (_, _ func()) { return take, func() {} }},
		// As when the node takes nothing in.
		{"while it is written", func(take func()) (_, _ func()) {
			return func() {}, func() { take(); synctest.Wait() }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(admitting(acme, "admission", nil, listed("192.0.2.1/32", 10*time.Minute))))
				taken := NewTable(mapOf(admitting(acme, "admission", nil)))
				w.node("fd00::1").wrap = func(c net.Conn) net.Conn {
					onDeadline, onWrite := tt.hooks(func() { w.g.SetRoutes(taken) })
					return hookedConn{c.(*memConn), onDeadline, onWrite}
				}
				c := w.say(helloFor("a.example"), "192.0.2.1:1")
				w.closed(c, <-w.node("fd00::1").conns)
			})
		})
	}
}

// TestSwapAdmission: when SetRoutes has returned, no connection is open that the new
// table does not admit, however many come at that moment.
func TestSwapAdmission(t *testing.T) {
	hello := helloFor("a.example")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Limits: unlimited}, mapOf(acme))
		for round := range 50 {
			w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil, listed("192.0.2.1/32", 10*time.Minute)))))
			var clients []*memConn
			var wg sync.WaitGroup
			for range 20 {
				c := w.client("192.0.2.1:1")
				clients = append(clients, c)
				wg.Go(func() { c.Write(hello) })
			}
			w.g.SetRoutes(NewTable(mapOf(admitting(acme, "admission", nil))))
			wg.Wait()
			synctest.Wait()
			for len(w.node("fd00::1").conns) > 0 {
				(<-w.node("fd00::1").conns).Close()
			}
			for _, c := range clients {
				got, err := readAll(c)
				if got != fatal(49) && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("round %d: got %q, %v; want alert 49 or a reset", round, got, err)
				}
				c.Close()
			}
			synctest.Wait()
			if s := w.g.Stats(); s.Open != 0 {
				t.Fatalf("round %d: %d connections are open", round, s.Open)
			}
		}
	})
}

// TestManySources: ten thousand sources are told apart.
func TestManySources(t *testing.T) {
	const many = 10_000
	synctest.Test(t, func(t *testing.T) {
		var sources []postern.Source
		addr := func(i int) string { return fmt.Sprintf("10.%d.%d.1", i/250, i%250) }
		for i := range many {
			sources = append(sources, listed(addr(i)+"/32", time.Minute))
		}
		table := NewTable(mapOf(admitting(acme, "admission", nil, sources...)))
		var fs flows
		for i := range many {
			in := &flow{tenant: "acme", src: netip.MustParseAddr(addr(i))}
			if !fs.admits(table, in, time.Now()) || fs.admits(table, &flow{tenant: "acme", src: in.src.Next()}, time.Now()) {
				t.Fatalf("source %d is not told from its neighbour", i)
			}
		}
		w := newWorld(t, Config{}, mapOf(admitting(acme, "admission", nil, sources...)))
		w.reaches(helloFor("a.example"), addr(many-1)+":1")
		w.denied(helloFor("a.example"), addr(many)+":1")
	})
}
