//go:build e2e

package e2e

import (
	"net/url"
	"strings"
	"testing"

	"postern"
)

// I14: to whoever manages one tenant, another's people, nodes, routes and tokens do
// not exist: no page shows them, and nothing can be done to them.
func TestIsolationI14OtherTenantsAdmin(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": membersOnly})
	ann := e.member(t, "ann", "acme", postern.GrantRequest{Role: postern.TenantOwner})
	bob := e.member(t, "bob@globex.example", "globex", postern.GrantRequest{Role: postern.TenantOwner})
	bob.enters(e.url("globex", "/"))
	e.cli(nil, "routes", "add", "shop.globex.test", "--tenant", "globex")
	e.prove("shop.globex.test", "globex")
	e.cli(nil, "routes", "add", "soon.globex.test", "--tenant", "globex")
	e.token("globex")
	var user postern.UserState
	e.mustAdmin("GET", "/users/"+url.PathEscape("bob@globex.example"), nil, &user)
	var nodes []postern.NodeState
	e.mustAdmin("GET", "/nodes?tenant=globex", nil, &nodes)
	var tokens []postern.IssuedToken
	e.mustAdmin("GET", "/tokens?tenant=globex", nil, &tokens)
	var gateways []postern.GatewayState
	e.mustAdmin("GET", "/gateways", nil, &gateways)
	before := e.globexState()

	tries := 0
	for _, page := range []string{"people", "nodes", "routes", "tokens", "audit", "audit/export?format=csv", "audit/export?format=json"} {
		for _, query := range []string{"", "tenant=globex"} {
			tries++
			at := e.portal("/admin/" + page)
			if query != "" {
				at = changed(at, "tenant", "globex")
			}
			a := ann.walk("GET", at, nil)
			// The name that was asked for may be said back; nothing of what it is for.
			for _, word := range []string{"bob@", "Globex", "globex-office", "shop.globex", "soon.globex", user.ID, nodes[0].ID, tokens[0].ID.String()} {
				if strings.Contains(a.body, word) {
					t.Errorf("%s has %q in it, status %d", at, word, a.status)
				}
			}
		}
	}
	for _, test := range []struct {
		method, path string
		form         url.Values
	}{
		{"GET", "people/" + user.ID, nil},
		{"GET", "people/bob@globex.example", nil},
		{"POST", "people/" + user.ID + "/invite", url.Values{}},
		{"POST", "people/" + user.ID + "/disable", url.Values{}},
		{"POST", "people/" + user.ID + "/enable", url.Values{}},
		{"POST", "people/" + user.ID + "/remove", url.Values{}},
		{"POST", "people/" + user.ID + "/grants", url.Values{"tenant": {"globex"}, "role": {"member"}}},
		{"POST", "people/" + user.ID + "/grants/globex/revoke", url.Values{}},
		{"POST", "people", url.Values{"login": {"eve"}, "tenant": {"globex"}, "role": {"owner"}}},
		{"POST", "nodes/" + nodes[0].ID + "/remove", url.Values{}},
		{"POST", "gateways/" + gateways[0].ID + "/remove", url.Values{}},
		{"POST", "routes", url.Values{"host": {"other.globex.test"}, "tenant": {"globex"}, "service": {"default"}}},
		{"GET", "routes/globex/shop.globex.test", nil},
		{"POST", "routes/globex/shop.globex.test/check", url.Values{}},
		{"POST", "routes/globex/soon.globex.test/check", url.Values{}},
		{"POST", "routes/globex/shop.globex.test/remove", url.Values{}},
		{"POST", "routes/acme/soon.globex.test/remove", url.Values{}},
		{"POST", "tokens", url.Values{"for": {"globex"}, "uses": {"1"}, "days": {"1"}}},
		{"POST", "tokens/" + tokens[0].ID.String() + "/revoke", url.Values{}},
	} {
		tries++
		a := ann.ask(test.method, e.portal("/admin/"+test.path), test.form, nil)
		if a.status != 404 {
			t.Errorf("%s %s: status %d, want 404: %.300s", test.method, test.path, a.status, a.body)
		}
		if strings.Contains(a.body, "bob@") && !strings.Contains(test.path, "bob@") { // what was asked for may be said back
			t.Errorf("%s %s tells of bob: %s", test.method, test.path, a.body)
		}
	}
	if after := e.globexState(); after != before {
		t.Errorf("globex was\n%s\nand is\n%s", before, after)
	}
	if bob.ask("GET", e.url("globex", "/"), nil, nil).status != 200 {
		t.Error("bob was thrown out")
	}
	passed(t, "I14 another tenant's people, nodes, routes and tokens", tries)
}

// globexState is what operators are told of globex, as text, without what changes by
// itself.
func (e *estate) globexState() string {
	e.t.Helper()
	var all strings.Builder
	var users []postern.UserState
	e.mustAdmin("GET", "/users?tenant=globex", nil, &users)
	for _, u := range users {
		all.WriteString(u.Login + " " + u.State + " " + u.Invited.String() + " " + u.Grants[0].Tenant + " " + u.Grants[0].Role + "\n")
	}
	var nodes []postern.NodeState
	e.mustAdmin("GET", "/nodes?tenant=globex", nil, &nodes)
	for _, n := range nodes {
		all.WriteString(n.ID + "\n")
	}
	var routes []postern.RouteState
	e.mustAdmin("GET", "/routes?tenant=globex", nil, &routes)
	for _, r := range routes {
		all.WriteString(r.Host + "\n")
	}
	var tokens []postern.IssuedToken
	e.mustAdmin("GET", "/tokens?tenant=globex", nil, &tokens)
	for _, k := range tokens {
		all.WriteString(k.ID.String() + " " + k.State + "\n")
	}
	return all.String()
}
