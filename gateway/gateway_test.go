package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern"
)

// TestOffline: the hello is held for three seconds, then refused with 80.
func TestOffline(t *testing.T) {
	for _, tt := range []struct {
		name string
		down func(w *world)
	}{
		{"no node of the name", func(w *world) { w.g.SetRoutes(NewTable(mapOf(section("acme", "a.example")))) }},
		{"node refuses", func(w *world) { w.remove("fd00::1") }},
		{"node is silent", func(w *world) { w.node("fd00::1").down = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1")))
				tt.down(w)
				start := time.Now()
				c := w.say(helloFor("a.example"))
				got, err := readAll(c)
				if took := time.Since(start); got != fatal(80) || err != nil || took != 3*time.Second {
					t.Errorf("got %q, %v after %v; want alert 80 after 3 s", got, err, took)
				}
				c.Close()
				synctest.Wait()
				w.refused(Offline, 1)
			})
		})
	}
}

// TestHold: a node that comes within the hold is reached, and a name that goes
// is unknown at once.
func TestHold(t *testing.T) {
	online := mapOf(section("acme", "a.example", "fd00::1"))
	t.Run("node comes back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Config{}, online)
			w.remove("fd00::1")
			c := w.say(helloFor("a.example"))
			<-time.After(2 * time.Second)
			node, _ := w.accept(w.node("fd00::1"))
			w.expect(node, string(helloFor("a.example")))
			w.talk(c, node)
		})
	})
	t.Run("route comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Config{}, online)
			w.g.SetRoutes(NewTable(mapOf(section("acme", "a.example"))))
			w.say(helloFor("a.example"))
			<-time.After(2 * time.Second)
			w.g.SetRoutes(NewTable(online))
			w.accept(w.node("fd00::1"))
		})
	})
	t.Run("name goes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Config{}, online)
			w.remove("fd00::1")
			c := w.say(helloFor("a.example"))
			<-time.After(time.Second)
			w.g.SetRoutes(NewTable(mapOf()))
			if got, _ := readAll(c); got != fatal(112) {
				t.Errorf("got %q, want alert 112", got)
			}
		})
	})
	t.Run("name moves to another tenant", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Config{}, online)
			w.remove("fd00::1")
			c := w.say(helloFor("a.example"))
			<-time.After(time.Second)
			other := w.node("fd00::2")
			w.g.SetRoutes(NewTable(mapOf(section("other", "a.example", "fd00::2"))))
			if got, _ := readAll(c); got != fatal(112) || len(other.conns) > 0 {
				t.Errorf("got %q, %d connections; want alert 112 and none", got, len(other.conns))
			}
		})
	})
	t.Run("route goes while the node answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Config{}, online)
			w.node("fd00::1").delay = 2 * time.Second
			c := w.say(helloFor("a.example"))
			<-time.After(time.Second)
			w.g.SetRoutes(NewTable(mapOf()))
			if got, _ := readAll(c); got != fatal(112) {
				t.Errorf("got %q, want alert 112", got)
			}
			node := <-w.node("fd00::1").conns
			if got, _ := readAll(node); got != "" {
				t.Errorf("the node got %q, want nothing", got)
			}
		})
	})
}

// TestSecondNode: a node that is silent costs others a moment, and one that refuses
// nothing.
func TestSecondNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1", "fd00::2")))
		first, second := w.node("fd00::1"), w.node("fd00::2")
		src := w.whoTriesFirst("a.example", "fd00::1")

		first.delay = 400 * time.Millisecond
		second.delay = 50 * time.Millisecond
		w.say(helloFor("a.example"), src)
		start := time.Now()
		w.accept(second)
		if took, want := time.Since(start), dialStagger+second.delay; took != want {
			t.Errorf("the second node was reached after %v, want %v", took, want)
		}
		synctest.Wait()
		if len(first.conns) != 0 {
			t.Error("the first node was reached as well")
		}

		w.remove("fd00::1")
		second.delay = 0
		start = time.Now()
		w.say(helloFor("a.example"), src)
		w.accept(second)
		if took := time.Since(start); took != 0 {
			t.Errorf("with the first refusing, the second was reached after %v", took)
		}
	})
}

