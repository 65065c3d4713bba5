package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
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
// zero Node), and says opening there. It goes on trying for Config.DialTimeout,
// always by the newest table: a node that shakes hands anew or comes back is worth
// a moment's wait, and browsers wait gladly. The name must stay with the tenant,
// and the tenant open to the client.
func (g *Gateway) dial(ctx context.Context, f *flow, opening []byte) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.DialTimeout)
	defer cancel()
	for {
		target, ok := g.lookup(f.name)
		switch {
		case !ok || target.Tenant != f.tenant:
			return answer{}, errUnknownName
		case !g.flows.admitted(f, &g.routes, g.cfg.Now()):
			return answer{}, errNotAdmitted
		}
		a := g.dialTarget(ctx, target, opening)
		if a.err == nil {
			f.node = a.node
			if g.flows.add(f, &g.routes, g.cfg.Now()) {
				return g.greet(a, opening)
			}
			g.flows.remove(f, g.cfg.Now())
			a.close()
			continue
		}
		select {
		case <-ctx.Done():
			return answer{}, offline(a.err)
		case <-time.After(dialRetry):
		}
	}
}

// offline refuses because of err.
func offline(err error) error {
	return refusal{reason: Offline, alert: alertInternalError, detail: err.Error()}
}

// lookup returns where name leads as things stand.
func (g *Gateway) lookup(name string) (Target, bool) {
	t, ok := g.routes.Load().Lookup(name)
	if ok && t.Tenant == "" && g.cfg.DialCoordinator == nil {
		return Target{}, false
	}
	return t, ok
}

// An answer is what came of trying one node.
type answer struct {
	conn  net.Conn
	node  Node
	again bool // it was the second attempt to dial
	err   error

	// What conn answered to the opening; nil if that was not said yet. The buffer
	// is one of helloBuffers.
	first  []byte
	buffer *[4 << 10]byte
}

func (a *answer) close() {
	a.conn.Close()
	a.free()
}

// free gives first's buffer back.
func (a *answer) free() {
	if a.buffer != nil {
		helloBuffers.Put(a.buffer)
		a.first, a.buffer = nil, nil
	}
}

// dialTarget tries a target's nodes: the next when one has failed or takes long,
// those again that were dialed and take long, and the first to answer is it. The
// second attempt is for a SYN that was lost: TCP sends it again after a second.
// To a spare, which is taken where there is one, the opening is said, and an
// answer is an answer to that.
func (g *Gateway) dialTarget(ctx context.Context, t Target, opening []byte) answer {
	if t.Tenant == "" {
		c, err := g.cfg.DialCoordinator(ctx)
		return answer{conn: c, err: err}
	}
	ctx, cancel := context.WithCancel(ctx)
	nodes := g.failing.last(time.Now(), t.Nodes)
	answers := make(chan answer, 2*len(nodes)) // room for all: none waits to be heard
	var dialers sync.WaitGroup
	defer func() {
		cancel()
		dialers.Wait()
		close(answers)
		for late := range answers {
			if late.err == nil {
				late.close()
			}
		}
	}()

	var err error = errors.New("no nodes")
	var silent []Node // that were dialed, once
	for trying := 0; trying > 0 || len(nodes) > 0; {
		if len(nodes) > 0 {
			node := nodes[0]
			nodes = nodes[1:]
			if spare := g.spares.take(node); spare != nil {
				dialers.Go(func() { answers <- g.ask(ctx, node, spare, opening) })
			} else {
				silent = append(silent, node)
				dialers.Go(func() { answers <- g.dialNode(ctx, node, false) })
			}
			trying++
		}
		var stagger <-chan time.Time
		if len(nodes)+len(silent) > 0 {
			stagger = time.After(dialStagger)
		}
		select {
		case a := <-answers:
			if a.err == nil {
				return a
			}
			trying--
			err = fmt.Errorf("dial node %s at %v: %w", a.node.ID, a.node.Addr, a.err)
			silent = slices.DeleteFunc(silent, func(n Node) bool { return n == a.node })
		case <-stagger:
			if len(nodes) == 0 {
				node := silent[0]
				silent = silent[1:]
				dialers.Go(func() { answers <- g.dialNode(ctx, node, true) })
				trying++
			}
		}
	}
	return answer{err: err}
}

// dialNode dials n.
func (g *Gateway) dialNode(ctx context.Context, n Node, again bool) answer {
	c, err := g.cfg.Dial(ctx, n.Addr)
	switch {
	case err == nil:
		g.failing.answered(n.Addr)
	case !again && !errors.Is(context.Cause(ctx), context.Canceled): // no other node was quicker
		g.failing.failed(time.Now(), n.Addr)
	}
	return answer{conn: c, node: n, again: again, err: err}
}

// ask says opening to n on a spare and waits for what n says to that. If the spare
// turns out to be dead, it dials n.
func (g *Gateway) ask(ctx context.Context, n Node, spare net.Conn, opening []byte) answer {
	a := answer{conn: spare, node: n, buffer: helloBuffers.Get().(*[4 << 10]byte)}
	keep := context.AfterFunc(ctx, func() { spare.Close() })
	_, err := spare.Write(opening)
	if err == nil {
		var k int
		k, err = spare.Read(a.buffer[:])
		a.first = a.buffer[:k]
	}
	if keep() && err == nil {
		g.failing.answered(n.Addr)
		return a
	}
	a.close()
	switch cause := context.Cause(ctx); {
	case cause == nil:
		g.spares.distrust(n)
		return g.dialNode(ctx, n, false)
	case errors.Is(cause, context.DeadlineExceeded): // no other node was quicker
		g.spares.distrust(n)
		g.failing.failed(time.Now(), n.Addr)
		fallthrough
	default:
		return answer{node: n, err: cause}
	}
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
