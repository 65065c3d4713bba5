package portal_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

func TestPeople(t *testing.T) {
	d := deploy(t, nil)
	d.tenant("acme", "Acme AG")
	d.operator("root")
	b := d.signedIn("root")
	b.get("/admin/people").want(200, "root", "operator", "Add somebody")
	b.post("/admin/people", "login", "not a login", "tenant", "acme").want(422, "Add somebody", "not a login")

	// Add and invite in one; the link is shown once.
	a := b.post("/admin/people", "login", "ada@acme.example", "name", "Ada", "tenant", "acme", "role", "member", "groups", "Sales , Accounts  Payable,", "services", "").
		want(200, "Invitation for Ada", "not shown again")
	link := a.find(`id="invite-link" class="code" value="([^"]*)"`)
	path, ok := strings.CutPrefix(link, d.PortalURL())
	if !ok || a.find(`data-copy="([^"]*)"`) != link {
		t.Fatalf("the link is %q", link)
	}
	u, err := d.Local().User(t.Context(), "ada@acme.example")
	must(t, err)
	if g := u.Grants[0]; g.Tenant != "acme" || g.Role != "member" || fmt.Sprintf("%q", g.Groups) != `["accounts-payable" "sales"]` {
		t.Errorf("granted %+v", g)
	}
	b.get("/admin/people").want(200, "Ada", "Invited", "Acme AG: member", "not yet")
	d.browser().post(path, "password", password).wantTo("/")
	b.get("/admin/people?tenant=acme").want(200, "Active").wantNot("root operator")

	at := "/admin/people/" + u.ID
	b.get(at).want(200, "Ada", "ada@acme.example", "acme", "May open")
	b.post(at+"/grants", "tenant", "acme", "role", "admin").wantTo(at + "?done=granted")
	b.get(at+"?done=granted").want(200, "The rights were changed")
	b.post(at+"/grants", "tenant", "acme", "groups", "Büro").want(422, "büro")
	b.post(at+"/grants", "tenant", "acme", "role", "emperor").want(422, "emperor", "May open")
	ada := d.signedIn("ada@acme.example")
	ada.get("/account").want(200)
	b.post(at + "/disable").wantTo(at + "?done=disabled")
	ada.get("/account").want(http.StatusSeeOther)
	b.get(at).want(200, "Disabled", "Enable")
	b.post(at + "/enable").wantTo(at + "?done=enabled")
	b.post(at + "/grants/acme/revoke").wantTo(at + "?done=revoked")
	b.get(at).want(200, "Nothing yet", "Let them open a company")
	b.post(at+"/invite").want(200, "Invitation for Ada", "Who accepts it signs in as them with something new").wantNot("void")
	b.post(at+"/invite").want(200, "Invitation for Ada", "The link that they were sent before is void")
	b.post(at + "/remove").wantTo("/admin/people?done=person")
	b.get(at).want(404, "There is nothing here")
	for _, action := range []string{"user.add", "user.invite", "user.grant", "user.revoke", "user.disable", "user.enable", "user.remove"} {
		d.wantLog(action, "user:")
	}
}

