package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// dialStagger is how long one node is waited for before the next of the
	// same route is tried beside it.
	dialStagger = 300 * time.Millisecond

	// dialRetry is how long after all nodes failed they are tried again.
	dialRetry = 200 * time.Millisecond
)

// dial connects f to a node that its name leads to, or to the coordinator (the
// zero Node). It goes on trying for Config.DialTimeout, always by the newest
// table: a node that shakes hands anew or comes back is worth a moment's wait,
// and browsers wait gladly. The name must stay with the tenant, and the tenant
// open to the client.
func (g *Gateway) dial(ctx context.Context, f *flow) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.DialTimeout)
	defer cancel()
	for {
		target, ok := g.lookup(f.name)
		switch {
		case !ok || target.Tenant != f.tenant:
			return nil, errUnknownName
		case !g.flows.admitted(f, &g.routes, g.cfg.Now()):
			return nil, errNotAdmitted
		}
		c, node, err := g.dialTarget(ctx, target)
		if err == nil {
			f.node = node
			if g.flows.add(f, &g.routes, g.cfg.Now()) {
				return c, nil
			}
			c.Close()
			continue
		}
		select {
		case <-ctx.Done():
			return nil, refusal{reason: Offline, alert: alertInternalError, detail: err.Error()}
		case <-time.After(dialRetry):
		}
	}
}

// lookup returns where name leads as things stand.
func (g *Gateway) lookup(name string) (Target, bool) {
	t, ok := g.routes.Load().Lookup(name)
	if ok && t.Tenant == "" && g.cfg.DialCoordinator == nil {
		return Target{}, false
	}
	return t, ok
}

// dialTarget tries all of a target's nodes once: the next when one has failed or
// takes long, and the first to answer is it.
func (g *Gateway) dialTarget(ctx context.Context, t Target) (net.Conn, Node, error) {
	if t.Tenant == "" {
		c, err := g.cfg.DialCoordinator(ctx)
		return c, Node{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	nodes := g.failing.last(time.Now(), t.Nodes)
	answers := make(chan answer, len(nodes)) // room for all: none waits to be heard
	var dialers sync.WaitGroup
	defer func() {
		cancel()
		dialers.Wait()
		close(answers)
		for late := range answers {
			if late.err == nil {
				late.conn.Close()
			}
		}
	}()

	var err error = errors.New("no nodes")
	for trying := 0; trying > 0 || len(nodes) > 0; {
		var stagger <-chan time.Time
		if len(nodes) > 0 {
			node := nodes[0]
			nodes = nodes[1:]
			dialers.Go(func() { answers <- g.dialNode(ctx, node) })
			trying++
		}
		if len(nodes) > 0 {
			stagger = time.After(dialStagger)
		}
		select {
		case a := <-answers:
			if a.err == nil {
				return a.conn, a.node, nil
			}
			trying--
			err = fmt.Errorf("dial node %s at %v: %w", a.node.ID, a.node.Addr, a.err)
		case <-stagger:
		}
	}
	return nil, Node{}, err
}

// An answer is what came of dialing one node.
type answer struct {
	conn net.Conn
	node Node
	err  error
}

func (g *Gateway) dialNode(ctx context.Context, n Node) answer {
	c, err := g.cfg.Dial(ctx, n.Addr)
	switch {
	case err == nil:
		g.failing.answered(n.Addr)
	case !errors.Is(context.Cause(ctx), context.Canceled): // another node was quicker
		g.failing.failed(time.Now(), n.Addr)
	}
	return answer{c, n, err}
}

// A node that failed maxFailures times in a row is tried after all others of its
// route, until it answers or failureAge has gone by.
const (
	maxFailures = 3
	failureAge  = 30 * time.Second
)

// failing remembers the nodes that did not answer.
type failing struct {
	mu    sync.Mutex
	nodes map[netip.AddrPort]failure
}

type failure struct {
	times int // in a row
	last  time.Time
}

func (f *failing) failed(now time.Time, addr netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes == nil {
		f.nodes = map[netip.AddrPort]failure{}
	}
	f.nodes[addr] = failure{f.nodes[addr].times + 1, now}
}

func (f *failing) answered(addr netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.nodes, addr)
}

// last returns nodes with those put last that are not worth trying first.
func (f *failing) last(now time.Time, nodes []Node) []Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	good, bad := make([]Node, 0, len(nodes)), []Node(nil)
	for _, n := range nodes {
		if e, ok := f.nodes[n.Addr]; ok && e.times >= maxFailures && now.Sub(e.last) < failureAge {
			bad = append(bad, n)
		} else {
			good = append(good, n)
		}
	}
	return append(good, bad...)
}

// forget drops what is too old to matter.
func (f *failing) forget(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for addr, e := range f.nodes {
		if now.Sub(e.last) >= failureAge {
			delete(f.nodes, addr)
		}
	}
}
