package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// The packets between TCP and WireGuard are few and small, since what waits here
// is latency; TCP keeps its own queue behind it. One more packet may enter until
// ringBytes is reached.
const (
	ringSize  = 512
	ringBytes = 512 << 10

	// ringCrowd is how many waiting writers are many: those of some milliseconds.
	ringCrowd = 16

	// A peer that has less than littleBytes in a ring may always add to it: what many
	// send to one peer does not keep others out.
	littleBytes = 16 << 10
)

// A ring is the queue of packets on their way from TCP to WireGuard. It holds a
// reference to each. A full ring holds its writers back rather than drop the
// host's own packets.
type ring struct {
	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	packets  [ringSize]*stack.PacketBuffer
	first    int
	count    int
	bytes    int
	byPeer   map[[16]byte]int // bytes, of peers that have any
	held     int              // writers that wait
	lossy    bool
	closed   bool
	stirred  bool
}

func newRing() *ring {
	r := &ring{byPeer: map[[16]byte]int{}}
	r.notEmpty.L = &r.mu
	r.notFull.L = &r.mu
	return r
}

// push appends p with a reference of its own. It waits while the ring is full,
// or, if it is lossy, drops p. It reports false once the ring is closed.
func (r *ring) push(p *stack.PacketBuffer) bool {
	to := peerOf(p)
	r.mu.Lock()
	r.held++
	for r.full(to) && !r.lossy && !r.closed {
		r.notFull.Wait()
	}
	r.held--
	if r.closed || r.full(to) {
		defer r.mu.Unlock()
		return !r.closed
	}
	r.packets[(r.first+r.count)%ringSize] = p.IncRef()
	r.count++
	r.bytes += p.Size()
	r.byPeer[to] += p.Size()
	first := r.count == 1
	r.mu.Unlock()
	if first { // unlocked, or who wakes up waits again, for the lock
		r.notEmpty.Signal()
	}
	return true
}

// full reports whether writers to a peer have to wait. The lock is held.
func (r *ring) full(to [16]byte) bool {
	return r.count == ringSize || r.bytes >= ringBytes && r.byPeer[to] >= littleBytes
}

// peerOf returns the address that p goes to.
func peerOf(p *stack.PacketBuffer) (to [16]byte) {
	if h := header.IPv6(p.NetworkHeader().Slice()); len(h) >= header.IPv6MinimumSize {
		to = h.DestinationAddress().As16()
	}
	return to
}

// took counts p out. The lock is held.
func (r *ring) took(p *stack.PacketBuffer) {
	to, size := peerOf(p), p.Size()
	r.bytes -= size
	if r.byPeer[to] -= size; r.byPeer[to] == 0 {
		delete(r.byPeer, to)
	}
}

// crowded reports whether many writers wait, each with a segment of up to 64 KiB.
func (r *ring) crowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held >= ringCrowd
}

// pop moves packets, with their references, into dst and returns how many: at most
// len(dst). It has one caller at a time.
func (r *ring) pop(dst []*stack.PacketBuffer) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(r.count, len(dst))
	for i := range n {
		dst[i] = r.packets[r.first]
		r.took(dst[i])
		r.packets[r.first] = nil
		r.first = (r.first + 1) % ringSize
	}
	r.count -= n
	if r.held > 0 && n > 0 {
		r.notFull.Broadcast()
	}
	return n
}

// wait returns true when there is a packet, or stir was called since it returned
// last; and false once the ring is closed. It has one caller at a time.
func (r *ring) wait() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.count == 0 && !r.stirred && !r.closed {
		r.notEmpty.Wait()
	}
	r.stirred = false
	return !r.closed
}

// stir ends wait.
func (r *ring) stir() {
	r.mu.Lock()
	r.stirred = true
	r.mu.Unlock()
	r.notEmpty.Signal()
}

// setLossy says whether a full ring drops packets. It must while the UDP socket
// is being replaced: the device then waits for its receivers, a receiver may be
// waiting to push an answer, and the one that pops may be waiting for the socket.
func (r *ring) setLossy(lossy bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lossy = lossy
	r.notFull.Broadcast()
}

// close releases the packets in the ring and all who wait on it.
func (r *ring) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for ; r.count > 0; r.count-- {
		r.packets[r.first].DecRef()
		r.packets[r.first] = nil
		r.first = (r.first + 1) % ringSize
	}
	r.notEmpty.Broadcast()
	r.notFull.Broadcast()
}
