package coordinator_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/coordinator"
)

// What is noted is limited: refusals all in all, the rest by who did it.
func TestNote(t *testing.T) {
	r := openRegistry(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who was refused need not wait for the record of it
	r.Note(ctx, coordinator.ActorUser("u1"), "open.refused", "acme", "acme."+base, strings.Repeat("x", 1000))
	r.wantLog("open.refused", "user:u1 acme."+base+": xxx")
	for n := range 200 {
		r.Note(ctx, fmt.Sprintf("user:u%d", n), "open.refused", "acme", "x", "y")
		r.Note(ctx, "user:busy", "authorize", "acme", "x", "y")
	}
	if n := len(r.log("open.refused")); n != 60 {
		t.Errorf("%d refusals on record, want 60", n)
	}
	if n := len(r.log("authorize")); n != 200 {
		t.Errorf("%d others on record, want 200", n)
	}
	for range 100 {
		r.Note(ctx, "user:busy", "authorize", "acme", "x", "y")
	}
	r.Note(ctx, "user:calm", "authorize", "acme", "x", "y")
	if n := len(r.log("authorize")); n != 257 {
		t.Errorf("%d others on record, want 256 of one and 1 of another", n)
	}
	r.wait(time.Minute)
	r.Note(ctx, "user:u1", "open.refused", "acme", "x", "y")
	r.wantLog("open.refused", "(and 141 more refusals, not recorded)")
	must(t, coordinator.VerifyAudit(t.Context(), r.store))
}
