package coordinator

import (
	"context"
	"errors"
	"slices"
	"time"
)

// How sessions end, and how nodes learn of it. A session that expires is good no
// longer at the portal; sessions at nodes that came of it have limits of their own.
// One that is ended before its time ends there, too: nodes are told its id as long
// as they may know it (postern.Section, Ended). Or they are told a time, and whoever
// signed in before it did so in vain (postern.Person, NotBefore): all sessions of a
// user end so, and the oldest where there are too many to tell one by one.
//
// So the row of a session stays for keepSession after its end, however that came,
// unless the user's NotBefore says it: somebody's password that is set anew ends what
// came of sessions that expired at the portal before.
const (
	// keepSession is as long as a session at a node may go on, and an hour for
	// clocks that differ.
	keepSession = 25 * time.Hour

	maxSessions = 64 // of a user, that were not ended
	maxEnded    = 32 // of a user, that were
)

// EndSession ends one of a user's sessions, at the portal and at all nodes.
func (c *Coordinator) EndSession(ctx context.Context, actor, user, id string) error {
	return c.update(ctx, actor, func(ch *change) error {
		s, err := ch.Sessions().ByID(id)
		if err == nil && (s.User != user || !s.Ended.IsZero()) {
			err = ErrNotFound
		}
		if err != nil {
			return notFound(err, "session", id, "it has ended")
		}
		u, err := ch.Users().Get(user)
		if err != nil {
			return err
		}
		return errors.Join(ch.endSession(&u, s), ch.auditUser("session.end", u, id+" of "+u.Login))
	})
}

// EndSessions ends all sessions of a user, at the portal and at all nodes.
func (c *Coordinator) EndSessions(ctx context.Context, actor, user string) error {
	return c.update(ctx, actor, func(ch *change) error {
		u, err := ch.Users().Get(user)
		if err != nil {
			return noUser(err, user)
		}
		return errors.Join(ch.endSessions(&u), ch.auditUser("session.end", u, "all of "+u.Login))
	})
}

// endSession ends s, which is u's.
func (ch *change) endSession(u *User, s Session) error {
	if s.Signed.Before(u.NotBefore) {
		return nil // and forgotten
	}
	s.Ended = ch.now
	if s.Expires.After(ch.now) {
		s.Expires = ch.now
	}
	if err := errors.Join(ch.Sessions().Put(s), ch.touchUser(*u)); err != nil {
		return err
	}
	return ch.boundEnded(u)
}

// endSessions ends all sessions of u: a time says it of all, so they need not be
// remembered one by one.
func (ch *change) endSessions(u *User) error {
	all, err := ch.Sessions().Of(u.ID)
	if err != nil {
		return err
	}
	next := ch.now.UTC().Truncate(time.Second).Add(time.Second)
	for _, s := range all {
		if !s.Signed.Before(next) {
			next = s.Signed.Add(time.Second)
		}
	}
	return ch.endBefore(u, next)
}

// endOthers ends all sessions of u but the one with id keep; all if there is none.
// That one ends, too, if more than maxEnded others were signed in after it.
func (ch *change) endOthers(u *User, keep string) error {
	kept, err := ch.Sessions().ByID(keep)
	if errors.Is(err, ErrNotFound) || err == nil && (kept.User != u.ID || !kept.goesOn(u, ch.now)) {
		return ch.endSessions(u)
	}
	if err != nil {
		return err
	}
	all, err := ch.Sessions().Of(u.ID)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.ID == keep || !s.Ended.IsZero() {
			continue
		}
		if err := ch.endSession(u, s); err != nil {
			return err
		}
	}
	return nil
}

// endBefore ends all sessions of u that were signed in before t, whole seconds, and
// forgets them. It puts u.
func (ch *change) endBefore(u *User, t time.Time) error {
	if t.After(u.NotBefore) {
		u.NotBefore = t
	}
	all, err := ch.Sessions().Of(u.ID)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Signed.Before(u.NotBefore) {
			if err := ch.Sessions().Delete(s.Hash); err != nil {
				return err
			}
		}
	}
	return errors.Join(ch.Users().Put(*u), ch.touchUser(*u))
}

// makeRoom ends the oldest sessions of u that leave no room for another.
func (ch *change) makeRoom(u *User) error {
	all, err := ch.Sessions().Of(u.ID)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(s Session) bool { return !s.Ended.IsZero() })
	slices.SortFunc(all, func(a, b Session) int { return a.Signed.Compare(b.Signed) })
	for _, s := range all[:max(0, len(all)-maxSessions+1)] {
		if err := ch.endSession(u, s); err != nil {
			return err
		}
	}
	return nil
}

// boundEnded keeps nodes from being told of more than maxEnded sessions of u: the
// older half is ended by a time, with whatever is as old.
func (ch *change) boundEnded(u *User) error {
	all, err := ch.Sessions().Of(u.ID)
	if err != nil {
		return err
	}
	ended := slices.DeleteFunc(all, func(s Session) bool { return s.Ended.IsZero() })
	if len(ended) <= maxEnded {
		return nil
	}
	slices.SortFunc(ended, func(a, b Session) int { return a.Signed.Compare(b.Signed) })
	return ch.endBefore(u, ended[len(ended)/2].Signed.Add(time.Second))
}

// ended returns the ids of the sessions that were ended before their time, of who
// was granted a tenant, as its nodes are told.
func (ch *change) ended(tenant string) ([]string, error) {
	rows, err := ch.Sessions().Ended(tenant, ch.now.Add(-keepSession))
	var ids []string
	for _, s := range rows { // by id
		ids = append(ids, s.ID)
	}
	return ids, err
}

// sweepSessions forgets sessions that ended so long ago that no node has any use for
// knowing. Their ids leave the map with their tenants' next change.
func (c *Coordinator) sweepSessions(ctx context.Context) {
	const batch = 1000
	old := func(tx Tx) ([]Session, error) {
		return tx.Sessions().Expired(c.cfg.Now().Add(-keepSession), batch)
	}
	for found := batch; found == batch; {
		err := c.cfg.Store.View(ctx, func(tx Tx) error { // writes wait for the disk
			all, err := old(tx)
			found = len(all)
			return err
		})
		if err == nil && found > 0 {
			err = c.update(ctx, actorLocal, func(ch *change) error {
				all, err := old(ch)
				for _, s := range all {
					err = errors.Join(err, ch.Sessions().Delete(s.Hash))
				}
				return err
			})
		}
		if err != nil {
			c.log.Warn("old sessions not forgotten", "err", err)
			return
		}
	}
}
