package coordinator

import (
	"context"
	"errors"
	"fmt"

	"postern"
)

// owns reports whether o may make and unmake the owners of tenant.
func (o *Operator) owns(tenant string) bool {
	return o.all || o.roles[tenant] == postern.TenantOwner
}

func ownersOnly(tenant string) error {
	return forbidden(fmt.Sprintf("only an owner of %q decides over its owners", tenant), "ask one of them")
}

// AddMember grants tenant to the user with req's login, who is made if need be.
// Whoever manages the tenant may do it.
//
// A login that somebody has whom o may not see is taken, also where they can open
// nothing, or nothing any more: they may not be who o thinks they are, as another
// may have chosen their login and their password, and they may be somebody whom
// nobody is to pass for.
func (o *Operator) AddMember(ctx context.Context, tenant string, req postern.UserRequest, grant postern.GrantRequest) (postern.UserState, error) {
	var state postern.UserState
	err := o.update(ctx, tenant, func(ch *change) error {
		if !o.sees(tenant) {
			return noTenant(ErrNotFound, tenant)
		}
		if req.Operator && !o.all {
			return o.whole()
		}
		u, err := o.member(ch, tenant, req)
		if err == nil {
			err = o.checkRole(ch, u, Grant{}, tenant, grant.Role)
		}
		if err == nil {
			err = o.charge()
		}
		if err != nil {
			return err
		}
		if _, err := ch.putGrant(u, tenant, grant, ""); err != nil {
			return err
		}
		state, err = o.userState(ch, u)
		return err
	})
	return state, err
}

// member returns the user whom o may grant tenant by req's login.
func (o *Operator) member(ch *change, tenant string, req postern.UserRequest) (User, error) {
	login, err := parseLogin(req.Login)
	if err != nil {
		return ch.addUser(req) // which says what is wrong
	}
	u, err := ch.Users().ByLogin(login)
	if errors.Is(err, ErrNotFound) {
		return ch.addUser(req)
	}
	if err != nil {
		return u, err
	}
	grants, err := ch.Grants().Of(u.ID)
	if err != nil {
		return u, err
	}
	seen := o.all
	for _, g := range grants {
		if g.Tenant == tenant {
			return u, taken(fmt.Sprintf("%q was granted %q already", login, tenant), "change that grant")
		}
		seen = seen || o.sees(g.Tenant)
	}
	switch {
	case seen && req.Operator && !u.Operator:
		return u, taken(fmt.Sprintf("there is a user %q already, who does not operate the deployment", login), "choose another login")
	case seen:
		return u, nil
	}
	return u, taken(fmt.Sprintf("the login %q is another's", login),
		"choose another, or ask who operates the deployment to grant it")
}

// Grant grants tenant to a user, in place of what was granted of it before.
func (o *Operator) Grant(ctx context.Context, user, tenant string, req postern.GrantRequest) (postern.UserState, error) {
	return o.changeUser(ctx, user, func(ch *change, u User, _ []Grant) error {
		if !o.sees(tenant) {
			return noTenant(ErrNotFound, tenant)
		}
		old, err := ch.Grants().Get(GrantKey{tenant, u.ID})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := o.checkRole(ch, u, old, tenant, req.Role); err != nil {
			return err
		}
		if err := o.charge(); err != nil {
			return err
		}
		_, err = ch.putGrant(u, tenant, req, "")
		return err
	})
}

// Revoke takes tenant from a user.
func (o *Operator) Revoke(ctx context.Context, user, tenant string) (postern.UserState, error) {
	return o.changeUser(ctx, user, func(ch *change, u User, _ []Grant) error {
		if !o.sees(tenant) {
			return noGrant(ErrNotFound, tenant)
		}
		old, err := ch.Grants().Get(GrantKey{tenant, u.ID})
		if err != nil {
			return noGrant(err, tenant)
		}
		if err := o.checkRole(ch, u, old, tenant, ""); err != nil {
			return err
		}
		return ch.deleteGrant(u, tenant)
	})
}

// checkRole refuses to make or unmake an owner of tenant to who is none, and a last
// owner to end being one. old is what u has of tenant, the zero Grant for nothing.
func (o *Operator) checkRole(ch *change, u User, old Grant, tenant, role string) error {
	if (old.Role == postern.TenantOwner || role == postern.TenantOwner) && !o.owns(tenant) {
		return ownersOnly(tenant)
	}
	if u.ID != o.user || old.Role != postern.TenantOwner || role == postern.TenantOwner {
		return nil
	}
	grants, err := ch.Grants().In(tenant)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if g.Role != postern.TenantOwner || g.User == u.ID {
			continue
		}
		if _, err := activeUser(ch, g.User); err == nil {
			return nil
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return forbidden(fmt.Sprintf("you are the last owner of %q", tenant), "make somebody else an owner first")
}
