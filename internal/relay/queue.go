package relay

import (
	"sync"
	"time"
)

const (
	// maxQueued is how many datagrams wait to be sent at most. When another comes, the
	// oldest is dropped: TCP inside the tunnel learns sooner from that than from the
	// loss of the newest.
	maxQueued = 128
	// maxSojourn is how long one waits at most.
	maxSojourn = 100 * time.Millisecond
)

// A queue holds copies of the datagrams that are to be sent. Many may put, one takes.
type queue struct {
	ready chan struct{} // holds one while there may be something to take

	mu      sync.Mutex
	ring    [maxQueued]queued
	first   int
	count   int
	dropped uint64
}

type queued struct {
	datagram []byte // its array is used again
	since    time.Time
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

// put adds datagrams. What no message can carry is dropped.
func (q *queue) put(datagrams [][]byte, now time.Time) {
	q.mu.Lock()
	for _, d := range datagrams {
		if len(d) == 0 || len(d) > maxDatagram {
			q.dropped++
			continue
		}
		if q.count == maxQueued {
			q.pop()
			q.dropped++
		}
		e := &q.ring[(q.first+q.count)%maxQueued]
		e.datagram, e.since = append(e.datagram[:0], d...), now
		q.count++
	}
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// pop takes the oldest off. The lock is held, and there is one.
func (q *queue) pop() queued {
	e := q.ring[q.first]
	q.first = (q.first + 1) % maxQueued
	q.count--
	return e
}

// take appends to message as many datagrams as make a full one, and reports whether more
// are left. Those that waited too long are dropped.
func (q *queue) take(message []byte, now time.Time) (_ []byte, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.count > 0 {
		e := &q.ring[q.first]
		switch {
		case now.Sub(e.since) > maxSojourn:
			q.dropped++
		case len(message) > 0 && len(message)+lengthSize+len(e.datagram) > fullMessage:
			return message, true
		default:
			message = join(message, e.datagram)
		}
		q.pop()
	}
	return message, false
}
