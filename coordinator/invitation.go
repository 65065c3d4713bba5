package coordinator

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"postern"
)

// invitationLife is how long an invitation is good.
const invitationLife = 72 * time.Hour

// newSecret returns 256 random bits as text, and the hash that is kept of it.
func newSecret() (string, [32]byte) {
	var b [32]byte
	rand.Read(b[:])
	secret := base64.RawURLEncoding.EncodeToString(b[:])
	return secret, hashSecret(secret)
}

func hashSecret(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// invite makes the one invitation of u that is good, and returns its secret.
func (ch *change) invite(u User) (string, Invitation, error) {
	if !u.Disabled.IsZero() {
		return "", Invitation{}, forbidden("the user is disabled", "enable them first")
	}
	if err := ch.checkLocal(u); err != nil {
		return "", Invitation{}, err
	}
	if err := ch.dropInvitations(u); err != nil {
		return "", Invitation{}, err
	}
	secret, hash := newSecret()
	i := Invitation{Hash: hash, User: u.ID, By: ch.actor, Created: ch.now, Expires: ch.now.Add(invitationLife)}
	return secret, i, errors.Join(
		ch.Invitations().Put(i),
		ch.auditUser("user.invite", u, u.Login+" until "+i.Expires.UTC().Format(time.RFC3339)),
	)
}

func (ch *change) dropInvitations(u User) error {
	all, err := ch.Invitations().Of(u.ID)
	if err != nil {
		return err
	}
	for _, i := range all {
		if err := ch.Invitations().Delete(i.Hash); err != nil {
			return err
		}
	}
	return nil
}

// Invitation returns the invitation with that secret, and whom it is for. It
// fails with a Problem once it is used or expired.
func (c *Coordinator) Invitation(ctx context.Context, secret string) (Invitation, User, error) {
	var i Invitation
	var u User
	err := c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		i, u, err = invitation(tx, hashSecret(secret), c.cfg.Now())
		return err
	})
	return i, u, c.noteRefusal(ctx, i.User, err)
}

func invitation(tx Tx, hash [32]byte, now time.Time) (Invitation, User, error) {
	const again = "ask whoever invited you for a new one"
	gone := func(code, detail string) error {
		return postern.NewProblem(http.StatusGone, code, detail, again)
	}
	i, err := tx.Invitations().Get(hash)
	if errors.Is(err, ErrNotFound) {
		return i, User{}, gone(postern.CodeTokenUsed, "the link may be mistyped, used already or too old, or a newer one took its place")
	}
	if err != nil {
		return i, User{}, err
	}
	if !now.Before(i.Expires) {
		return i, User{}, gone(postern.CodeTokenExpired, "this invitation has expired")
	}
	u, err := activeUser(tx, i.User)
	if errors.Is(err, ErrNotFound) {
		err = gone(postern.CodeTokenRevoked, "this account cannot sign in any more")
	}
	return i, u, err
}

// noteRefusal records err if it is about an invitation that is good no more, and
// returns it. user may be empty.
func (c *Coordinator) noteRefusal(ctx context.Context, user string, err error) error {
	var p *postern.Problem
	if errors.As(err, &p) && p.Status == http.StatusGone {
		c.Note(ctx, ActorStranger, "signin.refused", "", user, p.Detail)
	}
	return err
}

// Accept uses an invitation up: the user gets the name, if not empty, and either the
// password or the passkey, in place of every password and passkey that they had. Of
// many who try at the same time one succeeds. Who signed in before is signed out
// everywhere.
func (c *Coordinator) Accept(ctx context.Context, secret, name, password string, k *Passkey) (User, error) {
	if (password == "") == (k == nil) {
		return User{}, invalid(errors.New("an invitation is accepted with a password or a passkey"), "give one of them")
	}
	_, u, err := c.Invitation(ctx, secret)
	if err != nil {
		return User{}, err
	}
	var hash string
	if k == nil {
		// Outside the transaction: nobody else should wait for it.
		if hash, err = c.hashPassword(ctx, password, u.Login); err != nil {
			return User{}, err
		}
	}
	err = c.update(ctx, ActorUser(u.ID), func(ch *change) (err error) {
		u, err = ch.accept(hashSecret(secret), name, hash, k)
		return err
	})
	return u, c.noteRefusal(ctx, u.ID, err)
}

// accept is Accept with the password's hash.
func (ch *change) accept(secret [32]byte, name, password string, k *Passkey) (User, error) {
	i, u, err := invitation(ch, secret, ch.now)
	if err != nil {
		return u, err
	}
	if err := ch.checkLocal(u); err != nil {
		return u, err
	}
	if err := checkText("name", name); err != nil {
		return u, invalid(err, "")
	}
	u.Name = cmp.Or(name, u.Name)
	u.Password = password // empty beside a passkey: whoever has the old one is out
	err = errors.Join(ch.Invitations().Delete(i.Hash), ch.dropPasskeys(u), ch.Users().Put(u), ch.touchUser(u))
	if err != nil {
		return u, err
	}
	how := "with a password"
	if k != nil {
		how = "with a passkey"
		k := *k
		k.User = u.ID
		if err := ch.putPasskey(k); err != nil {
			return u, err
		}
	}
	if !u.SignedIn.IsZero() {
		if err := ch.endSessions(&u); err != nil {
			return u, err
		}
	}
	return u, ch.auditUser("signin.invitation", u, u.Login+" "+how)
}

// FirstInvitation invites the first operator, who is made if the registry has no
// user at all, and returns the invitation's secret; earlier ones are void. ok is
// false once that operator accepted, or if others make it needless.
func (c *Coordinator) FirstInvitation(ctx context.Context) (secret string, ok bool, err error) {
	err = c.update(ctx, actorLocal, func(ch *change) error {
		users, err := ch.Users().All()
		if err != nil {
			return err
		}
		if len(users) == 0 {
			u, err := ch.addUser(postern.UserRequest{Login: firstLogin, Operator: true})
			if err != nil {
				return err
			}
			users = []User{u}
		}
		var first User
		for _, u := range users {
			if u.Operator && first.ID != "" {
				return nil
			}
			if u.Operator {
				first = u
			}
		}
		if first.ID == "" || !first.Disabled.IsZero() {
			return nil
		}
		if of, err := ch.Users().Credentials(first.ID); err != nil || first.canSignIn(of[first.ID]) {
			return err
		}
		secret, _, err = ch.invite(first)
		ok = err == nil
		return err
	})
	return secret, ok && err == nil, err
}

// firstLogin is the first operator's.
const firstLogin = "operator"