func addr443(a string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), 443) }

// TestLateAnswer: a node that answers although another was quicker is hung up on.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mapOf(section("acme", "a.example", "fd00::1", "fd00::2"))
		var late net.Conn
		g := New(Config{Dial: func(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
			near, far := memPipe(addr443("fd00::9"), dst)
			if dst == addr443("fd00::1") {
				<-ctx.Done() // and yet it succeeds
				late = far
			}
			return near, nil
		}})
		g.SetRoutes(NewTable(m))
		target, _ := g.lookup("a.example")
		a := g.dialTarget(t.Context(), &flow{}, target, nil)
		if a.err != nil || a.node.Addr != addr443("fd00::2") {
			t.Fatalf("got %v, %v; want the second node", a.node, a.err)
		}
		defer a.conn.Close()
		if got, err := readAll(late); got != "" || err != nil {
			t.Errorf("late conn: got %q, %v; want its end", got, err)
		}
	})
}

// TestRevoked: connections end at once when their name leads elsewhere, and go
// on when anything else changes. Nothing that was on its way is delivered.
func TestRevoked(t *testing.T) {
	before := section("acme", "a.example", "fd00::1", "fd00::2")
	renumbered := section("acme", "a.example", "fd00::3")
	renumbered.Nodes[0].ID, renumbered.Routes[0].Nodes[0] = "fd00::1", "fd00::1"
	unrouted := section("acme", "a.example", "fd00::1", "fd00::2")
	unrouted.Routes[0].Nodes = []string{"fd00::2"}
	for _, tt := range []struct {
		name  string
		after postern.Map
		cut   bool
	}{
		{"no change", mapOf(before), false},
		{"another tenant comes", mapOf(before, section("other", "b.example", "fd00::9")), false},
		{"another node goes", mapOf(section("acme", "a.example", "fd00::1")), false},
		{"the node goes", mapOf(section("acme", "a.example", "fd00::2")), true},
		{"the route leaves the node", mapOf(unrouted), true},
		{"the node's address changes", mapOf(renumbered), true},
		{"the name goes", mapOf(section("acme", "b.example", "fd00::1")), true},
		{"the tenant goes", mapOf(), true},
		{"the name moves to another tenant", mapOf(section("other", "a.example", "fd00::1")), true},
		{"the name becomes the coordinator's", mapOf(before, deployment("a.example")), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(before))
				c := w.say(helloFor("a.example"))
				node, _ := w.accept(w.node("fd00::1"))
				w.expect(node, string(helloFor("a.example")))
				w.talk(c, node)
				node.Write([]byte("secret"))
				synctest.Wait()
				w.g.SetRoutes(NewTable(tt.after))
				synctest.Wait()
				if !tt.cut {
					w.expect(c, "secret")
					w.talk(c, node)
					return
				}
				if n, err := c.Read(make([]byte, 99)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("client: got %d bytes, %v; want a reset", n, err)
				}
				if got, _ := readAll(node); got != "" {
					t.Errorf("node: got %q, want the end", got)
				}
			})
		})
	}
}

