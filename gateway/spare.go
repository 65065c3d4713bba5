package gateway

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Spares are connections to nodes, dialed before anybody needs them: a client
// that gets one does not wait while it is opened, which is a round trip through
// the tunnel. Nothing was said on one yet.
//
// A node gets as many as came to it at once lately. It keeps each for twice
// spareAge (docs/protocol.md, section 5). One that ends before that, with the
// node or because the node is of an older version, shows it; then the node gets
// none for spareBackoff.
type spares struct {
	// Static after newSpares.
	dial    func(context.Context, Node) (net.Conn, error)
	turn    chan struct{} // held by run
	changed chan struct{} // tells run to look again

	mu      sync.Mutex
	running bool
	stocks  map[Node]*stock // of nodes that lately got a connection
	total   int             // spares, those included that are being dialed
}

const (
	// What comes within spareSlot comes at once: those taken are not replaced yet.
	spareSlot = 250 * time.Millisecond

	// spareWindow is how long demand is remembered at least; at most it is twice
	// as long.
	spareWindow = 10 * time.Second

	spareAge     = time.Minute // after which one is not used any more
	spareBackoff = time.Minute // without any at a node that does not keep them
	spareTick    = time.Second // how often what grows old is looked for

	maxSpares     = 512 // in all
	maxNodeSpares = 32  // at one node, which takes many more
)

// A stock is one node's.
type stock struct {
	idle    []*spare // the oldest first
	dialing int
	none    time.Time // until then there are to be none

	slot   time.Time // when it began
	came   int       // connections since
	window time.Time // when it began
	most   [2]int    // that came in a slot: of this window, of the one before
}

type spare struct {
	reserve
	since   time.Time
	stirred atomic.Bool // something may have come since we looked, its end that is
}

// A reserve is a conn that can be a spare: one that tells what becomes of it.
type reserve interface {
	net.Conn

	// ReadReady reports whether Read would return at once. If not, f is called
	// once when it would or might, and must not block.
	ReadReady(f func()) bool

	// Heard returns how many packets came from the other end.
	Heard() uint64
}

// dialSpare dials n, for as long as a client would be made to wait.
func (g *Gateway) dialSpare(ctx context.Context, n Node) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.DialTimeout)
	defer cancel()
	return g.cfg.Dial(ctx, n.Addr)
}

func newSpares(dial func(context.Context, Node) (net.Conn, error)) *spares {
	return &spares{
		dial: dial, turn: make(chan struct{}, 1), changed: make(chan struct{}, 1), stocks: map[Node]*stock{},
	}
}

// run keeps the stocks until ctx ends. When it returns, there are no spares. Of
// calls at the same time, one does the work.
func (s *spares) run(ctx context.Context) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-s.turn }()
	s.setRunning(true)
	var dialers sync.WaitGroup
	defer dialers.Wait()
	defer s.keep(func(Node) bool { return false })
	defer s.setRunning(false)
	for {
		lacking, some := s.look(time.Now())
		for _, l := range lacking {
			dialers.Go(func() { s.add(ctx, l) })
		}
		var tick <-chan time.Time
		if some {
			tick = time.After(spareTick)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-tick:
		}
	}
}

func (s *spares) setRunning(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = on
}

// stir has sp looked at.
func (s *spares) stir(sp *spare) {
	sp.stirred.Store(true)
	s.poke()
}

// poke has run look again.
func (s *spares) poke() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// look closes what has ended, is too old or too much. It returns one lack for
// each spare that is to be dialed, and counts it as being dialed, and whether
// there are any stocks.
func (s *spares) look(now time.Time) (lacking []lack, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, k := range s.stocks {
		if k.roll(now) && k.want(now) == 0 && now.After(k.none) {
			s.clear(k)
			delete(s.stocks, n)
			continue
		}
		s.sift(k, now)
		for len(k.idle)+k.dialing < k.want(now) && s.total < maxSpares {
			k.dialing++
			s.total++
			lacking = append(lacking, lack{n, k})
		}
	}
	return lacking, len(s.stocks) > 0
}

