package coordinator_test

import (
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"postern"
	"postern/coordinator"
)

func TestAddUser(t *testing.T) {
	r := openRegistry(t)
	u, err := r.AddUser(t.Context(), postern.UserRequest{Login: "  Anna@Acme.Example ", Name: "Änna"})
	must(t, err)
	if u.Login != "anna@acme.example" || !regexp.MustCompile(`^u[a-z2-7]{16}$`).MatchString(u.ID) || !u.Created.Equal(r.clock()) {
		t.Errorf("got %+v", u)
	}
	if got, err := r.User(t.Context(), u.ID); err != nil || !reflect.DeepEqual(got, u) {
		t.Errorf("got %+v, %v, want %+v", got, err, u)
	}
	r.wantLog("user.add", "local", u.ID, u.Login)
	tests := []struct {
		name string
		req  postern.UserRequest
		code string
	}{
		{"empty", postern.UserRequest{Login: " "}, postern.CodeInvalid},
		{"too long", postern.UserRequest{Login: strings.Repeat("x", 255)}, postern.CodeInvalid},
		{"a space in it", postern.UserRequest{Login: "anna b"}, postern.CodeInvalid},
		{"a line end in it", postern.UserRequest{Login: "anna\nb"}, postern.CodeInvalid},
		{"invisible", postern.UserRequest{Login: "anna\u200b"}, postern.CodeInvalid},
		{"no UTF-8", postern.UserRequest{Login: "anna\xff"}, postern.CodeInvalid},
		{"an issuer's", postern.UserRequest{Login: "acme/anna"}, postern.CodeInvalid},
		{"taken", postern.UserRequest{Login: "ANNA@acme.example"}, postern.CodeTaken},
		{"name of two lines", postern.UserRequest{Login: "b", Name: "a\nb"}, postern.CodeInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status := 422
			if tt.code == postern.CodeTaken {
				status = 409
			}
			_, err := r.AddUser(t.Context(), tt.req)
			wantProblem(t, err, status, tt.code)
		})
	}
	if _, err := r.AddUser(t.Context(), postern.UserRequest{Login: strings.Repeat("x", 254)}); err != nil {
		t.Error(err)
	}
}

func TestSetName(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", "")
	must(t, r.SetName(t.Context(), coordinator.ActorUser(u.ID), u.ID, "Anna B."))
	if got := r.fresh(u).Name; got != "Anna B." {
		t.Errorf("got %q", got)
	}
	r.wantLog("user.name", "user:"+u.ID, "Anna B.")
	wantProblem(t, r.SetName(t.Context(), "local", u.ID, "a\x00b"), 422, postern.CodeInvalid)
	wantProblem(t, r.SetName(t.Context(), "local", "nobody", "x"), 404, postern.CodeNotFound)
}

// What did not come to be is shown to nobody.
func TestNothingToShow(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", "")
	r.store.commit = errors.New("no commit")
	rings := r.Changed()
	if err := r.SetName(t.Context(), "local", u.ID, "Anna B."); err != r.store.commit {
		t.Fatalf("got %v", err)
	}
	select {
	case <-rings:
		t.Error("it rang all the same")
	default:
	}
	r.store.commit = nil
	must(t, r.SetName(t.Context(), "local", u.ID, "Anna B."))
	select {
	case <-rings:
	default:
		t.Error("it did not ring for a name")
	}
}

