package coordinator_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

func TestJoin(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	m := d.newMember(postern.RoleNode)
	token := d.token(postern.TokenRequest{Tenant: "acme"})
	must(t, m.join(token, "office"))
	if m.Name != "office" || m.Tenant != "acme" || m.ID == "" || m.Deployment != d.authority.Deployment() {
		t.Errorf("got %+v", m.Enrollment)
	}
	first := m.Enrollment
	// The answer may have been lost: the same again is the same member.
	must(t, m.join(token, "office"))
	if m.ID != first.ID || m.Address != first.Address {
		t.Errorf("second answer: got %v at %v, want %v at %v", m.ID, m.Address, first.ID, first.Address)
	}
	var renewed postern.Enrollment
	must(t, m.call("POST", postern.PathRenew, nil, &renewed))
	if renewed.ID != m.ID || len(renewed.Certificate) == 0 {
		t.Errorf("renewed: got %+v", renewed)
	}
}

func TestJoinRefused(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("other")
	taken := d.node("acme", "taken")
	removed := d.node("acme", "removed")
	must(t, d.operate("DELETE", "/nodes/"+removed.ID, nil, nil))
	good := postern.TokenRequest{Tenant: "acme"}
	spoilHeader := func(name string) func(*attempt) {
		return func(a *attempt) {
			a.spoil = func(h http.Header, _ *[]byte) { h.Set(name, "AAAA") }
		}
	}
	tests := []struct {
		name   string
		token  func() postern.Token
		member *member
		wish   string
		change func(*attempt)
		status int
		code   string
	}{
		{name: "unknown token", token: func() postern.Token {
			return postern.NewToken(postern.JoinToken, d.authority.Root(), "https://a")
		}, status: 401, code: postern.CodeTokenUnknown},
		{name: "token id with another seed", token: func() postern.Token {
			tok := d.token(good)
			tok.Seed[0] ^= 1
			return tok
		}, status: 401, code: postern.CodeProof},
		{name: "used", token: func() postern.Token {
			tok := d.token(good)
			must(t, d.newMember(postern.RoleNode).join(tok, ""))
			return tok
		}, status: 409, code: postern.CodeTokenUsed},
		{name: "expired", token: func() postern.Token {
			tok := d.token(postern.TokenRequest{Tenant: "acme", TTL: postern.Duration(time.Minute)})
			d.clock.advance(time.Minute)
			return tok
		}, status: 410, code: postern.CodeTokenExpired},
		{name: "revoked", token: func() postern.Token {
			tok := d.token(good)
			must(t, d.operate("DELETE", "/tokens/"+tok.ID.String(), nil, nil))
			return tok
		}, status: 410, code: postern.CodeTokenRevoked},
		{name: "gateway's token", token: func() postern.Token {
			return d.token(postern.TokenRequest{Role: postern.RoleGateway})
		}, status: 403, code: postern.CodeForbidden},
		{name: "admin token", token: func() postern.Token {
			return d.token(postern.TokenRequest{Kind: postern.AdminToken})
		}, status: 403, code: postern.CodeForbidden},
		{name: "node's token for a gateway", member: d.newMember(postern.RoleGateway), status: 403, code: postern.CodeForbidden},
		{name: "name taken", wish: "taken", status: 409, code: postern.CodeTaken},
		{name: "name is no label", wish: "Not a label", status: 422, code: postern.CodeInvalid},
		{name: "identity taken", member: &member{d: d, role: postern.RoleNode, identity: taken.identity, wireguard: postern.NewWireGuardPrivate()},
			status: 409, code: postern.CodeTaken},
		{name: "WireGuard key taken", member: &member{d: d, role: postern.RoleNode, identity: postern.NewIdentityPrivate(), wireguard: taken.wireguard},
			status: 409, code: postern.CodeTaken},
		{name: "identity of a removed member", member: removed, status: 403, code: postern.CodeRevoked},
		{name: "a victim's WireGuard key", change: func(a *attempt) { a.req.WireGuard = postern.NewWireGuardPrivate().Public() },
			status: 401, code: postern.CodeProof},
		{name: "WireGuard key of low order", change: func(a *attempt) { a.req.WireGuard = postern.WireGuardPublic{1} },
			status: 401, code: postern.CodeProof},
		{name: "a victim's identity", change: func(a *attempt) { a.req.Identity = postern.NewIdentityPrivate().Public() },
			status: 401, code: postern.CodeProof},
		{name: "token signature wrong", change: spoilHeader(postern.HeaderTokenSignature), status: 401, code: postern.CodeProof},
		{name: "identity signature wrong", change: spoilHeader(postern.HeaderIdentitySignature), status: 401, code: postern.CodeProof},
		{name: "WireGuard proof wrong", change: spoilHeader(postern.HeaderWireGuardProof), status: 401, code: postern.CodeProof},
		{name: "no proof", change: func(a *attempt) {
			a.spoil = func(h http.Header, _ *[]byte) { h.Del(postern.HeaderWireGuardProof) }
		}, status: 422, code: postern.CodeInvalid},
		{name: "body changed on the way", change: func(a *attempt) {
			a.spoil = func(_ http.Header, body *[]byte) { *body = append(*body, ' ') }
		}, status: 401, code: postern.CodeProof},
		{name: "no JSON", change: func(a *attempt) {
			a.spoil = func(_ http.Header, body *[]byte) { *body = []byte("{") }
		}, status: 422, code: postern.CodeInvalid},
		{name: "unknown role", change: func(a *attempt) { a.req.Role = postern.RoleCoordinator }, status: 422, code: postern.CodeInvalid},
		{name: "body too long", change: func(a *attempt) {
			a.spoil = func(_ http.Header, body *[]byte) { *body = append(*body, strings.Repeat(" ", 64<<10)...) }
		}, status: 413, code: postern.CodeInvalid},
		{name: "proofs over another connection", change: func(a *attempt) { a.otherConnection = true },
			status: 401, code: postern.CodeProof},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.token == nil {
				tt.token = func() postern.Token { return d.token(good) }
			}
			if tt.member == nil {
				tt.member = d.newMember(postern.RoleNode)
			}
			if tt.change == nil {
				tt.change = func(*attempt) {}
			}
			token := tt.token()
			wantProblem(t, tt.member.join(token, tt.wish, tt.change), tt.status, tt.code)
			var entries []postern.AuditEntry
			must(t, d.operate("GET", "/audit?limit=1000", nil, &entries))
			last := entries[len(entries)-1]
			if last.Action != "enroll.refused" {
				t.Errorf("last entry of the audit log: got %+v, want enroll.refused", last)
			}
		})
	}
	must(t, coordinator.VerifyAudit(t.Context(), d.store))
}

