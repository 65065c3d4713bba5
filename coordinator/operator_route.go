package coordinator

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"postern"
)

// Routes returns the routes, and the claims that may become some, by tenant and host.
func (o *Operator) Routes(ctx context.Context, tenant string) ([]postern.RouteState, error) {
	all := []postern.RouteState{}
	unproven := make(map[string][]Claim) // by tenant
	err := o.c.cfg.Store.View(ctx, func(tx Tx) error {
		claims, err := tx.Claims().Unproven()
		for _, claim := range claims {
			unproven[claim.Tenant] = append(unproven[claim.Tenant], claim)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	snap := o.c.snapshot.Load()
	for _, t := range o.tenants(snap, tenant) {
		first := len(all)
		for _, r := range t.section.Routes {
			state := o.c.fullState(snap, t, r)
			for i := range state.Certificates {
				state.Certificates[i].Statement = nil // the same at each of a node's routes
			}
			all = append(all, state)
		}
		for _, claim := range unproven[t.Name] {
			if t.custom[claim.Host].Host == "" {
				all = append(all, o.c.claimState(snap, t, claim))
			}
		}
		slices.SortStableFunc(all[first:], func(a, b postern.RouteState) int { return cmp.Compare(a.Host, b.Host) })
	}
	return all, nil
}

// AddRoute claims a host outside the base domain for a tenant. Nothing is served there
// before DNS shows that it is the tenant's, so that who manages a tenant may do it.
func (o *Operator) AddRoute(ctx context.Context, req postern.RouteRequest) (postern.RouteState, error) {
	var claim Claim
	err := o.update(ctx, req.Host, func(ch *change) error {
		if !o.sees(req.Tenant) {
			return noTenant(ErrNotFound, req.Tenant)
		}
		err := o.charge()
		if err == nil {
			claim, err = ch.addClaim(req, o.sees)
		}
		return err
	})
	if err != nil {
		return postern.RouteState{}, err
	}
	select {
	case o.c.claimed <- struct{}{}:
	default: // who looks will see this one, too
	}
	return o.c.stateOf(claim)
}

// RemoveRoute removes a custom route, or the claim on it. tenant says whose; it may be
// empty where o sees one alone on that host.
func (o *Operator) RemoveRoute(ctx context.Context, host, tenant string) error {
	return o.update(ctx, host, func(ch *change) error {
		claim, err := o.claim(ch, host, tenant)
		if err != nil {
			return err
		}
		t, err := ch.Tenants().Get(claim.Tenant)
		if err != nil {
			return err
		}
		return ch.removeClaim(t, claim)
	})
}

// Route returns a custom route, or the claim on it, like RemoveRoute.
func (o *Operator) Route(ctx context.Context, host, tenant string) (postern.RouteState, error) {
	claim, err := o.viewClaim(ctx, host, tenant)
	if err != nil {
		return postern.RouteState{}, o.answer(ctx, host, err)
	}
	return o.c.stateOf(claim)
}

// CheckRoute asks DNS what it says of a custom route at this moment. A claim whose proof
// is there becomes a route by that.
func (o *Operator) CheckRoute(ctx context.Context, host, tenant string) (postern.RouteCheck, error) {
	claim, err := o.viewClaim(ctx, host, tenant)
	if err != nil {
		return postern.RouteCheck{}, o.answer(ctx, host, err)
	}
	if !o.all && !o.c.limits.look.allow(claim.Tenant) {
		return postern.RouteCheck{}, tooMany()
	}
	proof, err := o.c.checkProof(ctx, o.actor, claim)
	if err != nil {
		return postern.RouteCheck{}, err
	}
	if claim, err = o.viewClaim(ctx, host, claim.Tenant); err != nil {
		return postern.RouteCheck{}, o.answer(ctx, host, err)
	}
	out := postern.RouteCheck{}
	if out.Route, err = o.c.stateOf(claim); err != nil {
		return out, err
	}
	out.Findings = append([]postern.Finding{proof}, o.c.examine(ctx, o.c.snapshot.Load(), claim, out.Route)...)
	return out, nil
}

// checkProof looks for the proof of claim, in actor's name.
func (c *Coordinator) checkProof(ctx context.Context, actor string, claim Claim) (postern.Finding, error) {
	proven := postern.Finding{Subject: subjectProof, Result: postern.FindingOK, Detail: "the name is shown to be the company's; the record for that may go"}
	if !claim.Proven.IsZero() {
		return proven, nil
	}
	var looks []look
	if owner := c.snapshot.Load().custom(claim.Host); owner != nil && owner.Name != claim.Tenant {
		looks = []look{{claim.ClaimKey, postern.FindingError, lostFinding}}
	} else {
		looks = []look{c.lookFor(ctx, claim)}
	}
	if err := c.settle(ctx, actor, looks); err != nil {
		return postern.Finding{}, err
	}
	if l := looks[0]; l.result != postern.FindingOK {
		f := postern.Finding{Subject: subjectProof, Result: l.result, Detail: l.detail}
		switch l.result {
		case postern.FindingMissing:
			f.Hint = "add the TXT record that is shown with the route; until others see it takes as long as DNS keeps answers, minutes mostly"
		case postern.FindingError:
			f.Hint = "ask who operates the deployment if it stays so"
		}
		return f, nil
	}
	return proven, nil
}

// viewClaim is claim in a transaction of its own.
func (o *Operator) viewClaim(ctx context.Context, host, tenant string) (claim Claim, err error) {
	err = o.c.cfg.Store.View(ctx, func(tx Tx) error {
		claim, err = o.claim(tx, host, tenant)
		return err
	})
	return claim, err
}

// claim returns the claim on host of tenant or, if that is empty, the only one that o
// sees.
func (o *Operator) claim(tx Tx, host, tenant string) (Claim, error) {
	host, err := postern.ParseHost(host)
	if err != nil {
		return Claim{}, invalid(err, "")
	}
	all, err := tx.Claims().At(host)
	if err != nil {
		return Claim{}, err
	}
	all = slices.DeleteFunc(all, func(c Claim) bool { return !o.sees(c.Tenant) || tenant != "" && c.Tenant != tenant })
	switch len(all) {
	case 0:
		return Claim{}, notFound(ErrNotFound, "custom route", host, "routes of kind auto follow from what nodes publish")
	case 1:
		return all[0], nil
	}
	return Claim{}, invalid(errors.New("more than one company has added that host name"), "name the company with --tenant NAME")
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
			"a node has to publish the service, or a custom route has to be added and proven"))
	}
	return o.c.fullState(snap, t, r), nil
}

