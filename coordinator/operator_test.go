package coordinator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// operator returns what u operates.
func (r *registry) operator(u coordinator.User) *coordinator.Operator {
	r.t.Helper()
	o, err := r.Operator(r.t.Context(), u.ID)
	must(r.t, err)
	return o
}

// member makes a user with a role in a tenant.
func (r *registry) member(tenant, login, role string) coordinator.User {
	r.t.Helper()
	u := r.user(login, "")
	_, err := r.PutGrant(r.t.Context(), u.ID, tenant, postern.GrantRequest{Role: role})
	must(r.t, err)
	return u
}

func TestOperatorOf(t *testing.T) {
	r := openRegistry(t)
	must(t, r.AddTenant(t.Context(), "rival"))
	boss, err := r.AddUser(t.Context(), postern.UserRequest{Login: "boss", Operator: true})
	must(t, err)
	owner, member := r.member("acme", "owner", postern.TenantOwner), r.member("acme", "member", postern.TenantMember)
	admin, gone := r.member("rival", "admin", postern.TenantAdmin), r.member("acme", "gone", postern.TenantOwner)
	must(t, r.DisableUser(t.Context(), gone.ID))
	tests := []struct {
		name    string
		user    coordinator.User
		all     bool
		tenants string // nothing: they operate nothing
	}{
		{"operator", boss, true, "acme rival"},
		{"owner", owner, false, "acme"},
		{"admin", admin, false, "rival"},
		{"member", member, false, ""},
		{"disabled", gone, false, ""},
		{"nobody", coordinator.User{ID: "unobody"}, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := r.operator(tt.user)
			if (o == nil) != (tt.tenants == "") {
				t.Fatalf("got %+v", o)
			}
			if o == nil {
				return
			}
			all, err := o.Tenants(t.Context())
			must(t, err)
			var names []string
			for _, v := range all {
				names = append(names, v.Name)
			}
			if got := strings.Join(names, " "); got != tt.tenants || o.All() != tt.all {
				t.Errorf("got tenants %q, all %v, want %q, %v", got, o.All(), tt.tenants, tt.all)
			}
		})
	}
}

