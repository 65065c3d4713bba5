package coordinator_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

func TestStartSession(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	secret, s, err := r.StartSession(t.Context(), coordinator.SignIn{
		User: u.ID, Methods: []string{"pwd"}, Agent: "Mozilla/5.0\r\nX: y" + strings.Repeat("ü", 500), Remote: somewhere,
	})
	must(t, err)
	if !s.Signed.Equal(r.clock().Truncate(time.Second)) || s.User != u.ID || s.Device || s.Remote != "192.0.2.7" {
		t.Errorf("got %+v", s)
	}
	if len(s.Agent) > 200 || strings.ContainsAny(s.Agent, "\r\n\uFFFD") || !strings.HasPrefix(s.Agent, "Mozilla/5.0") {
		t.Errorf("agent: got %q", s.Agent)
	}
	if len(secret) < 43 || strings.Contains(secret, s.ID) {
		t.Errorf("secret %q of session %s", secret, s.ID)
	}
	got, who, err := r.Session(t.Context(), secret)
	if err != nil || got.ID != s.ID || who.ID != u.ID || !who.SignedIn.Equal(r.clock()) {
		t.Errorf("got %+v of %+v, %v", got, who, err)
	}
	if got, _, err := r.SessionByID(t.Context(), s.ID); err != nil || got.Hash != s.Hash {
		t.Errorf("by id: got %+v, %v", got, err)
	}
	for _, bad := range []string{"", s.ID, secret[1:], strings.Repeat("A", len(secret))} {
		if r.here(bad) {
			t.Errorf("%q is a session's secret", bad)
		}
	}
	r.wantLog("signin.password", "user:"+u.ID, "anna from 192.0.2.7")
	for method, action := range map[string]string{"hwk": "signin.passkey", "fed": "signin.external", "pwd": "signin.password"} {
		_, _, err := r.StartSession(t.Context(), coordinator.SignIn{User: u.ID, Methods: []string{method}})
		must(t, err)
		r.wantLog(action, u.ID)
	}
	_, _, err = r.StartSession(t.Context(), coordinator.SignIn{User: "nobody"})
	wantProblem(t, err, 401, postern.CodeUnauthorized)
}

func TestSessionLimits(t *testing.T) {
	tests := []struct {
		name   string
		device bool
		use    []time.Duration // when, one after the other
		want   bool            // at the last of them
	}{
		{"used in time", false, []time.Duration{29 * time.Minute, 29 * time.Minute}, true},
		{"not used", false, []time.Duration{30 * time.Minute}, false},
		{"used, and then not", false, []time.Duration{20 * time.Minute, 30 * time.Minute}, false},
		{"used for long", false, slices.Repeat([]time.Duration{20 * time.Minute}, 35), true},
		{"used for too long", false, slices.Repeat([]time.Duration{20 * time.Minute}, 36), false},
		{"a device's has no idle limit", true, []time.Duration{29 * 24 * time.Hour}, true},
		{"a device's ends", true, []time.Duration{30 * 24 * time.Hour}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := openRegistry(t)
			u := r.user("anna", goodPassword)
			secret, s, err := r.StartSession(t.Context(), coordinator.SignIn{User: u.ID, Methods: []string{"pwd"}, Device: tt.device, Agent: "cli"})
			must(t, err)
			for i, d := range tt.use {
				r.wait(d)
				_, _, byID := r.SessionByID(t.Context(), s.ID)
				want := tt.want || i < len(tt.use)-1
				if got := r.here(secret); got != want || (byID == nil) != want {
					t.Fatalf("use %d: goes on is %v, and by id %v, want %v", i, got, byID, want)
				}
			}
		})
	}
}

// That a session is in use is stored once a minute, and looking it up by its id
// stores nothing.
func TestSessionSeen(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	secret, s := r.signIn(u)
	stored := func() (seen time.Time) {
		r.view(func(tx coordinator.Tx) error {
			s, err := tx.Sessions().ByID(s.ID)
			seen = s.Seen
			return err
		})
		return seen
	}
	start := r.clock()
	r.wait(59 * time.Second)
	if _, _, err := r.SessionByID(t.Context(), s.ID); err != nil || !r.here(secret) || !stored().Equal(start) {
		t.Errorf("after 59 s: seen %v, %v, want %v", stored(), err, start)
	}
	r.wait(time.Second)
	if _, _, err := r.SessionByID(t.Context(), s.ID); err != nil || !stored().Equal(start) {
		t.Errorf("by id: seen %v, %v, want %v", stored(), err, start)
	}
	if !r.here(secret) || !stored().Equal(r.clock()) {
		t.Errorf("after a minute: seen %v, want %v", stored(), r.clock())
	}
	must(t, r.DisableUser(t.Context(), u.ID))
	if r.here(secret) {
		t.Error("of a disabled user")
	}
}

