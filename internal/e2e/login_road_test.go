//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"postern"
)

// acmeFile is what acme's node publishes here: the books, for members, with places in
// them, and an application whose connections stay open.
const acmeFile = `services:
  - title: Books
    description: Companies, vouchers and the trial balance.
    icon: book
    upstream: %s
    access: members
    entries:
      - {name: first, title: The first company, path: /companies/1}
  - name: live
    title: Live figures
    icon: chart
    upstream: %s
    access: groups
    groups: [accounting]
    exceptions:
      - {path: /seen, access: public}
`

// A walk is the road that the product is for, from the first link on.
type walk struct {
	*estate
	op, ann *browser // the operator, and somebody of acme
	passed  int      // rules of WCAG
	links   map[string]string
}

const annPassword = "oak boards and brass screws"

// TestLoginRoad walks it in Chromium.
func TestLoginRoad(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": membersOnly})
	ledger := e.startLedger("acme")
	chrome := newBrowser(t, e.caFile())
	w := &walk{estate: e, op: chrome.person(t), ann: chrome.person(t), links: map[string]string{}}
	w.op.authenticator(t)
	for _, step := range []struct {
		name string
		walk func(*testing.T)
	}{
		{"first link", w.firstLink},
		{"published", func(t *testing.T) { w.published(t, fmt.Sprintf(acmeFile, ledger, e.apps["acme"].url)) }},
		{"invite", w.invitePeople},
		{"accept", w.accept},
		{"catalogue", w.catalogue},
		{"hand-over", w.handOver},
		{"keyboard", w.keyboard},
		{"deep link", w.deepLink},
		{"pages", w.pages},
		{"confirm", w.confirm},
		{"node away", w.nodeAway},
		{"passkey again", w.passkeyAgain},
		{"sign out everywhere", w.signOutEverywhere},
	} {
		if !t.Run(step.name, step.walk) {
			break // what follows stands on it
		}
	}
	noteFigure(t, "login", "WCAG 2.2 AA rules passed, over all pages", float64(w.passed), "rules")
}

// look is browser.look, counted.
func (w *walk) look(t *testing.T, b *browser, page string) {
	t.Helper()
	w.passed += b.look(t, "login-"+page)
}

// firstLink is how the first operator comes in: the link that the coordinator prints
// when it starts, and a passkey.
func (w *walk) firstLink(t *testing.T) {
	link := regexp.MustCompile(`https://\S+/invite/\S+`).FindString(w.coordinator.out.String())
	if !strings.HasPrefix(link, w.portal("/invite/")) {
		t.Fatalf("the coordinator says %s", w.coordinator.out.tail(2000))
	}
	w.op.open(t, link)
	w.op.fill(t, "#name", "Rosa Root")
	w.look(t, w.op, "invitation")
	w.op.click(t, "[data-passkey=create] button")
	w.op.arrives(t, w.portal("/"), "Services")
	if page := w.op.open(t, link); page.Status != 410 {
		t.Errorf("the link a second time: status %d, want 410", page.Status)
	}
	w.look(t, w.op, "invitation-used")
	var root postern.UserState
	w.mustAdmin("GET", "/users/operator", nil, &root)
	if root.Password || root.Passkeys != 1 || root.State != postern.UserActive || !root.Operator || root.Name != "Rosa Root" {
		t.Errorf("the operator is %+v, want Rosa, with a passkey and no password", root)
	}
}

// published changes what acme publishes, and waits until a page that is open shows it.
func (w *walk) published(t *testing.T, file string) {
	w.grant("operator", "acme", postern.GrantRequest{Role: postern.TenantOwner})
	w.op.open(t, w.portal("/"))
	begin := time.Now()
	w.says("acme", file)
	w.op.shows(t, "#tile-acme--live", "Live figures")
	noteFigure(t, "login", "what is published on a portal page that is open", time.Since(begin).Seconds(), "s")
	w.ready("acme-office")
	w.op.shows(t, "#tile-acme--live", "Ready")
}

