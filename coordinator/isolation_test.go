package coordinator_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"postern"
	"postern/coordinator"
)

// A side is a tenant with one of all that has an id.
type side struct {
	name, manager string            // its owner's id
	ids           map[string]string // by parameter of a path
	marks         []string          // texts that nobody else's answer may have
}

// side makes the tenant called name.
func (d *deployment) side(name string) side {
	t := d.t
	t.Helper()
	d.addTenant(name)
	node := d.node(name, name+"-office", postern.DefaultService, name+"-books")
	token := d.token(postern.TokenRequest{Tenant: name, Note: "note of " + name})
	host := "books." + name + ".example"
	d.route(postern.RouteRequest{Host: host, Tenant: name})
	must(t, d.operate("PUT", "/issuers/"+name+"-id", request(name), nil))
	owner := d.person(name, "owner@"+name+".example", postern.TenantOwner)
	member := d.person(name, "member@"+name+".example", postern.TenantMember)
	return side{
		name: name, manager: owner.ID,
		ids: map[string]string{
			"{tenant}": name, "{token}": token.ID.String(), "{node}": node.ID, "{host}": host,
			"{user}": member.ID, "{issuer}": name + "-id",
		},
		marks: []string{name, token.ID.String(), node.ID, owner.ID, member.ID, node.Address.String()},
	}
}

// person makes a user with a role in a tenant.
func (d *deployment) person(tenant, login, role string) postern.UserState {
	d.t.Helper()
	u, err := d.Local().AddMember(d.t.Context(), tenant, postern.UserRequest{Login: login, Name: "N " + login}, postern.GrantRequest{Role: role})
	must(d.t, err)
	return u
}

// as asks the admin API what the user with id may.
func (d *deployment) as(user, method, path string, in any) (status int, answer string) {
	d.t.Helper()
	o, err := d.Operator(d.t.Context(), user)
	must(d.t, err)
	var body bytes.Buffer
	if in != nil {
		must(d.t, json.NewEncoder(&body).Encode(in))
	}
	w := httptest.NewRecorder()
	d.AdminAs(o).ServeHTTP(w, httptest.NewRequest(method, path, &body))
	return w.Code, w.Body.String()
}

// mixtures returns path with its parameters filled in from theirs or mine, in all ways
// but the one that is mine alone.
func mixtures(path string, theirs, mine map[string]string) []string {
	var out []string
	var fill func(path string, foreign bool)
	fill = func(path string, foreign bool) {
		a := strings.IndexByte(path, '{')
		if a < 0 {
			if foreign {
				out = append(out, path)
			}
			return
		}
		param := path[a : strings.IndexByte(path, '}')+1]
		fill(strings.Replace(path, param, theirs[param], 1), true)
		if mine[param] != "" {
			fill(strings.Replace(path, param, mine[param], 1), foreign)
		}
	}
	fill(path, false)
	return out
}

// bodies are what the operations take that take something.
func bodies(tenant string) map[string]any {
	return map[string]any{
		"POST /admin/v1/tenants":                     postern.TenantRequest{Name: "new"},
		"POST /admin/v1/tokens":                      postern.TokenRequest{Tenant: tenant},
		"POST /admin/v1/routes":                      postern.RouteRequest{Host: "new.example.com", Tenant: tenant},
		"POST /admin/v1/users":                       postern.UserRequest{Login: "new"},
		"PUT /admin/v1/tenants/{tenant}/admission":   postern.AdmissionRequest{Mode: postern.AdmissionOpen},
		"PUT /admin/v1/users/{user}/grants/{tenant}": postern.GrantRequest{Groups: []string{"g"}},
		"PATCH /admin/v1/nodes/{node}":               postern.NodeChange{Weight: new(7)},
		"PUT /admin/v1/issuers/{issuer}":             request(tenant),
		"PATCH /admin/v1/gateways/{gateway}":         postern.GatewayChange{},
	}
}

// I14: for who manages one tenant nothing of another's exists, whatever operation of
// the document is called with whatever of its ids; and that they tried is recorded.
func TestIsolationOfOperators(t *testing.T) {
	d := deploy(t)
	mine, theirs := d.side("acme"), d.side("rival")
	theirs.ids["{gateway}"] = d.gateway("door").ID
	nobodys := map[string]string{
		"{tenant}": "nobody", "{token}": "aaaaaaaaaaaaaaaa", "{node}": "aaaaaaaaaaaaaaaa", "{host}": "books.nobody.example",
		"{user}": "ucccccccccccccccc", "{issuer}": "nobody-id", "{gateway}": "bbbbbbbbbbbbbbbb",
	}
	var doc openAPI
	must(t, d.operate("GET", "/openapi.json", nil, &doc))
	before := d.everythingOf("rival")

	called, attempts := 0, 0
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for method := range doc.Paths[path] {
			method := strings.ToUpper(method)
			in := bodies("rival")[method+" "+path]
			if !strings.Contains(path, "{") {
				called++
				checkList(t, d, mine, theirs, method, path, in)
				continue
			}
			absent := mixtures(path, nobodys, mine.ids)
			for i, p := range mixtures(path, theirs.ids, mine.ids) {
				called++
				attempts++
				status, answer := d.as(mine.manager, method, p, in)
				if status != 404 {
					t.Errorf("%s %s: got %d %s, want 404", method, p, status, answer)
				}
				_, want := d.as(mine.manager, method, absent[i], in)
				for param := range nobodys {
					answer = strings.ReplaceAll(answer, `\"`+theirs.ids[param]+`\"`, "X")
					want = strings.ReplaceAll(want, `\"`+nobodys[param]+`\"`, "X")
				}
				if answer != want {
					t.Errorf("%s %s: got %s; of what does not exist %s", method, path, answer, want)
				}
			}
		}
	}
	if called < 30 {
		t.Errorf("only %d calls were made", called)
	}
	if after := d.everythingOf("rival"); after != before {
		t.Errorf("the other tenant was changed: got %s, want %s", after, before)
	}
	tried := map[string]int{}
	entries, err := d.Local().Audit(t.Context(), coordinator.AuditQuery{Action: "admin.refused", Actor: coordinator.ActorUser(mine.manager), Limit: 1000})
	must(t, err)
	for _, e := range entries {
		tried[e.Target]++
	}
	for _, param := range []string{"{tenant}", "{node}", "{host}", "{token}", "{user}", "{issuer}", "{gateway}"} {
		if tried[theirs.ids[param]] == 0 {
			t.Errorf("no attempt at %s is recorded; %d attempts were made, %d entries are there", param, attempts, len(entries))
		}
	}
}

