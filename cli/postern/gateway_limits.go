package main

import (
	"context"
	"time"
)

// doorLimits are how often limits were reached on what is to become a tunnel.
type doorLimits struct {
	Handshakes uint64 `json:"handshakes"` // that got a cookie or nothing, since there were too many
	Relays     int64  `json:"relays"`     // that were turned away: too many had yet to show who they are
}

func (d *door) limits() doorLimits {
	return doorLimits{Handshakes: d.net.RefusedHandshakes(), Relays: d.relays.Crowded()}
}

func (l doorLimits) byName() map[string]int64 {
	return map[string]int64{"handshakes": int64(l.Handshakes), "relays": l.Relays}
}

// limitInterval is how often is logged which limits were reached.
const limitInterval = time.Minute

// logLimits logs which limits were reached, one line a limit and interval, until ctx is
// done.
func (d *door) logLimits(ctx context.Context) {
	tick := time.NewTicker(limitInterval)
	defer tick.Stop()
	var before map[string]int64
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		now := d.limits().byName()
		for name, n := range now {
			if n > before[name] {
				d.log.Warn("limit reached", "limit", name, "times", n-before[name])
			}
		}
		before = now
	}
}
