package coordinator_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/coordinator"
)

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