// route returns the route for host, in wire form, and whose it is; nil if there
// is none.
func (s *snapshot) route(host string) (*tenantMap, postern.Route) {
	for _, t := range s.tenants {
		if r, ok := t.route(host); ok {
			return t, r
		}
	}
	return nil, postern.Route{}
}

// route returns the route for host, in wire form.
func (t *tenantMap) route(host string) (postern.Route, bool) {
	i, ok := slices.BinarySearchFunc(t.section.Routes, host, func(r postern.Route, host string) int { return cmp.Compare(r.Host, host) })
	if !ok {
		return postern.Route{}, false
	}
	return t.section.Routes[i], true
}

// routeTo returns the route for host, in wire form, if the node with id serves it.
func (t *tenantMap) routeTo(id, host string) (postern.Route, bool) {
	r, ok := t.route(host)
	return r, ok && slices.Contains(r.Nodes, id)
}

// custom returns the tenant whose custom route host is, nil if it is nobody's.
func (s *snapshot) custom(host string) *tenantMap {
	for _, t := range s.tenants {
		if _, ok := t.custom[host]; ok {
			return t
		}
	}
	return nil
}

// stateOf returns claim, proven or not, as operators see it.
func (c *Coordinator) stateOf(claim Claim) (postern.RouteState, error) {
	snap := c.snapshot.Load()
	t := snap.tenants[claim.Tenant]
	if t == nil { // removed a moment ago
		return postern.RouteState{}, notFound(ErrNotFound, "custom route", claim.Host, "")
	}
	if _, ok := t.custom[claim.Host]; ok {
		if r, ok := t.route(claim.Host); ok {
			return c.fullState(snap, t, r), nil
		}
	}
	return c.claimState(snap, t, claim), nil
}

// fullState is routeState with the records of a custom route.
func (c *Coordinator) fullState(snap *snapshot, t *tenantMap, r postern.Route) postern.RouteState {
	out := c.routeState(snap, t, r)
	if claim, ok := t.custom[r.Host]; ok {
		out.Records = snap.records(claim, c.cfg.Base, out.Certificates)
	}
	return out
}

// claimState returns a claim that is not proven as operators see it.
func (c *Coordinator) claimState(snap *snapshot, t *tenantMap, claim Claim) postern.RouteState {
	out := postern.RouteState{
		Host: claim.Host, Tenant: t.Name, Service: claim.Service, Kind: routeCustom, Nodes: []string{},
		State: postern.StateUnproven, URL: c.HostURL(claim.Host), Certificates: []postern.RouteCertificate{},
		Checked: claim.Checked, Finding: claim.Finding,
	}
	// The nodes that will serve it have their accounts already, from other hosts.
	var others []postern.RouteCertificate
	for _, r := range t.section.Routes {
		if r.Service == claim.Service {
			state := c.routeState(snap, t, r)
			out.Nodes = state.Nodes
			others = append(others, state.Certificates...)
		}
	}
	switch owner := snap.custom(claim.Host); {
	case owner != nil:
		out.Finding = lostFinding
	case c.cfg.Resolver == nil:
		out.Finding = noResolver
	}
	out.Records = snap.records(claim, c.cfg.Base, others)
	return out
}
