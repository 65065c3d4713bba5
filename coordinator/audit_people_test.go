package coordinator_test

import (
	"strings"
	"testing"

	"postern"
	"postern/coordinator"
)

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