// A session that ends while its use is noted has ended, whatever ended it.
func TestSessionEndsInUse(t *testing.T) {
	for name, end := range map[string]func(coordinator.Tx, coordinator.Session, coordinator.User) error{
		"signed out": func(tx coordinator.Tx, s coordinator.Session, _ coordinator.User) error {
			s.Ended = s.Signed
			return tx.Sessions().Put(s)
		},
		"signed out everywhere": func(tx coordinator.Tx, s coordinator.Session, u coordinator.User) error {
			u.NotBefore = s.Signed.Add(time.Second)
			return tx.Users().Put(u)
		},
		"disabled": func(tx coordinator.Tx, s coordinator.Session, u coordinator.User) error {
			u.Disabled = s.Signed
			return tx.Users().Put(u)
		},
		"removed": func(tx coordinator.Tx, s coordinator.Session, u coordinator.User) error {
			return tx.Sessions().Delete(s.Hash)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRegistry(t)
			u := r.user("anna", "")
			secret, s := r.signIn(u)
			u = r.fresh(u)
			r.wait(time.Minute)
			r.store.before = func() {
				must(t, r.store.Store.Update(t.Context(), func(tx coordinator.Tx) error { return end(tx, s, u) }))
			}
			if got, of, err := r.Session(t.Context(), secret); !errors.Is(err, coordinator.ErrNotFound) {
				t.Errorf("got %+v of %q, %v", got, of.ID, err)
			}
		})
	}
}

func TestEndSession(t *testing.T) {
	r := openRegistry(t)
	u, other := r.user("anna", goodPassword), r.user("ben", goodPassword)
	one, s1 := r.signIn(u)
	two, s2 := r.signIn(u)
	r.wait(time.Second)
	three, s3 := r.signIn(u)
	if all, err := r.Sessions(t.Context(), u.ID); err != nil || len(all) != 3 || all[0].ID != s3.ID {
		t.Errorf("got %+v, %v, want three, the newest first", all, err)
	}
	wantProblem(t, r.EndSession(t.Context(), "local", other.ID, s1.ID), 404, postern.CodeNotFound)
	must(t, r.EndSession(t.Context(), coordinator.ActorUser(u.ID), u.ID, s1.ID))
	r.wantLog("session.end", "user:"+u.ID, s1.ID+" of anna")
	wantProblem(t, r.EndSession(t.Context(), "local", u.ID, s1.ID), 404, postern.CodeNotFound)
	if r.here(one) || !r.here(two) || !r.here(three) {
		t.Error("not that session alone has ended")
	}
	r.wait(-time.Minute)
	if r.here(one) {
		t.Error("it goes on after the clock was set back")
	}
	r.wait(time.Minute)
	if _, _, err := r.SessionByID(t.Context(), s1.ID); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("by id: got %v, want ErrNotFound", err)
	}
	if all, err := r.Sessions(t.Context(), u.ID); err != nil || len(all) != 2 || all[1].ID != s2.ID {
		t.Errorf("got %+v, %v", all, err)
	}
}

