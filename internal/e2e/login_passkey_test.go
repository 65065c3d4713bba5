//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"postern"
)

// strictFile is what a node publishes that wants a passkey of its own besides the
// portal's word.
const strictFile = `services:
  - title: Books
    upstream: %s
    require: passkey
    exceptions:
      - {path: /hooks/, access: public}
`

// TestLoginNodePasskey has a node ask for passkeys that were made by its own links.
func TestLoginNodePasskey(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": strictFile, "globex": membersOnly})
	chrome := newBrowser(t, e.caFile())
	ann := chrome.person(t)
	ann.authenticator(t)
	invitation := e.invite("ann@acme.example", "Ann Ålund")
	e.grant("ann@acme.example", "acme", postern.GrantRequest{Role: postern.TenantOwner})
	ann.open(t, invitation)
	ann.fill(t, "#password", annPassword)
	ann.click(t, "#accept > button")
	ann.arrives(t, e.portal("/"), "Books")

	deep := e.url("acme", "/seen")
	ann.open(t, deep)
	ann.arrives(t, e.url("acme", "/.well-known/postern/passkey"), "No passkey of yours is known here")
	ann.look(t, "login-node-passkey-none")

	link := strings.TrimSpace(must(t, program("postern"), "node", "passkeys", "invite", "ann@acme.example", "--data", e.data("acme-office")))
	ann.open(t, link)
	ann.arrives(t, link, "ann@acme.example")
	ann.look(t, "login-node-passkey-make")
	ann.click(t, "#go")
	// It leads to the application, by way of the passkey that was just made.
	ann.arrives(t, e.url("acme", "/.well-known/postern/passkey?target="), "wants your passkey besides")
	ann.look(t, "login-node-passkey-use")
	ann.open(t, deep)
	ann.arrives(t, e.url("acme", "/.well-known/postern/passkey?target="), "wants your passkey besides")
	ann.click(t, "#go")
	ann.arrives(t, deep, "ann@acme.example")
	ann.open(t, link)
	ann.arrives(t, link, "This link is of no use any more")
	ann.look(t, "login-node-passkey-link-used")
	ann.open(t, e.url("acme", "/.well-known/postern/tokens"))
	ann.arrives(t, e.url("acme", "/.well-known/postern/tokens"), "Tokens for programs")
	ann.fill(t, "#name", "backup")
	ann.click(t, "main form button")
	ann.arrives(t, e.url("acme", "/.well-known/postern/tokens"), "never again")
	ann.look(t, "login-node-passkey-token-made")

	// The portal's word alone, in another browser, is not enough.
	thief := chrome.person(t)
	thief.authenticator(t)
	thief.open(t, deep)
	thief.arrives(t, e.portal("/sign-in"), "Sign in")
	thief.fill(t, "#login", "ann@acme.example")
	thief.fill(t, "#password", annPassword)
	thief.click(t, "form[action='/sign-in'] button")
	thief.arrives(t, e.url("acme", "/.well-known/postern/passkey?target="), "wants your passkey besides")
	thief.click(t, "#go")
	thief.shows(t, "#status", "Nothing came of it")
	thief.look(t, "login-node-passkey-failed")
	if page := thief.open(t, deep); strings.Contains(thief.text(t, "body"), `"Postern-User"`) {
		t.Errorf("the application answers: %+v", page)
	}

	// Without the passkey the session is not enough any more.
	keys := must(t, program("postern"), "node", "passkeys", "list", "--data", e.data("acme-office"))
	id := strings.Fields(strings.Split(keys, "\n")[1])[0]
	must(t, program("postern"), "node", "passkeys", "remove", id, "--data", e.data("acme-office"))
	ann.open(t, deep)
	ann.arrives(t, e.url("acme", "/.well-known/postern/passkey?target="), "No passkey of yours is known here")
	// Another, in a browser from before it knew the JSON forms (section 5.1 of Web
	// Authentication Level 3).
	const before = `["parseCreationOptionsFromJSON", "parseRequestOptionsFromJSON"].forEach(n => delete PublicKeyCredential[n]); delete PublicKeyCredential.prototype.toJSON`
	ann.open(t, strings.TrimSpace(must(t, program("postern"), "node", "passkeys", "invite", "ann@acme.example", "--data", e.data("acme-office"))))
	eval[chromedp.Void](ann, t, before)
	ann.click(t, "#go")
	ann.arrives(t, e.url("acme", "/.well-known/postern/passkey?target="), "wants your passkey besides")
	eval[chromedp.Void](ann, t, before)
	ann.click(t, "#go")
	ann.arrives(t, e.url("acme", "/"), "ann@acme.example")
}