// A single-use token that many use at the same moment enrols one of them.
func TestTokenRace(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	token := d.token(postern.TokenRequest{Tenant: "acme"})
	var wg sync.WaitGroup
	errs := make([]error, 100)
	for i := range errs {
		m := d.newMember(postern.RoleNode)
		wg.Go(func() { errs[i] = m.join(token, "") })
	}
	wg.Wait()
	joined := 0
	for _, err := range errs {
		if err == nil {
			joined++
			continue
		}
		wantProblem(t, err, 409, postern.CodeTokenUsed)
	}
	if joined != 1 {
		t.Errorf("%d joined, want 1", joined)
	}
	var nodes []postern.NodeState
	must(t, d.operate("GET", "/nodes", nil, &nodes))
	if len(nodes) != 1 {
		t.Errorf("%d nodes, want 1", len(nodes))
	}
}

func TestNamesFromHosts(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	token := d.token(postern.TokenRequest{Tenant: "acme", Uses: 10})
	tests := []struct{ name, host, want string }{
		{"plain", "office", "office"},
		{"second", "OFFICE.example.com", "office-2"},
		{"third", "office", "office-3"},
		{"strange characters", "Büro__PC", "b-ro-pc"},
		{"nothing left", "___", "node"},
		{"none", "", "node-2"},
		{"long", strings.Repeat("a", 80), strings.Repeat("a", 63)},
		{"long again", strings.Repeat("a", 80), strings.Repeat("a", 61) + "-2"},
	}
	for _, tt := range tests {
		m := d.newMember(postern.RoleNode)
		must(t, m.join(token, "", func(a *attempt) { a.req.Host.Name = tt.host }))
		if m.Name != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, m.Name, tt.want)
		}
	}
}

