package coordinator_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"postern"
	"postern/coordinator"
)

// A forged store is one whose audit log somebody changed.
type forged struct {
	coordinator.Store
	read chan struct{} // closed when the log may be read
}

func (s forged) View(ctx context.Context, fn func(coordinator.Tx) error) error {
	return s.Store.View(ctx, func(tx coordinator.Tx) error { return fn(forgedTx{tx, ctx, s.read}) })
}

type forgedTx struct {
	coordinator.Tx
	ctx  context.Context
	read chan struct{}
}

func (tx forgedTx) Audit(q coordinator.AuditQuery, among []string) ([]coordinator.AuditRecord, error) {
	select {
	case <-tx.read:
	case <-tx.ctx.Done():
		return nil, tx.ctx.Err()
	}
	page, err := tx.Tx.Audit(q, among)
	if len(page) > 0 {
		page[0].Detail = "nothing"
	}
	return page, err
}

// That the audit log was changed is found out, and logged, while others are served.
func TestAuditIsChecked(t *testing.T) {
	var log lockedBuffer
	read := make(chan struct{})
	d := &deployment{t: t, dir: t.TempDir(), clock: &clock{}}
	d.change = func(cfg *coordinator.Config) {
		cfg.Store, cfg.Logger = forged{cfg.Store, read}, slog.New(slog.NewTextHandler(&log, nil))
	}
	d.start()
	d.addTenant("acme")
	d.node("acme", "a", "books")
	d.stop() // in the middle of it, which is no fault of the log's
	const want = "audit log is not as it was written"
	if log.contains(want) {
		t.Errorf("before anything was read: %q", want)
	}
	d.start()
	t.Cleanup(func() { d.stop() })
	d.addTenant("globex")
	close(read)
	eventually(t, "the log to say so", func() bool { return log.contains(want) && log.contains("entry 1 ") })
}

// A lockedBuffer is written to and read at a time.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), s)
}

func (b *lockedBuffer) contains(s string) bool { return b.count(s) > 0 }

// What somebody does, or is done to them, is for their tenant's managers to read if
// they belong to it alone, and else for nobody's.
func TestAuditOfPeople(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	must(t, r.AddTenant(ctx, "rival"))
	owner := r.member("acme", "owner", postern.TenantOwner)
	seen := func(about coordinator.User) string {
		t.Helper()
		entries, err := r.operator(owner).Audit(ctx, coordinator.AuditQuery{Limit: 1000})
		must(t, err)
		var actions []string
		for _, e := range entries {
			if e.Target == about.ID && e.Action != "user.grant" && e.Action != "user.revoke" {
				actions = append(actions, e.Action)
			}
		}
		return strings.Join(actions, " ")
	}
	live := func(u coordinator.User) {
		t.Helper()
		_, err := r.Local().InviteUser(ctx, u.ID)
		must(t, err)
		_, s := r.signIn(u)
		must(t, r.EndSession(ctx, coordinator.ActorUser(u.ID), u.ID, s.ID))
		must(t, r.DisableUser(ctx, u.ID))
		_, _, err = r.StartSession(ctx, coordinator.SignIn{User: u.ID, Methods: []string{"pwd"}, Remote: somewhere})
		wantProblem(t, err, 401, postern.CodeUnauthorized)
		must(t, r.EnableUser(ctx, u.ID))
		must(t, r.RemoveUser(ctx, u.ID))
	}
	tests := []struct {
		name    string
		tenants string
		boss    bool
		want    string
	}{
		{"of the tenant alone", "acme", false, "user.invite signin.password session.end user.disable signin.refused user.enable user.remove"},
		{"of two tenants", "acme rival", false, ""},
		{"of another", "rival", false, ""},
		{"of none", "", false, ""},
		{"operator", "acme", true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := r.AddUser(ctx, postern.UserRequest{Login: "somebody", Operator: tt.boss})
			must(t, err)
			for _, tenant := range strings.Fields(tt.tenants) {
				_, err := r.PutGrant(ctx, u.ID, tenant, postern.GrantRequest{})
				must(t, err)
			}
			live(u)
			if got := seen(u); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	must(t, coordinator.VerifyAudit(ctx, r.store))
}
