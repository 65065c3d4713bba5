package coordinator

import (
	"context"
	"errors"
)

// RenewSession changes the secret of a device's session that goes on, and returns
// the new one. It fails with ErrNotFound if secret is not the one it has at present.
func (c *Coordinator) RenewSession(ctx context.Context, secret string) (string, Session, User, error) {
	old := hashSecret(secret)
	next, hash := newSecret()
	var s Session
	var u User
	err := c.update(ctx, actorLocal, func(ch *change) (err error) {
		if s, err = ch.Sessions().Get(old); err != nil {
			return err
		}
		if u, err = activeUser(ch, s.User); err != nil {
			return err
		}
		if !s.Device || !s.goesOn(&u, ch.now) {
			return ErrNotFound
		}
		s.Hash, s.Seen = hash, ch.now
		return errors.Join(ch.Sessions().Delete(old), ch.Sessions().Put(s))
	})
	if err != nil {
		return "", Session{}, User{}, err
	}
	return next, s, u, nil
}
