package gateway

import (
	"sync/atomic"
	"time"

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
	Probes    ProbeStats       `json:"probes"`
}

// ProbeStats tell of the probes of nodes.
type ProbeStats struct {
	Sent   int64 `json:"sent"`
	Missed int64 `json:"missed"` // of those

	Healthy   int `json:"healthy"`   // nodes at present that answer, or were not asked yet
	Unhealthy int `json:"unhealthy"` // nodes that do not

	RTTs [len(rttBounds)]int64 `json:"-"` // answers that took no longer than each of rttBounds
	Took time.Duration         `json:"-"` // all answers together
}

// rttBounds are what answers to probes are counted by, in seconds.
var rttBounds = [...]float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2}

// count counts a probe whose answer took rtt, or that was missed because of err.
func (s *ProbeStats) count(rtt time.Duration, err error) {
	s.Sent++
	if err != nil {
		s.Missed++
		return
	}
	s.Took += rtt
	for i, bound := range rttBounds {
		if rtt.Seconds() <= bound {
			s.RTTs[i]++
		}
	}
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
		Refused: map[Reason]int64{}, Probes: g.prober.counts(),
	}
	for r := range c.refused {
		if n := c.refused[r].Load(); n > 0 {
			s.Refused[Reason(r)] = n
		}
	}
	return s
}
