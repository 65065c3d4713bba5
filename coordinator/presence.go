package coordinator

import (
	"context"
	"errors"
	"sync"
	"time"

	"postern"
)

// freshHandshake is how long a tunnel's handshake proves that it works: as long
// as WireGuard itself uses a session (whitepaper, section 6.1: Reject-After-Time).
const freshHandshake = 180 * time.Second

// isFresh reports whether a handshake proves that its tunnel works. One that
// is still to come proves that a clock was set back.
func isFresh(handshake, now time.Time) bool {
	age := now.Sub(handshake)
	return age >= 0 && age < freshHandshake
}

// heardFor is how long bytes from a node prove that it is there: two of a node's
// keepalives (25 s), and the report that tells of them.
const heardFor = 2*25*time.Second + 2*postern.StatusInterval

// A heard says that a gateway got bytes from a node between two of its reports.
type heard struct{ after, until time.Time }

// presence is who is connected, and what gateways say of their tunnels and nodes of
// their certificates. It is
// not kept over a restart: what is true shows again within seconds.
type presence struct {
	// Static after New.
	before  map[string]bool // members that there were when the coordinator started, by id
	resumed time.Time       // until when they have time to come back

	mu      sync.Mutex
	streams map[string]*mapStream // by member id; the newest of each
	seen    map[string]time.Time  // by member id; when its last stream ended
	unsaved map[string]bool       // of seen, by member id
	reports map[string]report     // by gateway id
	heard   map[[2]string]heard   // by gateway and node id; the last time
	reached map[[2]string]reach   // by gateway and node id; as moved saw it last
	acting  map[string]uint64     // by gateway id; versions that they told since their streams opened
	told    map[string]told       // by node id; what it said last of its certificates
	news    chan struct{}         // closed when streams or acting change
}

func newPresence() presence {
	return presence{
		streams: make(map[string]*mapStream), seen: make(map[string]time.Time),
		unsaved: make(map[string]bool), reports: make(map[string]report), heard: make(map[[2]string]heard),
		acting: make(map[string]uint64), told: make(map[string]told), news: make(chan struct{}),
	}
}

// A report is the last Status of a gateway.
type report struct {
	time  time.Time
	peers map[string]postern.PeerStatus // by node id
	acts  uint64                        // version of the map that it acts on; zero: it does not say

	draining bool
}

// A mapStream is one member's open stream.
type mapStream struct {
	opened time.Time
	ended  chan struct{} // closed when another stream took its place, or the coordinator stops
}

// open registers a stream for the member with id and ends the one it had.
func (p *presence) open(id string, now time.Time) *mapStream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.streams[id]; old != nil {
		close(old.ended)
	}
	s := &mapStream{opened: now, ended: make(chan struct{})}
	p.streams[id] = s
	delete(p.acting, id)
	p.tell()
	return s
}

// tell wakes who waits for news. The lock is held.
func (p *presence) tell() {
	close(p.news)
	p.news = make(chan struct{})
}

// close forgets s, which was the member's with id until now.
func (p *presence) close(id string, s *mapStream, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams[id] == s {
		delete(p.streams, id)
		delete(p.acting, id)
		p.tell()
	}
	p.seen[id], p.unsaved[id] = now, true
}

// endAll ends every stream.
func (p *presence) endAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		close(s.ended)
	}
	clear(p.streams)
	clear(p.acting)
	p.tell()
}

// report keeps what the gateway with id says of its tunnels.
func (p *presence) report(id string, r report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.reports[id]
	for node, peer := range r.peers {
		if before, ok := last.peers[node]; ok && peer.Received > before.Received {
			p.heard[[2]string{id, node}] = heard{last.time, r.time}
		}
	}
	p.reports[id] = r
	if p.streams[id] != nil {
		p.acting[id] = r.acts
		p.tell()
	}
}

// act reports whether all of gateways that are connected act on that version of the
// map, or on a newer one, as far as they say. If they do not, news is closed when
// that may have changed. One that has said nothing for long is not waited for: its
// stream is still to be found dead.
func (p *presence) act(gateways []*Member, version uint64, now time.Time) (ok bool, news <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range gateways {
		stream := p.streams[g.ID]
		if stream == nil || now.Sub(stream.opened) >= reportAge && now.Sub(p.reports[g.ID].time) >= reportAge {
			continue
		}
		if acts, said := p.acting[g.ID]; !said || acts != 0 && acts < version {
			return false, p.news
		}
	}
	return true, nil
}

// anyActs reports whether one of gateways is connected and acts on some map. If not,
// news is closed when that may have changed.
func (p *presence) anyActs(gateways []*Member) (ok bool, news <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range gateways {
		if _, said := p.acting[g.ID]; said && p.streams[g.ID] != nil {
			return true, nil
		}
	}
	return false, p.news
}

// keep forgets all members but those in known, which is by id.
func (p *presence) keep(known map[string]*Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.seen {
		if known[id] == nil {
			delete(p.seen, id)
			delete(p.unsaved, id)
		}
	}
	for id := range p.reports {
		if known[id] == nil {
			delete(p.reports, id)
		}
	}
	for id := range p.told {
		if known[id] == nil {
			delete(p.told, id)
		}
	}
	for ids := range p.heard {
		if known[ids[0]] == nil || known[ids[1]] == nil {
			delete(p.heard, ids)
		}
	}
}

// control reports whether m's stream is open, and when it last was.
func (p *presence) control(m *Member, now time.Time) (open bool, seen time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams[m.ID] != nil {
		return true, now
	}
	if t, ok := p.seen[m.ID]; ok {
		return false, t
	}
	return false, m.Seen
}

// seenInterval is how often the times when members were last seen are stored.
const seenInterval = time.Minute

// keepSeen stores when members and sources were last seen, and forgets sources whose
// time is over, sessions that ended long ago and challenges that nobody came to, and logs
// what limits refused, now and then until ctx is done.
func (c *Coordinator) keepSeen(ctx context.Context) error {
	tick := time.NewTicker(seenInterval)
	defer tick.Stop()
	var hits map[string]int64
	for {
		select {
		case <-tick.C:
			hits = c.tellLimits(ctx, hits)
			c.keepReserve()
			c.storeSeen(ctx)
			c.sweepSessions(ctx)
			c.tellMoved()
			c.sweepSources(ctx)
			c.sweepChallenges(ctx)
			c.keepFit(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// storeSeen stores when members were last seen whose streams ended since the
// last time. What cannot be stored is lost, until they come back.
func (c *Coordinator) storeSeen(ctx context.Context) {
	seen := c.presence.takeUnsaved()
	if len(seen) == 0 {
		return
	}
	err := c.update(ctx, actorLocal, func(ch *change) error {
		for id, t := range seen {
			m, err := ch.Members().Get(id)
			if errors.Is(err, ErrNotFound) {
				continue // removed in the meantime
			}
			if err != nil {
				return err
			}
			m.Seen = t
			if err := ch.Members().Put(m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.log.Warn("times when members were last seen not stored", "err", err)
	}
}

func (p *presence) takeUnsaved() map[string]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := make(map[string]time.Time, len(p.unsaved))
	for id := range p.unsaved {
		seen[id] = p.seen[id]
	}
	clear(p.unsaved)
	return seen
}