// shows waits until the element says words, on the page that is open.
func (b *browser) shows(t testing.TB, selector, words string) {
	t.Helper()
	eventually(t, pageTime, func() error {
		text, err := chromedp.Run(b.tab, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
		if err == nil && !strings.Contains(text, words) {
			err = fmt.Errorf("%s says %q, want %q", selector, text, words)
		}
		return err
	})
}

// invitePeople adds two people on the portal's pages, one of them without rights yet.
func (w *walk) invitePeople(t *testing.T) {
	w.op.open(t, w.portal("/admin/people"))
	w.look(t, w.op, "people")
	for _, p := range []struct{ login, name, tenant, groups string }{
		{"ann@acme.example", "Ann Ålund", "acme", "accounting"}, {"bob@globex.example", "Bob Byrne", "", ""},
	} {
		w.op.open(t, w.portal("/admin/people"))
		w.op.fill(t, "#add-login", p.login)
		w.op.fill(t, "#add-name", p.name)
		w.op.choose(t, "#add-tenant", p.tenant)
		if p.groups != "" {
			w.op.fill(t, "#add-groups", p.groups)
		}
		w.op.click(t, "#add button.main")
		w.op.arrives(t, w.portal("/admin/people"), "Invitation for "+p.name)
		w.links[p.login] = eval[string](w.op, t, "document.querySelector('#invite-link').value")
	}
	w.look(t, w.op, "invited")
	// The second person is granted something on a page of their own.
	w.op.click(t, "a[href^='/admin/people/u']")
	w.op.arrives(t, w.portal("/admin/people/u"), "Nothing yet")
	w.op.click(t, "details.more > summary")
	w.op.choose(t, "#grant-tenant", "globex")
	w.op.click(t, "form[action$='/grants'] button")
	w.op.shows(t, "main", "Take away")
	w.look(t, w.op, "person")
	var bob postern.UserState
	w.mustAdmin("GET", "/users/"+url.PathEscape("bob@globex.example"), nil, &bob)
	if len(bob.Grants) != 1 || bob.Grants[0].Tenant != "globex" || bob.Grants[0].Role != postern.TenantMember {
		t.Errorf("bob was granted %+v", bob.Grants)
	}
}

// choose picks an option of a select.
func (b *browser) choose(t testing.TB, selector, value string) {
	t.Helper()
	if err := chromedp.Do(b.within(t), chromedp.SetValue(chromedp.CSS(selector), value)); err != nil {
		t.Fatalf("choose %q of %s: %v", value, selector, err)
	}
}

// accept has ann take her invitation with a password.
func (w *walk) accept(t *testing.T) {
	w.ann.open(t, w.links["ann@acme.example"])
	w.ann.fill(t, "#password", "short")
	w.ann.click(t, "#accept > button")
	w.ann.arrives(t, w.links["ann@acme.example"], "At least 10 characters") // the browser refuses it
	w.ann.fill(t, "#password", annPassword)
	w.ann.click(t, "#accept > button")
	w.ann.arrives(t, w.portal("/"), "Services")
}

// catalogue checks that people see what is open to them, and find it.
func (w *walk) catalogue(t *testing.T) {
	w.ann.shows(t, "#tile-acme--default", "Books")
	w.ann.shows(t, "#tile-acme--live", "Live figures")
	if text := w.ann.text(t, "body"); strings.Contains(text, "Globex") {
		t.Errorf("ann sees %s", text)
	}
	w.look(t, w.ann, "catalogue")
	w.ann.fill(t, "#search", "figures")
	eventually(t, pageTime, func() error {
		if shown := eval[[]string](w.ann, t, "[...document.querySelectorAll('[data-tile]')].filter(e => e.checkVisibility()).map(e => e.id)"); len(shown) != 1 || shown[0] != "tile-acme--live" {
			return fmt.Errorf("the search shows %v", shown)
		}
		return nil
	})
	w.look(t, w.ann, "search")
	w.ann.open(t, w.portal("/"))
	w.ann.click(t, "#star-acme--default .star")
	w.ann.shows(t, "#favourites", "Books")

	bob := w.op.person(t)
	bob.open(t, w.links["bob@globex.example"])
	bob.fill(t, "#password", "a ladder, a lamp and a lake")
	bob.click(t, "#accept > button")
	bob.arrives(t, w.portal("/"), "Globex Trading")
	if text := bob.text(t, "body"); strings.Contains(text, "Acme") {
		t.Errorf("bob sees %s", text)
	}
	if page := bob.open(t, w.portal("/open/acme/default")); page.Status != 403 {
		t.Errorf("bob at acme: status %d", page.Status)
	}
	w.look(t, bob, "not-open-to-you")
	if page := bob.open(t, w.url("acme", "/")); page.Status != 403 {
		t.Errorf("bob at acme's own address: status %d", page.Status)
	}
	w.look(t, bob, "not-for-you")
}

// handOver goes from a tile to the application, which greets whom it does not know.
func (w *walk) handOver(t *testing.T) {
	w.ann.open(t, w.portal("/"))
	begin := time.Now()
	w.ann.click(t, "#tile-acme--default h3 a")
	w.ann.arrives(t, w.url("acme", "/"), "Ann Ålund")
	noteFigure(t, "login", "from a tile to the application's page", time.Since(begin).Seconds(), "s")
	w.ann.screenshot(t, "login-application")
	if host := eval[string](w.ann, t, "document.cookie"); host != "" {
		t.Errorf("the application's page reads the cookies %q", host)
	}
	w.ann.open(t, w.portal("/open/acme/default?entry=first"))
	w.ann.arrives(t, w.url("acme", "/companies/1"), "Ann Ålund")
}

// A stop is what has the focus.
type stop struct {
	Tile, Link, ID string // of the tile or pick around it; where it leads; its own
	Outlined       bool
}

const focused = `(e => ({
	tile: e.closest("[data-tile], .pick")?.id ?? "", link: e.matches("a.go") ? e.href : "", id: e.id,
	outlined: e.checkVisibility() && (getComputedStyle(e).outlineStyle != "none" || e.matches("#search")), // its field shows it
}))(document.activeElement)`

// keyboard opens services without a mouse.
func (w *walk) keyboard(t *testing.T) {
	// One thing after the other, with Tab.
	w.ann.open(t, w.portal("/"))
	var trail []stop
	for {
		w.ann.press(t, kb.Tab)
		at := eval[stop](w.ann, t, focused)
		trail = append(trail, at)
		if !at.Outlined {
			t.Errorf("nobody sees that this has the focus: %+v", at)
		}
		if at.Link != "" {
			break
		}
		if len(trail) == 30 {
			t.Fatalf("Tab leads to no service: %+v", trail)
		}
	}
	if at := trail[len(trail)-1]; at.Tile != "pick-acme--default" || !slices.ContainsFunc(trail, func(s stop) bool { return s.ID == "search" }) {
		t.Errorf("Tab leads along %+v, want the search field and then the favourites", trail)
	}
	w.ann.press(t, kb.Enter)
	w.ann.arrives(t, w.url("acme", "/"), "Ann Ålund")

	// And by the search field.
	w.ann.open(t, w.portal("/"))
	for _, step := range []struct {
		keys string
		want stop
	}{
		{"/", stop{ID: "search"}},
		{"figures", stop{ID: "search"}},
		{kb.ArrowDown, stop{Tile: "tile-acme--live", Link: w.portal("/open/acme/live")}},
		{kb.ArrowDown, stop{Tile: "tile-acme--live", Link: w.portal("/open/acme/live")}}, // the last
		{kb.ArrowUp, stop{ID: "search"}},
		{kb.Escape, stop{ID: "search"}},
		{kb.ArrowDown, stop{Tile: "pick-acme--default", Link: w.portal("/open/acme/default")}}, // all are there again
		{"/", stop{ID: "search"}},
		{"figures", stop{ID: "search"}},
	} {
		w.ann.press(t, step.keys)
		step.want.Outlined = true
		if at := eval[stop](w.ann, t, focused); at != step.want {
			t.Fatalf("%q leads to %+v, want %+v", step.keys, at, step.want)
		}
	}
	w.ann.press(t, kb.Enter)
	w.ann.arrives(t, w.url("live.acme", "/"), "acme")
}

// deepLink is opened by somebody who is not signed in anywhere.
func (w *walk) deepLink(t *testing.T) {
	other := w.ann.person(t)
	deep := w.url("acme", "/companies/1/vouchers?page=1")
	other.open(t, deep)
	other.arrives(t, w.portal("/sign-in"), "Sign in")
	w.look(t, other, "sign-in")
	other.fill(t, "#login", "ann@acme.example")
	other.fill(t, "#password", "not this one")
	other.click(t, "form[action='/sign-in'] button")
	other.shows(t, "main", "Login or password is wrong")
	w.look(t, other, "sign-in-wrong")
	other.fill(t, "#login", "ann@acme.example")
	other.fill(t, "#password", annPassword)
	other.stops(t, "form[action='/sign-in'] button", w.portal("/continue*"))
	other.arrives(t, w.portal("/sign-in"), "being taken on")
	w.look(t, other, "onward")
	other.click(t, "main a.button")
	other.arrives(t, deep, "Ann Ålund")
	// A part of it that others may open, and one that she may.
	if page := w.op.person(t).open(t, w.url("live.acme", "/seen")); page.Status != 200 {
		t.Errorf("the public exception: status %d", page.Status)
	}
	other.open(t, w.url("live.acme", "/"))
	other.arrives(t, w.url("live.acme", "/"), "acme")
}

// pages are those that no other step comes by.
func (w *walk) pages(t *testing.T) {
	for name, at := range map[string]string{
		"nodes": "/admin/nodes", "routes": "/admin/routes", "tokens": "/admin/tokens", "audit": "/admin/audit",
		"account": "/account", "nothing-here": "/nothing/here", "services-operator": "/",
	} {
		w.op.open(t, w.portal(at))
		w.look(t, w.op, name)
	}
	w.cli(nil, "routes", "add", "erp.acme.example", "--tenant", "acme")
	w.op.open(t, w.portal("/admin/routes/acme/erp.acme.example"))
	w.op.click(t, ".head button")
	w.op.shows(t, ".findings", "Yours:")
	w.look(t, w.op, "route-checked")
	w.op.open(t, w.portal("/admin/tokens"))
	w.op.choose(t, "#for", "acme")
	w.op.click(t, "main form.grid button")
	w.op.shows(t, "main", "It is not shown again")
	w.op.click(t, "details.more > summary")
	w.op.shows(t, "details.more[open]", "QR")
	w.look(t, w.op, "token-made")
	for name, at := range map[string]string{
		"node-tokens": "/.well-known/postern/tokens", "node-nothing": "/.well-known/postern/nothing",
	} {
		w.ann.open(t, w.url("acme", at))
		w.look(t, w.ann, name)
	}
}

// confirm has the operator, who has a passkey and no password, say once more who they
// are: the account page keeps what changes that behind it.
func (w *walk) confirm(t *testing.T) {
	w.op.open(t, w.portal("/account"))
	if text := w.op.text(t, "main"); strings.Contains(text, "Add a passkey") || strings.Contains(text, "Set a password") {
		t.Errorf("the session alone is enough: %s", text)
	}
	w.op.click(t, "#confirm [data-passkey=get] button")
	w.op.arrives(t, w.portal("/account"), "You confirmed that it is you")
	w.op.shows(t, "main", "Set a password")
	w.op.shows(t, "main", "Add a passkey")
	w.look(t, w.op, "account-sure")
}

// nodeAway takes acme's node away, and back.
func (w *walk) nodeAway(t *testing.T) {
	w.ann.open(t, w.portal("/"))
	born := eval[float64](w.ann, t, "performance.timeOrigin")
	begin := time.Now()
	w.office["acme"].kill()
	w.ann.shows(t, "#tile-acme--default", "You can open it as soon as its node is back")
	noteFigure(t, "login", "tile away after the node died", time.Since(begin).Seconds(), "s")
	w.look(t, w.ann, "catalogue-away")
	waits := w.ann.sibling(t)
	if page := waits.open(t, w.portal("/open/acme/default")); page.Status != 503 {
		t.Errorf("opening it: status %d, want 503", page.Status)
	}
	waits.shows(t, "main", "is not there at the moment")
	w.look(t, waits, "offline")
	// While she waits it is closed to her, and opened again.
	w.mustAdmin("DELETE", "/users/"+url.PathEscape("ann@acme.example")+"/grants/acme", nil, nil)
	waits.shows(t, "main", "This is not open to you any more")
	w.look(t, waits, "gone")
	w.grant("ann@acme.example", "acme", postern.GrantRequest{Groups: []string{"accounting"}})
	waits.shows(t, "main", "is not there at the moment")

	begin = time.Now()
	w.startOffice("acme")
	w.ann.shows(t, "#tile-acme--default", "Ready")
	noteFigure(t, "login", "tile live after the node came back", time.Since(begin).Seconds(), "s")
	waits.shows(t, "main", "is back")
	w.look(t, waits, "back")
	waits.click(t, "#go")
	waits.arrives(t, w.url("acme", "/"), "Ann Ålund")
	if now := eval[float64](w.ann, t, "performance.timeOrigin"); now != born {
		t.Error("the catalogue was loaded anew")
	}
}

// sibling returns another tab of the same person's.
func (b *browser) sibling(t testing.TB) *browser {
	t.Helper()
	tab, closeTab := chromedp.NewContext(b.tab)
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab); err != nil {
		t.Fatalf("another tab: %v", err)
	}
	return &browser{tab}
}

