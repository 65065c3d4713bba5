package coordinator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// An openAPI is as much of an OpenAPI document as the test needs.
type openAPI struct {
	OpenAPI string                          `json:"openapi"`
	Paths   map[string]map[string]operation `json:"paths"`
}

type operation struct {
	RequestBody *struct{}                  `json:"requestBody"`
	Responses   map[string]json.RawMessage `json:"responses"`
}

// listedOperations returns the operations that admin.go and people.go list, as
// METHOD PATH.
func listedOperations(t *testing.T) map[string]bool {
	t.Helper()
	listed := map[string]bool{}
	for _, file := range []string{"../admin.go", "../people.go"} {
		source, err := os.ReadFile(file)
		must(t, err)
		for _, m := range regexp.MustCompile(`(?m)^//\s+(GET|POST|PUT|PATCH|DELETE)\s+(/admin/v1/[^\s?]+)`).FindAllStringSubmatch(string(source), -1) {
			listed[m[1]+" "+m[2]] = true
		}
	}
	return listed
}

// The document, the lists in admin.go and people.go, and the server say the same.
func TestOpenAPI(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a", postern.DefaultService), d.gateway("door")
	token := d.token(postern.TokenRequest{Tenant: "acme"})
	d.route(postern.RouteRequest{Host: "erp.example.com", Tenant: "acme"})
	must(t, d.operate("POST", "/users", postern.UserRequest{Login: "anna"}, nil))

	var doc openAPI
	must(t, d.operate("GET", "/openapi.json", nil, &doc))
	listed := listedOperations(t)
	for name := range listed {
		method, path, _ := strings.Cut(name, " ")
		if _, ok := doc.Paths[path][strings.ToLower(method)]; !ok {
			t.Errorf("%s is listed but not in the document", name)
		}
	}
	if len(listed) != 35 {
		t.Errorf("found %d operations in the lists, want 35", len(listed))
	}

	values := strings.NewReplacer("{tenant}", "acme", "{token}", token.ID.String(), "{node}", a.ID,
		"{gateway}", g.ID, "{host}", "erp.example.com", "{user}", "anna", "{issuer}", "acme-id")
	bodies := map[string]any{
		"POST /admin/v1/tenants": postern.TenantRequest{Name: "new"},
		"POST /admin/v1/tokens":  postern.TokenRequest{Tenant: "acme"},
		"POST /admin/v1/routes":  postern.RouteRequest{Host: "other.example.com", Tenant: "acme", Service: "erp"},
		"POST /admin/v1/users":   postern.UserRequest{Login: "new"},

		"PUT /admin/v1/tenants/{tenant}/admission":   postern.AdmissionRequest{Mode: postern.AdmissionPortal},
		"PUT /admin/v1/users/{user}/grants/{tenant}": postern.GrantRequest{Groups: []string{"accounting"}},
		"PUT /admin/v1/issuers/{issuer}":             request("acme"),
		"PATCH /admin/v1/nodes/{node}":               postern.NodeChange{Weight: new(50)},
		"PATCH /admin/v1/gateways/{gateway}":         postern.GatewayChange{},
	}
	// What removes comes last, what is inside of another before that, and the tenant
	// after what it has.
	paths := slices.Sorted(maps.Keys(doc.Paths))
	var last []func()
	for _, method := range []string{"get", "post", "put", "patch", "delete"} {
		if method == "delete" {
			slices.Reverse(paths)
		}
		for _, path := range paths {
			op, ok := doc.Paths[path][method]
			if !ok {
				continue
			}
			name := strings.ToUpper(method) + " " + path
			if !listed[name] {
				t.Errorf("%s is in the document but in no list", name)
			}
			if _, ok := op.Responses["default"]; !ok || len(op.Responses) != 2 {
				t.Errorf("%s: the document has responses %v, want a success and default", name, op.Responses)
			}
			in := bodies[name]
			if (op.RequestBody != nil) != (in != nil) {
				t.Errorf("%s: has the document a body: %v", name, op.RequestBody != nil)
			}
			send := func() {
				err := d.operate(strings.ToUpper(method), strings.TrimPrefix(values.Replace(path), postern.PathAdmin), in, nil)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if name == "DELETE /admin/v1/tenants/{tenant}" {
				last = append(last, send)
			} else {
				send()
			}
		}
	}
	for _, send := range last {
		send()
	}
}

func TestAdminRefuses(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	d.node("acme", "a", postern.DefaultService)
	gone := d.token(postern.TokenRequest{Tenant: "acme"})
	d.route(postern.RouteRequest{Host: "erp.example.com", Tenant: "acme"})
	d.route(postern.RouteRequest{Host: "old.example.com", Tenant: "acme"})
	must(t, d.operate("DELETE", "/routes/old.example.com", nil, nil))
	must(t, d.operate("POST", "/tenants", postern.TenantRequest{Name: "bye"}, nil))
	must(t, d.operate("DELETE", "/tenants/bye", nil, nil))
	must(t, d.operate("POST", "/users", postern.UserRequest{Login: "anna"}, nil))
	tests := []struct {
		name, method, path string
		in                 any
		status             int
		code               string
	}{
		{"tenant is no label", "POST", "/tenants", postern.TenantRequest{Name: "A_b"}, 422, postern.CodeInvalid},
		{"tenant is reserved", "POST", "/tenants", postern.TenantRequest{Name: "control"}, 422, postern.CodeInvalid},
		{"tenant would have the coordinator's name", "POST", "/tenants", postern.TenantRequest{Name: "desk"}, 409, postern.CodeTaken},
		{"route for the coordinator's name", "POST", "/routes", postern.RouteRequest{Host: "login.example.com", Tenant: "acme"}, 409, postern.CodeTaken},
		{"tenant is taken", "POST", "/tenants", postern.TenantRequest{Name: "acme"}, 409, postern.CodeTaken},
		{"tenant's name was released lately", "POST", "/tenants", postern.TenantRequest{Name: "bye"}, 409, postern.CodeQuarantined},
		{"title of two lines", "POST", "/tenants", postern.TenantRequest{Name: "x", Title: "a\nb"}, 422, postern.CodeInvalid},
		{"no tenant to remove", "DELETE", "/tenants/nobody", nil, 404, postern.CodeNotFound},
		{"token without a tenant", "POST", "/tokens", postern.TokenRequest{}, 422, postern.CodeInvalid},
		{"token for no tenant", "POST", "/tokens", postern.TokenRequest{Tenant: "nobody"}, 404, postern.CodeNotFound},
		{"gateway's token with a tenant", "POST", "/tokens", postern.TokenRequest{Role: "gateway", Tenant: "acme"}, 422, postern.CodeInvalid},
		{"token of no kind", "POST", "/tokens", postern.TokenRequest{Kind: "x"}, 422, postern.CodeInvalid},
		{"token of no role", "POST", "/tokens", postern.TokenRequest{Role: "coordinator"}, 422, postern.CodeInvalid},
		{"token for too long", "POST", "/tokens", postern.TokenRequest{Tenant: "acme", TTL: postern.Duration(721 * time.Hour)}, 422, postern.CodeInvalid},
		{"token for less than nothing", "POST", "/tokens", postern.TokenRequest{Tenant: "acme", TTL: -1}, 422, postern.CodeInvalid},
		{"token for too many", "POST", "/tokens", postern.TokenRequest{Tenant: "acme", Uses: 10001}, 422, postern.CodeInvalid},
		{"token for less than one", "POST", "/tokens", postern.TokenRequest{Tenant: "acme", Uses: -1}, 422, postern.CodeInvalid},
		{"admin token with a tenant", "POST", "/tokens", postern.TokenRequest{Kind: postern.AdminToken, Tenant: "acme"}, 422, postern.CodeInvalid},
		{"no token to revoke", "DELETE", "/tokens/aaaaaaaaaaaaaaaa", nil, 404, postern.CodeNotFound},
		{"token id is none", "DELETE", "/tokens/x", nil, 422, postern.CodeInvalid},
		{"no node", "GET", "/nodes/nobody", nil, 404, postern.CodeNotFound},
		{"no node by name", "GET", "/nodes/acme%2Fnobody", nil, 404, postern.CodeNotFound},
		{"no node to remove", "DELETE", "/nodes/nobody", nil, 404, postern.CodeNotFound},
		{"a token is no node", "DELETE", "/nodes/" + gone.ID.String(), nil, 404, postern.CodeNotFound},
		{"no gateway to remove", "DELETE", "/gateways/nobody", nil, 404, postern.CodeNotFound},
		{"route below the base domain", "POST", "/routes", postern.RouteRequest{Host: "x.acme." + base, Tenant: "acme"}, 422, postern.CodeInvalid},
		{"route for the base domain", "POST", "/routes", postern.RouteRequest{Host: base, Tenant: "acme"}, 422, postern.CodeInvalid},
		{"route for no host", "POST", "/routes", postern.RouteRequest{Host: "10.0.0.1", Tenant: "acme"}, 422, postern.CodeInvalid},
		{"route to no tenant", "POST", "/routes", postern.RouteRequest{Host: "new.example.com", Tenant: "nobody"}, 404, postern.CodeNotFound},
		{"route to no service", "POST", "/routes", postern.RouteRequest{Host: "new.example.com", Tenant: "acme", Service: "A"}, 422, postern.CodeInvalid},
		{"route is another's", "POST", "/routes", postern.RouteRequest{Host: "ERP.example.com.", Tenant: "rival"}, 409, postern.CodeTaken},
		{"route was released lately", "POST", "/routes", postern.RouteRequest{Host: "old.example.com", Tenant: "rival"}, 409, postern.CodeQuarantined},
		{"route for a wildcard", "POST", "/routes", postern.RouteRequest{Host: "*.example.com", Tenant: "acme"}, 422, postern.CodeInvalid},
		{"route for a public suffix", "POST", "/routes", postern.RouteRequest{Host: "co.uk", Tenant: "acme"}, 422, postern.CodeInvalid},
		{"route for a hoster's suffix", "POST", "/routes", postern.RouteRequest{Host: "github.io", Tenant: "acme"}, 422, postern.CodeInvalid},
		{"route for one label", "POST", "/routes", postern.RouteRequest{Host: "intranet", Tenant: "acme"}, 422, postern.CodeInvalid},
		{"route too long for its proof", "POST", "/routes", postern.RouteRequest{Host: strings.Repeat("a.", 117) + "example", Tenant: "acme"}, 422, postern.CodeInvalid},
		{"route is one's own", "POST", "/routes", postern.RouteRequest{Host: "erp.example.com", Tenant: "acme"}, 409, postern.CodeTaken},
		{"no custom route to check", "POST", "/routes/acme." + base + "/check", nil, 404, postern.CodeNotFound},
		{"another's custom route to check", "POST", "/routes/erp.example.com/check?tenant=rival", nil, 404, postern.CodeNotFound},
		{"no host to check", "POST", "/routes/10.0.0.1/check", nil, 422, postern.CodeInvalid},
		{"no custom route to remove", "DELETE", "/routes/acme." + base, nil, 404, postern.CodeNotFound},
		{"no route", "GET", "/routes/nobody.example.com/match", nil, 404, postern.CodeNotFound},
		{"no user", "GET", "/users/nobody", nil, 404, postern.CodeNotFound},
		{"no user to remove", "DELETE", "/users/nobody", nil, 404, postern.CodeNotFound},
		{"no user to invite", "POST", "/users/nobody/invite", nil, 404, postern.CodeNotFound},
		{"no user to grant to", "PUT", "/users/nobody/grants/acme", postern.GrantRequest{}, 404, postern.CodeNotFound},
		{"login with a space", "POST", "/users", postern.UserRequest{Login: "a b"}, 422, postern.CodeInvalid},
		{"login is taken", "POST", "/users", postern.UserRequest{Login: "ANNA "}, 409, postern.CodeTaken},
		{"grant of no tenant", "PUT", "/users/anna/grants/nobody", postern.GrantRequest{}, 404, postern.CodeNotFound},
		{"grant of no role", "PUT", "/users/anna/grants/acme", postern.GrantRequest{Role: "boss"}, 422, postern.CodeInvalid},
		{"grant of a group that is no label", "PUT", "/users/anna/grants/acme", postern.GrantRequest{Groups: []string{"A b"}}, 422, postern.CodeInvalid},
		{"no grant to revoke", "DELETE", "/users/anna/grants/acme", nil, 404, postern.CodeNotFound},
		{"issuer without TLS", "PUT", "/issuers/x", postern.IssuerRequest{URL: "http://id.example", ClientID: "c", Tenant: "acme", Roles: map[string]postern.IssuerRole{"*": {}}}, 422, postern.CodeInvalid},
		{"issuer of no tenant", "PUT", "/issuers/x", request("nobody"), 404, postern.CodeNotFound},
		{"no issuer to remove", "DELETE", "/issuers/nobody", nil, 404, postern.CodeNotFound},
		{"limit too high", "GET", "/audit?limit=1001", nil, 422, postern.CodeInvalid},
		{"unknown field", "POST", "/tenants", map[string]string{"name": "x", "nmae": "y"}, 422, postern.CodeInvalid},
		{"no such path", "GET", "/nothing", nil, 404, postern.CodeNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantProblem(t, d.operate(tt.method, tt.path, tt.in, nil), tt.status, tt.code)
		})
	}
}

