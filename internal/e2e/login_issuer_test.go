//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern"
)

// newSSO returns an estate whose parts trust ca, an OpenID issuer that is the
// customer's, and a Chromium that trusts both CAs.
func newSSO(t *testing.T, files func(*issuer) map[string]string) (*estate, *issuer, *browser) {
	t.Helper()
	ca := newTestCA(t)
	sso := newIssuer(t, ca)
	file := ca.file(t)
	e := newEstate(t, []string{"SSL_CERT_FILE=" + file, "SSL_CERT_DIR=/nowhere"}, files(sso))
	return e, sso, newBrowser(t, e.caFile(), file)
}

// TestLoginExternalIssuer signs people in who have no account but the customer's own.
func TestLoginExternalIssuer(t *testing.T) {
	e, sso, chrome := newSSO(t, func(*issuer) map[string]string {
		return map[string]string{
			"acme":   "services:\n  - title: Books\n    upstream: %s\n    access: groups\n    groups: [accounting]\n",
			"globex": membersOnly,
		}
	})
	e.mustAdmin("PUT", "/issuers/acme-sso", postern.IssuerRequest{
		Title: "Acme login", URL: sso.url, ClientID: sso.client, ClientSecret: sso.secret, Tenant: "acme",
		Roles: map[string]postern.IssuerRole{"book-keepers": {Groups: []string{"accounting"}}, "staff": {}},
	}, nil)
	var issuers []postern.IssuerState
	e.mustAdmin("GET", "/issuers", nil, &issuers)
	if len(issuers) != 1 || issuers[0].Callback != e.portal("/sign-in/callback/acme-sso") {
		t.Fatalf("issuers: %+v", issuers)
	}

	t.Run("signs in", func(t *testing.T) {
		sso.greets("1", "cleo@acme.example", "Cleo Clark", "book-keepers")
		p := chrome.person(t)
		p.open(t, e.url("acme", "/seen"))
		p.arrives(t, e.portal("/sign-in"), "Acme login")
		p.look(t, "login-sign-in-issuer")
		p.click(t, ".issuers a")
		p.arrives(t, e.url("acme", "/seen"), "Cleo")
		if text := p.text(t, "body"); !strings.Contains(text, `"accounting"`) {
			t.Errorf("the application is told %s", text)
		}
		if page := p.open(t, e.url("globex", "/")); page.Status != http.StatusForbidden {
			t.Errorf("at the other tenant: status %d", page.Status)
		}
		p.open(t, e.portal("/account"))
		p.look(t, "login-account-external")
	})
	t.Run("other groups", func(t *testing.T) {
		sso.greets("2", "dan@acme.example", "Dan Dale", "staff")
		p := chrome.person(t)
		p.open(t, e.portal("/sign-in/with/acme-sso?next=/"))
		p.arrives(t, e.portal("/"), "Nothing is open to you yet")
		sso.greets("2", "dan@acme.example", "Dan Dale", "book-keepers")
		p.open(t, e.portal("/sign-in/with/acme-sso?next=/"))
		p.arrives(t, e.portal("/"), "Books")
		// And what the issuer takes away is gone, with what was open.
		p.open(t, e.url("acme", "/"))
		p.arrives(t, e.url("acme", "/"), "acme")
		sso.greets("2", "dan@acme.example", "Dan Dale", "nobody's group")
		p.open(t, e.portal("/sign-in/with/acme-sso?next=/"))
		p.arrives(t, e.portal("/sign-in/callback/acme-sso"), "may come in")
		p.look(t, "login-issuer-no-role")
		eventually(t, revocationTime+revocationSlack, func() error {
			if page := p.open(t, e.url("acme", "/")); page.Status == http.StatusOK {
				return fmt.Errorf("still open")
			}
			return nil
		})
	})
	// Whatever goes wrong there is told here, on a page that says what to do.
	for _, mood := range []mood{down, nonsense, foreignKey, foreignNonce, foreignAud, stale, refuses} {
		t.Run(string(mood), func(t *testing.T) {
			sso.greets("1", "cleo@acme.example", "Cleo Clark", "book-keepers")
			sso.becomes(mood)
			defer sso.becomes(well)
			before := len(e.audited("signin.refused"))
			p := chrome.person(t)
			p.open(t, e.portal("/sign-in/with/acme-sso?next=/"))
			p.arrives(t, e.portal("/sign-in/"), "Acme login")
			if mood == down {
				p.look(t, "login-issuer-down")
			}
			p.open(t, e.portal("/"))
			p.arrives(t, e.portal("/"), "Sign in")
			if after := len(e.audited("signin.refused")); after == before {
				t.Error("the audit log does not tell of it")
			}
		})
	}
	t.Run("well again", func(t *testing.T) {
		p := chrome.person(t)
		p.open(t, e.portal("/sign-in/with/acme-sso?next=/"))
		p.arrives(t, e.portal("/"), "Books")
	})
}