// passkeyAgain signs the operator out, and in again without a word typed: by the
// button, in a browser that offers passkeys no other way, and by a browser that offers
// them in the login field.
func (w *walk) passkeyAgain(t *testing.T) {
	signOut := func() {
		w.op.open(t, w.portal("/"))
		w.op.click(t, ".menu > summary")
		w.op.click(t, "form[action='/sign-out'] button")
	}
	plain, err := chromedp.Call(w.op.within(t), cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{
		Source: "PublicKeyCredential.isConditionalMediationAvailable = async () => false",
	})
	if err != nil {
		t.Fatal(err)
	}
	signOut()
	w.op.arrives(t, w.portal("/"), "Sign in")
	w.look(t, w.op, "signed-out")
	w.op.click(t, "[data-passkey=get] button")
	w.op.arrives(t, w.portal("/"), "Services")

	remove := cdppage.RemoveScriptToEvaluateOnNewDocumentParams(plain)
	if _, err := chromedp.Call(w.op.within(t), cdppage.RemoveScriptToEvaluateOnNewDocument, remove); err != nil {
		t.Fatal(err)
	}
	before := len(w.audited("signin.passkey"))
	signOut()
	eventually(t, pageTime, func() error {
		if len(w.audited("signin.passkey")) == before {
			return errors.New("nobody signed in by a passkey")
		}
		return w.op.at(w.portal("/"), "Services")
	})
}

// signOutEverywhere ends what ann has open, at the portal and at the node.
func (w *walk) signOutEverywhere(t *testing.T) {
	stream := w.ann.sibling(t)
	stream.open(t, w.portal("/open/acme/live"))
	stream.arrives(t, w.url("live.acme", "/"), "acme")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go w.apps["acme"].keepTelling(ctx)
	stream.stayConnected(t)
	w.ann.open(t, w.portal("/account"))
	w.look(t, w.ann, "account-ann")
	begin := time.Now()
	w.ann.click(t, "form[action='/account/sign-out-everywhere'] button")
	took := stream.isCut(t, begin)
	noteFigure(t, "login", "connections cut after signing out everywhere", took.Seconds(), "s")
	w.ann.arrives(t, w.portal("/"), "Sign in")
	w.ann.open(t, w.url("acme", "/"))
	w.ann.arrives(t, w.portal("/sign-in"), "Sign in")
	if w.audited("session.end") == nil {
		t.Error("the audit log does not tell of it")
	}
}