// Released names are kept for 30 days, but not from the tenant that had them.
func TestQuarantine(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	add := func(host, tenant string) error {
		return d.tryRoute(postern.RouteRequest{Host: host, Tenant: tenant})
	}
	must(t, add("erp.example.com", "acme"))
	must(t, d.operate("DELETE", "/routes/erp.example.com", nil, nil))
	wantProblem(t, add("erp.example.com", "rival"), 409, postern.CodeQuarantined)
	must(t, add("erp.example.com", "acme"))
	must(t, d.operate("DELETE", "/tenants/acme", nil, nil))
	wantProblem(t, add("erp.example.com", "rival"), 409, postern.CodeQuarantined)
	d.clock.advance(30*24*time.Hour - time.Minute)
	wantProblem(t, d.operate("POST", "/tenants", postern.TenantRequest{Name: "acme"}, nil), 409, postern.CodeQuarantined)
	d.clock.advance(time.Minute)
	d.addTenant("acme")
	must(t, add("erp.example.com", "rival"))
}

// A tenant's members, tokens and routes go with it.
func TestRemoveTenant(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.node("acme", "a", postern.DefaultService)
	token := d.token(postern.TokenRequest{Tenant: "acme"})
	d.route(postern.RouteRequest{Host: "erp.example.com", Tenant: "acme"})
	must(t, d.operate("DELETE", "/tenants/acme", nil, nil))
	for _, path := range []string{"/tenants", "/nodes", "/routes", "/tokens"} {
		var all []json.RawMessage
		must(t, d.operate("GET", path, nil, &all))
		if len(all) != 0 {
			t.Errorf("%s: %s is left", path, all)
		}
	}
	wantProblem(t, d.newMember(postern.RoleNode).join(token, ""), 401, postern.CodeTokenUnknown)
}

