package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"postern"
)

const (
	maxPasskeys   = 32       // of one user
	maxCredential = 32 << 10 // bytes of JSON
)

// Passkeys returns a user's passkeys.
func (c *Coordinator) Passkeys(ctx context.Context, user string) ([]Passkey, error) {
	var all []Passkey
	err := c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		all, err = tx.Passkeys().Of(user)
		return err
	})
	return all, err
}

// Passkey returns a passkey and whose it is. It fails with ErrNotFound, also for
// one of a disabled user.
func (c *Coordinator) Passkey(ctx context.Context, id string) (Passkey, User, error) {
	var k Passkey
	var u User
	err := c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		if k, err = tx.Passkeys().Get(id); err != nil {
			return err
		}
		u, err = activeUser(tx, k.User)
		return err
	})
	return k, u, err
}

// PutPasskey adds a passkey, or replaces it after it was used: a k with a time of
// use has to be there already. Passkeys are added as often as is recorded of one actor;
// so none of them has to be limited in being removed, or used.
func (c *Coordinator) PutPasskey(ctx context.Context, actor string, k Passkey) error {
	return c.update(ctx, actor, func(ch *change) error {
		if k.Used.IsZero() && !c.limits.record.allow(actor) {
			return tooMany()
		}
		return ch.putPasskey(k)
	})
}

func (ch *change) putPasskey(k Passkey) error {
	u, err := activeUser(ch, k.User)
	if err != nil {
		return noUser(err, k.User)
	}
	if err := checkText("name", k.Name); err != nil {
		return invalid(err, "")
	}
	if k.ID == "" || len(k.Credential) == 0 || len(k.Credential) > maxCredential {
		return invalid(errors.New("the passkey has no id, or no credential that could be kept"), "try again, or use another passkey")
	}
	old, err := ch.Passkeys().Get(k.ID)
	switch {
	case err == nil && old.User != u.ID:
		return taken("this passkey is another user's", "use another one")
	case err == nil && k.Used.IsZero():
		return taken("this passkey is here already", "it is ready to be used")
	case err == nil:
		k.Created = old.Created
		return ch.Passkeys().Put(k)
	case !errors.Is(err, ErrNotFound):
		return err
	case !k.Used.IsZero():
		// It was removed while it was being used. That it is gone stands.
		return notFound(err, "passkey", k.Name, "it was removed")
	}
	if err := ch.checkLocal(u); err != nil {
		return err
	}
	all, err := ch.Passkeys().Of(u.ID)
	if err != nil {
		return err
	}
	if len(all) >= maxPasskeys {
		return invalid(fmt.Errorf("there are %d passkeys already", len(all)), "remove one that is not used any more")
	}
	if k.Created.IsZero() {
		k.Created = ch.now
	}
	return errors.Join(ch.Passkeys().Put(k), ch.auditUser("passkey.add", u, k.Name))
}

// RemovePasskey removes a passkey, but not a user's last way to sign in.
func (c *Coordinator) RemovePasskey(ctx context.Context, actor, user, id string) error {
	return c.update(ctx, actor, func(ch *change) error {
		u, err := activeUser(ch, user)
		if err != nil {
			return noUser(err, user)
		}
		k, err := ch.Passkeys().Get(id)
		if err == nil && k.User != u.ID {
			err = ErrNotFound
		}
		if err != nil {
			return notFound(err, "passkey", id, "")
		}
		if err := ch.Passkeys().Delete(id); err != nil {
			return err
		}
		left, err := ch.Users().Credentials(u.ID)
		if err != nil {
			return err
		}
		if !u.canSignIn(left[u.ID]) {
			return postern.NewProblem(http.StatusConflict, postern.CodeForbidden,
				"this passkey is the only way to sign in", "set a password or add another passkey first")
		}
		return ch.auditUser("passkey.remove", u, k.Name)
	})
}

func (ch *change) dropPasskeys(u User) error {
	all, err := ch.Passkeys().Of(u.ID)
	if err != nil {
		return err
	}
	for _, k := range all {
		if err := ch.Passkeys().Delete(k.ID); err != nil {
			return err
		}
	}
	return nil
}

// canSignIn reports whether u has a password, a passkey or an external issuer.
func (u *User) canSignIn(c Credentials) bool { return u.Password != "" || c.Passkeys+c.Links > 0 }