// A lack is a node's of one spare.
type lack struct {
	node  Node
	stock *stock
}

// add dials one spare.
func (s *spares) add(ctx context.Context, l lack) {
	c, err := s.dial(ctx, l.node)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	k := l.stock
	k.dialing--
	switch {
	case err != nil:
		s.total--
		k.none = now.Add(spareBackoff)
	case s.stocks[l.node] != k || len(k.idle) >= k.want(now):
		s.total--
		c.Close()
	default:
		sp := &spare{reserve: c.(reserve), since: now}
		k.idle = append(k.idle, sp)
		s.stir(sp)
	}
}

// take returns a spare of n's, nil if there is none. The caller closes it.
func (s *spares) take(n Node) reserve {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.stocks[n]
	if k == nil {
		return nil
	}
	s.sift(k, time.Now())
	if len(k.idle) == 0 {
		return nil
	}
	last := len(k.idle) - 1
	sp := k.idle[last]
	k.idle = k.idle[:last]
	if sp.ReadReady(func() {}) { // it is ours no more to be told of
		s.drop(sp)
		return nil
	}
	s.total--
	return sp.reserve
}

// came counts that a client got c, a connection to n.
func (s *spares) came(n Node, c net.Conn) {
	if _, ok := c.(reserve); !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return
	}
	now := time.Now()
	k := s.stocks[n]
	if k == nil { // one alone is no reason for a spare
		s.stocks[n] = &stock{slot: now, came: 1, window: now}
	} else {
		k.count(now)
	}
	s.poke()
}

// distrust closes n's spares, since one turned out to be of no use.
func (s *spares) distrust(n Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.stocks[n]; k != nil {
		k.none = time.Now().Add(spareBackoff)
		s.clear(k)
	}
}

// keep forgets the nodes that still does not report, and closes their spares.
func (s *spares) keep(still func(Node) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, k := range s.stocks {
		if !still(n) {
			s.clear(k)
			delete(s.stocks, n)
		}
	}
}

// count returns how many spares there are, those being dialed not included.
func (s *spares) count() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.stocks {
		n += int64(len(k.idle))
	}
	return n
}

// sift closes the spares of k that have ended, are too old or too many. The lock
// is held.
func (s *spares) sift(k *stock, now time.Time) {
	k.idle = slices.DeleteFunc(k.idle, func(sp *spare) bool {
		old := now.Sub(sp.since) >= spareAge
		ended := sp.stirred.Swap(false) && sp.ReadReady(func() { s.stir(sp) })
		if ended && !old {
			k.none = now.Add(spareBackoff)
		}
		if ended || old {
			s.drop(sp)
		}
		return ended || old
	})
	for len(k.idle) > k.want(now) {
		s.drop(k.idle[0])
		k.idle = slices.Delete(k.idle, 0, 1)
	}
}

// clear closes all spares of k. The lock is held.
func (s *spares) clear(k *stock) {
	for _, sp := range k.idle {
		s.drop(sp)
	}
	k.idle = nil
}

// drop closes a spare that is to leave its stock. The lock is held.
func (s *spares) drop(sp *spare) {
	sp.Close()
	s.total--
}

// count counts a connection that came.
func (k *stock) count(now time.Time) {
	k.roll(now)
	if now.Sub(k.slot) >= spareSlot {
		k.slot, k.came = now, 0
	}
	k.came++
	k.most[0] = max(k.most[0], k.came)
}

// roll begins another window if this one is over, and reports whether it was.
func (k *stock) roll(now time.Time) bool {
	age := now.Sub(k.window)
	if age < spareWindow {
		return false
	}
	k.most = [2]int{0, k.most[0]}
	if age >= 2*spareWindow {
		k.most[1] = 0
	}
	k.window = now
	return true
}

// want returns how many spares there should be.
func (k *stock) want(now time.Time) int {
	if now.Before(k.none) {
		return 0
	}
	return min(max(k.most[0], k.most[1]), maxNodeSpares)
}
