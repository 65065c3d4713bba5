package coordinator

import (
	"context"
	"strings"

	"postern"
)

func (o *Operator) Nodes(_ context.Context, tenant string) ([]postern.NodeState, error) {
	all := []postern.NodeState{}
	snap := o.c.snapshot.Load()
	for _, t := range o.tenants(snap, tenant) {
		for _, n := range t.nodes {
			all = append(all, o.c.nodeState(snap, n))
		}
	}
	return all, nil
}

// Node returns a node, by id or tenant/name.
func (o *Operator) Node(ctx context.Context, id string) (postern.NodeState, error) {
	snap := o.c.snapshot.Load()
	n := snap.byID[id]
	if tenant, name, ok := strings.Cut(id, "/"); ok && snap.tenants[tenant] != nil {
		for _, m := range snap.tenants[tenant].nodes {
			if m.Name == name {
				n = m
			}
		}
	}
	if n == nil || n.Role != postern.RoleNode || !o.sees(n.Tenant) {
		return postern.NodeState{}, o.answer(ctx, id, notFound(ErrNotFound, "node", id, ""))
	}
	return o.c.nodeState(snap, n), nil
}

func (o *Operator) RemoveNode(ctx context.Context, id string) error {
	return o.removeMember(ctx, postern.RoleNode, id)
}

func (o *Operator) removeMember(ctx context.Context, role postern.Role, id string) error {
	return o.update(ctx, id, func(ch *change) error {
		m, err := ch.Members().Get(id)
		if err == nil && (m.Role != role || !o.sees(m.Tenant)) {
			err = ErrNotFound
		}
		if err != nil {
			return notFound(err, string(role), id, "")
		}
		return ch.removeMember(m)
	})
}

// Gateways returns the gateways, which belong to no tenant.
func (o *Operator) Gateways(context.Context) ([]postern.GatewayState, error) {
	all := []postern.GatewayState{}
	if !o.all {
		return all, nil
	}
	for _, g := range o.c.snapshot.Load().gateways {
		all = append(all, o.c.gatewayState(g))
	}
	return all, nil
}

func (o *Operator) RemoveGateway(ctx context.Context, id string) error {
	return o.removeMember(ctx, postern.RoleGateway, id)
}

func (o *Operator) Routes(_ context.Context, tenant string) ([]postern.RouteState, error) {
	all := []postern.RouteState{}
	snap := o.c.snapshot.Load()
	for _, t := range o.tenants(snap, tenant) {
		for _, r := range t.section.Routes {
			state := o.c.routeState(snap, t, r)
			for i := range state.Certificates {
				state.Certificates[i].Statement = nil // the same at each of a node's routes
			}
			all = append(all, state)
		}
	}
	return all, nil
}

// AddRoute adds a custom route. That a host is the tenant's is for the operator of
// the deployment to find out: whoever has it first keeps others from it.
func (o *Operator) AddRoute(ctx context.Context, req postern.RouteRequest) (postern.RouteState, error) {
	var r Route
	err := o.update(ctx, req.Host, func(ch *change) error {
		err := o.whole()
		if err == nil {
			r, err = ch.addRoute(req)
		}
		return err
	})
	if err != nil {
		return postern.RouteState{}, err
	}
	return o.MatchRoute(ctx, r.Host)
}

func (o *Operator) RemoveRoute(ctx context.Context, host string) error {
	return o.update(ctx, host, func(ch *change) error {
		if err := o.whole(); err != nil {
			return err
		}
		host, err := postern.ParseHost(host)
		if err != nil {
			return invalid(err, "")
		}
		r, err := ch.Routes().Get(host)
		if err != nil {
			return notFound(err, "custom route", host, "routes of kind auto follow from what nodes publish")
		}
		t, err := ch.Tenants().Get(r.Tenant)
		if err != nil {
			return err
		}
		return ch.removeRoute(t, r)
	})
}

// MatchRoute returns the route that a gateway takes for host.
func (o *Operator) MatchRoute(ctx context.Context, host string) (postern.RouteState, error) {
	host, err := postern.ParseHost(host)
	if err != nil {
		return postern.RouteState{}, invalid(err, "")
	}
	snap := o.c.snapshot.Load()
	t, r := snap.route(host)
	if t == nil || !o.sees(t.Name) {
		return postern.RouteState{}, o.answer(ctx, host, notFound(ErrNotFound, "route for", host,
			"a node has to publish the service, or a custom route has to be added"))
	}
	return o.c.routeState(snap, t, r), nil
}

// route returns the route for host, in wire form, and whose it is; nil if there
// is none.
func (s *snapshot) route(host string) (*tenantMap, postern.Route) {
	for _, t := range s.tenants {
		if r := t.route(host); r.Host != "" {
			return t, r
		}
	}
	return nil, postern.Route{}
}