// What managers may do to whom. Each case starts from the same people.
func TestManagers(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	must(t, r.AddTenant(ctx, "rival"))
	people := map[string]coordinator.User{
		"owner": r.member("acme", "owner", postern.TenantOwner), "owner2": r.member("acme", "owner2", postern.TenantOwner),
		"admin": r.member("acme", "admin", postern.TenantAdmin), "admin2": r.member("acme", "admin2", postern.TenantAdmin),
		"member": r.member("acme", "member", postern.TenantMember), "both": r.member("acme", "both", postern.TenantMember),
		"stranger": r.member("rival", "stranger", postern.TenantOwner), "orphan": r.user("orphan", ""),
	}
	_, err := r.PutGrant(ctx, people["both"].ID, "rival", postern.GrantRequest{})
	must(t, err)
	boss, err := r.AddUser(ctx, postern.UserRequest{Login: "boss", Operator: true})
	must(t, err)
	people["boss"] = boss
	_, err = r.PutGrant(ctx, boss.ID, "acme", postern.GrantRequest{})
	must(t, err)

	type operation = func(o *coordinator.Operator) error
	grant := func(user, tenant, role string) operation {
		return func(o *coordinator.Operator) error {
			_, err := o.Grant(ctx, user, tenant, postern.GrantRequest{Role: role})
			return err
		}
	}
	revoke := func(user, tenant string) operation {
		return func(o *coordinator.Operator) error { _, err := o.Revoke(ctx, user, tenant); return err }
	}
	invite := func(user string) operation {
		return func(o *coordinator.Operator) error { _, err := o.InviteUser(ctx, user); return err }
	}
	disable := func(user string) operation {
		return func(o *coordinator.Operator) error { _, err := o.DisableUser(ctx, user); return err }
	}
	enable := func(user string) operation {
		return func(o *coordinator.Operator) error { _, err := o.EnableUser(ctx, user); return err }
	}
	add := func(login, tenant, role string, operator bool) operation {
		return func(o *coordinator.Operator) error {
			_, err := o.AddMember(ctx, tenant, postern.UserRequest{Login: login, Operator: operator}, postern.GrantRequest{Role: role})
			return err
		}
	}
	remove := func(user string) operation {
		return func(o *coordinator.Operator) error { return o.RemoveUser(ctx, user) }
	}
	const ok, no, hidden, taken = "", postern.CodeForbidden, postern.CodeNotFound, postern.CodeTaken
	tests := []struct {
		name string
		who  string
		do   operation
		want string // code
	}{
		{"owner makes an owner", "owner", grant("member", "acme", "owner"), ok},
		{"owner unmakes an owner", "owner", grant("owner2", "acme", "member"), ok},
		{"owner revokes an owner", "owner", revoke("owner2", "acme"), ok},
		{"admin makes an owner", "admin", grant("member", "acme", "owner"), no},
		{"admin makes themselves an owner", "admin", grant("admin", "acme", "owner"), no},
		{"admin unmakes an owner", "admin", grant("owner", "acme", "member"), no},
		{"admin leaves an owner one, with groups", "admin", grant("owner", "acme", "owner"), no},
		{"admin revokes an owner", "admin", revoke("owner", "acme"), no},
		{"admin invites an owner", "admin", invite("owner"), no},
		{"admin disables an owner", "admin", disable("owner"), no},
		{"admin adds an owner", "admin", add("new", "acme", "owner", false), no},
		{"admin makes an admin", "admin", grant("member", "acme", "admin"), ok},
		{"admin revokes an admin", "admin", revoke("admin2", "acme"), ok},
		{"admin invites a member", "admin", invite("member"), ok},
		{"admin disables a member", "admin", disable("member"), ok},
		{"admin enables a member", "admin", enable("member"), ok},
		{"admin leaves", "admin", revoke("admin", "acme"), ok},
		{"owner leaves another", "owner", revoke("owner", "acme"), ok},
		{"owner steps down for another", "owner", grant("owner", "acme", "admin"), ok},
		{"owner disables themselves", "owner", disable("owner"), no},

		{"by login", "owner", grant(" MEMBER", "acme", "admin"), ok},
		{"another's account is revoked here", "owner", revoke("both", "acme"), ok},
		{"another's account is granted here", "owner", grant("both", "acme", "admin"), ok},
		{"another's account is invited", "owner", invite("both"), no},
		{"another's account is disabled", "owner", disable("both"), no},
		{"another's account is enabled", "owner", enable("both"), no},
		{"another's grant is revoked", "owner", revoke("both", "rival"), hidden},
		{"another's tenant is granted", "owner", grant("member", "rival", "member"), hidden},
		{"operator's account is invited", "owner", invite("boss"), no},
		{"operator's account is disabled", "owner", disable("boss"), no},
		{"stranger is granted", "owner", grant("stranger", "acme", "member"), hidden},
		{"stranger is invited", "owner", invite("stranger"), hidden},
		{"orphan is invited", "owner", invite("orphan"), hidden},
		{"a user is removed", "owner", remove("member"), hidden},

		{"new member", "admin", add("new", "acme", "", false), ok},
		{"member is added", "admin", add("member", "acme", "", false), taken},
		{"stranger is added", "admin", add("Stranger", "acme", "", false), taken},
		{"orphan is added", "admin", add("orphan", "acme", "", false), taken},
		{"the deployment's adds an orphan", "boss", add("orphan", "acme", "", false), ok},
		{"login is none", "admin", add("a b", "acme", "", false), postern.CodeInvalid},
		{"role is none", "admin", add("new", "acme", "boss", false), postern.CodeInvalid},
		{"operator is added", "owner", add("new", "acme", "", true), hidden},
		{"another's member is added", "owner", add("new", "rival", "", false), hidden},

		{"the deployment's removes", "boss", remove("member"), ok},
		{"the deployment's removes itself", "boss", remove("boss"), no},
		{"the deployment's disables itself", "boss", disable("boss"), no},
		{"the deployment's invites an owner", "boss", invite("owner"), ok},
		{"the deployment's adds a stranger", "boss", add("stranger", "acme", "owner", false), ok},
		{"the deployment's adds who is another already", "boss", add("stranger", "acme", "", true), taken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.do(r.operator(people[tt.who]))
			if tt.want == ok {
				must(t, err)
				r.reset(people)
				return
			}
			var p *postern.Problem
			if !errors.As(err, &p) || p.Code != tt.want || p.Hint == "" && p.Code != postern.CodeInvalid && p.Code != postern.CodeNotFound {
				t.Fatalf("got %v (%+v), want a problem with code %q and a hint", err, p, tt.want)
			}
			if strings.Contains(p.Hint, "postern ") {
				t.Errorf("who manages a tenant in a browser is told %q", p.Hint)
			}
		})
	}
}

// reset brings people back to what TestManagers made of them.
func (r *registry) reset(people map[string]coordinator.User) {
	t, ctx := r.t, r.t.Context()
	t.Helper()
	roles := map[string]string{
		"owner": postern.TenantOwner, "owner2": postern.TenantOwner, "admin": postern.TenantAdmin, "admin2": postern.TenantAdmin,
		"member": postern.TenantMember, "both": postern.TenantMember,
	}
	for name, u := range people {
		if _, err := r.Local().User(ctx, u.ID); err != nil {
			u = r.user(name, "")
			people[name] = u
		}
		must(t, r.EnableUser(ctx, u.ID))
		if role := roles[name]; role != "" {
			_, err := r.PutGrant(ctx, u.ID, "acme", postern.GrantRequest{Role: role})
			must(t, err)
		}
	}
	for _, name := range []string{"stranger", "orphan"} {
		r.DeleteGrant(ctx, people[name].ID, "acme") // if there is one
	}
	if u, err := r.Local().User(ctx, "new"); err == nil {
		must(t, r.RemoveUser(ctx, u.ID))
	}
}

