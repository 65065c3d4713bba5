package coordinator_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"postern"
	"postern/coordinator"
)

// request is what issuers of these tests are made from.
func request(tenant string) postern.IssuerRequest {
	return postern.IssuerRequest{
		URL: "https://login." + tenant + ".example", ClientID: "postern", ClientSecret: "hush " + tenant, Tenant: tenant,
		Roles: map[string]postern.IssuerRole{
			"*":      {Groups: []string{"all"}},
			"books":  {Groups: []string{"accounting"}},
			"bosses": {Role: postern.TenantAdmin, Groups: []string{"accounting", "board"}},
		},
	}
}

func (r *registry) issuer(name, tenant string) coordinator.Issuer {
	r.t.Helper()
	i, err := r.PutIssuer(r.t.Context(), name, request(tenant))
	must(r.t, err)
	return i
}

// external signs somebody in at an issuer.
func (r *registry) external(issuer, subject, login string, groups ...string) coordinator.User {
	r.t.Helper()
	u, err := r.SignInExternal(r.t.Context(), coordinator.External{Issuer: issuer, Subject: subject, Login: login, Name: "N " + subject, Groups: groups})
	must(r.t, err)
	return u
}

func TestPutIssuer(t *testing.T) {
	r := openRegistry(t)
	must(t, r.AddTenant(t.Context(), "other"))
	made := r.issuer("login", "acme")
	if made.Title != "login" || bytes.Contains(made.ClientSecret, []byte("hush")) {
		t.Errorf("got %+v", made)
	}
	r.wantLog("issuer.put", "local login", "https://login.acme.example")
	for _, entry := range r.log("issuer.put") {
		if strings.Contains(entry, "hush") {
			t.Errorf("the secret is on record: %q", entry)
		}
	}
	secretOf := func() string {
		t.Helper()
		all, err := r.Issuers(t.Context())
		must(t, err)
		secret, err := r.ClientSecret(all[0])
		must(t, err)
		return secret
	}
	if got := secretOf(); got != "hush acme" {
		t.Errorf("secret: got %q", got)
	}
	moved := made
	moved.Name = "another"
	if _, err := r.ClientSecret(moved); err == nil {
		t.Error("one issuer's secret opens for another")
	}

	change := request("acme")
	change.ClientSecret, change.Title = "", "Acme login"
	changed, err := r.PutIssuer(t.Context(), "login", change)
	must(t, err)
	if changed.Title != "Acme login" || secretOf() != "hush acme" {
		t.Errorf("changed without a secret: got %+v", changed)
	}
	change.ClientID = "another" // whose secret this one is not
	_, err = r.PutIssuer(t.Context(), "login", change)
	must(t, err)
	if got := secretOf(); got != "" {
		t.Errorf("another client has the secret %q", got)
	}

	tests := []struct {
		name, issuer string
		edit         func(*postern.IssuerRequest)
		status       int
		code         string
	}{
		{"name that is no label", "Acme Login", func(*postern.IssuerRequest) {}, 422, postern.CodeInvalid},
		{"no such tenant", "x", func(q *postern.IssuerRequest) { q.Tenant = "none" }, 404, postern.CodeNotFound},
		{"in the clear", "x", func(q *postern.IssuerRequest) { q.URL = "http://login.acme.example" }, 422, postern.CodeInvalid},
		{"no host", "x", func(q *postern.IssuerRequest) { q.URL = "https:///x" }, 422, postern.CodeInvalid},
		{"a query", "x", func(q *postern.IssuerRequest) { q.URL += "?a=b" }, 422, postern.CodeInvalid},
		{"a fragment", "x", func(q *postern.IssuerRequest) { q.URL += "#a" }, 422, postern.CodeInvalid},
		{"a user", "x", func(q *postern.IssuerRequest) { q.URL = "https://u:p@login.acme.example" }, 422, postern.CodeInvalid},
		{"no client", "x", func(q *postern.IssuerRequest) { q.ClientID = "" }, 422, postern.CodeInvalid},
		{"title of two lines", "x", func(q *postern.IssuerRequest) { q.Title = "a\nb" }, 422, postern.CodeInvalid},
		{"a secret without end", "x", func(q *postern.IssuerRequest) { q.ClientSecret = strings.Repeat("x", 1000) }, 422, postern.CodeInvalid},
		{"nobody may come in", "x", func(q *postern.IssuerRequest) { q.Roles = nil }, 422, postern.CodeInvalid},
		{"an empty group", "x", func(q *postern.IssuerRequest) { q.Roles[""] = postern.IssuerRole{} }, 422, postern.CodeInvalid},
		{"no such role", "x", func(q *postern.IssuerRequest) { q.Roles["a"] = postern.IssuerRole{Role: "root"} }, 422, postern.CodeInvalid},
		{"a group that is no label", "x", func(q *postern.IssuerRequest) { q.Roles["a"] = postern.IssuerRole{Groups: []string{"A b"}} }, 422, postern.CodeInvalid},
		{"another URL for a name", "login", func(q *postern.IssuerRequest) { q.URL = "https://evil.example" }, 409, postern.CodeTaken},
		{"another tenant for a name", "login", func(q *postern.IssuerRequest) { q.Tenant = "other" }, 409, postern.CodeTaken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := request("acme")
			tt.edit(&req)
			_, err := r.PutIssuer(t.Context(), tt.issuer, req)
			wantProblem(t, err, tt.status, tt.code)
		})
	}
}