// States follow from the control stream and from what gateways report.
func TestStates(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a", postern.DefaultService), d.gateway("door")
	check := func(what, node, gateway string) {
		t.Helper()
		eventually(t, what, func() bool {
			var n postern.NodeState
			must(t, d.operate("GET", "/nodes/acme%2Fa", nil, &n))
			var gs []postern.GatewayState
			must(t, d.operate("GET", "/gateways", nil, &gs))
			var r postern.RouteState
			must(t, d.operate("GET", "/routes/ACME."+base+"/match", nil, &r))
			var o postern.Overview
			must(t, d.operate("GET", "/status", nil, &o))
			ready := node == postern.StateReady
			return n.ID == a.ID && n.State == node && gs[0].State == gateway &&
				r.State == node && (o.NodesReady == 1) == ready && r.URL == "https://acme."+base+":8443"
		})
	}
	report := func(handshake time.Time) {
		must(t, g.call("POST", postern.PathStatus, postern.Status{Version: "1", Peers: []postern.PeerStatus{
			{ID: a.ID, Endpoint: "192.0.2.1:5", Handshake: handshake, Received: 7}, {ID: "stranger"},
		}}, nil))
	}
	check("nothing yet", postern.StateOffline, postern.StateOffline)
	report(d.clock.now())
	check("handshake alone", postern.StateDegraded, postern.StateOffline)
	wa, wg := a.watch(), g.watch()
	wa.sync()
	wg.sync()
	check("both", postern.StateReady, postern.StateReady)
	var n postern.NodeState
	must(t, d.operate("GET", "/nodes/"+a.ID, nil, &n))
	if len(n.Tunnels) != 1 || n.Tunnels[0].Gateway != "door" || n.Tunnels[0].Endpoint != "192.0.2.1:5" || n.Tunnels[0].Received != 7 {
		t.Errorf("tunnels: got %+v", n.Tunnels)
	}
	d.clock.advance(3 * time.Minute)
	check("handshake stale", postern.StateDegraded, postern.StateOffline) // it would have reported
	wa.cancel()
	wg.cancel()
	check("neither", postern.StateOffline, postern.StateOffline)
	must(t, d.operate("GET", "/nodes/"+a.ID, nil, &n))
	seen := n.Control
	d.stop()
	d.start()
	must(t, d.operate("GET", "/nodes/"+a.ID, nil, &n))
	if seen.IsZero() || !n.Control.Equal(seen) {
		t.Errorf("last seen: got %v after a restart, want %v", n.Control, seen)
	}
}