// TestInviteAgain: who was invited and is added to another company keeps the link that
// they have, and a manager who may not invite them is told so on their page.
func TestInviteAgain(t *testing.T) {
	d := deploy(t, nil)
	for _, name := range []string{"acme", "globex", "initech"} {
		d.tenant(name, name)
	}
	d.operator("root")
	ada := d.member("ada", "acme", postern.TenantAdmin)
	_, err := d.Local().Grant(t.Context(), ada.ID, "globex", postern.GrantRequest{Role: postern.TenantAdmin})
	must(t, err)
	b := d.signedIn("ada")
	first := b.post("/admin/people", "login", "eve", "tenant", "acme").want(200, "good until they have accepted it").wantNot("void").find(`/invite/([^"]*)"`)
	eve, err := d.Local().User(t.Context(), "eve")
	must(t, err)
	at := "/admin/people/" + eve.ID
	b.post("/admin/people", "login", "eve", "tenant", "globex").wantTo(at + "?done=waiting")
	b.get(at+"?done=waiting").want(200, "its link is still good", "globex")
	d.browser().get("/invite/"+first).want(200, "good until you have accepted it")

	// Once it has expired there is another, but for who is of another company, too.
	_, err = d.Local().Revoke(t.Context(), eve.ID, "globex")
	must(t, err)
	_, err = d.Local().Grant(t.Context(), eve.ID, "initech", postern.GrantRequest{})
	must(t, err)
	d.clock.advance(73 * time.Hour)
	b = d.signedIn("ada")
	b.post("/admin/people", "login", "eve", "tenant", "globex").want(403, "eve", "May open", "globex", "is for more than what you manage", "Ask who operates the deployment")
	b.post(at+"/invite").want(403, "May open", "is for more than what you manage")
	d.signedIn("root").post(at+"/invite").want(200, "Invitation for eve").wantNot("void", "something new")
	b.post("/admin/people/nobody/invite").want(404)
}

// TestTenantManager: who manages a tenant sees that one and nothing of another.
func TestTenantManager(t *testing.T) {
	d := deploy(t, nil)
	newCompany(d, "acme", "Acme AG", ledger)
	globex := newCompany(d, "globex", "Globex", ledger)
	ada := d.member("ada", "acme", postern.TenantAdmin)
	carl := d.member("carl", "acme", postern.TenantMember)
	gus := d.member("gus", "globex", postern.TenantOwner)
	foreign, err := d.Local().CreateToken(t.Context(), postern.TokenRequest{Tenant: "globex"})
	must(t, err)
	_, err = d.Local().AddRoute(t.Context(), postern.RouteRequest{Host: "books.globex.example", Tenant: "globex"})
	must(t, err)
	b := d.signedIn("ada")
	b.get("/").want(200, "People", "Nodes", "Audit")
	for _, path := range []string{"/admin/people", "/admin/nodes", "/admin/routes", "/admin/tokens", "/admin/audit", "/admin/people?tenant=globex", "/admin/audit?tenant=globex"} {
		a := b.get(path)
		if a.status != 200 && a.status != 404 {
			t.Errorf("%s: status %d", path, a.status)
		}
		a.wantNot("globex", "Globex", "gus", foreign.ID.String())
	}
	b.get("/admin/nodes").want(200, "office", "Acme AG").wantNot("Gateways", "gw-acme")
	// What they may do is offered, and what they may not is not.
	_, err = d.Local().AddRoute(t.Context(), postern.RouteRequest{Host: "books.acme.example", Tenant: "acme"})
	must(t, err)
	b.get("/admin/routes").want(200, "books.acme.example", "Add the name")
	b.get("/admin/routes/acme/books.acme.example").want(200, "Check now", "Remove the name")
	b.get("/admin/routes/globex/books.globex.example").want(404).wantNot("Globex")
	b.get("/admin/routes/acme/books.globex.example").want(404).wantNot("Globex")
	b.post("/admin/routes", "host", "new.acme.example", "tenant", "globex").want(404).wantNot("Globex")
	b.post("/admin/routes/globex/books.globex.example/check").want(404)
	b.post("/admin/routes", "host", "new.acme.example", "tenant", "acme").wantTo("/admin/routes/acme/new.acme.example?done=route")
	b.post("/admin/routes/acme/new.acme.example/remove").wantTo("/admin/routes?done=unrouted")
	carls := "/admin/people/" + carl.ID
	b.get(carls).want(200, "Disable the account").wantNot("Remove the person")
	b.post(carls + "/disable").wantTo(carls + "?done=disabled")
	b.get(carls).want(200, "Enable")
	b.post(carls + "/enable").wantTo(carls + "?done=enabled")
	b.get("/admin/people/"+ada.ID).want(200, "This is your own account").wantNot("Disable")
	b.get("/admin/people").want(200, "carl").wantNot("Operates the whole deployment")
	for _, path := range []string{
		"/admin/people/" + gus.ID + "/invite", "/admin/people/" + gus.ID + "/disable", "/admin/people/" + gus.ID + "/remove",
		"/admin/people/" + gus.ID + "/grants/globex/revoke", "/admin/nodes/" + globex.node.ID + "/remove", "/admin/gateways/" + globex.gateway.ID + "/remove",
		"/admin/tokens/" + foreign.ID.String() + "/revoke", "/admin/routes/globex/books.globex.example/remove",
	} {
		b.post(path).want(404)
	}
	b.get("/admin/people/" + gus.ID).want(404)
	b.post("/admin/people/"+gus.ID+"/grants", "tenant", "globex").want(404)
	b.post("/admin/people", "login", "eve", "tenant", "globex").want(404).wantNot("Globex")
	b.post("/admin/tokens", "for", "globex", "uses", "1", "days", "1").want(404)
	b.post("/admin/tokens", "for", "gateway", "uses", "1", "days", "1").want(404)
	b.post("/admin/people", "login", "eve", "operator", "1").want(404)
	b.post("/admin/people", "login", "eve", "tenant", "acme").want(200, "Invitation for eve")

	member := d.signedIn("carl")
	member.get("/").want(200).wantNot("People")
	for _, path := range []string{"/admin/people", "/admin/nodes", "/admin/routes", "/admin/tokens", "/admin/audit", "/admin/audit/export?format=csv"} {
		member.get(path).want(403, "for those who manage a company")
		d.browser().get(path).want(http.StatusSeeOther)
	}
	member.post("/admin/tokens", "for", "acme", "uses", "1", "days", "1").want(403)
}

