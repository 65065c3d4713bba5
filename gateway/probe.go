package gateway

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postern"
	"postern/internal/proxyproto"
)

// Each node is asked now and then, through the tunnel, whether it takes connections: a
// tunnel that shakes hands may lead to a machine that does nothing any more.
// docs/decisions/liveness.md has the reasons and what it costs.
const (
	probeBusy    = 5 * time.Second  // from one probe to the next, of a node with connections or beside others of a route
	probeIdle    = 20 * time.Second // the same of any other
	probeLost    = 5 * time.Minute  // at most, of one that does not answer: each wait is twice the last
	probeTimeout = 2 * time.Second
	probeMisses  = 2           // in a row, the second at once after the first: it is unhealthy until it answers
	probeSoon    = time.Second // at least, between two probes of a node that somebody wants to know about
	probeRate    = 500         // a second, of all nodes
	maxProbes    = 512         // at the same time
)

// A prober knows which nodes answer. Its methods are safe for concurrent use.
type prober struct {
	// Static after newProber.
	probe   func(context.Context, Node) (rtt time.Duration, err error)
	busy    func(Node) bool // it has connections
	changed chan struct{}   // tells run that another may be due first

	mu    sync.Mutex
	nodes map[Node]*probed
	queue probeQueue
	hurry int // nodes that were busy, or beside others, when they were asked last
	stats ProbeStats
}

// A probed is what is known of one node. Its fields are guarded by prober.mu.
type probed struct {
	node   Node
	shared bool // a route has others besides

	due     time.Time
	index   int  // in the queue; -1: it is being probed
	hurried bool // it counts among prober.hurry
	asked   time.Time
	soon    bool // somebody wanted to know while it was being probed

	answered time.Time // zero: never
	rtt      time.Duration
	misses   int   // since
	err      error // of the last of them
}

func newProber(probe func(context.Context, Node) (time.Duration, error), busy func(Node) bool) *prober {
	return &prober{probe: probe, busy: busy, changed: make(chan struct{}, 1), nodes: map[Node]*probed{}}
}

// Probe probes the nodes of the map until ctx is done. Without it every node counts as
// one that answers. It is to be called once.
func (g *Gateway) Probe(ctx context.Context) { g.prober.run(ctx) }

// Probed returns what came of the probes of n, nil if nothing did yet.
func (g *Gateway) Probed(n Node) *postern.ProbeStatus { return g.prober.status(n) }

// Heard says that something came from n, by whatever way: if it did not answer, it is
// asked again soon.
func (g *Gateway) Heard(n Node) {
	if !g.prober.healthy(n) {
		g.prober.ask(n)
	}
}

// run probes until ctx is done.
func (p *prober) run(ctx context.Context) {
	var probes sync.WaitGroup
	defer probes.Wait()
	pace, room := rate.NewLimiter(probeRate, 1), make(chan struct{}, maxProbes)
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		n, ok := p.next(ctx)
		if !ok {
			return
		}
		probes.Go(func() {
			p.look(ctx, n)
			<-room
		})
		if pace.Wait(ctx) != nil {
			return
		}
	}
}

// next waits until a node is due and takes it out of the queue. It reports false if ctx
// ended first.
func (p *prober) next(ctx context.Context) (Node, bool) {
	for {
		n, wait := p.pop(time.Now())
		if wait == 0 {
			return n, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return Node{}, false
		}
	}
}

// pop takes the first node out of the queue if it is due, or returns how long to wait.
func (p *prober) pop(now time.Time) (Node, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return Node{}, probeLost // or until there is one
	}
	first := p.queue[0]
	if wait := first.due.Sub(now); wait > 0 {
		return Node{}, wait
	}
	heap.Pop(&p.queue)
	first.asked, first.soon = now, false
	return first.node, 0
}

// look probes n, notes what came of it and puts n back into the queue.
func (p *prober) look(ctx context.Context, n Node) {
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	rtt, err := p.probe(probing, n)
	cancel()
	if ctx.Err() != nil {
		return
	}
	busy, now := p.busy(n), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.count(rtt, err)
	k := p.nodes[n]
	if k == nil || k.index >= 0 {
		return // gone meanwhile, or gone and back
	}
	if err != nil {
		k.misses, k.err = k.misses+1, err
	} else {
		k.answered, k.rtt, k.misses, k.err = now, rtt, 0, nil
	}
	p.setHurried(k, busy || k.shared)
	wait := p.wait(k)
	if k.soon {
		wait = min(wait, k.patience())
	}
	k.due = now.Add(wait)
	p.push(k)
}

// wait returns how long k has until it is asked again. So many nodes that it would be
// more than probeRate wait longer: half of that is for those that hurry. The lock is held.
func (p *prober) wait(k *probed) time.Duration {
	share := func(nodes int) time.Duration { return time.Duration(nodes) * time.Second / (probeRate / 2) }
	var wait time.Duration
	switch {
	case k.misses > 0 && k.misses < probeMisses:
		return 0
	case k.misses > 0:
		wait = min(probeBusy<<min(k.misses-probeMisses, 10), probeLost)
	case k.hurried:
		wait = max(probeBusy, share(p.hurry))
	default:
		wait = max(probeIdle, share(len(p.nodes)-p.hurry))
	}
	return wait - wait/10 + rand.N(wait/5) // so that gateways do not ask in step
}