// A node whose control stream ended is there only if its tunnel says so afterwards:
// it may have been switched off a moment after a handshake.
func TestStateAfterControl(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a", postern.DefaultService), d.gateway("door")
	handshake := d.clock.now()
	report := func(received uint64) {
		t.Helper()
		d.clock.advance(postern.StatusInterval)
		must(t, g.call("POST", postern.PathStatus, postern.Status{Peers: []postern.PeerStatus{
			{ID: a.ID, Handshake: handshake, Received: received},
		}}, nil))
	}
	check := func(what, want string) {
		t.Helper()
		eventually(t, what, func() bool {
			var n postern.NodeState
			must(t, d.operate("GET", "/nodes/"+a.ID, nil, &n))
			return n.State == want
		})
	}
	w := a.watch()
	w.sync()
	report(100)
	report(200)
	check("both", postern.StateReady)
	w.cancel()
	check("the stream ended", postern.StateOffline)
	report(300) // may have come before the stream's end
	check("a first report", postern.StateOffline)
	report(300)
	check("nothing came since", postern.StateOffline)
	report(332)
	check("something came since", postern.StateDegraded)
	d.clock.advance(75 * time.Second)
	check("nothing came for long", postern.StateOffline)
	a.watch().sync()
	check("back", postern.StateReady)
}

