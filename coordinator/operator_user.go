package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern"
)

// Operator returns what the user with id operates: the deployment, or the tenants
// that they manage. It is nil if that is nothing.
func (c *Coordinator) Operator(ctx context.Context, user string) (*Operator, error) {
	o := &Operator{c: c, actor: ActorUser(user), user: user, roles: make(map[string]string)}
	err := c.cfg.Store.View(ctx, func(tx Tx) error {
		u, err := activeUser(tx, user)
		if err != nil {
			return err
		}
		o.all = u.Operator
		grants, err := tx.Grants().Of(user)
		for _, g := range grants {
			if postern.Manages(g.Role) {
				o.roles[g.Tenant] = g.Role
			}
		}
		return err
	})
	if errors.Is(err, ErrNotFound) || err == nil && !o.all && len(o.roles) == 0 {
		return nil, nil
	}
	return o, err
}

// Users returns the users with a grant of tenant, or, for "", all whom o may see,
// by login.
func (o *Operator) Users(ctx context.Context, tenant string) ([]postern.UserState, error) {
	var all []postern.UserState
	err := o.c.cfg.Store.View(ctx, func(tx Tx) error {
		users, err := o.users(tx, tenant)
		if err != nil {
			return err
		}
		all, err = o.userStates(tx, users...)
		return err
	})
	return all, err
}

// users returns whom Users does.
func (o *Operator) users(tx Tx, tenant string) ([]User, error) {
	var all []User
	var err error
	switch {
	case tenant != "" && !o.sees(tenant):
	case tenant != "":
		all, err = tx.Users().Granted(tenant)
	case o.all:
		all, err = tx.Users().All()
	default:
		for t := range o.roles {
			some, failed := tx.Users().Granted(t)
			all, err = append(all, some...), errors.Join(err, failed)
		}
	}
	slices.SortFunc(all, func(a, b User) int { return cmp.Compare(a.Login, b.Login) })
	return slices.CompactFunc(all, func(a, b User) bool { return a.ID == b.ID }), err
}

// User returns a user, by id or login.
func (o *Operator) User(ctx context.Context, user string) (postern.UserState, error) {
	var state postern.UserState
	err := o.c.cfg.Store.View(ctx, func(tx Tx) error {
		u, _, err := o.find(tx, user)
		if err == nil {
			state, err = o.userState(tx, u)
		}
		return err
	})
	return state, o.answer(ctx, user, err)
}

// find returns the user with that id or login, if o may see them, and all that they
// were granted.
func (o *Operator) find(tx Tx, user string) (User, []Grant, error) {
	u, err := tx.Users().Get(user)
	if errors.Is(err, ErrNotFound) {
		u, err = tx.Users().ByLogin(strings.ToLower(strings.TrimSpace(user)))
	}
	if err != nil {
		return u, nil, noUser(err, user)
	}
	grants, err := tx.Grants().Of(u.ID)
	if err == nil && !o.all && !slices.ContainsFunc(grants, func(g Grant) bool { return o.sees(g.Tenant) }) {
		err = noUser(ErrNotFound, user)
	}
	return u, grants, err
}

// userState returns u as o may see them.
func (o *Operator) userState(tx Tx, u User) (postern.UserState, error) {
	all, err := o.userStates(tx, u)
	if err != nil {
		return postern.UserState{}, err
	}
	return all[0], nil
}

// userStates is userState for many, in their order.
func (o *Operator) userStates(tx Tx, users ...User) ([]postern.UserState, error) {
	ids := make([]string, len(users))
	for i, u := range users {
		ids[i] = u.ID
	}
	credentials, err := tx.Users().Credentials(ids...)
	if err != nil {
		return nil, err
	}
	grants, err := tx.Grants().Of(ids...)
	if err != nil {
		return nil, err
	}
	granted := make(map[string][]postern.UserGrant) // by user
	for _, g := range grants {
		if o.sees(g.Tenant) {
			granted[g.User] = append(granted[g.User], postern.UserGrant{
				Tenant: g.Tenant, Role: g.Role, Groups: g.Groups, Services: g.Services, Issuer: g.Issuer,
			})
		}
	}
	all := make([]postern.UserState, len(users))
	for i, u := range users {
		c := credentials[u.ID]
		s := postern.UserState{
			ID: u.ID, Login: u.Login, Name: u.Name, State: postern.UserActive, Operator: o.all && u.Operator,
			Grants: granted[u.ID], Password: u.Password != "", Passkeys: c.Passkeys, Created: u.Created, SignedIn: u.SignedIn,
		}
		if o.c.cfg.Now().Before(c.Invited) {
			s.Invited = c.Invited
		}
		switch {
		case !u.Disabled.IsZero():
			s.State = postern.UserDisabled
		case !u.canSignIn(c):
			s.State = postern.UserInvited
		}
		if s.Grants == nil {
			s.Grants = []postern.UserGrant{}
		}
		all[i] = s
	}
	return all, nil
}

