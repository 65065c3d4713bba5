package coordinator

import (
	"cmp"
	"maps"
	"slices"

	"postern"
)

// tenantsNamed returns the tenant of that name, if there is one, or, for "", all by name.
func (s *snapshot) tenantsNamed(name string) []*tenantMap {
	if name != "" {
		if t := s.tenants[name]; t != nil {
			return []*tenantMap{t}
		}
		return nil
	}
	return slices.SortedFunc(maps.Values(s.tenants), func(a, b *tenantMap) int { return cmp.Compare(a.Name, b.Name) })
}

func (s *snapshot) tenant(t Tenant) postern.Tenant {
	out := postern.Tenant{Name: t.Name, Title: t.Title, Prefix: tenantPrefix(s.row.Prefix, t.Number), Created: t.Created}
	if m := s.tenants[t.Name]; m != nil {
		out.Nodes = len(m.nodes)
	}
	return out
}

func (c *Coordinator) nodeState(snap *snapshot, n *Member) postern.NodeState {
	now := c.cfg.Now()
	open, seen := c.presence.control(n, now)
	h := c.presence.health(n.ID, snap.gateways, now)
	services := n.Services
	if services == nil {
		services = []postern.Service{}
	}
	return postern.NodeState{
		ID: n.ID, Name: n.Name, Tenant: n.Tenant, Address: n.Address, State: h.state, Reached: h.reached, Reason: h.reason,
		Connected: open, Weight: cmp.Or(n.Weight, postern.DefaultWeight), Draining: n.Draining,
		Host: n.Host, Services: services, Tunnels: c.presence.tunnels(n.ID, snap.gateways), Control: seen,
		Identity: n.Identity, WireGuard: n.WireGuard, Joined: n.Joined,
	}
}

// gatewayState returns g as operators see it, whom v is about.
func (c *Coordinator) gatewayState(g *Member, v verdict) postern.GatewayState {
	_, seen := c.presence.control(g, c.cfg.Now())
	return postern.GatewayState{
		ID: g.ID, Name: g.Name, Address: g.Address, State: v.state, Draining: g.Draining, Endpoint: g.Endpoint, Public: g.Public,
		Host: g.Host, Tunnels: v.live, Control: seen,
		Identity: g.Identity, WireGuard: g.WireGuard, Joined: g.Joined, Fitness: v.Fitness,
	}
}

// Kinds of routes, as the admin API tells them.
const (
	routeAuto   = "auto"
	routeCustom = "custom"
)

func (c *Coordinator) routeState(snap *snapshot, t *tenantMap, r postern.Route) postern.RouteState {
	out := postern.RouteState{
		Host: r.Host, Tenant: t.Name, Service: r.Service, Kind: routeAuto, Nodes: []string{},
		State: postern.StateOffline, URL: c.HostURL(r.Host), Certificates: c.routeCertificates(snap, r),
	}
	if claim, ok := t.custom[r.Host]; ok {
		out.Kind, out.Proven = routeCustom, claim.Proven
	}
	best, now := health{state: postern.StateOffline}, c.cfg.Now()
	for _, id := range r.Nodes {
		out.Nodes = append(out.Nodes, snap.byID[id].Name)
		best = best.better(c.presence.health(id, snap.gateways, now))
	}
	out.State, out.Reached = best.state, best.reached
	return out
}
