package main

import (
	"sync"
	"time"

	"postern/netstack"
)

// lookShare is the part of the time, one in so many, that a gateway looks at its tunnels at
// most. A look at thousands takes tens of milliseconds.
const lookShare = 20

// Looks are those that a gateway's own work takes at the state of its tunnels.
type looks struct {
	mu   sync.Mutex
	last []netstack.PeerStatus // never written again
	at   time.Time
	took time.Duration
}

// peers returns the state of the tunnels, as of half a pace ago at most.
func (d *door) peers() []netstack.PeerStatus {
	l := &d.looks
	l.mu.Lock()
	defer l.mu.Unlock()
	if begin := time.Now(); begin.Sub(l.at) >= l.pace()/2 {
		l.last = d.net.Peers()
		l.at = time.Now()
		l.took = l.at.Sub(begin)
	}
	return l.last
}

// pace returns how long to wait from one look to the next.
func (d *door) pace() time.Duration {
	d.looks.mu.Lock()
	defer d.looks.mu.Unlock()
	return d.looks.pace()
}

// pace is the same with the lock held.
func (l *looks) pace() time.Duration { return max(tellInterval, lookShare*l.took) }