// The last owner of a tenant stays one until there is another who can sign in.
func TestLastOwner(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	owner, other := r.member("acme", "owner", postern.TenantOwner), r.member("acme", "other", postern.TenantOwner)
	must(t, r.DisableUser(ctx, other.ID))
	_, err := r.operator(owner).Revoke(ctx, owner.ID, "acme")
	wantProblem(t, err, 403, postern.CodeForbidden)
	_, err = r.operator(owner).Grant(ctx, owner.ID, "acme", postern.GrantRequest{Role: postern.TenantAdmin})
	wantProblem(t, err, 403, postern.CodeForbidden)
	_, err = r.operator(owner).Grant(ctx, owner.ID, "acme", postern.GrantRequest{Role: postern.TenantOwner, Groups: []string{"board"}})
	must(t, err)
	// Who operates the deployment can put it right again.
	_, err = r.Local().Revoke(ctx, owner.ID, "acme")
	must(t, err)
}

// Somebody who can open nothing, or nothing any more, keeps their login: no manager
// makes another of them, whoever chose it and whatever it is to become.
func TestOrphanIsTaken(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	owner := r.member("acme", "owner", postern.TenantOwner)
	anna := r.user("anna@acme.example", goodPassword)
	secret, _ := r.signIn(anna)
	add := func() error {
		_, err := r.operator(owner).AddMember(ctx, "acme", postern.UserRequest{Login: "Anna@acme.example"}, postern.GrantRequest{})
		return err
	}
	wantProblem(t, add(), 409, postern.CodeTaken)
	r.grant(anna)
	must(t, r.DeleteGrant(ctx, anna.ID, "acme"))
	wantProblem(t, add(), 409, postern.CodeTaken)
	if u, err := r.CheckPassword(ctx, anna.Login, goodPassword, somewhere); err != nil || u.ID != anna.ID || !r.here(secret) {
		t.Errorf("signs in as %q, %v, is signed in still: %v", u.ID, err, r.here(secret))
	}
	_, err := r.Local().AddMember(ctx, "acme", postern.UserRequest{Login: anna.Login}, postern.GrantRequest{})
	must(t, err)
}

// An invitation's link is good once, and shows in the user's state.
func TestInviteUser(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	u := r.user("anna", "")
	o := r.Local()
	first, err := o.InviteUser(ctx, "anna")
	must(t, err)
	second, err := o.InviteUser(ctx, u.ID)
	must(t, err)
	secret, ok := strings.CutPrefix(second.URL, "https://portal."+base+"/invite/")
	if !ok || second.User.State != postern.UserInvited || !second.User.Invited.Equal(second.Expires) || first.URL == second.URL {
		t.Errorf("got %+v after %+v", second, first)
	}
	_, _, err = r.Invitation(ctx, strings.TrimPrefix(first.URL, "https://portal."+base+"/invite/"))
	wantProblem(t, err, 410, postern.CodeTokenUsed)
	_, err = r.Accept(ctx, secret, "Anna", "correct horse battery", nil)
	must(t, err)
	state, err := o.User(ctx, "anna")
	must(t, err)
	if state.State != postern.UserActive || !state.Password || !state.Invited.IsZero() || state.Name != "Anna" {
		t.Errorf("accepted: got %+v", state)
	}
	_, err = o.InviteUser(ctx, "anna")
	must(t, err)
	r.wait(72 * time.Hour)
	if state, err = o.User(ctx, "anna"); err != nil || !state.Invited.IsZero() {
		t.Errorf("expired: got %+v, %v", state, err)
	}
	state, err = o.DisableUser(ctx, "anna")
	must(t, err)
	if state.State != postern.UserDisabled {
		t.Errorf("disabled: got %+v", state)
	}
	_, err = o.InviteUser(ctx, "anna")
	wantProblem(t, err, 403, postern.CodeForbidden)
}

