package portal_test

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
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
	for _, path := range []string{"/", "/account"} {
		a := b.get(path).want(200, "Your address is let through until")
		if again := b.get(path); again.find(`let through until (<time [^>]*>)`) != a.find(`let through until (<time [^>]*>)`) {
			t.Errorf("%s: another time on another page", path)
		}
	}
	d.signedIn("ada").follow("/events?view=catalogue").until("let through until")
	_, err = d.Local().SetAdmission(t.Context(), "acme", postern.AdmissionRequest{Mode: postern.AdmissionOpen})
	must(t, err)
	b.get("/").want(200).wantNot("let through")
}

// Who would come to a gateway too soon is told so, and tries again by themselves.
func TestHeld(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger)
	acme.come()
	leave := acme.gateway.connect() // and it acts on nothing that it is told
	d.member("ada", "acme", postern.TenantMember)
	b := d.signedIn("ada")
	b.get("/open/acme/default").want(http.StatusSeeOther)
	_, err := d.Local().SetAdmission(t.Context(), "acme", postern.AdmissionRequest{Mode: postern.AdmissionPortal})
	must(t, err)
	a := b.get("/open/acme/default?entry=y2026").want(http.StatusServiceUnavailable, "Your address is not let through yet", "tries again by itself")
	if a.header.Get("Refresh") != "5" || a.header.Get("Location") != "" {
		t.Errorf("the header is %v", a.header)
	}
	if again := a.find(`<a class="button main" href="([^"]*)"`); again != "/open/acme/default?entry=y2026" {
		t.Errorf("tries again at %q", again)
	}
	door := b.get(a.find(`<a class="button" href="([^"]*)"`)).want(http.StatusSeeOther).header.Get("Location")
	if !strings.HasPrefix(door, origin(acmeHost)) || !strings.Contains(door, "2026") {
		t.Errorf("anyway leads to %q", door)
	}
	d.clock.advance(time.Minute) // gateways are waited for no longer
	b.get("/open/acme/default").want(http.StatusSeeOther)

	// So is who cannot be let through as the disk fails.
	leave()
	eventually(t, "the gateway to be gone", func() bool {
		all, err := d.Local().Gateways(t.Context())
		must(t, err)
		return all[0].State == postern.StateOffline
	})
	d.clock.advance(20 * time.Minute)
	acme.gateway.report(acme.node, d.clock.now())
	acme.wait(postern.StateReady)
	var statuses []int
	for failing := int64(1); failing <= 8; failing++ {
		d.disk.left.Store(failing)
		statuses = append(statuses, b.get("/open/acme/default").status)
	}
	d.disk.left.Store(0)
	if !slices.Contains(statuses, http.StatusServiceUnavailable) || statuses[7] != http.StatusSeeOther {
		t.Errorf("with a disk that fails: %v", statuses)
	}
}
