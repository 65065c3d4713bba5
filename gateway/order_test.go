package gateway

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern"
)

// A choice is a route with some nodes, of which a gateway knows whatever a test says.
type choice struct {
	g       *Gateway
	section postern.Section
}

func newChoice(weights ...int) *choice {
	var addrs []string
	for i := range weights {
		addrs = append(addrs, fmt.Sprintf("fd00::%x", i+1))
	}
	c := &choice{g: New(Config{}), section: section("acme", "a.example", addrs...)}
	for i, w := range weights {
		c.section.Nodes[i].Weight = w
	}
	c.apply()
	return c
}

func (c *choice) apply() { c.g.SetRoutes(NewTable(mapOf(c.section))) }

// drop takes a node off the route.
func (c *choice) drop(id string) {
	c.section.Routes[0].Nodes = slices.DeleteFunc(slices.Clone(c.section.Routes[0].Nodes), func(n string) bool { return n == id })
	c.apply()
}

// miss has the node miss so many probes.
func (c *choice) miss(id string, misses int) {
	p := c.g.prober
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes[Node{ID: id, Addr: addr443(id)}].misses = misses
}

func (c *choice) order(src netip.Addr) (nodes, drained []Node) {
	target, _ := c.g.lookup("a.example")
	return c.g.order(&flow{src: src, tenant: target.Tenant}, target)
}

func ids(nodes []Node) (ids []string) {
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

func randomSource() netip.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	for i := 4; i < 16; i++ {
		b[i] = byte(rand.Uint32())
	}
	if rand.N(2) == 0 {
		return netip.AddrFrom4([4]byte(b[4:8]))
	}
	return netip.AddrFrom16(b)
}

// Whoever comes from an IPv4 address or an IPv6 /64 is taken to the same node again.
func TestOrderSticks(t *testing.T) {
	c := newChoice(0, 0, 0, 0, 0)
	for range 500 {
		src := randomSource()
		want, _ := c.order(src)
		near := src
		if src.Is6() {
			b := src.As16()
			b[15] ^= 1 + byte(rand.N(255))
			near = netip.AddrFrom16(b)
		}
		if got, _ := c.order(near); !slices.Equal(got, want) {
			t.Fatalf("%v is taken to %v, %v to %v", src, ids(want), near, ids(got))
		}
	}
}

// Each node gets the share of sources that its weight is of all weights.
func TestOrderWeighs(t *testing.T) {
	const sources = 20000
	for _, weights := range [][]int{{0, 0}, {0, 0, 0}, {100, 50}, {1, 1000}, {10, 20, 30, 40}} {
		c := newChoice(weights...)
		got, all := map[string]int{}, 0
		for _, w := range weights {
			all += max(w, 1)
		}
		for range sources {
			nodes, _ := c.order(randomSource())
			got[nodes[0].ID]++
		}
		for i, w := range weights {
			id, want := fmt.Sprintf("fd00::%x", i+1), float64(sources)*float64(max(w, 1))/float64(all)
			if diff := math.Abs(float64(got[id]) - want); diff > 6*math.Sqrt(want)+1 { // six deviations
				t.Errorf("weights %v: node %d got %d of %d, want about %.0f", weights, i, got[id], sources, want)
			}
		}
	}
}

// When a node goes, its sources move, and no others; they spread over the rest. When
// weights change, sources move from lighter to heavier alone.
func TestOrderMovesFew(t *testing.T) {
	c := newChoice(100, 50, 200, 100)
	sources, before := map[netip.Addr][]string{}, map[string]int{}
	for range 5000 {
		src := randomSource()
		nodes, _ := c.order(src)
		sources[src] = ids(nodes)
		before[nodes[0].ID]++
	}
	after := map[string]int{}
	c.drop("fd00::3")
	for src, was := range sources {
		nodes, _ := c.order(src)
		want := slices.DeleteFunc(slices.Clone(was), func(id string) bool { return id == "fd00::3" })
		if !slices.Equal(ids(nodes), want) {
			t.Fatalf("%v was taken to %v and is to %v", src, was, ids(nodes))
		}
		after[nodes[0].ID]++
	}
	for _, id := range []string{"fd00::1", "fd00::2", "fd00::4"} {
		if after[id] <= before[id] {
			t.Errorf("node %s had %d and has %d: who went to the one that is gone does not spread", id, before[id], after[id])
		}
	}
	c = newChoice(100, 50, 200, 100)
	c.section.Nodes[1].Weight = 500
	c.apply()
	for src, was := range sources {
		if nodes, _ := c.order(src); nodes[0].ID != was[0] && nodes[0].ID != "fd00::2" {
			t.Fatalf("%v moved from %s to %s", src, was[0], nodes[0].ID)
		}
	}
}