func TestGrant(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", "")
	g, err := r.PutGrant(t.Context(), u.ID, "acme", postern.GrantRequest{Groups: []string{"b", "a", "b"}, Services: []string{"not-yet"}})
	must(t, err)
	want := coordinator.Grant{
		GrantKey: coordinator.GrantKey{Tenant: "acme", User: u.ID}, Role: postern.TenantMember,
		Groups: []string{"a", "b"}, Services: []string{"not-yet"}, Created: r.clock(),
	}
	if !reflect.DeepEqual(g, want) {
		t.Errorf("got %+v, want %+v", g, want)
	}
	r.wantLog("user.grant", u.ID, "anna: member, groups a b, only services not-yet")

	again, err := r.PutGrant(t.Context(), u.ID, "acme", postern.GrantRequest{Role: "owner"})
	must(t, err)
	if again.Role != "owner" || again.Groups != nil || again.Services != nil {
		t.Errorf("granted anew: got %+v", again)
	}
	_, err = r.PutGrant(t.Context(), u.ID, "acme", postern.GrantRequest{Role: "owner"})
	must(t, err)
	if n := len(r.log("user.grant")); n != 2 {
		t.Errorf("%d entries in the audit log, want none for what changes nothing", n)
	}
	if all, err := r.Grants(t.Context(), u.ID); err != nil || !reflect.DeepEqual(all, []coordinator.Grant{again}) {
		t.Errorf("got %+v, %v, want %+v", all, err, again)
	}
	for _, tt := range []struct {
		name, tenant string
		req          postern.GrantRequest
		status       int
		code         string
	}{
		{"no such tenant", "none", postern.GrantRequest{}, 404, postern.CodeNotFound},
		{"no such role", "acme", postern.GrantRequest{Role: "root"}, 422, postern.CodeInvalid},
		{"a group that is no label", "acme", postern.GrantRequest{Groups: []string{"A b"}}, 422, postern.CodeInvalid},
		{"a service that is no label", "acme", postern.GrantRequest{Services: []string{""}}, 422, postern.CodeInvalid},
		{"too many groups", "acme", postern.GrantRequest{Groups: make([]string, postern.MaxGroups+1)}, 422, postern.CodeInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.PutGrant(t.Context(), u.ID, tt.tenant, tt.req)
			wantProblem(t, err, tt.status, tt.code)
		})
	}
	must(t, r.DeleteGrant(t.Context(), u.ID, "acme"))
	r.wantLog("user.revoke", u.ID, "anna")
	wantProblem(t, r.DeleteGrant(t.Context(), u.ID, "acme"), 404, postern.CodeNotFound)
}

// Whoever is disabled is nobody, until they are enabled and sign in again.
func TestDisableUser(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", goodPassword)
	secret, _ := r.signIn(u)
	invitation, err := r.Invite(t.Context(), u.ID)
	must(t, err)
	must(t, r.DisableUser(t.Context(), u.ID))
	must(t, r.DisableUser(t.Context(), u.ID))
	if n := len(r.log("user.disable")); n != 1 {
		t.Errorf("%d entries in the audit log, want 1", n)
	}
	if _, err := r.User(t.Context(), u.ID); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("User: got %v, want ErrNotFound", err)
	}
	if r.here(secret) {
		t.Error("the session goes on")
	}
	_, _, err = r.Invitation(t.Context(), invitation)
	wantProblem(t, err, 410, postern.CodeTokenUsed)
	_, err = r.Invite(t.Context(), u.ID)
	wantProblem(t, err, 403, postern.CodeForbidden)
	_, _, err = r.StartSession(t.Context(), coordinator.SignIn{User: u.ID, Methods: []string{"hwk"}})
	wantProblem(t, err, 401, postern.CodeUnauthorized)
	r.wantLog("signin.refused", "stranger "+u.ID, "cannot sign in")
	wantProblem(t, r.SetPassword(t.Context(), "local", u.ID, goodPassword, ""), 404, postern.CodeNotFound)
	wantProblem(t, r.PutPasskey(t.Context(), "local", passkey(u, "k")), 404, postern.CodeNotFound)

	must(t, r.EnableUser(t.Context(), u.ID))
	must(t, r.EnableUser(t.Context(), u.ID))
	r.wantLog("user.enable", u.ID)
	if r.here(secret) {
		t.Error("the session that had ended goes on")
	}
	if secret, _ := r.signIn(u); !r.here(secret) {
		t.Error("no new session")
	}
}

