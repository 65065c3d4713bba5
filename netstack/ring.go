package netstack

import (
	"sync"

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
	held     int // writers that wait
	lossy    bool
	closed   bool
	stirred  bool
}

func newRing() *ring {
	r := new(ring)
	r.notEmpty.L = &r.mu
	r.notFull.L = &r.mu
	return r
}

// push appends p with a reference of its own. It waits while the ring is full,
// or, if it is lossy, drops p. It reports false once the ring is closed.
func (r *ring) push(p *stack.PacketBuffer) bool {
	r.mu.Lock()
	r.held++
	for r.full() && !r.lossy && !r.closed {
		r.notFull.Wait()
	}
	r.held--
	if r.closed || r.full() {
		defer r.mu.Unlock()
		return !r.closed
	}
	r.packets[(r.first+r.count)%ringSize] = p.IncRef()
	r.count++
	r.bytes += p.Size()
	first := r.count == 1
	r.mu.Unlock()
	if first { // unlocked, or who wakes up waits again, for the lock
		r.notEmpty.Signal()
	}
	return true
}

// full reports whether writers have to wait. The lock is held.
func (r *ring) full() bool { return r.count == ringSize || r.bytes >= ringBytes }

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
	full := r.full()
	n := min(r.count, len(dst))
	for i := range n {
		dst[i] = r.packets[r.first]
		r.bytes -= dst[i].Size()
		r.packets[r.first] = nil
		r.first = (r.first + 1) % ringSize
	}
	r.count -= n
	if full {
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
