package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"time"
)

// An Access is a connection that has ended, as an access log tells of it. It has nothing
// of what the client said but the server name.
type Access struct {
	Time       time.Time      `json:"time"`   // when it was accepted
	ID         string         `json:"id"`     // the node's log has it, too
	Remote     netip.AddrPort `json:"remote"` // the client
	ServerName string         `json:"server_name,omitempty"`
	Tenant     string         `json:"tenant,omitempty"` // whose name it is; empty: nobody's, or the coordinator's
	Service    string         `json:"service,omitempty"`
	Node       string         `json:"node,omitempty"` // id of the node that it reached
	Verdict    string         `json:"verdict"`        // one of the VerdictXxx, or a Reason
	UpBytes    int64          `json:"up_bytes"`       // from the client
	DownBytes  int64          `json:"down_bytes"`     // to the client
	Seconds    float64        `json:"duration"`       // in seconds
	Cut        string         `json:"cut,omitempty"`  // why the gateway ended it; empty: client or node did
}

// Verdicts besides the Reasons.
const (
	VerdictSpliced = "spliced" // it reached a node or the coordinator
	VerdictRelay   = "relay"   // it was a node's tunnel, see postern.RelayProtocol, or was to be one
	VerdictEnded   = "ended"   // the client left, or the gateway was to end, before it reached one
)

// access returns what an access log says of c, which ended with err.
func (c *client) access(err error) Access {
	a := Access{
		Time: c.start.UTC(), ID: c.id, Remote: c.src, ServerName: c.name,
		Tenant: c.target.Tenant, Service: c.target.Service, Node: c.node.ID,
		Verdict: VerdictEnded, UpBytes: c.up, DownBytes: c.down,
		Seconds: math.Round(time.Since(c.start).Seconds()*1000) / 1000,
	}
	var r refusal
	switch {
	case errors.As(err, &r):
		a.Verdict = r.reason.String()
	case c.reached:
		a.Verdict = VerdictSpliced
	case c.relayed:
		a.Verdict = VerdictRelay
	}
	for _, cut := range []error{errRouteGone, errWindow, errDrained, errClientGone} {
		if errors.Is(err, cut) {
			a.Cut = cut.Error()
		}
	}
	return a
}

// done tells of c, which ended with err. It is apart from serveConn for the sake of its
// stack frame, which would be there as long as the connection.
func (g *Gateway) done(ctx context.Context, c *client, err error) {
	g.log.LogAttrs(ctx, slog.LevelDebug, "connection done",
		slog.String("id", c.id), slog.Any("remote", c.src), slog.String("server_name", c.name),
		slog.String("tenant", c.target.Tenant), slog.String("service", c.target.Service),
		slog.String("node", c.node.ID), slog.Int64("up_bytes", c.up), slog.Int64("down_bytes", c.down),
		slog.Duration("duration", time.Since(c.start)), slog.Any("err", err))
	var r refusal
	limited := errors.As(err, &r) && r.reason.Limit()
	if limited {
		g.tally.add(r.reason, c.src.Addr())
	}
	if g.cfg.Access != nil && !limited {
		g.cfg.Access(c.access(err))
	}
}