func TestNodes(t *testing.T) {
	d := deploy(t, nil)
	d.operator("root")
	b := d.signedIn("root")
	b.get("/admin/nodes").want(200, "No node has joined yet", "No gateway has joined yet", "What the states mean", "Ready", "Degraded", "Not reachable", "Offline", "Draining")
	acme := newCompany(d, "acme", "Acme AG", ledger)
	s := b.follow(b.get("/admin/nodes").want(200, "office", "Offline", "Ledger", "buero-pc", "linux/amd64", "gw-acme").source())
	acme.come()
	s.until("Ready")
	b.post("/admin/nodes/" + acme.node.ID + "/remove").wantTo("/admin/nodes?done=node")
	s.until("No node has joined yet")
	b.post("/admin/gateways/" + acme.gateway.ID + "/remove").wantTo("/admin/nodes?done=gateway")
	b.get("/admin/nodes?done=gateway").want(200, "The gateway was removed", "No gateway has joined yet")
	b.post("/admin/nodes/nobody/remove").want(404)
}

func TestRoutes(t *testing.T) {
	d := deploy(t, nil)
	d.operator("root")
	b := d.signedIn("root")
	b.get("/admin/routes").want(200, "No route yet", "There is no company yet")
	acme := newCompany(d, "acme", "Acme AG", ledger)
	s := b.follow(b.get("/admin/routes").want(200, "acme.apps.test", "Offline", "Acme AG / default").source())
	acme.come()
	s.until("Ready")
	b.post("/admin/routes", "host", "acme.apps.test", "tenant", "acme").want(422, "Give a service its own domain", "acme.apps.test")
	b.post("/admin/routes", "host", "*.acme.example", "tenant", "acme").want(422, "wildcard", "Give a service its own domain")
	at := "/admin/routes/acme/books.acme.example"
	b.post("/admin/routes", "host", "Books.Acme.Example", "tenant", "acme").wantTo(at + "?done=route")
	b.get("/admin/routes").want(200, "books.acme.example", "own domain", "Not proven")
	page := b.get(at+"?done=route").want(200, "The name was added", "Not proven", "_postern-challenge.books.acme.example", "acme.apps.test", "Check now", "as soon as a node has an account")
	secret := page.find(`data-copy="(postern=[a-z2-7]*)"`)
	b.post(at+"/check").want(200, "What DNS says at this moment", "Missing", "There is no TXT record at _postern-challenge.books.acme.example.")

	// It shows by itself that it is proven.
	s = b.follow(page.source())
	d.dns.SetZone(t, "_postern-challenge.books.acme.example. TXT "+secret)
	b.post(at+"/check").want(200, "Good", "The name is shown to be the company's").wantNot("Not proven", secret)
	s.until("Ready")
	b.get("/admin/routes").want(200, "books.acme.example").wantNot("Not proven")
	b.post(at + "/remove").wantTo("/admin/routes?done=unrouted")
	b.get("/admin/routes").want(200).wantNot("books.acme.example")
	b.get(at).want(404)
	b.post(at + "/check").want(404)
	b.post(at + "/remove").want(404)
}

