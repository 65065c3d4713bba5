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

// An External is somebody whom an external issuer vouches for.
type External struct {
	Issuer  string // name
	Subject string
	Login   string // e-mail address, if it is verified, or preferred user name
	Name    string
	Groups  []string // values of the groups claim
	Remote  netip.Addr
}

// SignInExternal returns the user whom e is, makes them if need be, and brings what
// the issuer grants up to date. It fails with a Problem for who has no role there.
//
// Only the link from issuer and subject says who somebody is. An e-mail address
// does not: each tenant's issuer could say any. So logins that issuers give are
// apart from those that people give, see externalLogin.
func (c *Coordinator) SignInExternal(ctx context.Context, e External) (User, error) {
	var i Issuer
	var u User
	var refused error // the change stands: it takes away what is granted no longer
	err := c.update(ctx, actorIssuer(e.Issuer), func(ch *change) (err error) {
		if i, err = ch.Issuers().Get(e.Issuer); err != nil {
			return notFound(err, "issuer", e.Issuer, "")
		}
		u, refused, err = ch.signInExternal(i, e)
		return err
	})
	if err == nil && refused != nil {
		c.refused(ctx, ActorStranger, "signin.refused", i.Tenant, u.ID, e.Remote, fmt.Errorf("%s: %w", i.Name, refused))
		err = refused
	}
	if err != nil {
		return User{}, err
	}
	return u, nil
}

// signInExternal is SignInExternal, at i, in a change that is to be committed although
// refused is not nil.
func (ch *change) signInExternal(i Issuer, e External) (u User, refused, err error) {
	if e.Subject == "" || len(e.Subject) > 255 { // OpenID Connect Core 1.0, section 2: sub
		return u, invalid(errors.New("the issuer gave no usable subject"), "ask whoever operates it"), nil
	}
	key := LinkKey{i.Name, e.Subject}
	link, err := ch.Links().Get(key)
	known := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return u, nil, err
	}
	if known {
		if u, err = ch.Users().Get(link.User); err != nil {
			return u, nil, err
		}
		if !u.Disabled.IsZero() {
			return u, unauthorized("this account cannot sign in", "ask whoever manages "+i.Tenant), nil
		}
	}
	role, groups := i.grants(e.Groups)
	if role == "" {
		refused = forbidden(fmt.Sprintf("none of your groups at %s may come in", i.Title), "ask whoever manages "+i.Tenant)
		if !known {
			return u, refused, nil
		}
		return u, refused, ch.takeBack(u, i)
	}
	if !known {
		if u, err = ch.addExternal(i, e); err != nil {
			return u, nil, err
		}
	}
	old, err := ch.Grants().Get(GrantKey{i.Tenant, u.ID})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return u, nil, err
	}
	if err == nil && old.Issuer != i.Name {
		return u, nil, nil // a person gave it
	}
	_, err = ch.putGrant(u, i.Tenant, postern.GrantRequest{Role: role, Groups: groups}, i.Name)
	return u, nil, err
}

// grants returns what who is in groups is worth in i's tenant: the most powerful role,
// "" if there is none, and the groups of all.
func (i *Issuer) grants(claimed []string) (role string, groups []string) {
	best := len(postern.TenantRoles)
	for name, r := range i.Roles {
		if name != everybody && !slices.Contains(claimed, name) {
			continue
		}
		of := r.Role
		if of == "" {
			of = postern.TenantMember
		}
		best = min(best, slices.Index(postern.TenantRoles, of))
		groups = append(groups, r.Groups...)
	}
	if best == len(postern.TenantRoles) {
		return "", nil
	}
	slices.Sort(groups)
	groups = slices.Compact(groups)
	return postern.TenantRoles[best], groups[:min(len(groups), postern.MaxGroups)]
}

// everybody is the group that all belong to whom an issuer vouches for.
const everybody = "*"

// takeBack deletes what i granted u, if anything.
func (ch *change) takeBack(u User, i Issuer) error {
	g, err := ch.Grants().Get(GrantKey{i.Tenant, u.ID})
	if errors.Is(err, ErrNotFound) || err == nil && g.Issuer != i.Name {
		return nil
	}
	if err != nil {
		return err
	}
	return ch.deleteGrant(u, i.Tenant)
}

// addExternal makes the user whom e is.
func (ch *change) addExternal(i Issuer, e External) (User, error) {
	login, err := ch.externalLogin(i, e)
	if err != nil {
		return User{}, err
	}
	u, err := ch.makeUser(User{Login: login, Name: oneLine(e.Name)})
	if err != nil {
		return User{}, err
	}
	return u, ch.Links().Put(Link{LinkKey: LinkKey{i.Name, e.Subject}, User: u.ID, Created: ch.now})
}

// externalLogin returns ISSUER/LOGIN, with a number behind it if another subject
// has that. Logins that people give have no slash, so an issuer can neither take
// the login of somebody who is still to come, nor pass for somebody who is there.
func (ch *change) externalLogin(i Issuer, e External) (string, error) {
	own, err := parseLogin(e.Login)
	if err != nil {
		own = "somebody"
	}
	stem := i.Name + "/" + own
	stem = strings.ToValidUTF8(stem[:min(len(stem), maxLogin-8)], "") // leaves room for a number
	login := stem
	for n := 2; ; n++ {
		if _, err := ch.Users().ByLogin(login); errors.Is(err, ErrNotFound) {
			return login, nil
		} else if err != nil {
			return "", err
		}
		login = fmt.Sprintf("%s-%d", stem, n)
	}
}
