package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern"
)

// A SignIn is somebody who just proved who they are.
type SignIn struct {
	User    string
	Methods []string // RFC 8176
	Device  bool
	Agent   string
	Remote  netip.Addr
}

// Lifetimes of sessions at the portal.
const (
	SessionIdle = 30 * time.Minute
	SessionMax  = 12 * time.Hour
	DeviceMax   = 30 * 24 * time.Hour // of a device's, without idle limit
)

// Methods of signing in (RFC 8176) that the registry tells apart.
const (
	methodPassword = "pwd"
	methodPasskey  = "hwk"
	methodExternal = "fed" // not in the RFC: somebody else's word
)

const (
	// keepSession is how long a session is remembered after its end: as long as a
	// session at a node that came of it may go on, and an hour for their clocks.
	keepSession = 25 * time.Hour

	// maxSessions and maxEnded bound the sessions that are remembered of a user:
	// those that were not ended, and those that were. Nodes are told of the latter.
	maxSessions = 64
	maxEnded    = 32

	// noteUse is how often it is stored that a session is in use.
	noteUse = time.Minute
)

// StartSession starts a session and returns its secret. It fails with a Problem
// for who cannot sign in, or not in this way.
func (c *Coordinator) StartSession(ctx context.Context, in SignIn) (string, Session, error) {
	secret, hash := newSecret()
	var s Session
	err := c.update(ctx, ActorUser(in.User), func(ch *change) (err error) {
		s, err = ch.startSession(in, hash)
		return err
	})
	return secret, s, err
}

func (ch *change) startSession(in SignIn, hash [32]byte) (Session, error) {
	u, err := activeUser(ch, in.User)
	if errors.Is(err, ErrNotFound) {
		return Session{}, unauthorized("this account cannot sign in", "ask whoever invited you")
	}
	if err != nil {
		return Session{}, err
	}
	if !slices.Contains(in.Methods, methodExternal) {
		if err := ch.checkLocal(u); err != nil {
			return Session{}, err
		}
	}
	if err := ch.makeRoom(&u); err != nil {
		return Session{}, err
	}
	s := Session{
		Hash: hash, ID: postern.NewID(), User: u.ID, Device: in.Device, Methods: in.Methods,
		Agent: oneLine(in.Agent), Signed: ch.now.UTC().Truncate(time.Second), Seen: ch.now,
	}
	if in.Remote.IsValid() {
		s.Remote = in.Remote.String()
	}
	// Whoever was signed out everywhere a moment ago is signed in from the
	// second on for which that holds no longer.
	if s.Signed.Before(u.NotBefore) {
		s.Signed = u.NotBefore
	}
	s.Expires = s.deadline(ch.now)
	u.SignedIn = ch.now
	return s, errors.Join(ch.Sessions().Put(s), ch.Users().Put(u), ch.audit(in.action(), "", u.ID, in.describe(u)))
}

// deadline is when s expires that is used now.
func (s *Session) deadline(now time.Time) time.Time {
	if s.Device {
		return s.Signed.Add(DeviceMax)
	}
	idle, most := now.Add(SessionIdle), s.Signed.Add(SessionMax)
	if idle.Before(most) {
		return idle
	}
	return most
}

// action is the audit log's word for how somebody signed in.
func (in *SignIn) action() string {
	switch {
	case slices.Contains(in.Methods, methodExternal):
		return "signin.external"
	case slices.Contains(in.Methods, methodPasskey):
		return "signin.passkey"
	}
	return "signin.password"
}

func (in *SignIn) describe(u User) string {
	s := u.Login
	if in.Remote.IsValid() {
		s += " from " + in.Remote.String()
	}
	if in.Device {
		s += ", a device: " + oneLine(in.Agent)
	}
	return s
}

// oneLine makes a line that can be kept of a stranger's text.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, cut(s))
	return strings.ToValidUTF8(s[:min(len(s), maxTitle)], "")
}

