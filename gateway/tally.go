package gateway

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
)

// maxTallied bounds how many sources of one limit's refusals are told apart.
const maxTallied = 1024

// A tally counts the sources that limits refused, for one line of the log a limit and a
// report, however many there are. The zero tally is empty.
type tally struct {
	mu      sync.Mutex
	sources [reasons]map[netip.Prefix]struct{}
}

// add counts a refusal of addr.
func (t *tally) add(r Reason, addr netip.Addr) {
	key := sourceKeys(addr)[0]
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sources[r] == nil {
		t.sources[r] = map[netip.Prefix]struct{}{}
	}
	if len(t.sources[r]) < maxTallied {
		t.sources[r][key] = struct{}{}
	}
}

// take returns how many sources r refused since the last time, at most maxTallied.
func (t *tally) take(r Reason) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.sources[r])
	t.sources[r] = nil
	return n
}

// logRefused logs what was refused since it was last called, if anything was: one line
// for each limit that was reached, one for the rest.
func (g *Gateway) logRefused(ctx context.Context) {
	g.reportMu.Lock()
	defer g.reportMu.Unlock()
	var attrs []slog.Attr
	for i := range g.counters.refused {
		r := Reason(i)
		total := g.counters.refused[r].Load()
		n := total - g.reported[r]
		g.reported[r] = total
		switch {
		case n == 0:
		case r.Limit():
			// Of maxTallied sources there may be more.
			g.log.LogAttrs(ctx, slog.LevelWarn, "limit reached",
				slog.String("limit", r.String()), slog.Int64("refused", n), slog.Int("sources", g.tally.take(r)))
		default:
			attrs = append(attrs, slog.Int64(r.String(), n))
		}
	}
	if n := g.counters.full.Load(); n > g.reportedFull {
		g.log.LogAttrs(ctx, slog.LevelWarn, "limit reached",
			slog.String("limit", limitConns), slog.Int64("times", n-g.reportedFull))
		g.reportedFull = n
	}
	waits := g.limiter.waits()
	for _, l := range []struct {
		name  string
		times int64
	}{
		{limitBandwidth, waits.Line - g.reportedWaits.Line},
		{limitProcessors, waits.Machine - g.reportedWaits.Machine},
		{limitTenantBandwidth, waits.Share - g.reportedWaits.Share},
	} {
		if l.times > 0 { // nothing is wrong: it is what the limit is for
			g.log.LogAttrs(ctx, slog.LevelInfo, "limit reached", slog.String("limit", l.name), slog.Int64("times", l.times))
		}
	}
	g.reportedWaits = waits
	if len(attrs) > 0 {
		g.log.LogAttrs(ctx, slog.LevelInfo, "refused connections", attrs...)
	}
}