// A gateway's clock says how old its handshakes are, and nothing more.
func TestStatesWhereClocksDiffer(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a"), d.gateway("door")
	tests := []struct {
		name       string
		clock, age time.Duration // the clock's lead, and how long ago by it
		want       string
	}{
		{"ahead", time.Hour, time.Minute, postern.StateDegraded},
		{"ahead, long ago", time.Hour, 10 * time.Minute, postern.StateOffline},
		{"behind", -time.Hour, time.Minute, postern.StateDegraded},
		{"behind, long ago", -time.Hour, 10 * time.Minute, postern.StateOffline},
		{"set back since", 0, -time.Hour, postern.StateOffline},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := d.clock.now().Add(tt.clock)
			must(t, g.call("POST", postern.PathStatus, postern.Status{Time: now, Peers: []postern.PeerStatus{
				{ID: a.ID, Handshake: now.Add(-tt.age)},
			}}, nil))
			var n postern.NodeState
			must(t, d.operate("GET", "/nodes/"+a.ID, nil, &n))
			if n.State != tt.want {
				t.Errorf("state: got %q, want %q", n.State, tt.want)
			}
			if off := d.clock.now().Add(-tt.age).Sub(n.Tunnels[0].Handshake); off.Abs() > time.Minute {
				t.Errorf("handshake: told %v off", off)
			}
		})
	}
}

