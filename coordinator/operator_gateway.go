package coordinator

import (
	"context"
	"errors"
	"net/http"

	"postern"
)

// Gateways returns the gateways, which belong to no tenant.
func (o *Operator) Gateways(context.Context) ([]postern.GatewayState, error) {
	all := []postern.GatewayState{}
	if !o.all {
		return all, nil
	}
	snap := o.c.snapshot.Load()
	for i, v := range o.c.judge(snap) {
		all = append(all, o.c.gatewayState(snap.gateways[i], v))
	}
	return all, nil
}

// ChangeGateway changes what operators say of a gateway, by id.
func (o *Operator) ChangeGateway(ctx context.Context, id string, req postern.GatewayChange) (postern.GatewayState, error) {
	err := o.update(ctx, id, func(ch *change) error {
		m, err := o.machine(ch, postern.RoleGateway, id)
		if err != nil || req.Draining == nil || *req.Draining == m.Draining {
			return err
		}
		m.Draining = *req.Draining
		action := "gateway.undrain"
		if m.Draining {
			action = "gateway.drain"
		}
		ch.touch("")
		return errors.Join(ch.Members().Put(m), ch.audit(action, "", m.ID, m.Name))
	})
	if err != nil {
		return postern.GatewayState{}, err
	}
	o.c.keepFit(ctx)
	snap := o.c.snapshot.Load()
	for i, v := range o.c.judge(snap) {
		if snap.gateways[i].ID == id {
			return o.c.gatewayState(snap.gateways[i], v), nil
		}
	}
	return postern.GatewayState{}, notFound(ErrNotFound, string(postern.RoleGateway), id, "") // removed a moment ago
}

func (o *Operator) RemoveGateway(ctx context.Context, id string) error {
	return o.removeMember(ctx, postern.RoleGateway, id)
}

// DNS returns which addresses of gateways are to be in DNS.
func (o *Operator) DNS(context.Context) (postern.DNSState, error) {
	if err := o.whole(); err != nil {
		return postern.DNSState{}, err
	}
	if o.c.lookups.Load() == nil {
		return postern.DNSState{}, postern.NewProblem(http.StatusServiceUnavailable, postern.CodeUnavailable,
			"the public names of gateways have yet to be looked up", "try again in a few seconds")
	}
	return o.c.dnsState(o.c.snapshot.Load()), nil
}