// changeUser runs fn on a user whom o may see, and returns what became of them.
func (o *Operator) changeUser(ctx context.Context, user string, fn func(*change, User, []Grant) error) (postern.UserState, error) {
	var state postern.UserState
	err := o.update(ctx, user, func(ch *change) error {
		u, grants, err := o.find(ch, user)
		if err != nil {
			return err
		}
		if err := fn(ch, u, grants); err != nil {
			return err
		}
		if u, err = ch.Users().Get(u.ID); err != nil {
			return err
		}
		state, err = o.userState(ch, u)
		return err
	})
	return state, err
}

// AddUser makes a user. Who operates tenants only adds a user together with a
// grant, see AddMember.
func (o *Operator) AddUser(ctx context.Context, req postern.UserRequest) (postern.UserState, error) {
	var state postern.UserState
	err := o.update(ctx, req.Login, func(ch *change) error {
		err := o.whole()
		if err != nil {
			return err
		}
		u, err := ch.addUser(req)
		if err == nil {
			state, err = o.userState(ch, u)
		}
		return err
	})
	return state, err
}

// RemoveUser removes a user with all that is theirs.
func (o *Operator) RemoveUser(ctx context.Context, user string) error {
	return o.update(ctx, user, func(ch *change) error {
		if err := o.whole(); err != nil {
			return err
		}
		u, _, err := o.find(ch, user)
		if err == nil {
			err = o.checkSelf(u, "remove")
		}
		if err != nil {
			return err
		}
		return ch.removeUser(u)
	})
}

// InviteUser makes a link by which a user chooses how to sign in; earlier links are
// void. Who opens it is that user: whoever invites somebody could be them, in all that
// they may open, see checkAccount.
func (o *Operator) InviteUser(ctx context.Context, user string) (postern.Invite, error) {
	var invite postern.Invite
	state, err := o.changeUser(ctx, user, func(ch *change, u User, grants []Grant) error {
		if err := o.checkAccount(u, grants); err != nil {
			return err
		}
		if err := o.charge(); err != nil {
			return err
		}
		secret, i, err := ch.invite(u)
		invite.URL, invite.Expires = o.c.PortalURL()+"/invite/"+secret, i.Expires
		return err
	})
	if err != nil {
		return postern.Invite{}, err
	}
	invite.User = state
	return invite, nil
}

// DisableUser signs a user out everywhere, and keeps them out.
func (o *Operator) DisableUser(ctx context.Context, user string) (postern.UserState, error) {
	return o.changeUser(ctx, user, func(ch *change, u User, grants []Grant) error {
		if err := cmp.Or(o.checkSelf(u, "disable"), o.checkAccount(u, grants)); err != nil {
			return err
		}
		return ch.disableUser(u)
	})
}

// EnableUser lets a user in again who was disabled.
func (o *Operator) EnableUser(ctx context.Context, user string) (postern.UserState, error) {
	return o.changeUser(ctx, user, func(ch *change, u User, grants []Grant) error {
		if err := o.checkAccount(u, grants); err != nil {
			return err
		}
		if err := o.charge(); err != nil {
			return err
		}
		return ch.enableUser(u)
	})
}

// checkAccount refuses o what changes how a user signs in, or whether, unless all
// that the user has is o's to give.
func (o *Operator) checkAccount(u User, grants []Grant) error {
	if o.all {
		return nil
	}
	for _, g := range grants {
		if o.sees(g.Tenant) && g.Role == postern.TenantOwner && !o.owns(g.Tenant) {
			return ownersOnly(g.Tenant)
		}
	}
	if u.Operator || slices.ContainsFunc(grants, func(g Grant) bool { return !o.sees(g.Tenant) }) {
		return forbidden(fmt.Sprintf("the account of %q is for more than what you manage", u.Login),
			"ask who operates the deployment; what you granted you may revoke")
	}
	return nil
}

// checkSelf refuses o what would leave nobody to take it back.
func (o *Operator) checkSelf(u User, what string) error {
	if u.ID != o.user {
		return nil
	}
	return forbidden("you cannot "+what+" your own account", "ask another who operates or manages the same")
}