// What is drained, or does not answer, comes later, and is never left out.
func TestOrderPlaces(t *testing.T) {
	for _, tt := range []struct {
		name           string
		drained, dead  []string
		nodes, reserve string
	}{
		{"all well", nil, nil, "123", ""},
		{"one dead", nil, []string{"1"}, "231", ""},
		{"all dead", nil, []string{"1", "2", "3"}, "123", ""},
		{"one drained", []string{"2"}, nil, "13", "2"},
		{"all drained", []string{"1", "2", "3"}, nil, "123", ""},
		{"one drained, one dead", []string{"1"}, []string{"2"}, "32", "1"},
		{"the others dead", []string{"1"}, []string{"2", "3"}, "123", ""},
		{"one both", []string{"3"}, []string{"3"}, "12", "3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newChoice(0, 0, 0)
			for i := range c.section.Nodes {
				c.section.Nodes[i].Draining = slices.Contains(tt.drained, fmt.Sprint(i+1))
			}
			c.apply()
			for _, id := range tt.dead {
				c.miss("fd00::"+id, probeMisses)
			}
			for range 200 {
				nodes, drained := c.order(randomSource())
				got := func(nodes []Node) (s string) {
					for _, n := range nodes {
						s += n.ID[len(n.ID)-1:]
					}
					return s
				}
				if !placed(got(nodes), tt.nodes, tt.dead, tt.drained) || got(drained) != tt.reserve {
					t.Fatalf("got %s, then %s; want %s, then %s", got(nodes), got(drained), tt.nodes, tt.reserve)
				}
			}
		})
	}
}

// placed reports whether got is want but for the order of those that are alike.
func placed(got, want string, dead, drained []string) bool {
	if len(got) != len(want) {
		return false
	}
	kind := func(r byte) (k int) {
		if slices.Contains(dead, string(r)) {
			k++
		}
		if slices.Contains(drained, string(r)) {
			k += 2
		}
		return k
	}
	for i := range got {
		if kind(got[i]) != kind(want[i]) {
			return false
		}
	}
	return true
}

// A node that is drained keeps its connections and gets no new ones, however slow the
// other one is, unless that fails or is silent for long.
func TestDrainedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := section("acme", "a.example", "fd00::1", "fd00::2")
		w := newWorld(t, Config{}, mapOf(s))
		src := w.whoTriesFirst("a.example", "fd00::1")
		client := w.say(helloFor("a.example"), src)
		node, _ := w.accept(w.node("fd00::1"))
		w.expect(node, string(helloFor("a.example")))

		s.Version, s.Nodes[0].Draining = 2, true
		w.g.SetRoutes(NewTable(mapOf(s)))
		w.talk(client, node)
		w.node("fd00::2").delay = 900 * time.Millisecond
		w.say(helloFor("a.example"), src)
		w.accept(w.node("fd00::2"))
		<-time.After(time.Minute)
		if n := w.node("fd00::1").dialed; n != 1 {
			t.Errorf("the drained node was dialed %d times, want once", n)
		}

		w.node("fd00::2").down = true
		start := time.Now()
		w.say(helloFor("a.example"), src)
		w.accept(w.node("fd00::1"))
		if took := time.Since(start); took != drainedWait {
			t.Errorf("with the other silent it was reached after %v, want %v", took, drainedWait)
		}
		w.remove("fd00::2")
		start = time.Now()
		w.say(helloFor("a.example"), src)
		w.accept(w.node("fd00::1"))
		if took := time.Since(start); took != 0 {
			t.Errorf("with the other gone it was reached after %v", took)
		}
		w.talk(client, node)
	})
}

// The spares of a node that is drained are closed.
func TestDrainedNodeHasNoSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := spareWorld(t, "fd00::1", "fd00::2")
		w.answer(w.node("fd00::1"))
		w.answer(w.node("fd00::2"))
		w.visit(4)
		synctest.Wait()
		<-time.After(spareTick)
		if w.g.Stats().Spares == 0 {
			t.Fatal("there are no spares to begin with")
		}
		s := section("acme", "a.example", "fd00::1", "fd00::2")
		s.Nodes[0].Draining, s.Nodes[1].Draining = true, true
		w.g.SetRoutes(NewTable(mapOf(s)))
		if n := w.g.Stats().Spares; n != 0 {
			t.Errorf("there are %d spares of nodes that are drained", n)
		}
	})
}
