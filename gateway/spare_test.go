package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/proxyproto"
)

// spareWorld is a world of one name with nodes whose conns can be spares. A node
// is 20 ms away.
func spareWorld(t *testing.T, addrs ...string) *world {
	w := newWorld(t, Config{Limits: unlimited}, mapOf(section("acme", "a.example", addrs...)))
	for _, a := range addrs {
		w.node(a).tells, w.node(a).delay = true, 20*time.Millisecond
	}
	return w
}

// answer has n answer whoever says a hello, from now on.
func (w *world) answer(n *memNode) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case c := <-n.conns:
				wg.Go(func() { w.answerOne(c) })
			case <-done:
				return
			}
		}
	})
	w.t.Cleanup(func() { w.g.Close(); close(done); wg.Wait() })
}

func (w *world) answerOne(c *memConn) {
	defer c.Close()
	if _, err := proxyproto.Read(c); err != nil {
		return // a spare that nobody had
	}
	w.expect(c, string(helloFor("a.example")))
	fmt.Fprint(c, "answer")
	c.CloseWrite()
	io.Copy(io.Discard, c)
}

// visit has k clients come at once, get an answer and leave. It returns how long
// the last one waited for it.
func (w *world) visit(k int) time.Duration {
	w.t.Helper()
	start := time.Now()
	var clients []*memConn
	for range k {
		clients = append(clients, w.say(helloFor("a.example")))
	}
	for _, c := range clients {
		w.expect(c, "answer")
	}
	took := time.Since(start)
	for _, c := range clients {
		c.Close()
	}
	synctest.Wait()
	return took
}

// stock has n, which has none, get k spares by as many clients. It returns n's ends.
func (w *world) stock(n *memNode, k int) (spares []*memConn) {
	w.t.Helper()
	var clients []*memConn
	for range k {
		clients = append(clients, w.say(helloFor("a.example")))
	}
	var wg sync.WaitGroup
	for range k {
		c := <-n.conns
		wg.Go(func() { w.answerOne(c) })
	}
	for _, c := range clients {
		w.expect(c, "answer")
		c.Close()
	}
	wg.Wait()
	w.settle(k)
	for range k {
		spares = append(spares, <-n.conns)
	}
	return spares
}

// used returns the spare on which something was said, and the others.
func used(spares []*memConn) (one *memConn, others []*memConn) {
	synctest.Wait()
	for _, c := range spares {
		c.in.mu.Lock()
		if len(c.in.buf) > 0 {
			one = c
		} else {
			others = append(others, c)
		}
		c.in.mu.Unlock()
	}
	return one, others
}

// settle lets dials end, and what came at once be over, and checks how many spares
// there are.
func (w *world) settle(want int) {
	w.t.Helper()
	<-time.After(spareSlot)
	synctest.Wait()
	if got := w.g.Stats().Spares; got != int64(want) {
		w.t.Errorf("%d spares, want %d", got, want)
	}
}

// mustEnd checks that spares ended without a byte.
func mustEnd(t *testing.T, spares []*memConn) {
	t.Helper()
	for _, c := range spares {
		if got, err := readAll(c); got != "" || err != nil {
			t.Errorf("a spare got %q, %v; want its end", got, err)
		}
	}
}

func (n *memNode) timesDialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dialed
}

func TestNoSparesForAQuietRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		n := w.node("fd00::1")
		w.answer(n)
		for range 5 {
			if took := w.visit(1); took != n.delay {
				t.Errorf("an answer took %v, want %v", took, n.delay)
			}
			w.settle(0)
			<-time.After(2 * spareWindow)
		}
		if got := n.timesDialed(); got != 5 {
			t.Errorf("the node was dialed %d times, want 5", got)
		}
	})
}

// A burst finds as many spares as the one before was large.
func TestBurstGetsSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		n := w.node("fd00::1")
		w.answer(n)
		w.visit(6)
		for range 3 {
			w.settle(6)
			if took := w.visit(6); took != 0 {
				t.Errorf("an answer took %v, want none", took)
			}
		}
		w.settle(6)
		if got, want := n.timesDialed(), 5*6; got != want {
			t.Errorf("the node was dialed %d times, want %d", got, want)
		}

		// What is more than that is dialed.
		if took := w.visit(7); took != n.delay {
			t.Errorf("the seventh answer took %v, want %v", took, n.delay)
		}
		w.settle(7)

		// And when nobody comes any more, they go.
		<-time.After(2*spareWindow + spareTick)
		w.settle(0)
	})
}

