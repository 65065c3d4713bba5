package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern"
)

func (ch *change) addRoute(req postern.RouteRequest) (Route, error) {
	host, err := postern.ParseHost(req.Host)
	if err != nil {
		return Route{}, invalid(err, "give a host name such as erp.example.com")
	}
	r := Route{Host: host, Tenant: req.Tenant, Service: req.Service, Created: ch.now}
	if r.Service == "" {
		r.Service = postern.DefaultService
	}
	if err := postern.CheckLabel("service", r.Service); err != nil {
		return Route{}, invalid(err, "")
	}
	if err := ch.checkCustom(host); err != nil {
		return Route{}, err
	}
	t, err := ch.Tenants().Get(r.Tenant)
	if err != nil {
		return Route{}, noTenant(err, r.Tenant)
	}
	if other, err := ch.Routes().Get(host); !errors.Is(err, ErrNotFound) {
		if err != nil {
			return Route{}, err
		}
		return Route{}, taken(fmt.Sprintf("%q is routed to tenant %q already", host, other.Tenant), "remove that route first")
	}
	if err := ch.checkHold(host, t.Number); err != nil {
		return Route{}, err
	}
	if err := ch.Holds().Delete(host); err != nil && !errors.Is(err, ErrNotFound) {
		return Route{}, err
	}
	ch.touch(r.Tenant)
	return r, errors.Join(ch.Routes().Put(r), ch.audit("route.add", r.Tenant, r.Host, r.Service))
}

// checkCustom refuses hosts that are the deployment's to give.
func (ch *change) checkCustom(host string) error {
	if host == ch.cfg.Base || strings.HasSuffix(host, "."+ch.cfg.Base) {
		return invalid(fmt.Errorf("%q is not outside the base domain %q", host, ch.cfg.Base),
			"names below the base domain follow from what nodes publish")
	}
	return ch.checkOwn(host)
}

// checkOwn refuses the names by which the coordinator itself is reached.
func (ch *change) checkOwn(host string) error {
	if slices.Contains(ch.cfg.Names, host) {
		return taken(fmt.Sprintf("%q is the coordinator's own name", host), "choose another name")
	}
	return nil
}

func (ch *change) removeRoute(t Tenant, r Route) error {
	ch.touch(r.Tenant)
	return errors.Join(
		ch.Routes().Delete(r.Host),
		ch.hold(r.Host, t.Number),
		ch.audit("route.remove", r.Tenant, r.Host, r.Service),
	)
}