// Every member's address lies in its block and is never given twice.
func TestAddresses(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("other")
	var tenants []postern.Tenant
	must(t, d.operate("GET", "/tenants", nil, &tenants))
	blocks := map[string]netip.Prefix{}
	for _, tenant := range tenants {
		blocks[tenant.Name] = tenant.Prefix
		if tenant.Prefix.Bits() != 80 {
			t.Errorf("block of %s: got %v, want a /80", tenant.Name, tenant.Prefix)
		}
	}
	if blocks["acme"].Overlaps(blocks["other"]) {
		t.Errorf("blocks %v and %v overlap", blocks["acme"], blocks["other"])
	}
	seen := map[netip.Addr]bool{}
	gateways := netip.Prefix{}
	for i := range 3 {
		a, b, g := d.node("acme", fmt.Sprint("a", i)), d.node("other", fmt.Sprint("b", i)), d.gateway(fmt.Sprint("g", i))
		if gateways, _ = g.Address.Prefix(64); gateways.Overlaps(blocks["acme"]) || gateways.Overlaps(blocks["other"]) {
			t.Errorf("gateways' block %v meets a tenant's", gateways)
		}
		if !blocks["acme"].Contains(a.Address) || !blocks["other"].Contains(b.Address) || a.Address.As16()[0] != 0xfd {
			t.Errorf("addresses %v and %v, want of %v and %v", a.Address, b.Address, blocks["acme"], blocks["other"])
		}
		for _, m := range []*member{a, b, g} {
			if seen[m.Address] {
				t.Errorf("%v was given twice", m.Address)
			}
			seen[m.Address] = true
		}
		must(t, d.operate("DELETE", "/nodes/"+a.ID, nil, nil)) // its address stays used
	}
}

func TestRateLimit(t *testing.T) {
	d := deploy(t)
	client := d.clientFor(nil)
	var err error
	for range 500 {
		if err = call(client, "POST", d.url(postern.PathEnroll), struct{}{}, nil); err == nil {
			t.Fatal("an empty enrolment was accepted")
		}
		if p := err.(*postern.Problem); p.Status == 429 {
			break
		}
	}
	wantProblem(t, err, 429, postern.CodeTooMany)
	var entries []postern.AuditEntry
	must(t, d.operate("GET", "/audit?limit=1000", nil, &entries))
	if len(entries) > 70 {
		t.Errorf("a flood left %d entries in the audit log, want at most 70", len(entries))
	}
}

// What a node sends is bounded in bytes too, and that it was is counted.
func TestBytesAreLimited(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a")
	d.clock.advance(time.Minute) // it may ask and send as much as any
	before := d.gather()["limit_hits_total member_bytes"]
	long := map[string]string{"": strings.Repeat("x", 600<<10)}
	for range 3 {
		must(t, a.call("POST", postern.PathStatus, long, nil))
	}
	wantProblem(t, a.call("POST", postern.PathStatus, long, nil), 429, postern.CodeTooMany)
	if n := d.gather()["limit_hits_total member_bytes"] - before; n != 1 {
		t.Errorf("counted %v times, want 1", n)
	}
	must(t, a.call("POST", postern.PathStatus, postern.Status{}, nil))
	d.clock.advance(10 * time.Second)
	must(t, a.call("POST", postern.PathStatus, long, nil))
}

// What is recorded for ever of a member's doing is little, however long it goes on.
func TestRecordIsBounded(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a")
	var audit []postern.AuditEntry
	must(t, d.operate("GET", "/audit", nil, &audit))
	before, refused := len(audit), 0
	for range 400 {
		d.clock.advance(time.Second) // as often as a member may ask
		if err := a.call("POST", postern.PathRenew, nil, nil); err != nil {
			wantProblem(t, err, 429, postern.CodeTooMany)
			refused++
		}
	}
	must(t, d.operate("GET", "/audit?limit=1000", nil, &audit))
	if added := len(audit) - before; added != 400-refused || added < 256 || added > 270 {
		t.Errorf("400 requests, %d refused, left %d entries", refused, added)
	}
}
