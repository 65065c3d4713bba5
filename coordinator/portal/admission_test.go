package portal_test

import (
	"net/netip"
	"testing"
	"time"

	"postern"
)

// Who is about at the portal is admitted from where they are: from when they sign in,
// for as long as they look at pages, and again when they come back.
func TestAdmission(t *testing.T) {
	d := deploy(t, nil)
	newCompany(d, "acme", "Acme AG", ledger)
	ada := d.typist("ada")
	_, err := d.Local().Grant(t.Context(), ada.ID, "acme", postern.GrantRequest{})
	must(t, err)
	_, err = d.Local().SetAdmission(t.Context(), "acme", postern.AdmissionRequest{Mode: postern.AdmissionPortal})
	must(t, err)
	admitted := func(when string, want bool) {
		t.Helper()
		until, needed := d.Admitted(t.Context(), ada.ID, netip.MustParseAddr("127.0.0.1"))
		if left := until.Sub(d.clock.now()); !needed || until.IsZero() == want || left > 15*time.Minute {
			t.Errorf("%s: admitted for %v more, needed %v; want %v", when, left, needed, want)
		}
	}
	admitted("before anybody came", false)
	d.browser().get("/sign-in").want(200)
	admitted("at the sign-in page", false)
	b := d.browser()
	b.post("/sign-in", "login", "ada", "password", password).want(303)
	admitted("signed in", true)
	d.clock.advance(16 * time.Minute)
	admitted("a quarter of an hour later", false)
	b.get("/account").want(200)
	admitted("back at the portal", true)
}
