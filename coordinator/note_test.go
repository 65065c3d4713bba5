package coordinator_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// What anybody can do again and again, and is kept for ever, is limited by who does it.
// How they get rid of somebody is not.
func TestRecordLimited(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	anna, boss := r.member("acme", "anna", postern.TenantMember), r.member("acme", "boss", postern.TenantOwner)
	me, o := coordinator.ActorUser(anna.ID), r.operator(boss)
	type act struct {
		name string
		do   func(n int) error
	}
	gives := []act{
		{"name", func(n int) error { return r.SetName(ctx, me, anna.ID, fmt.Sprint("Anna ", n)) }},
		{"passkey", func(n int) error { return r.PutPasskey(ctx, me, passkey(anna, fmt.Sprint("k", n))) }},
		{"password", func(n int) error { return r.SetPassword(ctx, me, anna.ID, goodPassword, "") }},
		{"add member", func(n int) error {
			_, err := o.AddMember(ctx, "acme", postern.UserRequest{Login: fmt.Sprint("new", n)}, postern.GrantRequest{})
			return err
		}},
		{"grant", func(n int) error {
			_, err := o.Grant(ctx, "new0", "acme", postern.GrantRequest{Groups: []string{fmt.Sprint("g", n)}})
			return err
		}},
		{"invite", func(n int) error { _, err := o.InviteUser(ctx, "new0"); return err }},
		{"enable", func(n int) error { _, err := o.EnableUser(ctx, "new0"); return err }},
		{"token", func(n int) error { _, err := o.CreateToken(ctx, postern.TokenRequest{Tenant: "acme"}); return err }},
		{"admission", func(n int) error {
			_, err := o.SetAdmission(ctx, "acme", postern.AdmissionRequest{Mode: postern.AdmissionOpen})
			return err
		}},
	}
	for _, a := range gives {
		if err := a.do(0); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
	_, session := r.signIn(anna)
	for range 256 {
		r.Note(ctx, me, "authorize", "acme", "x", "y")
		r.Note(ctx, coordinator.ActorUser(boss.ID), "authorize", "acme", "x", "y")
	}
	for _, a := range gives {
		t.Run(a.name, func(t *testing.T) { wantProblem(t, a.do(1), 429, postern.CodeTooMany) })
	}
	tokens, err := o.Tokens(ctx, "acme")
	must(t, err)
	used := passkey(anna, "k0")
	used.Used = r.clock()
	for _, a := range []act{
		{"use a passkey", func(int) error { return r.PutPasskey(ctx, me, used) }},
		{"remove a passkey", func(int) error { return r.RemovePasskey(ctx, me, anna.ID, "k0") }},
		{"end a session", func(int) error { return r.EndSession(ctx, me, anna.ID, session.ID) }},
		{"end all", func(int) error { return r.EndSessions(ctx, me, anna.ID) }},
		{"disable", func(int) error { _, err := o.DisableUser(ctx, "new0"); return err }},
		{"revoke", func(int) error { _, err := o.Revoke(ctx, "new0", "acme"); return err }},
		{"revoke a token", func(int) error { return o.RevokeToken(ctx, tokens[0].ID) }},
		{"the deployment's", func(int) error { _, err := r.Local().EnableUser(ctx, "new0"); return err }},
	} {
		t.Run(a.name, func(t *testing.T) { must(t, a.do(1)) })
	}
	r.wait(time.Minute)
	must(t, gives[0].do(1))
}

// What is noted is limited: strangers' refusals all in all, the rest by who did it, and
// nobody's refusals keep anybody else's, or what is done, from the log.
func TestNote(t *testing.T) {
	r := openRegistry(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who was refused need not wait for the record of it
	r.Note(ctx, coordinator.ActorUser("u1"), "open.refused", "acme", "acme."+base, strings.Repeat("x", 1000))
	r.wantLog("open.refused", "user:u1 acme."+base+": xxx")
	for n := range 200 {
		r.Note(ctx, "stranger", "signin.refused", "acme", "x", "y")
		r.Note(ctx, "user:nosy", "open.refused", "acme", "x", "y")
		r.Note(ctx, fmt.Sprintf("user:v%d", n), "authorize.refused", "acme", "x", "y")
		r.Note(ctx, "user:busy", "authorize", "acme", "x", "y")
	}
	r.Note(ctx, "user:nosy", "authorize", "acme", "x", "y")
	for action, want := range map[string]int{
		"signin.refused": 60, "open.refused": 61, "authorize.refused": 200, "authorize": 201,
	} {
		if n := len(r.log(action)); n != want {
			t.Errorf("%d times %s on record, want %d", n, action, want)
		}
	}
	for range 100 {
		r.Note(ctx, "user:busy", "authorize", "acme", "x", "y")
	}
	r.Note(ctx, "user:calm", "authorize", "acme", "x", "y")
	if n := len(r.log("authorize")); n != 258 {
		t.Errorf("%d others on record, want 256 of one and 2 of others", n)
	}
	r.wait(time.Minute)
	r.Note(ctx, "stranger", "signin.refused", "acme", "x", "y")
	r.wantLog("signin.refused", "(and 140 more refusals, not recorded)")
	r.Note(ctx, "user:nosy", "open.refused", "acme", "x", "again")
	r.wantLog("open.refused", "user:nosy", "again")
	must(t, coordinator.VerifyAudit(t.Context(), r.store))
}
