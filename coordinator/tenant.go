package coordinator

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"postern"
)

// quarantine is how long a released host name is kept from others.
const quarantine = 30 * 24 * time.Hour

// noTenant is notFound for tenants.
func noTenant(err error, tenant string) error {
	return notFound(err, "tenant", tenant, "")
}

func (ch *change) addTenant(req postern.TenantRequest) (Tenant, error) {
	if err := postern.CheckTenant(req.Name); err != nil {
		return Tenant{}, invalid(err, "choose a DNS label such as \"acme\": a to z, 0 to 9 and hyphens")
	}
	host := postern.ServiceHost(postern.DefaultService, req.Name, ch.cfg.Base)
	if err := postern.CheckHost(host); err != nil {
		return Tenant{}, invalid(err, "choose a shorter name")
	}
	if err := checkText("title", req.Title); err != nil {
		return Tenant{}, invalid(err, "")
	}
	if _, err := ch.Tenants().Get(req.Name); !errors.Is(err, ErrNotFound) {
		if err != nil {
			return Tenant{}, err
		}
		return Tenant{}, taken(fmt.Sprintf("there is a tenant %q already", req.Name), "choose another name")
	}
	if err := errors.Join(ch.checkOwn(host), ch.checkHold(host, 0)); err != nil {
		return Tenant{}, err
	}
	d, err := ch.Deployment()
	if err != nil {
		return Tenant{}, err
	}
	t := Tenant{Name: req.Name, Title: req.Title, Number: d.NextTenant, NextNode: 1, Created: ch.now}
	if t.Title == "" {
		t.Title = t.Name
	}
	d.NextTenant++
	ch.touch(t.Name)
	return t, errors.Join(ch.PutDeployment(d), ch.Tenants().Put(t), ch.audit("tenant.add", t.Name, "", t.Title))
}

// removeTenant removes a tenant with all that belongs to it; its names are held.
func (ch *change) removeTenant(name string) error {
	t, err := ch.Tenants().Get(name)
	if err != nil {
		return noTenant(err, name)
	}
	members, err := ch.Members().In(name)
	if err != nil {
		return err
	}
	for _, m := range members {
		if err := ch.removeMember(m); err != nil {
			return err
		}
	}
	claims, err := ch.Claims().In(name)
	if err != nil {
		return err
	}
	for _, c := range claims {
		if err := ch.removeClaim(t, c); err != nil {
			return err
		}
	}
	tokens, err := ch.Tokens().In(name)
	if err != nil {
		return err
	}
	for _, token := range tokens {
		if err := ch.Tokens().Delete(token.ID); err != nil {
			return err
		}
	}
	of, err := ch.removePeople(name)
	if err != nil {
		return err
	}
	ch.touch(name)
	return errors.Join(
		ch.hold(postern.ServiceHost(postern.DefaultService, name, ch.cfg.Base), t.Number),
		ch.Tenants().Delete(name),
		ch.audit("tenant.remove", name, "", fmt.Sprintf("%d nodes, %d tokens, %d custom routes, %s", len(members), len(tokens), len(claims), of)),
	)
}

// removePeople deletes what users have of a tenant, and returns how much that was for
// the audit log. They themselves stay.
func (ch *change) removePeople(tenant string) (string, error) {
	grants, err := ch.Grants().In(tenant)
	if err != nil {
		return "", err
	}
	for _, g := range grants {
		if err := ch.Grants().Delete(g.GrantKey); err != nil {
			return "", err
		}
	}
	favourites, err := ch.Favourites().In(tenant)
	if err != nil {
		return "", err
	}
	for _, f := range favourites {
		if err := ch.Favourites().Delete(f); err != nil {
			return "", err
		}
	}
	issuers, err := ch.Issuers().In(tenant)
	if err != nil {
		return "", err
	}
	for _, i := range issuers {
		if err := ch.removeIssuer(i.Name); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d issuers, %d grants, %d favourites", len(issuers), len(grants), len(favourites)), nil
}

// removeMember forgets m but for its identity, which is turned away from now on.
func (ch *change) removeMember(m Member) error {
	ch.touch(m.Tenant)
	return errors.Join(
		ch.Members().Delete(m.ID),
		ch.Removed().Put(Removed{Identity: m.Identity, ID: m.ID, Time: ch.now}),
		ch.audit(string(m.Role)+".remove", m.Tenant, m.ID, m.Name),
	)
}

// hold keeps host from all but the tenant that had it.
func (ch *change) hold(host string, owner uint32) error {
	return ch.Holds().Put(Hold{Host: host, Owner: owner, Until: ch.now.Add(quarantine)})
}

// checkHold refuses a host that another than owner released lately.
func (ch *change) checkHold(host string, owner uint32) error {
	h, err := ch.Holds().Get(host)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if h.Owner == owner || !ch.now.Before(h.Until) {
		return nil
	}
	return postern.NewProblem(http.StatusConflict, postern.CodeQuarantined,
		fmt.Sprintf("%q was released lately; old links and sign-ins may still mean the one who had it", host),
		fmt.Sprintf("choose another name, or wait until %s", h.Until.UTC().Format(time.RFC3339)))
}
