package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern"
)

// maxLogin bounds a login, in bytes, as RFC 5321 does an e-mail address.
const maxLogin = 254

// User returns the user with id. It fails with ErrNotFound, also for a disabled one.
func (c *Coordinator) User(ctx context.Context, id string) (User, error) {
	var u User
	err := c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		u, err = activeUser(tx, id)
		return err
	})
	return u, err
}

// activeUser returns the user with id, unless they are disabled.
func activeUser(tx Tx, id string) (User, error) {
	u, err := tx.Users().Get(id)
	if err == nil && !u.Disabled.IsZero() {
		return User{}, fmt.Errorf("user %s is disabled: %w", id, ErrNotFound)
	}
	return u, err
}

// SetName changes what a user is called, as often as is recorded of one actor.
func (c *Coordinator) SetName(ctx context.Context, actor, user, name string) error {
	return c.update(ctx, actor, func(ch *change) error {
		u, err := activeUser(ch, user)
		if err != nil {
			return noUser(err, user)
		}
		if err := checkText("name", name); err != nil {
			return invalid(err, "")
		}
		if u.Name == name {
			return nil
		}
		if !c.limits.record.allow(actor) {
			return tooMany()
		}
		u.Name = name
		return errors.Join(ch.Users().Put(u), ch.touchUser(u), ch.auditUser("user.name", u, name))
	})
}

// noUser is notFound for users.
func noUser(err error, user string) error {
	return notFound(err, "user", user, "")
}

// parseLogin returns the login that somebody typed: trimmed and in lower case.
// There is no / in what people are given by people, see externalLogin.
func parseLogin(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errors.New("the login is not UTF-8")
	}
	s = strings.ToLower(strings.TrimSpace(s))
	if s == "" {
		return "", errors.New("the login is empty")
	}
	if len(s) > maxLogin {
		return "", fmt.Errorf("the login has %d bytes, more than the %d that there may be", len(s), maxLogin)
	}
	for _, r := range s {
		if r == '/' || !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return "", fmt.Errorf("login %q: %q is not part of a login", s, r)
		}
	}
	return s, nil
}

// addUser makes a user, who has no way to sign in yet.
func (ch *change) addUser(req postern.UserRequest) (User, error) {
	login, err := parseLogin(req.Login)
	if err != nil {
		return User{}, invalid(err, "give an e-mail address, or a name without spaces and slashes")
	}
	if _, err := ch.Users().ByLogin(login); !errors.Is(err, ErrNotFound) {
		if err != nil {
			return User{}, err
		}
		return User{}, taken(fmt.Sprintf("there is a user %q already", login), "choose another login, or grant that user what you want to grant")
	}
	return ch.makeUser(User{Login: login, Name: req.Name, Operator: req.Operator})
}

// makeUser puts a new user, whose login is free.
func (ch *change) makeUser(u User) (User, error) {
	if err := checkText("name", u.Name); err != nil {
		return User{}, invalid(err, "")
	}
	u.ID, u.Created = "u"+postern.NewID(), ch.now
	detail := u.Login
	if u.Operator {
		detail += ", operates the deployment"
	}
	return u, errors.Join(ch.Users().Put(u), ch.auditUser("user.add", u, detail))
}

// removeUser removes a user with all that is theirs.
func (ch *change) removeUser(u User) error {
	// While it can be told whose they were.
	err := ch.auditUser("user.remove", u, u.Login)
	if err := errors.Join(err, ch.touchUser(u), ch.dropCredentials(u)); err != nil {
		return err
	}
	grants, err := ch.Grants().Of(u.ID)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if err := ch.Grants().Delete(g.GrantKey); err != nil {
			return err
		}
	}
	favourites, err := ch.Favourites().Of(u.ID)
	if err != nil {
		return err
	}
	for _, f := range favourites {
		if err := ch.Favourites().Delete(f); err != nil {
			return err
		}
	}
	return ch.Users().Delete(u.ID)
}

// dropCredentials deletes all by which u could sign in or is signed in.
func (ch *change) dropCredentials(u User) error {
	if err := ch.dropPasskeys(u); err != nil {
		return err
	}
	links, err := ch.Links().Of(u.ID)
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := ch.Links().Delete(l.LinkKey); err != nil {
			return err
		}
	}
	sessions, err := ch.Sessions().Of(u.ID)
	if err != nil {
		return err
	}
	for _, s := range sessions {
		if err := ch.Sessions().Delete(s.Hash); err != nil {
			return err
		}
	}
	return ch.dropInvitations(u)
}

// disableUser keeps u out until enableUser, and signs them out everywhere.
func (ch *change) disableUser(u User) error {
	if !u.Disabled.IsZero() {
		return nil
	}
	u.Disabled = ch.now
	return errors.Join(
		ch.endSessions(&u),
		ch.dropInvitations(u),
		ch.auditUser("user.disable", u, u.Login),
	)
}

// enableUser lets u in again, who has to sign in anew.
func (ch *change) enableUser(u User) error {
	if u.Disabled.IsZero() {
		return nil
	}
	u.Disabled = time.Time{}
	return errors.Join(ch.Users().Put(u), ch.touchUser(u), ch.auditUser("user.enable", u, u.Login))
}

// touchUser says that the part of the map changed that nodes are told of u.
func (ch *change) touchUser(u User) error {
	ch.shown = true // also to who was granted nothing
	grants, err := ch.Grants().Of(u.ID)
	for _, g := range grants {
		ch.touch(g.Tenant)
	}
	return err
}

// SetFavourite says whether a user wants to see something first.
func (c *Coordinator) SetFavourite(ctx context.Context, f Favourite, on bool) error {
	return c.update(ctx, ActorUser(f.User), func(ch *change) error {
		ch.shown = true
		if !on {
			if err := ch.Favourites().Delete(f); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			return nil
		}
		return ch.addFavourite(f)
	})
}

// maxFavourites bounds those of one user.
const maxFavourites = 500

func (ch *change) addFavourite(f Favourite) error {
	if _, err := ch.Grants().Get(GrantKey{f.Tenant, f.User}); err != nil {
		return notFound(err, "tenant", f.Tenant, "")
	}
	if err := postern.CheckLabel("service", f.Service); err != nil {
		return invalid(err, "")
	}
	if f.Entry != "" {
		if err := postern.CheckLabel("entry", f.Entry); err != nil {
			return invalid(err, "")
		}
	}
	all, err := ch.Favourites().Of(f.User)
	if err != nil {
		return err
	}
	if len(all) >= maxFavourites {
		return invalid(fmt.Errorf("there are %d favourites already", len(all)), "take some away first")
	}
	return ch.Favourites().Put(f)
}
