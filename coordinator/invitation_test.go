package coordinator_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

func TestInvitation(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", "")
	void, err := r.Invite(t.Context(), u.ID)
	must(t, err)
	secret, err := r.Invite(t.Context(), u.ID)
	must(t, err)
	r.wantLog("user.invite", u.ID, "anna until 2026-03-07T12:00:00Z")
	if i, of, err := r.Invitation(t.Context(), secret); err != nil || of.ID != u.ID || !i.Expires.Equal(r.clock().Add(72*time.Hour)) {
		t.Errorf("got %+v for %s, %v", i, of.ID, err)
	}
	for what, bad := range map[string]string{"a newer one took its place": void, "made up": strings.Repeat("A", 43), "empty": ""} {
		t.Run(what, func(t *testing.T) {
			_, _, err := r.Invitation(t.Context(), bad)
			wantProblem(t, err, 410, postern.CodeTokenUsed)
			_, err = r.Accept(t.Context(), bad, "", goodPassword, nil)
			wantProblem(t, err, 410, postern.CodeTokenUsed)
			r.wantLog("signin.refused", "stranger", "the link may be mistyped, used already")
		})
	}
	// What is wrong with the answer does not use it up.
	_, err = r.Accept(t.Context(), secret, "", "", nil)
	wantProblem(t, err, 422, postern.CodeInvalid)
	_, err = r.Accept(t.Context(), secret, "", "short", nil)
	wantProblem(t, err, 422, postern.CodeInvalid)
	_, err = r.Accept(t.Context(), secret, "two\nlines", goodPassword, nil)
	wantProblem(t, err, 422, postern.CodeInvalid)

	got, err := r.Accept(t.Context(), secret, "Anna B.", goodPassword, nil)
	must(t, err)
	if got.ID != u.ID || got.Name != "Anna B." || got.Password == "" || strings.Contains(got.Password, goodPassword) {
		t.Errorf("got %+v", got)
	}
	r.wantLog("signin.invitation", "user:"+u.ID, "anna with a password")
	if _, err := r.CheckPassword(t.Context(), "anna", goodPassword, somewhere); err != nil {
		t.Error(err)
	}
	_, err = r.Accept(t.Context(), secret, "", goodPassword, nil)
	wantProblem(t, err, 410, postern.CodeTokenUsed)
}

func TestInvitationExpires(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", "")
	secret, err := r.Invite(t.Context(), u.ID)
	must(t, err)
	r.wait(72*time.Hour - 1)
	_, _, err = r.Invitation(t.Context(), secret)
	must(t, err)
	r.wait(1)
	_, _, err = r.Invitation(t.Context(), secret)
	wantProblem(t, err, 410, postern.CodeTokenExpired)
	_, err = r.Accept(t.Context(), secret, "", goodPassword, nil)
	wantProblem(t, err, 410, postern.CodeTokenExpired)
	r.wantLog("signin.refused", "stranger "+u.ID, "expired")
}

// A second invitation is a way back in for who lost the first password or passkey;
// who may have found it is out.
func TestInvitationAgain(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	must(t, r.PutPasskey(t.Context(), coordinator.ActorUser(u.ID), passkey(u, "lost")))
	found, _ := r.signIn(u)
	secret, err := r.Invite(t.Context(), u.ID)
	must(t, err)
	k := passkey(coordinator.User{ID: "whoever the page says"}, "k")
	_, err = r.Accept(t.Context(), secret, "", "", &k)
	must(t, err)
	if r.here(found) {
		t.Error("the session goes on")
	}
	if _, owner, err := r.Passkey(t.Context(), "k"); err != nil || owner.ID != u.ID {
		t.Errorf("the passkey is %s's, %v, want %s's", owner.ID, err, u.ID)
	}
	r.wantLog("signin.invitation", "anna with a passkey")
	_, err = r.CheckPassword(t.Context(), u.Login, goodPassword, somewhere)
	wantProblem(t, err, 401, postern.CodeUnauthorized)
	if _, _, err := r.Passkey(t.Context(), "lost"); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("the passkey before it: got %v", err)
	}
	mine, _ := r.signIn(u)
	if !r.here(mine) {
		t.Error("the session after it does not go on")
	}

	secret, err = r.Invite(t.Context(), u.ID)
	must(t, err)
	_, err = r.Accept(t.Context(), secret, "", goodPassword, nil)
	must(t, err)
	if _, _, err := r.Passkey(t.Context(), "k"); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("the passkey before the password: got %v", err)
	}
	_, err = r.CheckPassword(t.Context(), u.Login, goodPassword, somewhere)
	must(t, err)
}

