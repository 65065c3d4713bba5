package coordinator

import (
	"context"
	"errors"
	"net/http"

	"postern"
)

// An Operator is somebody who operates the deployment, or some tenants of it: all
// that the admin API can do, as methods. What lies outside its tenants does not
// exist for it: its refusals are CodeNotFound then, and recorded. Errors that are
// Problems are for the operator to read.
//
// It is good for one request: what somebody operates may change.
type Operator struct {
	c     *Coordinator
	actor string
	user  string            // id; empty: not a user
	all   bool              // the whole deployment; else
	roles map[string]string // these tenants, by name: the user's role, which Manages
}

// Local returns the operator of the whole deployment who sits at its machine.
func (c *Coordinator) Local() *Operator { return &Operator{c: c, actor: actorLocal, all: true} }

// All reports whether o operates the whole deployment.
func (o *Operator) All() bool { return o.all }

// sees reports whether o operates tenant, "" being what belongs to none.
func (o *Operator) sees(tenant string) bool { return o.all || o.roles[tenant] != "" }

// tenants returns the tenant of that name, if there is one and o operates it, or,
// for "", all that o operates, by name.
func (o *Operator) tenants(snap *snapshot, name string) []*tenantMap {
	var seen []*tenantMap
	for _, t := range snap.tenantsNamed(name) {
		if o.sees(t.Name) {
			seen = append(seen, t)
		}
	}
	return seen
}

// update is the coordinator's, in o's name, for what is about target. It does not use up
// the reserve on the disk.
func (o *Operator) update(ctx context.Context, target string, fn func(*change) error) error {
	return o.answer(ctx, target, o.c.updateWithRoom(ctx, o.actor, fn))
}

// charge refuses o what stays in the audit log for ever, once that is too much of it at
// a time. It is for what gives: what takes away, such as disabling somebody, is never
// refused, and can be done once for each time that something was given. Who operates
// the whole deployment may fill its disk.
func (o *Operator) charge() error {
	if !o.all && !o.c.limits.record.allow(o.actor) {
		return tooMany()
	}
	return nil
}

// whole refuses all but the operator of the whole deployment, whatever is there.
func (o *Operator) whole() error {
	if o.all {
		return nil
	}
	return postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
		"that is for who operates the whole deployment", "ask them")
}

// answer returns err, which is about target. That somebody who operates tenants
// only was told that there is no such thing is recorded, whether or not there is:
// what takes as long tells as little.
func (o *Operator) answer(ctx context.Context, target string, err error) error {
	var p *postern.Problem
	if !o.all && errors.As(err, &p) && p.Code == postern.CodeNotFound {
		o.c.Note(ctx, o.actor, "admin.refused", "", target, p.Detail)
	}
	return err
}

// Status is GET /status; the others are named after their operations, too. Who
// operates tenants only is told of those alone.
func (o *Operator) Status(context.Context) (postern.Overview, error) {
	c := o.c
	snap := c.snapshot.Load()
	all := o.tenants(snap, "")
	out := postern.Overview{
		Deployment: snap.row.ID, Version: c.cfg.Version, Base: c.cfg.Base, Port: c.cfg.Port,
		Root: c.cfg.Authority.Root(), Tenants: len(all), Started: c.started,
		Portal: c.portal.status(c.cfg.Now()),
	}
	if !o.all { // what passes between the operator and an authority
		out.Portal.Account, out.Portal.Error = "", ""
	}
	if o.all {
		out.RootKey, out.MapVersion, out.Gateways = c.cfg.Authority.RootKey(), snap.version, len(snap.gateways)
	}
	for _, t := range all {
		out.Nodes += len(t.nodes)
		out.Routes += len(t.section.Routes)
		for _, n := range t.nodes {
			if c.presence.health(n.ID, snap.gateways, c.cfg.Now()).state == postern.StateReady {
				out.NodesReady++
			}
		}
	}
	return out, nil
}

func (o *Operator) Tenants(context.Context) ([]postern.Tenant, error) {
	all := []postern.Tenant{}
	snap := o.c.snapshot.Load()
	for _, t := range o.tenants(snap, "") {
		all = append(all, snap.tenant(t.Tenant))
	}
	return all, nil
}

func (o *Operator) AddTenant(ctx context.Context, req postern.TenantRequest) (postern.Tenant, error) {
	var t Tenant
	err := o.update(ctx, req.Name, func(ch *change) error {
		err := o.whole()
		if err == nil {
			t, err = ch.addTenant(req)
		}
		return err
	})
	return o.c.snapshot.Load().tenant(t), err
}

func (o *Operator) RemoveTenant(ctx context.Context, tenant string) error {
	return o.update(ctx, tenant, func(ch *change) error {
		if err := o.whole(); err != nil {
			return err
		}
		return ch.removeTenant(tenant)
	})
}