func TestTokens(t *testing.T) {
	d := deploy(t, nil)
	d.tenant("acme", "Acme AG")
	d.operator("root")
	b := d.signedIn("root")
	b.get("/admin/tokens").want(200, "A node of Acme AG", "A gateway", "No token was made yet")
	for _, bad := range [][]string{{"0", "1"}, {"x", "1"}, {"1", "31"}, {"1", ""}, {"20000", "1"}} {
		b.post("/admin/tokens", "for", "acme", "uses", bad[0], "days", bad[1]).want(422, "Let a machine join")
	}
	a := b.post("/admin/tokens", "for", "acme", "uses", "2", "days", "3", "note", "the office in Bern").want(200, "Good for 2 machines", "not shown again", "postern node join", "QR code")
	secret := a.find(`<pre class="code wrap"[^>]*>(pstjoin1_[^<]*)</pre>`)
	token, err := postern.ParseToken(secret)
	must(t, err)
	if !strings.Contains(a.text(), "--token-file - <<'END' "+secret) {
		t.Error("the command is not whole")
	}
	b.get("/admin/tokens").want(200, token.ID.String(), "Usable", "the office in Bern").wantNot(secret)
	b.post("/admin/tokens/" + token.ID.String() + "/revoke").wantTo("/admin/tokens?done=untoken")
	b.get("/admin/tokens").want(200, "Revoked")
	b.post("/admin/tokens/nonsense/revoke").want(404)
	b.post("/admin/tokens", "for", "gateway", "uses", "1", "days", "1").want(200, "Token for a gateway", "postern gateway join --coordinator https://COORDINATOR:8443")
	d.wantLog("token.create", "acme")
}

// TestCompanies: who operates the whole deployment needs no command line for the first
// company, and nobody else adds one.
func TestCompanies(t *testing.T) {
	d := deploy(t, nil)
	d.operator("root")
	b := d.signedIn("root")
	a := b.get("/admin/tokens").want(200, "Add a company", "https://acme.apps.test:8443").wantNot("A node of")
	if strings.Index(a.body, "Add a company") > strings.Index(a.body, "Let a machine join") {
		t.Error("a token comes before what it is for")
	}
	b.post("/admin/companies", "title", "Acme AG", "name", "ac_me").want(422, "Add a company", `"ac_me"`, "A gateway")
	b.post("/admin/companies", "title", " Acme AG ", "name", "Acme Bern").wantTo("/admin/tokens?done=company")
	a = b.get("/admin/tokens?done=company").want(200, "The company was added", "A node of Acme AG", "Add a company")
	if at := strings.Index(a.body, `href="#company"`); at < 0 || at > strings.Index(a.body, "Let a machine join") || !strings.Contains(a.body, `id="company"`) {
		t.Error("nothing leads from the top to where companies are added")
	}
	a = b.post("/admin/companies", "title", "Acme", "name", "acme-bern").want(409, "already", "Add a company")
	if strings.Index(a.body, `role="alert"`) > strings.Index(a.body, "Let a machine join") {
		t.Error("what is wrong stands where nobody looks")
	}
	d.wantLog("tenant.add", "user:", "acme-bern", "Acme AG")
	d.member("ada", "acme-bern", postern.TenantOwner)
	ada := d.signedIn("ada")
	ada.get("/admin/tokens").want(200, "A node of Acme AG").wantNot("Add a company")
	ada.post("/admin/companies", "title", "Globex", "name", "globex").want(404, "operates the whole deployment")
}

