package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"postern"
	"postern/internal/proxyproto"
)

// A probedWorld is a prober that runs, and nodes that answer it or do not.
type probedWorld struct {
	*prober
	stop func()

	mu    sync.Mutex
	dead  map[Node]bool
	busy  map[Node]bool
	asked map[Node][]time.Duration // when, from the start
	most  int                      // probes at once
	now   int
}

func newProbedWorld(t *testing.T, nodes map[Node]trait) *probedWorld {
	w := &probedWorld{dead: map[Node]bool{}, busy: map[Node]bool{}, asked: map[Node][]time.Duration{}}
	began := time.Now()
	w.prober = newProber(func(ctx context.Context, n Node) (time.Duration, error) {
		w.mu.Lock()
		w.asked[n] = append(w.asked[n], time.Since(began))
		w.now++
		w.most = max(w.most, w.now)
		dead := w.dead[n]
		w.mu.Unlock()
		defer func() { w.mu.Lock(); w.now--; w.mu.Unlock() }()
		if dead {
			<-ctx.Done()
			return 0, errMissed
		}
		<-time.After(10 * time.Millisecond)
		return 10 * time.Millisecond, nil
	}, func(n Node) bool { w.mu.Lock(); defer w.mu.Unlock(); return w.busy[n] })
	w.want(nodes)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.run(ctx) })
	w.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(w.stop)
	return w
}

func (w *probedWorld) set(n Node, dead, busy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead[n], w.busy[n] = dead, busy
}

// times returns when n was asked, and forgets it.
func (w *probedWorld) times(n Node) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	times := w.asked[n]
	delete(w.asked, n)
	return times
}

func probedNode(i int) Node {
	return Node{ID: fmt.Sprint(i), Addr: netip.AddrPortFrom(netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}), 443)}
}

func TestProbeIntervals(t *testing.T) {
	idle, busy, shared := probedNode(1), probedNode(2), probedNode(3)
	synctest.Test(t, func(t *testing.T) {
		w := newProbedWorld(t, map[Node]trait{idle: {}, busy: {}, shared: {shared: true}})
		w.set(busy, false, true)
		<-time.After(10 * time.Minute)
		for n, want := range map[Node]time.Duration{idle: probeIdle, busy: probeBusy, shared: probeBusy} {
			times := w.times(n)
			for i := range times[1:] {
				if d := times[i+1] - times[i]; d < want*9/10 || d > want*11/10+20*time.Millisecond {
					t.Fatalf("node %s was asked %v after the last time, want about %v", n.ID, d, want)
				}
			}
			if !w.healthy(n) || w.status(n).Error != "" || w.status(n).RTT != postern.Duration(10*time.Millisecond) {
				t.Errorf("node %s: %+v", n.ID, w.status(n))
			}
		}
	})
}

// A node that does not answer is unhealthy soon after it is asked, is asked ever more
// seldom, and at once when something of it was heard; it is healthy as soon as it answers.
func TestProbeOfTheDead(t *testing.T) {
	n := probedNode(1)
	synctest.Test(t, func(t *testing.T) {
		w := newProbedWorld(t, map[Node]trait{n: {shared: true}})
		<-time.After(time.Second)
		w.set(n, true, false)
		w.ask(n)
		<-time.After(2*probeTimeout - 2*time.Second)
		if !w.healthy(n) || w.status(n).Error != "" {
			t.Error("one miss is enough")
		}
		<-time.After(2*time.Second + probeSoon)
		s := w.status(n)
		if w.healthy(n) || s.Error != errMissed.Error() || s.Time.IsZero() {
			t.Errorf("after %d misses: %+v", probeMisses, s)
		}
		w.times(n)
		<-time.After(time.Hour)
		if got := len(w.times(n)); got < 10 || got > 25 {
			t.Errorf("asked %d times in an hour", got)
		}
		if c := w.counts(); c.Healthy != 0 || c.Unhealthy != 1 || c.Missed < 10 || c.Sent-c.Missed != 1 {
			t.Errorf("counts are %+v", c)
		}
		for range 10 * 60 { // something comes from it all the time, such as refusals
			w.ask(n)
			<-time.After(100 * time.Millisecond)
		}
		if got := len(w.times(n)); got < 8 || got > 14 {
			t.Errorf("asked %d times in a minute in which something came from it", got)
		}
		w.set(n, false, false)
		w.ask(n)
		<-time.After(probeTimeout + probeBusy + time.Second)
		if !w.healthy(n) || w.status(n).Error != "" {
			t.Errorf("it answers again: %+v", w.status(n))
		}
	})
}