func TestSignInExternal(t *testing.T) {
	r := openRegistry(t)
	r.issuer("login", "acme")
	u := r.external("login", "1", "Anna@acme.example", "books", "unknown")
	if u.Login != "login/anna@acme.example" || u.Name != "N 1" || u.Password != "" || u.Operator {
		t.Errorf("got %+v", u)
	}
	r.wantLog("user.add", "issuer:login", u.ID)
	grant := func() coordinator.Grant {
		t.Helper()
		all, err := r.Grants(t.Context(), u.ID)
		must(t, err)
		if len(all) != 1 {
			t.Fatalf("got %d grants, want 1", len(all))
		}
		return all[0]
	}
	steps := []struct {
		name   string
		groups []string
		role   string
		want   []string
	}{
		{"everybody and books", []string{"books"}, postern.TenantMember, []string{"accounting", "all"}},
		{"a more powerful role, and the groups of all", []string{"bosses", "books"}, postern.TenantAdmin, []string{"accounting", "all", "board"}},
		{"everybody alone", nil, postern.TenantMember, []string{"all"}},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			if again := r.external("login", "1", "renamed@acme.example", step.groups...); again.ID != u.ID || again.Login != u.Login {
				t.Errorf("the same subject is another user: %+v", again)
			}
			if g := grant(); g.Role != step.role || !reflect.DeepEqual(g.Groups, step.want) || g.Issuer != "login" {
				t.Errorf("got %+v, want %s in %v", g, step.role, step.want)
			}
		})
	}

	// What a person granted is no issuer's to change.
	_, err := r.PutGrant(t.Context(), u.ID, "acme", postern.GrantRequest{Role: postern.TenantOwner})
	must(t, err)
	r.external("login", "1", "", "books")
	if g := grant(); g.Role != postern.TenantOwner || g.Issuer != "" {
		t.Errorf("a person's grant became %+v", g)
	}

	must(t, r.DisableUser(t.Context(), u.ID))
	_, err = r.SignInExternal(t.Context(), coordinator.External{Issuer: "login", Subject: "1", Groups: []string{"books"}})
	wantProblem(t, err, 401, postern.CodeUnauthorized)
	r.wantLog("signin.refused", u.ID, "login: this account cannot sign in")
	if _, err := r.SignInExternal(t.Context(), coordinator.External{Issuer: "none", Subject: "1"}); err == nil {
		t.Error("an issuer that is none let somebody in")
	}
	for name, subject := range map[string]string{"no subject": "", "long subject": strings.Repeat("x", 256)} {
		t.Run(name, func(t *testing.T) {
			before := len(r.log("signin.refused"))
			_, err := r.SignInExternal(t.Context(), coordinator.External{Issuer: "login", Subject: subject, Remote: somewhere})
			wantProblem(t, err, 422, postern.CodeInvalid)
			r.wantLog("signin.refused", "stranger", somewhere.String()+": login: the issuer gave no usable subject")
			if n := len(r.log("signin.refused")) - before; n != 1 {
				t.Errorf("%d new entries in the audit log, want 1", n)
			}
		})
	}
	// Who is nobody here yet is the business of the issuer's tenant all the same.
	theirs, err := r.Local().Audit(t.Context(), coordinator.AuditQuery{Tenant: "acme", Action: "signin.refused", Limit: 9})
	if err != nil || len(theirs) != 3 {
		t.Errorf("got %+v, %v, want the 3 refusals in the tenant's log", theirs, err)
	}
}

