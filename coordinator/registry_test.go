package coordinator_test

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
	"postern/coordinator/sqlite"
)

// A registry is a coordinator that serves nobody, at a time that stands still.
type registry struct {
	*coordinator.Coordinator
	t     *testing.T
	store *interrupted
	dns   fakeDNS

	mu  sync.Mutex
	now time.Time
}

// An interrupted store is one in which something happens right before the next change,
// or right before its commit.
type interrupted struct {
	*sqlite.Store
	before func() // once; nil: nothing
	commit error  // what commits fail with; nil: they do not
}

func (s *interrupted) Update(ctx context.Context, fn func(coordinator.Tx) error) error {
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	return s.Store.Update(ctx, func(tx coordinator.Tx) error { return cmp.Or(fn(tx), s.commit) })
}

// openRegistry opens a new one, with a tenant acme and passwords that are hashed fast.
func openRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{t: t, now: time.Date(2026, 3, 4, 12, 0, 0, 250_000_000, time.UTC)}
	dir := t.TempDir()
	store, err := sqlite.Open(t.Context(), filepath.Join(dir, "registry.db"))
	must(t, err)
	r.store = &interrupted{Store: store}
	t.Cleanup(func() { must(t, r.store.Close()) })
	authority, err := coordinator.OpenAuthority(filepath.Join(dir, "authority"), base, r.clock)
	must(t, err)
	r.Coordinator, err = coordinator.New(coordinator.Config{Store: r.store, Authority: authority, Base: base, Now: r.clock, Resolver: &r.dns})
	must(t, err)
	r.CheapPasswords(1)
	must(t, r.AddTenant(t.Context(), "acme"))
	return r
}

func (r *registry) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *registry) wait(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// user makes a user with that login and, if it is not empty, password.
func (r *registry) user(login, password string) coordinator.User {
	r.t.Helper()
	u, err := r.AddUser(r.t.Context(), postern.UserRequest{Login: login})
	must(r.t, err)
	if password != "" {
		must(r.t, r.SetPassword(r.t.Context(), coordinator.ActorUser(u.ID), u.ID, password, ""))
		r.wait(time.Second) // it signed them out everywhere
	}
	return r.fresh(u)
}

// fresh reads u again.
func (r *registry) fresh(u coordinator.User) coordinator.User {
	r.t.Helper()
	r.view(func(tx coordinator.Tx) (err error) {
		u, err = tx.Users().Get(u.ID)
		return err
	})
	return u
}

// grant grants u acme, as a member.
func (r *registry) grant(u coordinator.User) {
	r.t.Helper()
	_, err := r.PutGrant(r.t.Context(), u.ID, "acme", postern.GrantRequest{})
	must(r.t, err)
}

// signIn starts a session of u.
func (r *registry) signIn(u coordinator.User) (string, coordinator.Session) {
	r.t.Helper()
	secret, s, err := r.StartSession(r.t.Context(), coordinator.SignIn{User: u.ID, Methods: []string{"pwd"}, Remote: somewhere})
	must(r.t, err)
	return secret, s
}

// here reports whether the session with that secret goes on.
func (r *registry) here(secret string) bool {
	r.t.Helper()
	_, _, err := r.Session(r.t.Context(), secret)
	if err != nil && !errors.Is(err, coordinator.ErrNotFound) {
		r.t.Fatal(err)
	}
	return err == nil
}

func (r *registry) view(fn func(coordinator.Tx) error) {
	r.t.Helper()
	must(r.t, r.store.View(r.t.Context(), fn))
}

// log returns the entries of the audit log with that action, as ACTOR TARGET: DETAIL.
func (r *registry) log(action string) (entries []string) {
	r.t.Helper()
	r.view(func(tx coordinator.Tx) error {
		all, err := tx.Audit(coordinator.AuditQuery{Limit: 100_000}, nil)
		for _, e := range all {
			if e.Action == action {
				entries = append(entries, e.Actor+" "+e.Target+": "+e.Detail)
			}
		}
		return err
	})
	return entries
}

// wantLog fails the test if the newest entry with that action has not all of words.
func (r *registry) wantLog(action string, words ...string) {
	r.t.Helper()
	all := r.log(action)
	if len(all) == 0 {
		r.t.Errorf("no %s in the audit log", action)
		return
	}
	last := all[len(all)-1]
	if slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(last, w) }) {
		r.t.Errorf("%s in the audit log: got %q, want all of %q", action, last, words)
	}
}

var somewhere = netip.MustParseAddr("192.0.2.7")
