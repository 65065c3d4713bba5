package gateway

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// Stats are a Gateway's counters since it was made.
type Stats struct {
	Accepted  int64            `json:"accepted"`   // connections
	Open      int64            `json:"open"`       // connections at present
	Spliced   int64            `json:"spliced"`    // connections that reached a node or the coordinator
	Spares    int64            `json:"spares"`     // connections to nodes at present that no client has yet
	Relays    int64            `json:"relays"`     // connections at present that are relays
	Refused   map[Reason]int64 `json:"refused"`    // connections; reasons that never occurred are absent
	UpBytes   int64            `json:"up_bytes"`   // from clients
	DownBytes int64            `json:"down_bytes"` // to clients
}

type counters struct {
	accepted, open, spliced, relays atomic.Int64
	refused                         [reasons]atomic.Int64
	up, down                        atomic.Int64 // bytes
}

// Stats returns the counters as they are now.
func (g *Gateway) Stats() Stats {
	c := &g.counters
	s := Stats{
		Accepted: c.accepted.Load(), Open: c.open.Load(), Spliced: c.spliced.Load(),
		Spares: g.spares.count(), Relays: c.relays.Load(),
		UpBytes: c.up.Load(), DownBytes: c.down.Load(),
		Refused: map[Reason]int64{},
	}
	for r := range c.refused {
		if n := c.refused[r].Load(); n > 0 {
			s.Refused[Reason(r)] = n
		}
	}
	return s
}

// logRefused logs what was refused since it was last called, if anything was.
func (g *Gateway) logRefused(ctx context.Context) {
	g.reportMu.Lock()
	defer g.reportMu.Unlock()
	var attrs []slog.Attr
	for r := range g.counters.refused {
		n := g.counters.refused[r].Load()
		if n > g.reported[r] {
			attrs = append(attrs, slog.Int64(Reason(r).String(), n-g.reported[r]))
		}
		g.reported[r] = n
	}
	if len(attrs) > 0 {
		g.log.LogAttrs(ctx, slog.LevelInfo, "refused connections", attrs...)
	}
}