// Where clients come and go, no spare grows old.
func TestSparesAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		n := w.node("fd00::1")
		spares := w.stock(n, 3)
		for range 2 * spareAge / spareWindow {
			for range 3 {
				w.g.spares.came(w.target().Nodes[0], tellingConn{})
			}
			w.settle(3)
			<-time.After(spareWindow / 2)
		}
		mustEnd(t, spares)
		w.g.Close()
		synctest.Wait()
		mustEnd(t, []*memConn{<-n.conns, <-n.conns, <-n.conns})
	})
}

func (w *world) target() Target {
	target, _ := w.g.lookup("a.example")
	return target
}

func TestSparesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes = maxSpares/maxNodeSpares + 3
		var mu sync.Mutex
		dialed := map[Node]int{}
		s := newSpares(func(_ context.Context, n Node) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			dialed[n]++
			near, _ := memPipe(addr443("fd00::9"), n.Addr)
			return tellingConn{memConn: near}, nil
		})
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.run(ctx) })
		wg.Go(func() { s.run(ctx) }) // has nothing to do
		synctest.Wait()
		for i := range nodes {
			for range 2 * maxNodeSpares {
				s.came(Node{Addr: addr443(fmt.Sprintf("fd00::%d", i+1))}, tellingConn{})
			}
			synctest.Wait()
		}
		all := 0
		for n, k := range dialed {
			all += k
			if k > maxNodeSpares {
				t.Errorf("%v has %d spares, want at most %d", n.Addr, k, maxNodeSpares)
			}
		}
		if all != maxSpares || s.count() != maxSpares {
			t.Errorf("%d were dialed and %d are there, want %d", all, s.count(), maxSpares)
		}
		stop()
		wg.Wait()
		if s.count() != 0 || s.total != 0 {
			t.Errorf("%d spares and a total of %d in the end, want none", s.count(), s.total)
		}
	})
}

// Spares end with the route to their node, with the drain and with Close.
func TestSparesEnd(t *testing.T) {
	renamed := section("acme", "a.example", "fd00::1")
	renamed.Nodes[0].ID, renamed.Routes[0].Nodes[0] = "another", "another"
	for _, tt := range []struct {
		name string
		do   func(w *world)
		left int
	}{
		{"another route comes", func(w *world) {
			w.g.SetRoutes(NewTable(mapOf(section("acme", "a.example", "fd00::1"), section("other", "b.example", "fd00::2"))))
		}, 4},
		{"the route goes", func(w *world) { w.g.SetRoutes(NewTable(mapOf())) }, 0},
		{"the node's address is another's", func(w *world) { w.g.SetRoutes(NewTable(mapOf(renamed))) }, 0},
		{"drain", func(w *world) { w.stop() }, 0},
		{"close", func(w *world) { w.g.Close() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := spareWorld(t, "fd00::1")
				n := w.node("fd00::1")
				spares := w.stock(n, 4)
				tt.do(w)
				synctest.Wait()
				if got := w.g.Stats().Spares; got != int64(tt.left) {
					t.Errorf("%d spares, want %d", got, tt.left)
				}
				if tt.left == 0 {
					mustEnd(t, spares)
				}
			})
		})
	}
}

// Serve returns although spares are being dialed.
func TestCloseWhileSparesAreDialed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		n := w.node("fd00::1")
		w.answer(n)
		w.visit(4)
		w.g.Close()
		if err := <-w.done; err != nil {
			t.Error(err)
		}
		if got := n.timesDialed(); got != 4 {
			t.Errorf("the node was dialed %d times, want 4", got)
		}
	})
}