// fill gives u one of each thing that belongs to a user, and returns its session.
func (r *registry) fill(u coordinator.User) string {
	r.t.Helper()
	r.grant(u)
	must(r.t, r.PutPasskey(r.t.Context(), "local", passkey(u, "key-of-"+u.ID)))
	must(r.t, r.SetFavourite(r.t.Context(), coordinator.Favourite{User: u.ID, Tenant: "acme", Service: "erp", Entry: "y2026"}, true))
	_, err := r.Invite(r.t.Context(), u.ID)
	must(r.t, err)
	secret, _ := r.signIn(u)
	return secret
}

func TestRemoveUser(t *testing.T) {
	r := openRegistry(t)
	u, other := r.user("anna", goodPassword), r.user("ben", goodPassword)
	gone, stays := r.fill(u), r.fill(other)
	must(t, r.RemoveUser(t.Context(), u.ID))
	r.wantLog("user.remove", u.ID, "anna")
	if r.here(gone) || !r.here(stays) {
		t.Error("the wrong sessions go on")
	}
	r.view(func(tx coordinator.Tx) error {
		users, err := tx.Users().All()
		must(t, err)
		grants, err := tx.Grants().All()
		must(t, err)
		passkeys, err := tx.Passkeys().All()
		must(t, err)
		invitations, err := tx.Invitations().All()
		must(t, err)
		favourites, err := tx.Favourites().All()
		must(t, err)
		if len(users) != 1 || len(grants) != 1 || len(passkeys) != 1 || len(invitations) != 1 || len(favourites) != 1 {
			t.Errorf("left: %v %v %v %v %v, want the other's alone", users, grants, passkeys, invitations, favourites)
		}
		return nil
	})
	r.user("anna", "") // the login is free
}

// With a tenant goes what people have of it, and nobody else's.
func TestRemoveTenantPeople(t *testing.T) {
	r := openRegistry(t)
	must(t, r.AddTenant(t.Context(), "other"))
	u := r.user("anna", goodPassword)
	secret := r.fill(u)
	_, err := r.PutGrant(t.Context(), u.ID, "other", postern.GrantRequest{})
	must(t, err)
	must(t, r.SetFavourite(t.Context(), coordinator.Favourite{User: u.ID, Tenant: "other", Service: "erp"}, true))
	r.issuer("acme-login", "acme")
	external := r.external("acme-login", "1", "carl")
	must(t, r.RemoveTenant(t.Context(), "acme"))
	r.wantLog("tenant.remove", "1 issuers, 2 grants, 1 favourites")
	r.view(func(tx coordinator.Tx) error {
		grants, err := tx.Grants().All()
		must(t, err)
		favourites, err := tx.Favourites().All()
		must(t, err)
		issuers, err := tx.Issuers().All()
		must(t, err)
		links, err := tx.Links().All()
		must(t, err)
		if len(grants) != 1 || grants[0].Tenant != "other" || len(favourites) != 1 || favourites[0].Tenant != "other" || len(issuers)+len(links) != 0 {
			t.Errorf("left: %v %v %v %v, want the other tenant's alone", grants, favourites, issuers, links)
		}
		return nil
	})
	if !r.here(secret) {
		t.Error("the session of somebody who has another tenant has ended")
	}
	r.fresh(external) // the users stay
}

func TestFavourites(t *testing.T) {
	r := openRegistry(t)
	u := r.user("anna", "")
	f := coordinator.Favourite{User: u.ID, Tenant: "acme", Service: "erp"}
	wantProblem(t, r.SetFavourite(t.Context(), f, true), 404, postern.CodeNotFound) // not granted
	r.grant(u)
	for _, on := range []bool{true, true, false, false} {
		must(t, r.SetFavourite(t.Context(), f, on))
		r.view(func(tx coordinator.Tx) error {
			all, err := tx.Favourites().Of(u.ID)
			if (len(all) == 1) != on {
				t.Errorf("on is %v: got %v", on, all)
			}
			return err
		})
	}
	for _, bad := range []coordinator.Favourite{
		{User: u.ID, Tenant: "acme", Service: "A b"}, {User: u.ID, Tenant: "acme", Service: "erp", Entry: "../x"},
	} {
		wantProblem(t, r.SetFavourite(t.Context(), bad, true), 422, postern.CodeInvalid)
	}
}
