package netstack

import "sync"

// Paths are those to all peers that were sent something. They are made as needed.
type paths struct {
	stir func() // called when there is something to take

	mu     sync.RWMutex
	byPeer map[[16]byte]*path
	closed bool

	turn  sync.Mutex
	ready deque[*path] // that have something to send; each at most once
}

// to returns the path to a peer's address.
func (ps *paths) to(peer [16]byte) *path {
	ps.mu.RLock()
	p := ps.byPeer[peer]
	ps.mu.RUnlock()
	if p != nil {
		return p
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p = ps.byPeer[peer]; p == nil {
		p = newPath(ps, peer)
		p.closed = ps.closed
		ps.byPeer[peer] = p
	}
	return p
}

// mark has p's turn come.
func (ps *paths) mark(p *path) {
	ps.turn.Lock()
	if p.marked {
		ps.turn.Unlock()
		return
	}
	p.marked = true
	ps.ready.push(p)
	ps.turn.Unlock()
	ps.stir()
}

// take moves what is to be sent now into dst, by peers in turn, and returns how many
// pieces. It has one caller at a time.
func (ps *paths) take(dst []piece) int {
	for {
		ps.turn.Lock()
		if ps.ready.len() == 0 {
			ps.turn.Unlock()
			return 0
		}
		p := ps.ready.pop()
		p.marked = false
		ps.turn.Unlock()
		if n := p.take(dst); n > 0 {
			return n
		}
	}
}

// forget lets go of the path to a peer.
func (ps *paths) forget(peer [16]byte) {
	ps.mu.Lock()
	p := ps.byPeer[peer]
	delete(ps.byPeer, peer)
	ps.mu.Unlock()
	if p != nil {
		p.close()
	}
}

// close lets go of all paths. New ones take nothing.
func (ps *paths) close() {
	ps.mu.Lock()
	ps.closed = true
	all := ps.byPeer
	ps.byPeer = map[[16]byte]*path{}
	ps.mu.Unlock()
	for _, p := range all {
		p.close()
	}
}