// A node of an older version closes what says nothing for a second. It is not
// dialed in vain again and again.
func TestNodeThatKeepsNoSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		n := w.node("fd00::1")
		for _, c := range w.stock(n, 4) {
			c.Close()
		}
		w.answer(n)
		w.settle(0)
		start, dialed := time.Now(), n.timesDialed()
		for time.Since(start) < spareBackoff-2*time.Second {
			if took := w.visit(4); took != n.delay {
				t.Errorf("an answer took %v, want %v", took, n.delay)
			}
			dialed += 4
			<-time.After(time.Second)
		}
		w.settle(0)
		if got := n.timesDialed(); got != dialed {
			t.Errorf("the node was dialed %d times, want %d", got, dialed)
		}
		<-time.After(3 * time.Second)
		w.visit(4)
		w.settle(4)
	})
}

// A spare that is dead without anybody knowing costs a client a dial, and no byte.
func TestDeadSpare(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*memConn) // what becomes of it when the opening has come
	}{
		{"reset", func(c *memConn) { c.Close() }}, // with the opening unread
		{"closed", func(c *memConn) { c.Read(make([]byte, memBuffer)); c.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := spareWorld(t, "fd00::1")
				n := w.node("fd00::1")
				spares := w.stock(n, 3)
				c := w.say(helloFor("a.example"))
				dead, others := used(spares)
				tt.end(dead)
				node, h := w.accept(n)
				if h.Authority != "a.example" {
					t.Errorf("the header names %q", h.Authority)
				}
				w.expect(node, string(helloFor("a.example")))
				w.talk(c, node)
				mustEnd(t, others)
				w.settle(0)
			})
		})
	}
}

// A spare whose node is gone without a word costs what a dial would: the next
// node is tried beside it. If it answers after all, nobody hears it.
func TestSilentSpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1", "fd00::2")
		first, second := w.node("fd00::1"), w.node("fd00::2")
		spares := w.stock(first, 2)
		start := time.Now()
		c := w.say(helloFor("a.example"))
		silent, _ := used(spares)
		node, _ := w.accept(second)
		if took, want := time.Since(start), dialStagger+second.delay; took != want {
			t.Errorf("the second node was reached after %v, want %v", took, want)
		}
		w.expect(node, string(helloFor("a.example")))
		fmt.Fprint(silent, "late")
		w.talk(c, node)
	})
}

// Nothing is said on the next node's spare if the name led elsewhere before its turn.
func TestSpareAfterACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		f := &flow{hello: hello{name: "a.example"}, tenant: "acme"}
		w.g.SetRoutes(NewTable(mapOf(section("globex", "a.example", "fd00::1"))))
		near, far := memPipe(gatewayAddr, addr443("fd00::1"))
		a := w.g.ask(t.Context(), f, Node{}, tellingConn{near, new(atomic.Uint64)}, helloFor("a.example"))
		if a.err != errUnknownName {
			t.Errorf("got %v, want errUnknownName", a.err)
		}
		if got, err := readAll(far); got != "" || err != nil {
			t.Errorf("the node heard %q, %v; want the end alone", got, err)
		}
	})
}

// With one node alone, a silent spare is waited for as long as a silent dial.
func TestSilentSpareOfTheOnlyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		spares := w.stock(w.node("fd00::1"), 2)
		start := time.Now()
		c := w.say(helloFor("a.example"))
		if got, err := readAll(c); got != fatal(80) || err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("got %q, %v after %v; want alert 80 after 3 s", got, err, time.Since(start))
		}
		_, others := used(spares)
		mustEnd(t, others)
		w.settle(0)
	})
}

// A node that acknowledges the hello and takes long to answer is waited for, and
// nobody else is asked.
func TestSlowAnswerOnASpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1", "fd00::2")
		first, second := w.node("fd00::1"), w.node("fd00::2")
		spares := w.stock(first, 2)
		c := w.say(helloFor("a.example"))
		node, _ := used(spares)
		first.heard.Add(1)
		<-time.After(10 * time.Second)
		if got := second.timesDialed(); got != 0 {
			t.Errorf("the second node was dialed %d times", got)
		}
		if _, err := proxyproto.Read(node); err != nil {
			t.Fatal(err)
		}
		w.expect(node, string(helloFor("a.example")))
		w.talk(c, node)
	})
}

