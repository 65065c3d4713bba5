package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

const goodPassword = "correct horse battery"

func TestCheckPassword(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	r.user("nopassword", "")
	disabled := r.user("disabled", goodPassword)
	must(t, r.DisableUser(t.Context(), disabled.ID))
	for _, login := range []string{"anna", " ANNA "} {
		if got, err := r.CheckPassword(t.Context(), login, goodPassword, somewhere); err != nil || got.ID != u.ID {
			t.Errorf("%q: got %s, %v", login, got.ID, err)
		}
	}
	tests := []struct {
		name, login, password string
		log                   []string // in the audit log
	}{
		{"wrong", "anna", goodPassword + "x", []string{u.ID, "192.0.2.7: wrong password for anna"}},
		{"empty", "anna", "", []string{u.ID, "wrong password for anna"}},
		{"very long", "anna", strings.Repeat(goodPassword, 1000), []string{u.ID, "wrong password for anna"}},
		{"unknown login", "bob", goodPassword, []string{"no such login"}},
		{"login that is none", "a b", goodPassword, []string{"no such login"}},
		{"no password", "nopassword", "", []string{"nopassword has no password"}},
		{"disabled", "disabled", goodPassword, []string{disabled.ID, "disabled is disabled"}},
		{"disabled and wrong", "disabled", "x", []string{disabled.ID, "wrong password for disabled"}},
	}
	said := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.wait(time.Minute)
			_, err := r.CheckPassword(t.Context(), tt.login, tt.password, somewhere)
			wantProblem(t, err, 401, postern.CodeUnauthorized)
			var p *postern.Problem
			errors.As(err, &p)
			if tt.login == "disabled" && tt.password == goodPassword {
				if p.Detail != "this account cannot sign in" {
					t.Errorf("who has the password is told %q", p.Detail)
				}
			} else {
				said[p.Detail+p.Hint] = true
			}
			r.wantLog("signin.refused", append(tt.log, "stranger")...)
		})
	}
	if len(said) != 1 {
		t.Errorf("strangers are told apart: %v", said)
	}
	for _, entry := range r.log("signin.refused") {
		if strings.Contains(entry, "bob") || strings.Contains(entry, goodPassword) {
			t.Errorf("what a stranger typed is on record: %q", entry)
		}
	}
}

func TestBruteForce(t *testing.T) {
	source := func(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", n)) }
	check := func(r *registry, login string, remote netip.Addr) error {
		_, err := r.CheckPassword(t.Context(), login, "wrong", remote)
		return err
	}
	t.Run("one login from everywhere", func(t *testing.T) {
		r := openRegistry(t)
		r.user("anna", goodPassword)
		for n := range 5 {
			wantProblem(t, check(r, "anna", source(n)), 401, postern.CodeUnauthorized)
		}
		wantProblem(t, check(r, "Anna", source(9)), 429, postern.CodeTooMany)
		r.wantLog("signin.refused", "stranger", "198.51.100.9: too many attempts for one login")
		_, err := r.CheckPassword(t.Context(), "anna", goodPassword, source(10))
		wantProblem(t, err, 429, postern.CodeTooMany) // or guessing would go on
		wantProblem(t, check(r, "ben", source(9)), 401, postern.CodeUnauthorized)
		r.wait(12 * time.Second)
		if _, err := r.CheckPassword(t.Context(), "anna", goodPassword, source(10)); err != nil {
			t.Errorf("after 12 s: %v", err)
		}
		wantProblem(t, check(r, "anna", source(9)), 429, postern.CodeTooMany)
	})
	t.Run("many logins from one source", func(t *testing.T) {
		r := openRegistry(t)
		r.user("anna", goodPassword)
		for n := range 20 {
			wantProblem(t, check(r, fmt.Sprintf("user%d", n), source(1)), 401, postern.CodeUnauthorized)
		}
		wantProblem(t, check(r, "anna", source(1)), 429, postern.CodeTooMany)
		r.wantLog("signin.refused", "too many attempts from this source")
		if _, err := r.CheckPassword(t.Context(), "anna", goodPassword, source(2)); err != nil {
			t.Errorf("from elsewhere: %v", err)
		}
		r.wait(3 * time.Second)
		wantProblem(t, check(r, "user", source(1)), 401, postern.CodeUnauthorized)
		wantProblem(t, check(r, "user", source(1)), 429, postern.CodeTooMany)
	})
	t.Run("a source that is refused uses up nobody's attempts", func(t *testing.T) {
		r := openRegistry(t)
		r.user("anna", goodPassword)
		for n := range 20 {
			check(r, fmt.Sprintf("user%d", n), source(1))
		}
		for range 10 {
			wantProblem(t, check(r, "anna", source(1)), 429, postern.CodeTooMany)
		}
		if _, err := r.CheckPassword(t.Context(), "anna", goodPassword, source(2)); err != nil {
			t.Error(err)
		}
	})
	t.Run("an IPv6 network is one source", func(t *testing.T) {
		r := openRegistry(t)
		for n := range 21 {
			err := check(r, fmt.Sprintf("user%d", n), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n+1)))
			if n < 20 {
				wantProblem(t, err, 401, postern.CodeUnauthorized)
			} else {
				wantProblem(t, err, 429, postern.CodeTooMany)
			}
		}
	})
}

func TestSetPassword(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna.schmidt@acme.example", "")
	tests := []struct {
		name, password string
		ok             bool
	}{
		{"nine characters", "a9-xQ!k2p", false},
		{"ten characters", "a9-xQ!k2pü", true},
		{"256 characters", strings.Repeat("ü9", 128), true},
		{"257 characters", strings.Repeat("ü9", 128) + "x", false},
		{"the login", "Anna.Schmidt@acme.example", false},
		{"the login's name", "anna.Schmidt", false},
		{"a common one", "Password1234", false},
		{"one character", "aaaaaaaaaaaa", false},
		{"no UTF-8", goodPassword + "\xff", false},
		{"spaces", "four words with spaces", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := r.SetPassword(t.Context(), coordinator.ActorUser(u.ID), u.ID, tt.password, "")
			if !tt.ok {
				wantProblem(t, err, 422, postern.CodeInvalid)
				return
			}
			must(t, err)
			r.wantLog("user.password", "user:"+u.ID)
			r.wait(time.Minute)
			if _, err := r.CheckPassword(t.Context(), u.Login, tt.password, somewhere); err != nil {
				t.Error(err)
			}
		})
	}
}

// A hash that was made with other parameters is made anew once the password is
// there to do it.
func TestRehash(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	r.CheapPasswords(2)
	if _, err := r.CheckPassword(t.Context(), "anna", "wrong", somewhere); err == nil {
		t.Fatal("a wrong password is right")
	}
	if r.fresh(u).Password != u.Password {
		t.Error("made anew from a wrong password")
	}
	for range 2 {
		if _, err := r.CheckPassword(t.Context(), "anna", goodPassword, somewhere); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.fresh(u).Password; !strings.HasPrefix(got, "$argon2id$v=19$m=64,t=2,p=1$") {
		t.Errorf("got %q", got)
	}
	// Not in the place of one that was set in the meantime.
	must(t, r.SetPassword(t.Context(), "local", u.ID, goodPassword+"2", ""))
	want := r.fresh(u).Password
	r.Rehash(t.Context(), u, goodPassword)
	if got := r.fresh(u).Password; got != want {
		t.Error("the password that was set is gone")
	}
}

func TestPasswordGivenUp(t *testing.T) {
	r := openRegistry(t)
	r.user("anna", goodPassword)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.CheckPassword(ctx, "anna", goodPassword, somewhere); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