// However many nodes there are, and however many of them are dead, probes are bounded;
// and who is asked for is not kept waiting by those who are not.
func TestProbesAreBounded(t *testing.T) {
	const many = 20000
	synctest.Test(t, func(t *testing.T) {
		nodes := map[Node]trait{}
		for i := range many {
			nodes[probedNode(i)] = trait{}
		}
		w := newProbedWorld(t, nodes)
		for i := range many / 4 {
			w.set(probedNode(4*i), true, false)
		}
		<-time.After(5 * time.Minute)
		if took, sent := 5*60, w.counts().Sent; sent > int64(took*probeRate+maxProbes) || sent < int64(2*many) {
			t.Errorf("%d probes in %d s", sent, took)
		}
		w.mu.Lock()
		if w.most > maxProbes {
			t.Errorf("%d probes at once", w.most)
		}
		w.mu.Unlock()
		if c := w.counts(); c.Unhealthy != many/4 || c.Healthy != many-many/4 {
			t.Errorf("counts are %+v", c)
		}
		n := probedNode(1)
		w.times(n)
		w.ask(n)
		<-time.After(2 * time.Second)
		if len(w.times(n)) == 0 {
			t.Error("who is asked for has to wait")
		}
	})
}

// A node that leaves the map while it is probed, and comes back, is one that nothing is known of.
func TestProbeOfTheGone(t *testing.T) {
	n := probedNode(1)
	synctest.Test(t, func(t *testing.T) {
		w := newProbedWorld(t, map[Node]trait{n: {}})
		w.set(n, true, false)
		<-time.After(10 * time.Second)
		w.want(nil)
		if w.status(n) != nil || !w.healthy(n) {
			t.Error("it is not forgotten")
		}
		w.set(n, false, false)
		w.want(map[Node]trait{n: {}})
		<-time.After(5 * time.Second)
		if s := w.status(n); s == nil || s.Error != "" {
			t.Errorf("back again: %+v", s)
		}
		w.ask(probedNode(2)) // nobody
	})
}

// answerProbes has n answer probes, and nothing else, until the test ends.
func (w *world) answerProbes(n *memNode, answer string) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case c := <-n.conns:
				h, err := proxyproto.Read(c)
				if err != nil || !h.Local {
					w.t.Errorf("a probe said %+v, %v", h, err)
				}
				io.WriteString(c, answer)
				c.Close()
			case <-done:
				return
			}
		}
	})
	w.t.Cleanup(func() { close(done); wg.Wait() })
}

// What is a probe's answer and what is none.
func TestProbeNode(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string
		want   error
	}{
		{"it serves", postern.ProbeAnswer, nil},
		{"an older node", "", errNoAnswer},
		{"half", postern.ProbeAnswer[:4], errOddAnswer},
		{"more", postern.ProbeAnswer + "x", errOddAnswer},
		{"another", strings.ToUpper(postern.ProbeAnswer), errOddAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1")))
				w.answerProbes(w.node("fd00::1"), tt.answer)
				if _, err := w.g.probeNode(t.Context(), Node{Addr: addr443("fd00::1")}); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if s := w.g.Stats(); s.Accepted+s.Open+s.Spliced+s.UpBytes != 0 {
					t.Errorf("a probe counts as a client: %+v", s)
				}
			})
		})
	}
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1", "fd00::2")))
			w.node("fd00::2").down = true
			for _, a := range []string{"fd00::1", "fd00::2"} {
				ctx, cancel := context.WithTimeout(t.Context(), probeTimeout)
				if _, err := w.g.probeNode(ctx, Node{Addr: addr443(a)}); !errors.Is(err, errMissed) {
					t.Errorf("got %v, want %v", err, errMissed)
				}
				cancel()
			}
			if _, err := w.g.probeNode(t.Context(), Node{Addr: addr443("fd00::3")}); !errors.Is(err, errNotReached) {
				t.Errorf("got %v, want %v", err, errNotReached)
			}
		})
	})
}

func FuzzReadProbeAnswer(f *testing.F) {
	f.Add([]byte(postern.ProbeAnswer))
	f.Add([]byte(postern.ProbeAnswer + "\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		err := readProbeAnswer(iotest.OneByteReader(r))
		if (err == nil) != (string(b) == postern.ProbeAnswer) {
			t.Errorf("%q: got %v", b, err)
		}
		if read := len(b) - r.Len(); read > len(postern.ProbeAnswer)+1 {
			t.Errorf("%d bytes were read", read)
		}
	})
}

// Clients are taken to the node that answers, and to the other one again when it does.
func TestUnhealthyIsTriedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{}, mapOf(section("acme", "a.example", "fd00::1", "fd00::2")))
		target, _ := w.g.lookup("a.example")
		f := &flow{src: netip.MustParseAddrPort(w.whoTriesFirst("a.example", "fd00::1")).Addr(), tenant: "acme"}
		first := func() Node { nodes, _ := w.g.order(f, target); return nodes[0] }
		was := first()

		w.node("fd00::1").down = true
		w.answerProbes(w.node("fd00::2"), postern.ProbeAnswer)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { w.g.Probe(ctx) })
		<-time.After(2*probeTimeout + time.Second)
		if got := first(); got == was {
			t.Error("a node that does not answer is still tried first")
		}
		if s := w.g.Probed(was); s == nil || s.Error == "" || !s.Time.IsZero() {
			t.Errorf("probed: %+v", s)
		}
		w.node("fd00::1").down = false
		w.answerProbes(w.node("fd00::1"), postern.ProbeAnswer)
		w.g.Heard(was)
		<-time.After(probeSoon + time.Second)
		if got := first(); got != was {
			t.Error("a node that answers again is not tried first")
		}
		cancel()
		wg.Wait()
	})
}
