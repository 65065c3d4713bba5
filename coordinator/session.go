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
	sessionIdle = 30 * time.Minute
	sessionMax  = 12 * time.Hour
	deviceMax   = 30 * 24 * time.Hour // of a device's, without idle limit
)

// Methods of signing in (RFC 8176) that the registry tells apart.
const (
	MethodPassword = "pwd"
	MethodPasskey  = "hwk"
	MethodExternal = "fed" // not in the RFC: somebody else's word
)

// noteUse is how often it is stored that a session is in use.
const noteUse = time.Minute

// StartSession starts a session and returns its secret. It fails with a Problem
// for who cannot sign in, or not in this way.
func (c *Coordinator) StartSession(ctx context.Context, in SignIn) (string, Session, error) {
	secret, hash := newSecret()
	var s Session
	err := c.update(ctx, ActorUser(in.User), func(ch *change) (err error) {
		s, err = ch.startSession(in, hash)
		return err
	})
	if err != nil {
		var p *postern.Problem
		if errors.As(err, &p) {
			c.refused(ctx, ActorStranger, "signin.refused", "", in.User, in.Remote, p)
		}
		return "", Session{}, err
	}
	return secret, s, nil
}

func (ch *change) startSession(in SignIn, hash [32]byte) (Session, error) {
	u, err := activeUser(ch, in.User)
	if errors.Is(err, ErrNotFound) {
		return Session{}, unauthorized("this account cannot sign in", "ask whoever invited you")
	}
	if err != nil {
		return Session{}, err
	}
	if !slices.Contains(in.Methods, MethodExternal) {
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
	return s, errors.Join(ch.Sessions().Put(s), ch.Users().Put(u), ch.auditUser(in.action(), u, in.describe(u)))
}

// deadline is when s expires that is used now.
func (s *Session) deadline(now time.Time) time.Time {
	if s.Device {
		return s.Signed.Add(deviceMax)
	}
	idle, most := now.Add(sessionIdle), s.Signed.Add(sessionMax)
	if idle.Before(most) {
		return idle
	}
	return most
}

// action is the audit log's word for how somebody signed in.
func (in *SignIn) action() string {
	switch {
	case slices.Contains(in.Methods, MethodExternal):
		return "signin.external"
	case slices.Contains(in.Methods, MethodPasskey):
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
	get := func(tx Tx) (Session, error) { return tx.Sessions().Get(hashSecret(secret)) }
	s, u, err := c.session(ctx, get)
	if err != nil || c.cfg.Now().Sub(s.Seen) < noteUse {
		return s, u, err
	}
	err = c.update(ctx, ActorUser(u.ID), func(ch *change) error {
		now, owner, err := goingOn(ch, get, ch.now) // it may have ended in between
		if err != nil {
			return err
		}
		if ch.now.Sub(now.Seen) >= noteUse {
			now.Seen, now.Expires = ch.now, now.deadline(ch.now)
			err = ch.Sessions().Put(now)
		}
		s, u = now, owner
		return err
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
		s, u, err = goingOn(tx, get, c.cfg.Now())
		return err
	})
	return s, u, err
}

// goingOn returns the session that get does and whose it is, if it is good at now.
func goingOn(tx Tx, get func(Tx) (Session, error), now time.Time) (Session, User, error) {
	s, err := get(tx)
	if err != nil {
		return Session{}, User{}, err
	}
	u, err := activeUser(tx, s.User)
	if err == nil && !s.goesOn(&u, now) {
		err = fmt.Errorf("session %s has ended: %w", s.ID, ErrNotFound)
	}
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