// checkList holds an operation without an id: it tells nothing of theirs, and does
// nothing with what is.
func checkList(t *testing.T, d *deployment, mine, theirs side, method, path string, in any) {
	t.Helper()
	if in != nil {
		if status, answer := d.as(mine.manager, method, path, in); status != 404 {
			t.Errorf("%s %s: got %d %s, want 404", method, path, status, answer)
		}
		return
	}
	if path == postern.PathAdmin+"/dns" { // it is nobody's but the operator's of all
		if status, answer := d.as(mine.manager, method, path, nil); status != 404 {
			t.Errorf("%s %s: got %d %s, want 404", method, path, status, answer)
		}
		return
	}
	for _, filter := range []string{"", "?tenant=" + theirs.name} {
		status, answer := d.as(mine.manager, method, path+filter, nil)
		if status != 200 {
			t.Errorf("%s %s: got %d %s", method, path+filter, status, answer)
		}
		for _, mark := range theirs.marks {
			if strings.Contains(answer, mark) {
				t.Errorf("%s %s: tells of %q: %s", method, path+filter, mark, answer)
			}
		}
	}
	if path == postern.PathAdmin+"/status" || path == postern.PathAdmin+"/gateways" {
		return
	}
	if _, answer := d.as(mine.manager, method, path, nil); !strings.Contains(answer, mine.name) {
		t.Errorf("%s %s: nothing of one's own in %s", method, path, answer)
	}
}

// everythingOf returns what the lists say of a tenant.
func (d *deployment) everythingOf(tenant string) string {
	d.t.Helper()
	var all strings.Builder
	for _, list := range []string{"/tenants/" + tenant + "/admission", "/tokens", "/nodes", "/routes", "/users"} {
		var got json.RawMessage
		must(d.t, d.operate("GET", list+"?tenant="+tenant, nil, &got))
		all.Write(got)
	}
	issuers, err := d.Local().Issuers(d.t.Context())
	must(d.t, err)
	must(d.t, json.NewEncoder(&all).Encode(issuers))
	return all.String()
}

// Who manages a tenant may do there what is theirs to do.
func TestManagersOperate(t *testing.T) {
	d := deploy(t)
	mine := d.side("acme")
	values := []string{}
	for param, id := range mine.ids {
		values = append(values, param, id)
	}
	fill := strings.NewReplacer(values...)
	in := bodies("acme")
	tests := []struct {
		name   string
		status int
	}{
		{"GET /admin/v1/tenants/{tenant}/admission", 200},
		{"PUT /admin/v1/tenants/{tenant}/admission", 200},
		{"POST /admin/v1/tokens", 200},
		{"DELETE /admin/v1/tokens/{token}", 204},
		{"POST /admin/v1/routes", 200},
		{"GET /admin/v1/routes/{host}/match", 200},
		{"POST /admin/v1/routes/{host}/check", 200},
		{"DELETE /admin/v1/routes/{host}", 204},
		{"GET /admin/v1/users/{user}", 200},
		{"POST /admin/v1/users/{user}/invite", 200},
		{"POST /admin/v1/users/{user}/disable", 200},
		{"POST /admin/v1/users/{user}/enable", 200},
		{"PUT /admin/v1/users/{user}/grants/{tenant}", 200},
		{"DELETE /admin/v1/users/{user}/grants/{tenant}", 200},
		{"GET /admin/v1/nodes/{node}", 200},
		{"DELETE /admin/v1/nodes/{node}", 204},
		// What is for who operates the deployment.
		{"POST /admin/v1/tenants", 404},
		{"DELETE /admin/v1/tenants/{tenant}", 404},
		{"POST /admin/v1/users", 404},
		{"DELETE /admin/v1/users/{user}", 404},
		{"PUT /admin/v1/issuers/{issuer}", 404},
		{"DELETE /admin/v1/issuers/{issuer}", 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method, path, _ := strings.Cut(tt.name, " ")
			if status, answer := d.as(mine.manager, method, fill.Replace(path), in[tt.name]); status != tt.status {
				t.Errorf("got %d %s, want %d", status, answer, tt.status)
			}
		})
	}
	for name, req := range map[string]postern.TokenRequest{
		"gateway": {Role: postern.RoleGateway}, "admin": {Kind: postern.AdminToken}, "nobody": {Tenant: "nobody"},
	} {
		if status, answer := d.as(mine.manager, "POST", postern.PathAdmin+"/tokens", req); status != 404 {
			t.Errorf("token for %s: got %d %s, want 404", name, status, answer)
		}
	}
}
