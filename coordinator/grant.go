package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern"
)

// Grants returns what a user may open. An operator has only what was granted to them.
func (c *Coordinator) Grants(ctx context.Context, user string) ([]Grant, error) {
	var all []Grant
	err := c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		all, err = tx.Grants().Of(user)
		return err
	})
	return all, err
}

// putGrant grants tenant to u, in place of what was granted of it before. issuer is
// the external issuer that gives it, empty for a person. Services need not exist:
// a node may publish them later.
func (ch *change) putGrant(u User, tenant string, req postern.GrantRequest, issuer string) (Grant, error) {
	if _, err := ch.Tenants().Get(tenant); err != nil {
		return Grant{}, noTenant(err, tenant)
	}
	g := Grant{GrantKey: GrantKey{tenant, u.ID}, Role: req.Role, Issuer: issuer, Created: ch.now}
	var err error
	if g.Role, err = checkRole(req.Role); err != nil {
		return Grant{}, err
	}
	if g.Groups, err = checkLabels("group", req.Groups, postern.MaxGroups); err != nil {
		return Grant{}, err
	}
	if g.Services, err = checkLabels("service", req.Services, maxGrantServices); err != nil {
		return Grant{}, err
	}
	old, err := ch.Grants().Get(g.GrantKey)
	if err == nil {
		g.Created = old.Created
		if old.equal(g) {
			return old, nil
		}
	} else if !errors.Is(err, ErrNotFound) {
		return Grant{}, err
	}
	ch.touch(tenant)
	return g, errors.Join(ch.Grants().Put(g), ch.audit("user.grant", tenant, u.ID, g.describe(u)))
}

// maxGrantServices bounds the services that a grant names.
const maxGrantServices = 256

func checkRole(role string) (string, error) {
	if role == "" {
		return postern.TenantMember, nil
	}
	if !slices.Contains(postern.TenantRoles, role) {
		return "", invalid(fmt.Errorf("there is no role %q", role), "one of "+strings.Join(postern.TenantRoles, ", "))
	}
	return role, nil
}

// checkLabels returns labels sorted, each once; nil if there are none.
func checkLabels(what string, labels []string, most int) ([]string, error) {
	if len(labels) > most {
		return nil, invalid(fmt.Errorf("%d are more than the %d names of a %s that there may be", len(labels), most, what), "")
	}
	var out []string
	for _, l := range labels {
		if err := postern.CheckLabel(what, l); err != nil {
			return nil, invalid(err, "")
		}
		out = append(out, l)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (g Grant) equal(h Grant) bool {
	return g.Role == h.Role && g.Issuer == h.Issuer && slices.Equal(g.Groups, h.Groups) && slices.Equal(g.Services, h.Services)
}

func (g Grant) describe(u User) string {
	s := u.Login + ": " + g.Role
	if len(g.Groups) > 0 {
		s += ", groups " + strings.Join(g.Groups, " ")
	}
	if len(g.Services) > 0 {
		s += ", only services " + strings.Join(g.Services, " ")
	}
	if g.Issuer != "" {
		s += ", by issuer " + g.Issuer
	}
	return s
}

// deleteGrant takes tenant from u. What an external issuer gave comes back when u
// signs in there and still belongs to its groups.
func (ch *change) deleteGrant(u User, tenant string) error {
	key := GrantKey{tenant, u.ID}
	if err := ch.Grants().Delete(key); err != nil {
		return noGrant(err, tenant)
	}
	ch.touch(tenant)
	return ch.audit("user.revoke", tenant, u.ID, u.Login)
}

// noGrant is notFound for grants.
func noGrant(err error, tenant string) error {
	return notFound(err, "grant of tenant", tenant, "the user has none of it")
}

// people returns who was granted a tenant, as its nodes are told.
func (ch *change) people(tenant string) ([]postern.Person, error) {
	grants, err := ch.Grants().In(tenant)
	if err != nil {
		return nil, err
	}
	users, err := ch.Users().Granted(tenant)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]User, len(users))
	for _, u := range users {
		byID[u.ID] = u
	}
	var people []postern.Person
	for _, g := range grants { // by user
		u := byID[g.User]
		if !u.Disabled.IsZero() {
			continue
		}
		p := postern.Person{ID: u.ID, Login: u.Login, Name: u.Name, Role: g.Role, Groups: g.Groups, Services: g.Services}
		if !u.NotBefore.IsZero() {
			p.NotBefore = u.NotBefore.Unix()
		}
		people = append(people, p)
	}
	return people, nil
}
