package coordinator

import "net/netip"

// AllowPost reports whether the source of remote may ask the portal to do
// something once more. What it allows is plenty for an office behind one address.
func (c *Coordinator) AllowPost(remote netip.Addr) bool {
	return c.limits.post.allow(SourceOf(remote))
}

// KnownTenant returns name if there is a tenant of that name, else "".
func (c *Coordinator) KnownTenant(name string) string {
	if c.snapshot.Load().tenants[name] == nil {
		return ""
	}
	return name
}