// setHurried notes whether k is one that hurries. The lock is held.
func (p *prober) setHurried(k *probed, on bool) {
	if on == k.hurried {
		return
	}
	if k.hurried = on; on {
		p.hurry++
	} else {
		p.hurry--
	}
}

// push puts k into the queue. The lock is held.
func (p *prober) push(k *probed) {
	heap.Push(&p.queue, k)
	p.wakeIfFirst(k)
}

// wakeIfFirst wakes run if k is the next that is due. The lock is held.
func (p *prober) wakeIfFirst(k *probed) {
	if k.index == 0 {
		select {
		case p.changed <- struct{}{}:
		default:
		}
	}
}

// want makes nodes those that are probed.
func (p *prober) want(nodes map[Node]trait) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, k := range p.nodes {
		if _, ok := nodes[n]; ok {
			continue
		}
		if delete(p.nodes, n); k.index >= 0 {
			heap.Remove(&p.queue, k.index)
		}
		p.setHurried(k, false)
	}
	now := time.Now()
	for n, trait := range nodes {
		k := p.nodes[n]
		if k == nil {
			k = &probed{node: n, due: now}
			p.nodes[n] = k
			p.push(k)
		}
		k.shared = trait.shared
	}
}

// patience is how long after a probe of k there may be another one because somebody wants
// to know. A node from which something comes and which does not answer is asked less often.
func (k *probed) patience() time.Duration {
	return min(probeSoon<<min(max(k.misses-probeMisses, 0), 10), probeBusy)
}

// ask has n probed soon: at once, unless that has just been done.
func (p *prober) ask(n Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.nodes[n]
	switch {
	case k == nil:
	case k.index < 0:
		k.soon = true
	default:
		if soon := k.asked.Add(k.patience()); soon.Before(k.due) {
			k.due = soon
			heap.Fix(&p.queue, k.index)
			p.wakeIfFirst(k)
		}
	}
}

// healthy reports whether n is worth trying before one that is not.
func (p *prober) healthy(n Node) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.nodes[n]
	return k == nil || k.healthy()
}

func (k *probed) healthy() bool { return k.misses < probeMisses }

// status returns what is known of n, nil if that is nothing.
func (p *prober) status(n Node) *postern.ProbeStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.nodes[n]
	if k == nil || k.answered.IsZero() && k.healthy() {
		return nil
	}
	s := &postern.ProbeStatus{RTT: postern.Duration(k.rtt.Round(time.Microsecond))}
	if !k.answered.IsZero() {
		// By the clock as it is now, and not as it was: who reads it compares.
		s.Time = time.Now().Round(0).Add(-time.Since(k.answered))
	}
	if !k.healthy() {
		s.Error = k.err.Error()
	}
	return s
}

// counts returns the stats as they are now.
func (p *prober) counts() ProbeStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	for _, k := range p.nodes {
		if k.healthy() {
			s.Healthy++
		} else {
			s.Unhealthy++
		}
	}
	return s
}

// A probeQueue has the nodes that are not being probed, the next that is due first.
type probeQueue []*probed

func (q probeQueue) Len() int           { return len(q) }
func (q probeQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q probeQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *probeQueue) Push(x any) {
	k := x.(*probed)
	k.index = len(*q)
	*q = append(*q, k)
}

// Pop implements heap.Interface.
func (q *probeQueue) Pop() any {
	last := len(*q) - 1
	k := (*q)[last]
	k.index = -1
	(*q)[last] = nil
	*q = (*q)[:last]
	return k
}

// Why a probe was missed, for people.
var (
	errMissed     = errors.New("no answer within 2 s")
	errNoAnswer   = errors.New("it closed the connection without an answer: it is about to stop, or of an older version")
	errOddAnswer  = errors.New("it answered something else than a node does")
	errNotReached = errors.New("no connection")
)

// probeNode asks n whether it takes connections, over one of its own: that is what is to
// be known. It returns how long the answer took, the connection's opening not included.
func (g *Gateway) probeNode(ctx context.Context, n Node) (time.Duration, error) {
	c, err := g.cfg.Dial(ctx, n.Addr)
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, errMissed
	case err != nil:
		return 0, fmt.Errorf("%w: %w", errNotReached, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	began := time.Now()
	if _, err := c.Write(probeHeader); err != nil {
		return 0, fmt.Errorf("%w: %w", errNotReached, err)
	}
	err = readProbeAnswer(c)
	return time.Since(began), err
}

// probeHeader is a PROXY v2 header with the command LOCAL.
var probeHeader = func() []byte {
	b, err := proxyproto.Header{Local: true}.AppendBinary(nil)
	if err != nil {
		panic("gateway: " + err.Error())
	}
	return b
}()

// readProbeAnswer reads a node's answer to a probe, to its end: the node closes first, so
// that what TCP remembers of a connection (TIME_WAIT) is spread over the nodes.
func readProbeAnswer(r io.Reader) error {
	var b [len(postern.ProbeAnswer) + 1]byte
	switch n, err := io.ReadFull(r, b[:]); {
	case err == nil:
		return errOddAnswer // there is more
	case string(b[:n]) == postern.ProbeAnswer:
		return nil
	case isTimeout(err):
		return errMissed
	case n > 0:
		return errOddAnswer
	case errors.Is(err, io.EOF):
		return errNoAnswer
	default:
		return fmt.Errorf("%w: %w", errNotReached, err)
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
