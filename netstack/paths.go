package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Paths are the paths to all peers that TCP has spoken with. They are made as needed.
type paths struct {
	// Static after newLink.
	clock   tcpip.Clock
	wake    func()        // has take called; it must not block
	longRTT time.Duration // of a path that is long; 0: all are
	off     bool          // there are none, and nothing is taken over

	mu     sync.RWMutex
	byPeer map[[16]byte]*path
	closed bool

	turn  sync.Mutex
	ready deque[*path] // with something to send; each at most once, which its queued says
}

// longRTT is the round trip from which on a path is long. A shorter one is a local
// network's, which loses next to nothing and has no time to waste.
const longRTT = 3 * time.Millisecond

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

// add is path.add of the path that packet goes.
func (ps *paths) add(packet *stack.PacketBuffer, mtu int) bool {
	if ps.off {
		return false
	}
	to := header.IPv6(packet.NetworkHeader().Slice()).DestinationAddress().As16()
	return ps.to(to).add(packet, mtu)
}

// schedule has p's turn come.
func (ps *paths) schedule(p *path) {
	ps.turn.Lock()
	if p.queued {
		ps.turn.Unlock()
		return
	}
	p.queued = true
	ps.ready.push(p)
	ps.turn.Unlock()
	ps.wake()
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
		p.queued = false
		ps.turn.Unlock()
		if n := p.take(dst); n > 0 {
			return n
		}
	}
}

// keep lets go of the paths to all but the given peers.
func (ps *paths) keep(peers map[netip.Addr]bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for peer, p := range ps.byPeer {
		if !peers[netip.AddrFrom16(peer)] {
			delete(ps.byPeer, peer)
			p.close()
		}
	}
}

// close lets go of all paths. New ones take nothing.
func (ps *paths) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.closed = true
	for _, p := range ps.byPeer {
		p.close()
	}
	clear(ps.byPeer)
}