// An issuer can say any e-mail address. It makes nobody who is there or who is still
// to come.
func TestNoTakeover(t *testing.T) {
	r := openRegistry(t)
	must(t, r.AddTenant(t.Context(), "rival"))
	r.issuer("login", "acme")
	r.issuer("rival-login", "rival")
	victim := r.user("boss@acme.example", goodPassword)
	r.grant(victim)
	evil := r.external("rival-login", "1", "boss@acme.example")
	if evil.ID == victim.ID {
		t.Fatal("an issuer's word made somebody else of them")
	}
	later := r.external("rival-login", "2", "later@acme.example")
	local := r.user("later@acme.example", goodPassword) // the login is free
	if local.ID == later.ID {
		t.Error("who was there first is who came later")
	}
	// Another subject with the same address, and one issuer against the other.
	ids := map[string]bool{victim.ID: true, evil.ID: true, later.ID: true, local.ID: true}
	logins := map[string]bool{evil.Login: true}
	for _, e := range [][2]string{{"rival-login", "3"}, {"rival-login", "4"}, {"login", "1"}} {
		u := r.external(e[0], e[1], "boss@acme.example")
		if ids[u.ID] || logins[u.Login] {
			t.Errorf("%v is %+v", e, u)
		}
		ids[u.ID], logins[u.Login] = true, true
	}
	for n, login := range []string{"", "a/b", "two words", strings.Repeat("ü", 120), strings.Repeat("ü", 120)} {
		if u := r.external("login", fmt.Sprintf("subject %d", n), login); !strings.HasPrefix(u.Login, "login/") || len(u.Login) > 254 {
			t.Errorf("login %q became %q", login, u.Login)
		}
	}
	for _, g := range must2(r.Grants(t.Context(), evil.ID)) {
		if g.Tenant != "rival" {
			t.Errorf("an issuer of rival's granted %+v", g)
		}
	}
}

// Who is in none of the groups any more loses what the issuer gave, and nothing else.
func TestExternalTakenBack(t *testing.T) {
	r := openRegistry(t)
	must(t, r.AddTenant(t.Context(), "other"))
	req := request("acme")
	delete(req.Roles, "*")
	_, err := r.PutIssuer(t.Context(), "login", req)
	must(t, err)
	_, err = r.SignInExternal(t.Context(), coordinator.External{Issuer: "login", Subject: "0", Groups: []string{"*", "none"}})
	wantProblem(t, err, 403, postern.CodeForbidden)
	u := r.external("login", "1", "anna", "books")
	_, err = r.PutGrant(t.Context(), u.ID, "other", postern.GrantRequest{})
	must(t, err)
	_, err = r.SignInExternal(t.Context(), coordinator.External{Issuer: "login", Subject: "1"})
	wantProblem(t, err, 403, postern.CodeForbidden)
	r.wantLog("user.revoke", "issuer:login", u.ID)
	r.wantLog("signin.refused", u.ID, "login: none of your groups")
	if all := must2(r.Grants(t.Context(), u.ID)); len(all) != 1 || all[0].Tenant != "other" {
		t.Errorf("left: %+v", all)
	}
	r.view(func(tx coordinator.Tx) error {
		users, err := tx.Users().All()
		if len(users) != 1 {
			t.Errorf("who was refused is a user all the same: %+v", users)
		}
		return err
	})
}

// Whom an issuer let in is let in by it alone: who is gone there is gone here.
func TestExternalOnly(t *testing.T) {
	r := openRegistry(t)
	r.issuer("login", "acme")
	u := r.external("login", "1", "anna")
	wantProblem(t, r.PutPasskey(t.Context(), "local", passkey(u, "k")), 403, postern.CodeForbidden)
	wantProblem(t, r.SetPassword(t.Context(), "local", u.ID, goodPassword, ""), 403, postern.CodeForbidden)
	if all, err := r.Passkeys(t.Context(), u.ID); err != nil || len(all) > 0 || r.fresh(u).Password != "" {
		t.Errorf("there is a password, or passkeys %+v, %v", all, err)
	}
	start := func(method string) (string, error) {
		secret, _, err := r.StartSession(t.Context(), coordinator.SignIn{User: u.ID, Methods: []string{method}})
		return secret, err
	}
	_, err := start("hwk")
	wantProblem(t, err, 403, postern.CodeForbidden)
	r.wantLog("signin.refused", "stranger "+u.ID, "login decides what this account may open")
	_, err = r.Invite(t.Context(), u.ID)
	wantProblem(t, err, 403, postern.CodeForbidden)
	secret, err := start("fed")
	must(t, err)

	must(t, r.RemoveIssuer(t.Context(), "login"))
	r.wantLog("issuer.remove", "login", "1 people")
	if r.here(secret) {
		t.Error("the session that the issuer vouched for goes on")
	}
	if all := must2(r.Grants(t.Context(), u.ID)); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
	must(t, r.PutPasskey(t.Context(), "local", passkey(u, "k")))
	if _, err := start("hwk"); err != nil {
		t.Errorf("without the issuer: %v", err)
	}
	wantProblem(t, r.RemoveIssuer(t.Context(), "login"), 404, postern.CodeNotFound)
}
