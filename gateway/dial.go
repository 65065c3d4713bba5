package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// dialStagger is how long one node is waited for before the next of the
	// same route is tried beside it.
	dialStagger = 300 * time.Millisecond

	// askInterval is how often one looks whether a node has heard what was said on
	// a spare.
	askInterval = dialStagger / 3

	// dialRetry is how long after all nodes failed they are tried again.
	dialRetry = 200 * time.Millisecond

	// drainedWait is how long the others of a route may take before a node is tried that
	// is being drained.
	drainedWait = time.Second
)

// dial connects f to a node that its name leads to, or to the coordinator (the
// zero Node), and says opening there. It goes on trying for Config.DialTimeout,
// always by the newest table: a node that shakes hands anew or comes back is worth
// a moment's wait, and browsers wait gladly. The name must stay with the tenant,
// and the tenant open to the client.
func (g *Gateway) dial(ctx context.Context, f *flow, opening []byte) (answer, error) {
	dialCtx, cancel := context.WithTimeout(ctx, g.cfg.DialTimeout)
	defer cancel()
	for {
		target, err := g.stillOpen(f)
		if err != nil {
			return answer{}, err
		}
		a := g.dialTarget(dialCtx, f, target, opening)
		if a.err == nil {
			f.node = a.node
			if g.flows.add(f, &g.routes, g.cfg.Now()) {
				return g.greet(ctx, a, opening)
			}
			a.close()
			continue
		}
		select {
		case <-dialCtx.Done():
			return answer{}, offline(a.err)
		case <-time.After(dialRetry):
		}
	}
}

// stillOpen returns where f's name leads as things stand, or why f may not go there.
func (g *Gateway) stillOpen(f *flow) (Target, error) {
	target, ok := g.lookup(f.name)
	switch {
	case !ok || target.Tenant != f.tenant:
		return Target{}, errUnknownName
	case !g.flows.admitted(f, &g.routes, g.cfg.Now()):
		return Target{}, errNotAdmitted
	case f.acme:
		return target.challenged(), nil
	}
	return target, nil
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
	conn net.Conn
	node Node
	err  error

	said   bool           // the opening was said on conn
	first  []byte         // what conn answered to it so far
	buffer *[4 << 10]byte // of helloBuffers, that first is in
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
// Nodes that are being drained come when the others have all failed or take longer still.
// On a spare, which is taken where there is one, the opening is said, and an
// answer is one to that.
func (g *Gateway) dialTarget(ctx context.Context, f *flow, t Target, opening []byte) answer {
	if t.Tenant == "" {
		c, err := g.cfg.DialCoordinator(ctx)
		return answer{conn: c, err: err}
	}
	ctx, cancel := context.WithCancel(ctx)
	nodes, drained := g.order(f, t)
	answers := make(chan answer, 2*len(t.Nodes)) // room for all: none waits to be heard
	var dialers sync.WaitGroup
	defer func() {
		cancel()
		dialers.Wait()
		hangUp(answers)
	}()

	var err error = errors.New("no nodes")
	var silent []Node           // that were dialed, once
	var waited <-chan time.Time // for the others, long enough
	if len(drained) > 0 {
		waited = time.After(drainedWait)
	}
	for trying := 0; trying > 0 || len(nodes)+len(drained) > 0; {
		if trying == 0 && len(nodes) == 0 {
			nodes, drained, waited = drained, nil, nil
		}
		if len(nodes) > 0 {
			node := nodes[0]
			nodes = nodes[1:]
			if spare := g.spares.take(node); spare != nil {
				dialers.Go(func() { answers <- g.ask(ctx, f, node, spare, opening) })
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
		case <-waited:
			nodes, drained, waited = append(nodes, drained...), nil, nil
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

// hangUp closes what comes too late of answers, to which nobody sends any more.
func hangUp(answers chan answer) {
	close(answers)
	for late := range answers {
		if late.err == nil {
			late.close()
		}
	}
}

// dialNode dials n.
func (g *Gateway) dialNode(ctx context.Context, n Node, again bool) answer {
	c, err := g.cfg.Dial(ctx, n.Addr)
	switch {
	case err == nil:
		g.Heard(n)
	case !again && !errors.Is(context.Cause(ctx), context.Canceled): // no other node was quicker
		g.prober.ask(n)
	}
	return answer{conn: c, node: n, err: err}
}

// ask says opening to n on a spare and waits for what n says to that, or for a sign
// that n has heard it: a node with much to do is not a dead one, nor in need of more
// to do. If the spare turns out to be dead, it dials n.
func (g *Gateway) ask(ctx context.Context, f *flow, n Node, spare reserve, opening []byte) answer {
	if _, err := g.stillOpen(f); err != nil { // it was when the first node was tried
		spare.Close()
		return answer{node: n, err: err}
	}
	keep := context.AfterFunc(ctx, func() { spare.Close() })
	a := answer{conn: spare, node: n, said: true, buffer: helloBuffers.Get().(*[4 << 10]byte)}
	var err error
	a.first, err = converse(spare, opening, a.buffer[:])
	if keep() && err == nil {
		g.Heard(n)
		return a
	}
	a.close()
	switch cause := context.Cause(ctx); {
	case cause == nil:
		g.spares.distrust(n)
		return g.dialNode(ctx, n, false)
	case errors.Is(cause, context.DeadlineExceeded): // no other node was quicker
		g.spares.distrust(n)
		g.prober.ask(n)
		fallthrough
	default:
		return answer{node: n, err: cause}
	}
}

// converse says opening and returns what comes first, in buf. It is nil if after
// askInterval or a multiple of that nothing came but packets: the opening arrived.
func converse(c reserve, opening, buf []byte) (first []byte, err error) {
	defer c.SetReadDeadline(time.Time{})
	before := c.Heard()
	if _, err := c.Write(opening); err != nil {
		return nil, err
	}
	for {
		c.SetReadDeadline(time.Now().Add(askInterval))
		k, err := c.Read(buf)
		switch {
		case k > 0:
			return buf[:k], nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		}
		c.SetReadDeadline(time.Time{})
		if c.Heard() > before && !c.ReadReady(func() {}) {
			return nil, nil
		}
	}
}