// Afar, the admin API needs an admin token.
func TestBearer(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	good := d.token(postern.TokenRequest{Kind: postern.AdminToken})
	join := d.token(postern.TokenRequest{Tenant: "acme"})
	seedWrong, kindWrong := good, join
	seedWrong.Seed[0] ^= 1
	kindWrong.Kind = postern.AdminToken
	revoked := d.token(postern.TokenRequest{Kind: postern.AdminToken})
	must(t, d.operate("DELETE", "/tokens/"+revoked.ID.String(), nil, nil))
	get := func(path, header string) error {
		req, err := http.NewRequest("GET", d.url(postern.PathAdmin+path), nil)
		must(t, err)
		req.Header.Set("Authorization", header)
		return do(d.clientFor(nil), req, nil)
	}
	must(t, get("/tenants", "Bearer "+good.Secret()))
	must(t, get("/openapi.json", "bearer "+good.Secret()))
	tests := []struct{ name, header string }{
		{"none", ""},
		{"basic", "Basic " + good.Secret()},
		{"garbage", "Bearer x"},
		{"join token", "Bearer " + join.Secret()},
		{"join token called admin", "Bearer " + kindWrong.Secret()},
		{"another seed", "Bearer " + seedWrong.Secret()},
		{"unknown", "Bearer " + postern.NewToken(postern.AdminToken, d.authority.Root(), "https://a").Secret()},
		{"revoked", "Bearer " + revoked.Secret()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantProblem(t, get("/tenants", tt.header), 401, postern.CodeUnauthorized)
		})
	}
	d.clock.advance(24 * time.Hour)
	wantProblem(t, get("/tenants", "Bearer "+good.Secret()), 401, postern.CodeUnauthorized)
	must(t, coordinator.VerifyAudit(t.Context(), d.store))
}

// What is done is in the audit log, with who did it, and no secret is.
func TestAudit(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	token := d.token(postern.TokenRequest{Tenant: "acme"})
	a := d.newMember(postern.RoleNode)
	must(t, a.join(token, "a"))
	a.publish("erp")
	must(t, d.operate("DELETE", "/nodes/"+a.ID, nil, nil))
	var entries []postern.AuditEntry
	must(t, d.operate("GET", "/audit", nil, &entries))
	var got []string
	for _, e := range entries {
		got = append(got, e.Actor+" "+e.Action)
	}
	want := []string{
		"local deployment.create", "local tenant.add", "local token.create",
		"token:" + token.ID.String() + " node.join", "node:" + a.ID + " node.publish", "local node.remove",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
	var page []postern.AuditEntry
	must(t, d.operate("GET", "/audit?after=2&limit=2", nil, &page))
	if len(page) != 2 || page[0] != entries[2] || page[1] != entries[3] {
		t.Errorf("page: got %v, want %v", page, entries[2:4])
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "registry.db-wal"))
	must(t, err)
	if bytes.Contains(text, token.Seed[:]) || bytes.Contains(text, []byte(token.Secret())) {
		t.Error("the registry's file contains a token's secret")
	}
}

// The socket's answers are JSON whatever is asked for.
func TestAdminSocketAnswers(t *testing.T) {
	d := deploy(t)
	conn, err := new(net.Dialer).DialContext(context.Background(), "unix", filepath.Join(d.dir, postern.AdminSocket))
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "GET /admin/v1/status HTTP/1.0\r\nAccept: text/html\r\n\r\n")
	answer, err := io.ReadAll(conn)
	must(t, err)
	if !bytes.Contains(answer, []byte("Content-Type: application/json")) {
		t.Errorf("got %s", answer)
	}
}
