package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postern"
)

// maxAllowed bounds the prefixes that a tenant always lets in.
const maxAllowed = 256

// Admission returns from where a tenant can be reached.
func (o *Operator) Admission(ctx context.Context, tenant string) (postern.AdmissionState, error) {
	t := o.c.snapshot.Load().tenants[tenant]
	if t == nil || !o.sees(tenant) {
		return postern.AdmissionState{}, o.answer(ctx, tenant, noTenant(ErrNotFound, tenant))
	}
	state := postern.AdmissionState{AdmissionRequest: t.Admission}
	if state.Mode == "" {
		state.Mode = postern.AdmissionOpen
	}
	if a := t.gates.Admission; a != nil {
		state.Sources = a.Sources
	}
	return state, nil
}

// SetAdmission says from where a tenant can be reached, in place of what held before.
func (o *Operator) SetAdmission(ctx context.Context, tenant string, req postern.AdmissionRequest) (postern.AdmissionState, error) {
	err := o.update(ctx, tenant, func(ch *change) error {
		t, err := ch.Tenants().Get(tenant)
		if err == nil && !o.sees(tenant) {
			err = ErrNotFound
		}
		if err != nil {
			return noTenant(err, tenant)
		}
		if err := o.charge(); err != nil {
			return err
		}
		return ch.setAdmission(t, req)
	})
	if err != nil {
		return postern.AdmissionState{}, err
	}
	return o.Admission(ctx, tenant)
}

func (ch *change) setAdmission(t Tenant, req postern.AdmissionRequest) error {
	var err error
	if req.Allowed, err = checkAllowed(req); err != nil {
		return err
	}
	if t.Admission.Mode == req.Mode && slices.Equal(t.Admission.Allowed, req.Allowed) {
		return nil
	}
	t.Admission = req
	ch.touch(t.Name)
	detail := req.Mode
	for i, p := range req.Allowed {
		if i == 0 {
			detail += ", always from"
		}
		detail += " " + p.String()
	}
	return errors.Join(ch.Tenants().Put(t), ch.audit("admission.set", t.Name, "", detail))
}

// checkAllowed returns the prefixes of req, sorted, each once, if all of it makes sense.
func checkAllowed(req postern.AdmissionRequest) ([]netip.Prefix, error) {
	modes := []string{postern.AdmissionOpen, postern.AdmissionPortal, postern.AdmissionList}
	switch {
	case !slices.Contains(modes, req.Mode):
		return nil, invalid(fmt.Errorf("there is no admission %q", req.Mode), "one of "+strings.Join(modes, ", "))
	case req.Mode == postern.AdmissionOpen && len(req.Allowed) > 0:
		return nil, invalid(errors.New("prefixes are allowed to a tenant that is open to all"),
			"leave them away, or choose "+postern.AdmissionPortal+" or "+postern.AdmissionList)
	case req.Mode == postern.AdmissionList && len(req.Allowed) == 0:
		return nil, invalid(errors.New("an allow-list with nothing on it lets nobody in"), "name a prefix such as 203.0.113.0/24")
	case len(req.Allowed) > maxAllowed:
		return nil, invalid(fmt.Errorf("%d prefixes are more than the %d that there may be", len(req.Allowed), maxAllowed),
			"name larger networks")
	}
	for _, p := range req.Allowed {
		switch addr := p.Addr(); {
		case !p.IsValid():
			return nil, invalid(errors.New("one of the prefixes is none"), "such as 203.0.113.0/24")
		case addr.Is4In6():
			return nil, invalid(fmt.Errorf("prefix %v is of IPv4 addresses", p), "write it as one, such as 203.0.113.0/24")
		case p != p.Masked():
			return nil, invalid(fmt.Errorf("prefix %v has address bits behind its length", p),
				fmt.Sprintf("%v is the network, %v the one address", p.Masked(), netip.PrefixFrom(addr, addr.BitLen())))
		}
	}
	allowed := slices.Clone(req.Allowed)
	slices.SortFunc(allowed, netip.Prefix.Compare)
	return slices.Compact(allowed), nil
}