// Who manages a tenant sees its people, and of them what is the tenant's.
func TestUsersSeen(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	for _, name := range []string{"rival", "second"} {
		must(t, r.AddTenant(ctx, name))
	}
	owner := r.member("acme", "owner", postern.TenantOwner)
	_, err := r.PutGrant(ctx, owner.ID, "second", postern.GrantRequest{Role: postern.TenantAdmin})
	must(t, err)
	boss, err := r.AddUser(ctx, postern.UserRequest{Login: "boss", Operator: true})
	must(t, err)
	for _, tenant := range []string{"acme", "rival"} {
		_, err = r.PutGrant(ctx, boss.ID, tenant, postern.GrantRequest{Groups: []string{tenant + "-group"}})
		must(t, err)
	}
	r.member("rival", "stranger", postern.TenantMember)
	r.user("orphan", "")
	tests := []struct {
		name   string
		o      *coordinator.Operator
		tenant string
		want   string
	}{
		{"all of the deployment", r.Local(), "", "boss+ acme rival, orphan, owner acme second, stranger rival"},
		{"a tenant's", r.Local(), "rival", "boss+ acme rival, stranger rival"},
		{"no tenant's", r.Local(), "nobody", ""},
		{"a manager's", r.operator(owner), "", "boss acme, owner acme second"},
		{"a manager's of one tenant", r.operator(owner), "second", "owner acme second"},
		{"a manager's of another's", r.operator(owner), "rival", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			users, err := tt.o.Users(ctx, tt.tenant)
			must(t, err)
			var got []string
			for _, u := range users {
				line := u.Login
				if u.Operator {
					line += "+"
				}
				for _, g := range u.Grants {
					line += " " + g.Tenant
				}
				got = append(got, line)
			}
			if all := strings.Join(got, ", "); all != tt.want {
				t.Errorf("got %q, want %q", all, tt.want)
			}
		})
	}
}

// Filters of the audit log, and what managers see of it.
func TestAuditQueries(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	must(t, r.AddTenant(ctx, "rival"))
	owner := r.member("acme", "owner", postern.TenantOwner)
	r.member("rival", "stranger", postern.TenantOwner)
	_, err := r.operator(owner).AddMember(ctx, "acme", postern.UserRequest{Login: "new"}, postern.GrantRequest{})
	must(t, err)
	// 1 deployment, 2 acme, 3 rival, 4 owner, 5 grant, 6 stranger, 7 grant, 8 new, 9 grant
	me := coordinator.ActorUser(owner.ID)
	tests := []struct {
		name string
		o    *coordinator.Operator
		q    coordinator.AuditQuery
		want []uint64
	}{
		{"all", r.Local(), coordinator.AuditQuery{Limit: 100}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"page", r.Local(), coordinator.AuditQuery{After: 2, Limit: 3}, []uint64{3, 4, 5}},
		{"newest", r.Local(), coordinator.AuditQuery{Newest: true, Limit: 2}, []uint64{9, 8}},
		{"page back", r.Local(), coordinator.AuditQuery{Newest: true, Before: 8, Limit: 2}, []uint64{7, 6}},
		{"between", r.Local(), coordinator.AuditQuery{After: 2, Before: 5, Limit: 9}, []uint64{3, 4}},
		{"tenant", r.Local(), coordinator.AuditQuery{Tenant: "acme", Limit: 9}, []uint64{2, 5, 9}},
		{"actor", r.Local(), coordinator.AuditQuery{Actor: me, Limit: 9}, []uint64{8, 9}},
		{"action", r.Local(), coordinator.AuditQuery{Action: "user.g", Limit: 9}, []uint64{5, 7, 9}},
		{"an action has no wildcards", r.Local(), coordinator.AuditQuery{Action: "user%", Limit: 9}, nil},
		{"all at once", r.Local(), coordinator.AuditQuery{Tenant: "acme", Actor: me, Action: "user.", Newest: true, Limit: 9}, []uint64{9}},
		{"a manager's", r.operator(owner), coordinator.AuditQuery{Limit: 9}, []uint64{2, 5, 9}},
		{"a manager's, of another's", r.operator(owner), coordinator.AuditQuery{Tenant: "rival", Limit: 9}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entries, err := tt.o.Audit(ctx, tt.q)
			must(t, err)
			var got []uint64
			for _, e := range entries {
				got = append(got, e.Seq)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	for _, limit := range []int{0, -1, 1001} {
		_, err := r.Local().Audit(ctx, coordinator.AuditQuery{Limit: limit})
		wantProblem(t, err, 422, postern.CodeInvalid)
	}
}

func TestIssuerState(t *testing.T) {
	r := openRegistry(t)
	state, err := r.Local().PutIssuer(t.Context(), "acme-id", request("acme"))
	must(t, err)
	if state.Callback != "https://portal."+base+"/sign-in/callback/acme-id" || state.GroupsClaim != "groups" || state.Title != "acme-id" {
		t.Errorf("got %+v", state)
	}
	all, err := r.Local().Issuers(t.Context())
	must(t, err)
	if len(all) != 1 || all[0].Name != "acme-id" {
		t.Errorf("list: got %+v", all)
	}
	must(t, r.Local().RemoveIssuer(t.Context(), "acme-id"))
	if all, err = r.Local().Issuers(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("removed: got %+v, %v", all, err)
	}
}
