package coordinator

import (
	"context"
	"net/netip"

	"postern"
)

// ActorStranger is the actor of who is not known, or not yet.
const ActorStranger = actorStranger

// AllowPost reports whether the source of remote may ask the portal to do
// something once more. What it allows is plenty for an office behind one address.
func (c *Coordinator) AllowPost(remote netip.Addr) bool {
	return c.limits.post.allow(sourceOf(remote))
}

// SourceOf returns what counts as one source of requests: an IPv4 address or an IPv6
// /64.
func SourceOf(a netip.Addr) netip.Prefix { return sourceOf(a) }

// Problem returns err as the one who asked may read it. What is not theirs is
// logged.
func (c *Coordinator) Problem(ctx context.Context, err error) *postern.Problem {
	return c.problemOf(ctx, err)
}

// KnownTenant returns name if there is a tenant of that name, else "".
func (c *Coordinator) KnownTenant(name string) string {
	if c.snapshot.Load().tenants[name] == nil {
		return ""
	}
	return name
}