// What a node says on a spare reaches the client, in order and to its end.
func TestAnswerOnASpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		spares := w.stock(w.node("fd00::1"), 2)
		c := w.say(helloFor("a.example"))
		node, _ := used(spares)
		answer := bytes.Repeat([]byte("0123456789"), 3000)
		node.Write(answer)
		w.expect(c, string(answer))
		if _, err := proxyproto.Read(node); err != nil {
			t.Fatal(err)
		}
		w.expect(node, string(helloFor("a.example")))
		w.talk(c, node)
		node.CloseWrite()
		if got, err := readAll(c); got != "" || err != nil {
			t.Errorf("the client got %q, %v; want the end", got, err)
		}
		c.CloseWrite()
		if got, err := readAll(node); got != "" || err != nil {
			t.Errorf("the node got %q, %v; want the end", got, err)
		}
		synctest.Wait()
		if s := w.g.Stats(); s.DownBytes != 2*int64(len("answer"))+int64(len(answer))+int64(len("answer")) {
			t.Errorf("%d bytes down were counted", s.DownBytes)
		}
	})
}

// A client for whose answer there is no room holds neither a spare nor its tenant's
// dials for longer than a dial may take, nor against a cut.
func TestAnswerOnASpareThatTheClientDoesNotTake(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(w *world)
		want time.Duration
	}{
		{"it never does", func(*world) {}, 3 * time.Second},
		{"the route goes", func(w *world) { w.g.SetRoutes(NewTable(mapOf())) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := spareWorld(t, "fd00::1")
				spares := w.stock(w.node("fd00::1"), 2)
				c := w.client()
				c.in.buf = make([]byte, memBuffer)
				c.Write(helloFor("a.example"))
				node, _ := used(spares)
				fmt.Fprint(node, "answer")
				synctest.Wait()
				start := time.Now()
				tt.do(w)
				node.SetReadDeadline(start.Add(time.Minute))
				if _, err := readAll(node); err != nil {
					t.Errorf("got %v, want the end", err)
				}
				if took := time.Since(start); took != tt.want {
					t.Errorf("the node's connection ended after %v, want %v", took, tt.want)
				}
			})
		})
	}
}

// What says something before it is asked is no spare.
func TestSpareThatSpeaksFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1")
		n := w.node("fd00::1")
		spares := w.stock(n, 2)
		fmt.Fprint(spares[0], "unasked")
		synctest.Wait()
		w.answer(n)
		if took := w.visit(1); took != n.delay {
			t.Errorf("an answer took %v, want %v", took, n.delay)
		}
		mustEnd(t, spares[1:])
	})
}

// A dial whose SYN is lost is made up for by another.
func TestLostDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1", "fd00::2")))
		for _, tt := range []struct {
			name  string
			lost  [2]int // by node
			reach string
			after time.Duration
		}{
			{"none", [2]int{0, 0}, "fd00::1", 0},
			{"the first node's", [2]int{1, 0}, "fd00::2", dialStagger},
			{"both", [2]int{1, 1}, "fd00::1", 2 * dialStagger},
			{"two of the first node's", [2]int{2, 1}, "fd00::2", 3 * dialStagger},
		} {
			w.node("fd00::1").lost, w.node("fd00::2").lost = tt.lost[0], tt.lost[1]
			start := time.Now()
			c := w.say(helloFor("a.example"))
			w.accept(w.node(tt.reach))
			if took := time.Since(start); took != tt.after {
				t.Errorf("%s: reached after %v, want %v", tt.name, took, tt.after)
			}
			c.Close()
			synctest.Wait()
		}
		for _, n := range []string{"fd00::1", "fd00::2"} {
			if got := len(w.node(n).conns); got != 0 {
				t.Errorf("node %s was reached %d times too often", n, got)
			}
		}

		// One that refuses is not dialed twice.
		w.remove("fd00::1")
		w.node("fd00::2").down = true
		a := w.g.dialTarget(contextFor(t, time.Second), &flow{}, w.target(), nil)
		if a.err == nil {
			t.Error("a node that is silent was reached")
		}
	})
}

func contextFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