// TestNothingOpen: who operates everything and was granted nothing is told so.
func TestNothingOpen(t *testing.T) {
	d := deploy(t, nil)
	u := d.operator("root")
	b := d.signedIn("root")
	b.get("/").want(200, "Nothing is published yet", "Make a join token")
	newCompany(d, "acme", "Acme AG", ledger)
	a := b.get("/").want(200, "Nothing is open to you yet", "You manage what is published here").wantNot("Nothing is published")
	b.get(a.find(`<a class="button main" href="([^"]*)"`)).want(200, "root", "Let them open")
	_, err := d.Local().Grant(t.Context(), u.ID, "acme", postern.GrantRequest{})
	must(t, err)
	b.get("/").want(200, "Ledger")
}

func TestAudit(t *testing.T) {
	d := deploy(t, nil)
	d.tenant("acme", "Acme AG")
	u := d.operator("root")
	b := d.signedIn("root")
	for n := range 60 {
		d.Note(t.Context(), coordinator.ActorUser(u.ID), "test.it", "acme", fmt.Sprintf("=target-%02d", n), "a <b>detail</b>")
	}
	first := b.get("/admin/audit?action=test&actor=ROOT").want(200, "=target-59", "=target-10", "root", "a <b>detail</b>").wantNot("=target-09", "user.add")
	older := first.find(`href="(/admin/audit\?[^"]*before=[^"]*)"`)
	b.get(older).want(200, "=target-09", "=target-00", "Newest").wantNot("=target-10", "Older entries")
	b.get("/admin/audit?action=nothing.like.it").want(200, "Nothing in the log matches")
	b.get("/admin/audit?tenant=acme&action=tenant").want(200, "tenant.add", "Acme AG").wantNot("=target-59")

	b.get("/admin/audit?action=user.add").want(200, "root "+u.ID)

	a := b.get(first.find(`href="(/admin/audit/export\?format=csv[^"]*)"`)).want(200)
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	must(t, err)
	if len(rows) != 61 || rows[1][5] != "'=target-00" || rows[60][5] != "'=target-59" || rows[1][3] != "test.it" || rows[0][7] != "actor_login" || rows[1][7] != "root" || rows[1][8] != "" {
		t.Errorf("%d rows: %q", len(rows), rows)
	}
	if got := a.header.Get("Content-Disposition"); !strings.HasPrefix(got, `attachment; filename="audit-`) || !strings.HasSuffix(got, `.csv"`) {
		t.Errorf("saved as %q", got)
	}
	a = b.get(first.find(`href="(/admin/audit/export\?format=json[^"]*)"`)).want(200)
	var entries []postern.AuditEntry
	must(t, json.Unmarshal([]byte(a.body), &entries))
	if len(entries) != 60 || entries[0].Target != "=target-00" {
		t.Errorf("%d entries: %+v", len(entries), entries)
	}
	b.get("/admin/audit/export?format=json&action=user.add").want(200, `"target":"`+u.ID, `"target_login":"root"`)
	a = b.get("/admin/audit/export?format=json&action=nothing").want(200)
	must(t, json.Unmarshal([]byte(a.body), &entries))
	if len(entries) != 0 {
		t.Errorf("entries out of nothing: %+v", entries)
	}
	b.get("/admin/audit/export?format=exe").want(400, "csv or json")
}

// TestLongExport: more entries than one query gives.
func TestLongExport(t *testing.T) {
	d := deploy(t, nil)
	d.operator("root")
	b := d.signedIn("root")
	for n := range 1100 {
		d.Note(t.Context(), coordinator.ActorUser(fmt.Sprint(n%8)), "test.it", "", "", "")
	}
	for format, marks := range map[string]string{"csv": "test.it", "json": `"test.it"`} {
		a := b.get("/admin/audit/export?action=test.it&format=" + format).want(200)
		if got := strings.Count(a.body, marks); got != 1100 {
			t.Errorf("%s: %d entries, want 1100", format, got)
		}
	}
}