// Signing out everywhere holds for all who signed in before, within one and the
// same second too, and for nobody after.
func TestEndSessions(t *testing.T) {
	r := openRegistry(t)
	u, other := r.user("anna", goodPassword), r.user("ben", goodPassword)
	stays, _ := r.signIn(other)
	for range 3 { // all within a second
		before, s := r.signIn(u)
		must(t, r.EndSessions(t.Context(), "local", u.ID))
		now := r.fresh(u)
		if r.here(before) || !s.Signed.Before(now.NotBefore) || now.NotBefore.Nanosecond() != 0 {
			t.Errorf("signed at %v and not before %v", s.Signed, now.NotBefore)
		}
		after, s := r.signIn(u)
		if !r.here(after) || s.Signed.Before(now.NotBefore) {
			t.Errorf("signed at %v after it, and not before %v", s.Signed, now.NotBefore)
		}
	}
	r.wantLog("session.end", "local "+u.ID, "all of anna")
	held := r.fresh(u).NotBefore
	must(t, r.EndSessions(t.Context(), "local", u.ID))
	moved := r.fresh(u).NotBefore
	for range 100 {
		must(t, r.EndSessions(t.Context(), "local", u.ID))
	}
	if got := r.fresh(u).NotBefore; !got.Equal(moved) || !moved.After(held) {
		t.Errorf("not before %v, then %v, and a hundred times later %v", held, moved, got)
	}
	if !r.here(stays) {
		t.Error("another user's session has ended")
	}

	// The time alone says it, whatever else is remembered.
	secret, s := r.signIn(u)
	must(t, r.store.Update(t.Context(), func(tx coordinator.Tx) error {
		u, err := tx.Users().Get(u.ID)
		must(t, err)
		u.NotBefore = s.Signed.Add(time.Second)
		return tx.Users().Put(u)
	}))
	if r.here(secret) {
		t.Error("a session goes on that was signed in too early")
	}
	wantProblem(t, r.EndSessions(t.Context(), "local", "nobody"), 404, postern.CodeNotFound)
}

// A new password ends all sessions but the one it was set in, those included that
// expired at the portal and may go on at a node.
func TestPasswordEndsSessions(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	r.grant(u)
	idle, idleSession := r.signIn(u)
	r.wait(time.Hour)
	before, beforeSession := r.signIn(u)
	mine, mySession := r.signIn(u) // within the same second
	r.wait(time.Second)
	after, afterSession := r.signIn(u)
	if r.here(idle) {
		t.Fatal("it did not expire")
	}
	must(t, r.SetPassword(t.Context(), coordinator.ActorUser(u.ID), u.ID, goodPassword+"2", mySession.ID))
	if r.here(before) || r.here(after) || !r.here(mine) {
		t.Error("not all others have ended, or not they alone")
	}
	notBefore, ended := r.fresh(u).NotBefore, r.ended("acme")
	for what, s := range map[string]coordinator.Session{"idle": idleSession, "before": beforeSession, "after": afterSession} {
		if !s.Signed.Before(notBefore) && !slices.Contains(ended, s.ID) {
			t.Errorf("nodes are not told that the session %s ended", what)
		}
	}
	if mySession.Signed.Before(notBefore) || slices.Contains(ended, mySession.ID) {
		t.Error("nodes are told that the session that was kept ended")
	}
	must(t, r.SetPassword(t.Context(), coordinator.ActorUser(u.ID), u.ID, goodPassword+"3", "no session"))
	if r.here(mine) {
		t.Error("none was to be kept")
	}
}

// ended returns the sessions that a tenant's nodes are told have ended.
func (r *registry) ended(tenant string) (ids []string) {
	r.view(func(tx coordinator.Tx) error {
		all, err := tx.Sessions().Ended(tenant, r.clock().Add(-coordinator.KeepSession))
		for _, s := range all {
			ids = append(ids, s.ID)
		}
		return err
	})
	return ids
}

// What is remembered of a user has an end, whatever they do, and what is forgotten
// is told in another way.
func TestSessionsBounded(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	r.grant(u)
	rows := func() (n int) {
		r.view(func(tx coordinator.Tx) error {
			all, err := tx.Sessions().Of(u.ID)
			n = len(all)
			return err
		})
		return n
	}
	var all []coordinator.Session
	var secrets []string
	for n := range 3 * coordinator.MaxSessions {
		secret, s := r.signIn(u)
		if !r.here(secret) {
			t.Fatalf("session %d does not go on", n)
		}
		all, secrets = append(all, s), append(secrets, secret)
		if n := rows(); n > coordinator.MaxSessions+coordinator.MaxEnded {
			t.Fatalf("%d are remembered", n)
		}
		r.wait(time.Second)
	}
	if got := len(must2(r.Sessions(t.Context(), u.ID))); got != coordinator.MaxSessions {
		t.Errorf("%d go on, want %d", got, coordinator.MaxSessions)
	}
	for _, s := range all[len(all)-coordinator.MaxSessions/2:] { // sign out, again and again
		must(t, r.EndSession(t.Context(), "local", u.ID, s.ID))
	}
	notBefore, ended := r.fresh(u).NotBefore, r.ended("acme")
	if len(ended) > coordinator.MaxEnded {
		t.Errorf("nodes are told of %d sessions, want at most %d", len(ended), coordinator.MaxEnded)
	}
	for i, s := range all {
		told := s.Signed.Before(notBefore) || slices.Contains(ended, s.ID)
		if r.here(secrets[i]) == told {
			t.Errorf("session %d: nodes are told it ended is %v, and at the portal it goes on is %v", i, told, !told)
		}
	}
}