// TestDrain: when its context ends, Serve accepts no more and lets connections
// go on for a while.
func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(w *world, c, node io.Closer)
		want time.Duration // until Serve returns
	}{
		{"connection stays", func(w *world, c, node io.Closer) { w.stop() }, 30 * time.Second},
		{"connection ends", func(w *world, c, node io.Closer) {
			w.stop()
			<-time.After(7 * time.Second)
			c.Close()
			node.Close()
		}, 7 * time.Second},
		{"closed while draining", func(w *world, c, node io.Closer) {
			w.stop()
			<-time.After(2 * time.Second)
			w.g.Close()
		}, 2 * time.Second},
		{"closed at once", func(w *world, c, node io.Closer) { w.g.Close() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1")))
				c := w.say(helloFor("a.example"))
				node, _ := w.accept(w.node("fd00::1"))
				w.expect(node, string(helloFor("a.example")))
				start := time.Now()
				if tt.want > 0 {
					w.stop()
					synctest.Wait()
					if _, err := w.ln.dial(gatewayAddr); err == nil {
						t.Error("new connections are still accepted")
					}
					w.talk(c, node)
				}
				tt.do(w, c, node)
				if err := <-w.done; err != nil || time.Since(start) != tt.want {
					t.Errorf("Serve returned %v after %v; want nil after %v", err, time.Since(start), tt.want)
				}
				if open := w.g.Stats().Open; open != 0 {
					t.Errorf("%d connections open, want 0", open)
				}
				readAll(node) // ends
			})
		})
	}
}

// TestDrainPipes: a member's stream through the gateway does not hold it up.
func TestDrainPipes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(deployment("control.example")))
		c := w.say(helloFor("control.example"))
		coordinator, _ := w.accept(w.coord)
		w.expect(coordinator, string(helloFor("control.example")))
		w.talk(c, coordinator)
		start := time.Now()
		w.stop()
		if err := <-w.done; err != nil || time.Since(start) != 0 {
			t.Errorf("Serve returned %v after %v; want nil at once", err, time.Since(start))
		}
		readAll(coordinator) // ends
	})
}

// TestDrainLatePipe: nor does one that was on its way when the drain began.
func TestDrainLatePipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(deployment("control.example")))
		hello := helloFor("control.example")
		c := w.say(hello[:10])
		synctest.Wait()
		start := time.Now()
		w.stop()
		synctest.Wait()
		c.Write(hello[10:])
		if err := <-w.done; err != nil || time.Since(start) != 0 {
			t.Errorf("Serve returned %v after %v; want nil as soon as the hello was whole", err, time.Since(start))
		}
	})
}

// TestServeListenerFails: Serve says why, after its connections are done.
func TestServeListenerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{DrainTimeout: time.Second}, mapOf(section("acme", "a.example", "fd00::1")))
		w.say(helloFor("a.example"))
		w.accept(w.node("fd00::1"))
		w.ln.Close()
		if err := <-w.done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want %v", err, net.ErrClosed)
		}
	})
}

// A flakyListener fails a number of times before each connection.
type flakyListener struct {
	*memListener
	err         error
	times, left int
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.left > 0 {
		l.left--
		return nil, l.err
	}
	l.left = l.times
	return l.memListener.Accept()
}

// TestAcceptRetries: too many open files is no reason to stop, however long it lasts, and
// what nobody knows is none for a while.
func TestAcceptRetries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		times int
		want  error
	}{
		{"too many files", syscall.EMFILE, 1000, nil},
		{"no memory", &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.ENOMEM)}, 1000, nil},
		{"passes", syscall.EPROTO, maxAcceptFailures - 1, nil},
		{"stays", syscall.EPROTO, maxAcceptFailures, syscall.EPROTO},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := &flakyListener{newMemListener("198.51.100.1:443"), tt.err, tt.times, tt.times}
				g := New(Config{})
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- g.Serve(ctx, ln) }()
				c, err := ln.dial(gatewayAddr)
				if err != nil {
					t.Fatal(err)
				}
				if tt.want == nil {
					c.Write([]byte("GET "))
					if got, _ := readAll(c); got != httpAnswer {
						t.Errorf("got %q", got)
					}
				}
				c.Close()
				if tt.want == nil {
					stop()
				}
				if err := <-done; !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				stop()
				for len(ln.conns) > 0 {
					(<-ln.conns).Close()
				}
			})
		})
	}
}
