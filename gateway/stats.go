package gateway

import (
	"sync/atomic"

	"postern/internal/fair"
)

// Stats are a Gateway's counters since it was made.
type Stats struct {
	Accepted  int64            `json:"accepted"`   // connections
	Open      int64            `json:"open"`       // connections at present
	Spliced   int64            `json:"spliced"`    // connections that reached a node or the coordinator
	Spares    int64            `json:"spares"`     // connections to nodes at present that no client has yet
	Relays    int64            `json:"relays"`     // connections at present that are relays
	Refused   map[Reason]int64 `json:"refused"`    // connections; reasons that never occurred are absent
	Silent    int64            `json:"silent"`     // connections that were ended because the client was gone
	Full      int64            `json:"full"`       // times that Limits.Conns were open, so that more would have to wait
	Waits     fair.Waits       `json:"waits"`      // for the bandwidth, of tenants that wanted more of it
	UpBytes   int64            `json:"up_bytes"`   // from clients
	DownBytes int64            `json:"down_bytes"` // to clients
}

type counters struct {
	accepted, open, spliced, relays atomic.Int64
	refused                         [reasons]atomic.Int64
	silent                          atomic.Int64 // ended because the client was gone
	full                            atomic.Int64 // times that there was no room for the next
	up, down                        atomic.Int64 // bytes
}

// Room returns how many connections may be open in all: Limits.Conns.
func (g *Gateway) Room() int { return cap(g.room) }

// Stats returns the counters as they are now.
func (g *Gateway) Stats() Stats {
	c := &g.counters
	s := Stats{
		Accepted: c.accepted.Load(), Open: c.open.Load(), Spliced: c.spliced.Load(),
		Spares: g.spares.count(), Full: c.full.Load(), Silent: c.silent.Load(), Relays: c.relays.Load(),
		UpBytes: c.up.Load(), DownBytes: c.down.Load(), Waits: g.limiter.waits(),
		Refused: map[Reason]int64{},
	}
	for r := range c.refused {
		if n := c.refused[r].Load(); n > 0 {
			s.Refused[Reason(r)] = n
		}
	}
	return s
}