// A new password leaves one session of the many there may be, and nodes know of all others.
func TestPasswordEndsMany(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	r.grant(u)
	var all []coordinator.Session
	for range coordinator.MaxSessions {
		_, s := r.signIn(u)
		all = append(all, s)
		r.wait(time.Second)
	}
	mine := all[len(all)-1]
	must(t, r.SetPassword(t.Context(), coordinator.ActorUser(u.ID), u.ID, goodPassword+"2", mine.ID))
	if left := must2(r.Sessions(t.Context(), u.ID)); len(left) != 1 || left[0].ID != mine.ID {
		t.Errorf("left: %+v, want %s alone", left, mine.ID)
	}
	notBefore, ended := r.fresh(u).NotBefore, r.ended("acme")
	for _, s := range all {
		if told := s.Signed.Before(notBefore) || slices.Contains(ended, s.ID); told == (s.ID == mine.ID) {
			t.Errorf("session %s, signed at %v: nodes are told it ended is %v", s.ID, s.Signed, told)
		}
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Sessions are forgotten when no node can have any use for knowing, and not before.
func TestSweepSessions(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	r.grant(u)
	_, ended := r.signIn(u)
	_, expires := r.signIn(u) // 30 minutes on
	device, _, err := r.StartSession(t.Context(), coordinator.SignIn{User: u.ID, Methods: []string{"pwd"}, Device: true, Remote: netip.Addr{}})
	must(t, err)
	must(t, r.EndSession(t.Context(), "local", u.ID, ended.ID))
	there := func() (ids []string) {
		r.SweepSessions(t.Context())
		r.view(func(tx coordinator.Tx) error {
			all, err := tx.Sessions().Of(u.ID)
			for _, s := range all {
				ids = append(ids, s.ID)
			}
			return err
		})
		return ids
	}
	steps := []struct {
		wait          time.Duration
		ended, expire bool
	}{
		{25 * time.Hour, true, true},
		{1, false, true},
		{30*time.Minute - 1, false, true},
		{1, false, false},
	}
	for i, step := range steps {
		r.wait(step.wait)
		ids := there()
		if slices.Contains(ids, ended.ID) != step.ended || slices.Contains(ids, expires.ID) != step.expire {
			t.Errorf("step %d: there are %v, want %s %v and %s %v", i, ids, ended.ID, step.ended, expires.ID, step.expire)
		}
	}
	if !r.here(device) {
		t.Error("a session that goes on was forgotten")
	}
}

// A device's session goes on under another secret, and no other session does.
func TestRenewSession(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	start := func(device bool) (string, coordinator.Session) {
		t.Helper()
		secret, s, err := r.StartSession(t.Context(), coordinator.SignIn{User: u.ID, Methods: []string{"pwd"}, Device: device, Agent: "postern"})
		must(t, err)
		return secret, s
	}
	first, s := start(true)
	r.wait(time.Hour)
	second, renewed, who, err := r.RenewSession(t.Context(), first)
	must(t, err)
	if second == first || renewed.ID != s.ID || who.ID != u.ID || !renewed.Signed.Equal(s.Signed) || !renewed.Expires.Equal(s.Expires) || !renewed.Seen.Equal(r.clock()) {
		t.Errorf("got %+v of %+v", renewed, s)
	}
	if r.here(first) || !r.here(second) {
		t.Error("the old secret is good, or the new one is not")
	}
	browser, _ := start(false)
	ended, e := start(true)
	must(t, r.EndSession(t.Context(), coordinator.ActorUser(u.ID), u.ID, e.ID))
	for name, secret := range map[string]string{"used": first, "a browser's": browser, "ended": ended, "nobody's": "x", "no": ""} {
		if _, _, _, err := r.RenewSession(t.Context(), secret); !errors.Is(err, coordinator.ErrNotFound) {
			t.Errorf("%s secret: got %v", name, err)
		}
	}
	r.wait(30 * 24 * time.Hour)
	if _, _, _, err := r.RenewSession(t.Context(), second); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("expired: got %v", err)
	}
}