// goesOn reports whether s, which is u's, is good at now.
func (s *Session) goesOn(u *User, now time.Time) bool {
	return s.Ended.IsZero() && now.Before(s.Expires) && !s.Signed.Before(u.NotBefore)
}

// Session returns the session with that secret, and whose it is; ErrNotFound for one
// that ended. It notes that the session is in use.
func (c *Coordinator) Session(ctx context.Context, secret string) (Session, User, error) {
	hash := hashSecret(secret)
	s, u, err := c.session(ctx, func(tx Tx) (Session, error) { return tx.Sessions().Get(hash) })
	if err != nil || c.cfg.Now().Sub(s.Seen) < noteUse {
		return s, u, err
	}
	err = c.update(ctx, ActorUser(u.ID), func(ch *change) error {
		now, err := ch.Sessions().Get(hash)
		if err != nil {
			return err
		}
		if !now.goesOn(&u, ch.now) || ch.now.Sub(now.Seen) < noteUse {
			return nil
		}
		now.Seen, now.Expires = ch.now, now.deadline(ch.now)
		s = now
		return ch.Sessions().Put(now)
	})
	if errors.Is(err, ErrNotFound) {
		return Session{}, User{}, err
	}
	if err != nil {
		// It was good a moment ago, and a full disk signs nobody out.
		c.log.Warn("use of a session not stored", "err", err)
	}
	return s, u, nil
}

// SessionByID is Session by its id, without noting its use.
func (c *Coordinator) SessionByID(ctx context.Context, id string) (Session, User, error) {
	return c.session(ctx, func(tx Tx) (Session, error) { return tx.Sessions().ByID(id) })
}

func (c *Coordinator) session(ctx context.Context, get func(Tx) (Session, error)) (s Session, u User, err error) {
	err = c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		if s, err = get(tx); err != nil {
			return err
		}
		if u, err = activeUser(tx, s.User); err != nil {
			return err
		}
		if !s.goesOn(&u, c.cfg.Now()) {
			return fmt.Errorf("session %s has ended: %w", s.ID, ErrNotFound)
		}
		return nil
	})
	if err != nil {
		return Session{}, User{}, err
	}
	return s, u, nil
}

// Sessions returns a user's sessions that go on, the newest first.
func (c *Coordinator) Sessions(ctx context.Context, user string) ([]Session, error) {
	var all []Session
	err := c.cfg.Store.View(ctx, func(tx Tx) error {
		u, err := activeUser(tx, user)
		if err != nil {
			return err
		}
		if all, err = tx.Sessions().Of(u.ID); err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(s Session) bool { return !s.goesOn(&u, c.cfg.Now()) })
		slices.SortFunc(all, func(a, b Session) int { return b.Signed.Compare(a.Signed) })
		return nil
	})
	return all, err
}

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
		return errors.Join(ch.endSession(&u, s), ch.audit("session.end", "", u.ID, id+" of "+u.Login))
	})
}

// EndSessions ends all sessions of a user, at the portal and at all nodes.
func (c *Coordinator) EndSessions(ctx context.Context, actor, user string) error {
	return c.update(ctx, actor, func(ch *change) error {
		u, err := ch.Users().Get(user)
		if err != nil {
			return noUser(err, user)
		}
		return errors.Join(ch.endSessions(&u), ch.audit("session.end", "", u.ID, "all of "+u.Login))
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
func (ch *change) endOthers(u *User, keep string) error {
	kept, err := ch.Sessions().ByID(keep)
	if errors.Is(err, ErrNotFound) || err == nil && (kept.User != u.ID || !kept.goesOn(u, ch.now)) {
		return ch.endSessions(u)
	}
	if err != nil {
		return err
	}
	if err := ch.endBefore(u, kept.Signed); err != nil {
		return err
	}
	rest, err := ch.Sessions().Of(u.ID)
	if err != nil {
		return err
	}
	for _, s := range rest {
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