// Of many who use an invitation at one time one succeeds, and what is there then
// is theirs.
func TestInvitationRace(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", "")
	secret, err := r.Invite(t.Context(), u.ID)
	must(t, err)
	var won atomic.Int64
	var winner atomic.Value
	var wg sync.WaitGroup
	start := make(chan struct{})
	for n := range 100 {
		wg.Go(func() {
			<-start
			var err error
			id := fmt.Sprintf("k%d", n)
			if n%2 == 0 {
				k := passkey(u, id)
				_, err = r.Accept(t.Context(), secret, id, "", &k)
			} else {
				_, err = r.Accept(t.Context(), secret, id, goodPassword+id, nil)
			}
			if err == nil {
				won.Add(1)
				winner.Store(id)
				return
			}
			var p *postern.Problem
			if !errors.As(err, &p) || p.Code != postern.CodeTokenUsed {
				t.Errorf("a loser is told %v", err)
			}
		})
	}
	close(start)
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d succeeded, want 1", won.Load())
	}
	now := r.fresh(u)
	passkeys, err := r.Passkeys(t.Context(), u.ID)
	must(t, err)
	if now.Name != winner.Load() || (now.Password != "") == (len(passkeys) > 0) || len(passkeys) > 1 {
		t.Errorf("%v won and there are %+v and %v", winner.Load(), now, passkeys)
	}
	if n := len(r.log("signin.invitation")); n != 1 {
		t.Errorf("%d entries in the audit log, want 1", n)
	}
}

func TestFirstInvitation(t *testing.T) {
	r := openRegistry(t)
	first, ok, err := r.FirstInvitation(t.Context())
	if err != nil || !ok {
		t.Fatalf("got %v, %v", ok, err)
	}
	_, u, err := r.Invitation(t.Context(), first)
	must(t, err)
	if u.Login != "operator" || !u.Operator {
		t.Errorf("got %+v", u)
	}
	r.user("anna", goodPassword) // does not operate
	second, ok, err := r.FirstInvitation(t.Context())
	if err != nil || !ok {
		t.Fatalf("the second start: got %v, %v", ok, err)
	}
	_, err = r.Accept(t.Context(), first, "", goodPassword, nil)
	wantProblem(t, err, 410, postern.CodeTokenUsed)
	_, err = r.Accept(t.Context(), second, "", goodPassword, nil)
	must(t, err)
	if secret, ok, err := r.FirstInvitation(t.Context()); err != nil || ok || secret != "" {
		t.Errorf("accepted: got %q, %v, %v", secret, ok, err)
	}
}

func TestFirstInvitationNeedless(t *testing.T) {
	tests := []struct {
		name string
		make func(r *registry)
	}{
		{"somebody who does not operate", func(r *registry) { r.user("anna", "") }},
		{"two operators", func(r *registry) {
			for _, login := range []string{"a", "b"} {
				_, err := r.AddUser(t.Context(), postern.UserRequest{Login: login, Operator: true})
				must(r.t, err)
			}
		}},
		{"a disabled operator", func(r *registry) {
			u, err := r.AddUser(t.Context(), postern.UserRequest{Login: "a", Operator: true})
			must(r.t, err)
			must(r.t, r.DisableUser(t.Context(), u.ID))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := openRegistry(t)
			tt.make(r)
			if secret, ok, err := r.FirstInvitation(t.Context()); err != nil || ok || secret != "" {
				t.Errorf("got %q, %v, %v", secret, ok, err)
			}
		})
	}
}
