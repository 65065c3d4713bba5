package gateway

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fair"
	"postern/internal/proxyproto"
)

// TestIsolationI13: a tenant at a hundred times its limits, of connections and of the
// line, slows another's requests down by less than a fifth, at the 99th percentile. The
// clock is a fake one, so that what is measured is what the gateway has somebody wait for,
// and not this machine; TestSurviveFlood measures that.
func TestIsolationI13(t *testing.T) {
	const (
		line  = 12_500_000 // bytes a second
		way   = 10 * time.Millisecond
		flows = 200 // of the busy tenant, each of which wants all of the line
		rate  = 100 // that it may open a second; it tries so many times as many
	)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Limits: Limits{
			SourceRate: -1, SourceConns: -1, SourceHellos: -1, TenantRate: rate, TenantBurst: 2 * flows, TenantDials: -1, Bandwidth: line,
		}}, mapOf(section("busy", "a.example", "fd00::1"), section("quiet", "b.example", "fd00::2")))
		for _, addr := range []string{"fd00::1", "fd00::2"} {
			w.node(addr).tells = true
		}
		stop := make(chan struct{})
		var nodes, flood sync.WaitGroup
		nodes.Go(func() { serveNode(w.node("fd00::1"), stop, sendForever) })
		nodes.Go(func() { serveNode(w.node("fd00::2"), stop, answerAll) })
		alone := w.requests(t, 500, way)

		for i := range flows {
			c := w.say(helloFor("a.example"), fmt.Sprintf("192.0.2.7:%d", i+1))
			flood.Go(func() { io.Copy(io.Discard, c) })
		}
		var tried int
		flood.Go(func() {
			for tick := time.Tick(time.Second / (100 * rate)); ; tried++ {
				select {
				case <-stop:
					return
				case <-tick:
				}
				c, err := w.ln.dial(addr443("192.0.2.8"))
				if err != nil {
					return
				}
				c.Write(helloFor("a.example"))
				flood.Go(func() { io.Copy(io.Discard, c); c.Close() })
			}
		})
		<-time.After(100 * time.Millisecond)
		start, before := time.Now(), w.g.Stats().DownBytes
		beside := w.requests(t, 100, way)
		took, moved := time.Since(start), w.g.Stats().DownBytes-before
		close(stop)
		w.g.Close()
		flood.Wait()
		nodes.Wait()

		stats := w.g.Stats()
		t.Logf("p99 alone %v, beside %v; the other moved %.0f%% of the line, tried %d connections in %v, of which %d were refused",
			alone, beside, float64(moved)/line/took.Seconds()*100, tried, took, stats.Refused[TenantRate]+stats.Refused[TenantConns])
		if beside > alone*6/5 {
			t.Errorf("p99 beside a flood is %v, alone %v: want less than a fifth more", beside, alone)
		}
		if float64(moved) < 0.9*line*took.Seconds() {
			t.Errorf("the other moved %d bytes in %v: the line was not full", moved, took)
		}
		if stats.Refused[TenantRate] == 0 || stats.Waits.Line == 0 {
			t.Errorf("got %+v, want refusals and waits", stats)
		}
	})
}

// requests makes so many requests of the quiet tenant, one after the other, over a
// network that takes way each way, and returns the 99th percentile of how long they took.
func (w *world) requests(t *testing.T, n int, way time.Duration) time.Duration {
	c := w.say(helloFor("b.example"), "192.0.2.1:1")
	defer c.Close()
	var took []time.Duration
	buf := make([]byte, answerSize)
	for range n {
		<-time.After(3 * time.Millisecond)
		start := time.Now()
		<-time.After(way)
		if _, err := c.Write(buf[:questionSize]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
		<-time.After(way)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

const questionSize, answerSize = 200, 2000

// answerAll answers questions.
func answerAll(c net.Conn) {
	buf := make([]byte, answerSize)
	if _, err := io.ReadFull(c, buf[:len(helloFor("b.example"))]); err != nil {
		return
	}
	for {
		if _, err := io.ReadFull(c, buf[:questionSize]); err != nil {
			return
		}
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// sendForever sends as much as it can.
func sendForever(c net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// serveNode handles each connection to n, after its header, until stop.
func serveNode(n *memNode, stop <-chan struct{}, handle func(net.Conn)) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		select {
		case <-stop:
			return
		case c := <-n.conns:
			conns.Go(func() {
				defer c.Close()
				if _, err := proxyproto.Read(c); err == nil {
					handle(c)
				}
			})
		}
	}
}

// TestTenantBandwidth: a tenant gets what one may have, and not more.
func TestTenantBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		w := newWorld(t, Config{Limits: Limits{TenantBandwidth: rate}}, mapOf(section("acme", "a.example", "fd00::1")))
		c := w.say(helloFor("a.example"))
		node, _ := w.accept(w.node("fd00::1"))
		w.expect(node, string(helloFor("a.example")))
		var wg sync.WaitGroup
		wg.Go(func() { sendForever(node) })
		start := time.Now()
		if _, err := io.CopyN(io.Discard, c, 10*rate); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 9800*time.Millisecond || took > 10100*time.Millisecond {
			t.Errorf("took %v for what is to take 10 s", took)
		}
		c.Close()
		wg.Wait()
		if got := w.g.Stats().Waits; got.Share == 0 || got.Line != 0 {
			t.Errorf("got %+v, want waits for the tenant's bandwidth alone", got)
		}
	})
}

// TestNoBandwidth: without limits nobody is paced.
func TestNoBandwidth(t *testing.T) {
	l := newLimiter(Limits{}, nil)
	v := &visit{}
	if err := l.beginDial(epoch, v, "acme"); err != nil {
		t.Fatal(err)
	}
	if p := l.pace(v); p != nil {
		t.Errorf("got %v, want no pace", p)
	}
	if got := l.waits(); got != (fair.Waits{}) {
		t.Errorf("got %v, want none", got)
	}
}