// pinnedFile is what a node publishes that believes its own issuer and nobody else.
func pinnedFile(sso *issuer, secret string) string {
	return `services:
  - title: Books
    upstream: %s
    access: groups
    groups: [accounting]
    require: issuer
sign_in:
  issuer:
    url: ` + sso.url + `
    client_id: ` + sso.client + `
    client_secret_file: ` + secret + `
    title: Globex login
    groups_claim: groups
    groups: {accounting: [book-keepers]}
`
}

// TestLoginPinnedIssuer has a node ask the customer's own issuer who somebody is: what
// the portal says is not enough.
func TestLoginPinnedIssuer(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret.txt")
	e, sso, chrome := newSSO(t, func(sso *issuer) map[string]string {
		writeFile(t, secret, sso.secret+"\n")
		return map[string]string{"acme": membersOnly, "globex": pinnedFile(sso, secret)}
	})
	sso.greets("7", "gil@globex.example", "Gil Grant", "book-keepers")
	p := chrome.person(t)
	p.open(t, e.url("globex", "/seen"))
	p.arrives(t, e.url("globex", "/seen"), "gil@globex.example")
	if asked, redeemed := sso.counts(); asked == 0 || redeemed != 1 {
		t.Errorf("the issuer was asked %d times and redeemed %d codes", asked, redeemed)
	}

	// The portal's own people do not get in by it, whatever their role.
	owner := e.member(t, "owner", "globex", postern.GrantRequest{Role: postern.TenantOwner})
	for _, at := range []string{
		e.url("globex", "/seen"), e.url("globex", "/.well-known/postern/login?"+url.Values{"iss": {e.portal("")}, "target": {"/seen"}}.Encode()),
	} {
		a := owner.ask("GET", at, nil, nil)
		for range maxSteps {
			if a.status/100 != 3 || strings.HasPrefix(a.location(t).String(), sso.url) {
				break
			}
			a = owner.ask("GET", a.location(t).String(), nil, nil)
		}
		if a.status == http.StatusOK {
			t.Errorf("%s let the portal's owner in: %s", at, a.body)
		}
	}

	sso.greets("8", "hal@globex.example", "Hal Hart", "others")
	hal := chrome.person(t)
	hal.open(t, e.url("globex", "/"))
	hal.arrives(t, e.url("globex", "/"), "Not for you")
	hal.look(t, "login-pinned-not-for-you")
	for _, mood := range []mood{down, nonsense, foreignKey, foreignNonce, foreignAud, stale, refuses} {
		t.Run(string(mood), func(t *testing.T) {
			sso.greets("7", "gil@globex.example", "Gil Grant", "book-keepers")
			sso.becomes(mood)
			defer sso.becomes(well)
			p := chrome.person(t)
			begin := time.Now()
			if page := p.open(t, e.url("globex", "/")); page.Status == http.StatusOK {
				t.Errorf("the issuer %s, and the page is %s", mood, p.text(t, "body"))
			}
			p.arrives(t, e.url("globex", "/"), "Globex login")
			noteFigure(t, "login", "page that says that the issuer "+string(mood), time.Since(begin).Seconds(), "s")
			if mood == down {
				p.look(t, "login-pinned-down")
			}
		})
	}
}
