//go:build e2e

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/internal/identity"
	"postern/internal/proxyproto"
	"postern/node"
)

// nodeStatus returns what a node says of itself.
func (d *deployment) nodeStatus(name string) node.Status {
	d.t.Helper()
	var s node.Status
	text := must(d.t, program("postern"), "node", "status", "--data", d.data(name), "--json")
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// do runs an admin command that answers with words.
func (d *deployment) do(args ...string) {
	d.t.Helper()
	if _, err := d.try(args...); err != nil {
		d.t.Fatal(err)
	}
}

// code returns the code of a refusal, "" for none, and the error's text for
// another error.
func code(err error) string {
	var p *postern.Problem
	switch {
	case err == nil:
		return ""
	case errors.As(err, &p):
		return p.Code
	}
	return err.Error()
}

// I6: no two members have a name, a key, an identity or an address in common.
// The second claim is refused, and an operator can read of it.
func TestIsolationI6SecondClaims(t *testing.T) {
	s := newStreet(t)
	victim := newStranger(s.deployment, s.token("acme")).mustJoin("victim")
	rival := func() *stranger { return newStranger(s.deployment, s.token("globex")) }
	with := func(request map[string]any, field string, value any) map[string]any {
		request[field] = value
		return request
	}
	type claim struct {
		name string
		who  *stranger
		body func(*stranger) map[string]any
		want string
	}
	honest := func(m *stranger) map[string]any { return m.request("second") }
	sameName := newStranger(s.deployment, s.token("acme"))
	sameKey := rival()
	sameKey.wireguard = victim.wireguard
	sameIdentity := rival()
	sameIdentity.key = victim.key
	sameToken := newStranger(s.deployment, victim.token.Secret())
	claims := []claim{
		{"a name", sameName, func(m *stranger) map[string]any { return m.request("victim") }, postern.CodeTaken},
		{"a WireGuard key", sameKey, honest, postern.CodeTaken},
		{"a WireGuard key without its private half", rival(), func(m *stranger) map[string]any {
			return with(m.request("second"), "wireguard", victim.wireguard.Public())
		}, postern.CodeProof},
		{"an identity", sameIdentity, honest, postern.CodeTaken},
		{"an identity without its private half", rival(), func(m *stranger) map[string]any {
			return with(m.request("second"), "identity", victim.key.Public())
		}, postern.CodeProof},
		{"a token that was used", sameToken, honest, postern.CodeTokenUsed},
		{"a token's id without its secret", rival(), func(m *stranger) map[string]any {
			return with(m.request("second"), "token", newStranger(s.deployment, s.token("acme")).token.ID)
		}, postern.CodeProof},
	}
	refusals := s.refusals()
	for _, c := range claims {
		if got := code(c.who.join(c.body(c.who))); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if got := s.refusals() - refusals; got != len(claims) {
		t.Errorf("the audit log tells of %d refusals, want %d", got, len(claims))
	}
	// An address cannot even be asked for.
	thief := rival()
	if err := thief.join(with(thief.request("thief"), "address", victim.enrollment.Address)); err != nil {
		t.Fatal(err)
	}
	tries := len(claims) + 1 + s.claimNames()

	// Who was removed does not come back as the same.
	s.do("nodes", "remove", victim.enrollment.ID)
	victim.token = newStranger(s.deployment, s.token("acme")).token
	if got := code(victim.join(victim.request("victim"))); got != postern.CodeRevoked {
		t.Errorf("an identity that was removed: got %q, want %q", got, postern.CodeRevoked)
	}
	s.allUnique()
	passed(t, "I6 second claim to what another has", tries+1)
}

// claimNames claims names of tenants and hosts a second time, and says how many.
func (s *street) claimNames() int {
	s.t.Helper()
	for _, host := range []string{"shop.example.com", "old.example.com"} {
		s.cli(nil, "routes", "add", host, "--tenant", "globex")
		s.prove(host, "globex")
	}
	s.do("routes", "remove", "old.example.com")
	s.cli(nil, "tenants", "add", "gone", "--no-token")
	s.do("tenants", "remove", "gone", "--yes")
	claims := []struct {
		name string
		args []string
		want string
	}{
		{"a tenant's name", []string{"tenants", "add", "globex"}, "already"},
		{"a name released lately", []string{"tenants", "add", "gone"}, "released lately"},
		{"a host", []string{"routes", "add", "shop.example.com", "--tenant", "acme"}, "already"},
		{"a host in other letters", []string{"routes", "add", "SHOP.example.com.", "--tenant", "acme"}, "already"},
		{"a host released lately", []string{"routes", "add", "old.example.com", "--tenant", "acme"}, "released lately"},
		{"a host below the base", []string{"routes", "add", "globex." + base, "--tenant", "acme"}, "base domain"},
		{"the coordinator's host", []string{"routes", "add", "control." + base, "--tenant", "acme"}, ""},
	}
	for _, c := range claims {
		if _, err := s.try(c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			s.t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	return len(claims)
}

// refusals is how many enrolments the audit log says were refused.
func (s *street) refusals() int {
	s.t.Helper()
	var entries []postern.AuditEntry
	s.cli(&entries, "audit", "list", "--after", "0", "--limit", "1000")
	n := 0
	for _, e := range entries {
		if e.Action == "enroll.refused" {
			n++
		}
	}
	return n
}

// allUnique checks that no two members have anything in common.
func (s *street) allUnique() {
	s.t.Helper()
	var nodes []postern.NodeState
	s.cli(&nodes, "nodes", "list")
	if len(nodes) < 3 {
		s.t.Errorf("there are %d nodes, want at least 3", len(nodes))
	}
	g := s.gatewayState()
	seen := map[string]bool{g.ID: true, g.Address.String(): true, g.WireGuard.String(): true, g.Identity.String(): true}
	for _, n := range nodes {
		for _, v := range []string{n.ID, n.Tenant + "/" + n.Name, n.Address.String(), n.WireGuard.String(), n.Identity.String()} {
			if seen[v] {
				s.t.Errorf("%q is there twice", v)
			}
			seen[v] = true
		}
	}
}

// I7: with a token of one tenant, and the membership that it gives, there is no
// way to a membership, a certificate, a route, a map or a log line of another.
func TestIsolationI7Token(t *testing.T) {
	s := newStreet(t)
	globex := s.nodeState("globex-office")
	mallory := newStranger(s.deployment, s.token("acme"))
	asGateway := mallory.request("mallory")
	asGateway["role"] = postern.RoleGateway
	if got := code(mallory.join(asGateway)); got != postern.CodeForbidden {
		t.Errorf("join as a gateway: got %q, want %q", got, postern.CodeForbidden)
	}
	greedy := mallory.request("mallory")
	for _, field := range []string{"tenant", "Tenant", "deployment", "id"} {
		greedy[field] = "globex"
	}
	if err := mallory.join(greedy); err != nil {
		t.Fatal(err)
	}
	var tenants []postern.Tenant
	s.cli(&tenants, "tenants", "list")
	for _, tenant := range tenants {
		if inside := tenant.Prefix.Contains(mallory.enrollment.Address); inside != (tenant.Name == "acme") {
			t.Errorf("address %v, within %s's %v: %t", mallory.enrollment.Address, tenant.Name, tenant.Prefix, inside)
		}
	}
	if mallory.enrollment.Tenant != "acme" || mallory.enrollment.ID == "globex" {
		t.Errorf("enrolled as %+v, want in acme", mallory.enrollment)
	}
	tries := 2 + s.takeRoutes(mallory) + s.takeCertificates(mallory) + s.takePaths(mallory, globex)
	s.untold("acme-office", globex)
	passed(t, "I7 from one tenant's token to another's things", tries)
}

// takeRoutes publishes services under names that reach for more.
func (s *street) takeRoutes(m *stranger) int {
	s.t.Helper()
	for _, name := range []string{"", "x.globex", "globex.postern", "*", "..", "GLOBEX", "xn--globex", "a b", "x/../globex", strings.Repeat("x", 64)} {
		p := postern.Publication{Services: []postern.Service{{Name: name}}}
		if got := code(m.ask("PUT", postern.PathServices, p, nil)); got != postern.CodeInvalid {
			s.t.Errorf("publish %q: got %q, want %q", name, got, postern.CodeInvalid)
		}
	}
	var got postern.Published
	p := postern.Publication{Services: []postern.Service{{Name: postern.DefaultService}, {Name: "globex"}, {Name: "control"}}}
	if err := m.ask("PUT", postern.PathServices, p, &got); err != nil {
		s.t.Fatal(err)
	}
	var hosts []string
	for _, r := range got.Routes {
		hosts = append(hosts, r.Host)
	}
	slices.Sort(hosts)
	if want := []string{"acme." + base, "control.acme." + base, "globex.acme." + base}; !slices.Equal(hosts, want) {
		s.t.Errorf("published: got %v, want %v", hosts, want)
	}
	for _, host := range []string{"globex." + base, "books.globex." + base} {
		var r postern.RouteState
		s.cli(&r, "routes", "match", host)
		if r.Tenant != "globex" || !slices.Equal(r.Nodes, []string{"globex-office"}) {
			s.t.Errorf("%s leads to %+v, want globex-office alone", host, r)
		}
	}
	return 13
}

// takeCertificates asks the private CA for names, of which one is m's.
func (s *street) takeCertificates(m *stranger) int {
	s.t.Helper()
	own, other := "acme."+base, "globex."+base
	requests := []struct {
		name string
		csr  x509.CertificateRequest
		good bool
	}{
		{"its own", x509.CertificateRequest{DNSNames: []string{own}}, true},
		{"another tenant's", x509.CertificateRequest{DNSNames: []string{other}}, false},
		{"another tenant's service", x509.CertificateRequest{DNSNames: []string{"books." + other}}, false},
		{"a service of a neighbour's", x509.CertificateRequest{DNSNames: []string{"books." + own}}, false},
		{"both", x509.CertificateRequest{DNSNames: []string{own, other}}, false},
		{"another's as common name", x509.CertificateRequest{Subject: pkix.Name{CommonName: other}, DNSNames: []string{own}}, false},
		{"another's as common name alone", x509.CertificateRequest{Subject: pkix.Name{CommonName: other}}, false},
		{"a wildcard", x509.CertificateRequest{DNSNames: []string{"*." + base}}, false},
		{"its own wildcard", x509.CertificateRequest{DNSNames: []string{"*." + own}}, false},
		{"the base", x509.CertificateRequest{DNSNames: []string{base}}, false},
		{"the coordinator's", x509.CertificateRequest{DNSNames: []string{"control." + base}}, false},
		{"nobody's", x509.CertificateRequest{DNSNames: []string{"nobody." + base}}, false},
		{"the web's", x509.CertificateRequest{DNSNames: []string{"www.example.com"}}, false},
		{"its own with an address", x509.CertificateRequest{DNSNames: []string{own}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, false},
		{"its own in capitals", x509.CertificateRequest{DNSNames: []string{strings.ToUpper(own)}}, false},
	}
	for _, r := range requests {
		var got postern.Certificate
		err := m.ask("POST", postern.PathCertificates, postern.CertificateRequest{CSR: csr(s.t, &r.csr)}, &got)
		c := code(err)
		if good := err == nil; good != r.good || !good && c != postern.CodeForbidden && c != postern.CodeInvalid {
			s.t.Errorf("certificate for %s: got %v, want success %t", r.name, err, r.good)
		}
	}
	return len(requests)
}

// takePaths tries what is for gateways and operators.
func (s *street) takePaths(m *stranger, victim postern.NodeState) int {
	s.t.Helper()
	const evil = "198.51.100.66:6666"
	if got := code(m.ask("PUT", postern.PathGateway, postern.Gateway{Endpoint: evil, Public: evil}, nil)); got != postern.CodeForbidden {
		s.t.Errorf("set the gateway's address: got %q, want %q", got, postern.CodeForbidden)
	}
	status := postern.Status{Peers: []postern.PeerStatus{{ID: victim.ID, Endpoint: evil, Handshake: time.Now()}}}
	if err := m.ask("POST", postern.PathStatus, status, nil); err != nil {
		s.t.Errorf("report: %v", err)
	}
	text, err := s.try("nodes", "list", "--json")
	if more, err2 := s.try("gateways", "list", "--json"); err != nil || err2 != nil || strings.Contains(text+more, evil) {
		s.t.Errorf("what a node says of others is believed: %v %v %s", err, err2, text+more)
	}
	for _, path := range []string{"/status", "/tenants", "/nodes", "/nodes/" + victim.ID, "/routes", "/audit", "/tokens", "/gateways"} {
		if got := code(m.ask("GET", postern.PathAdmin+path, nil, nil)); got != postern.CodeUnauthorized {
			s.t.Errorf("admin API %s with a node's certificate: got %q, want %q", path, got, postern.CodeUnauthorized)
		}
		header := http.Header{"Authorization": {"Bearer " + m.token.Secret()}}
		err := ask(m.client(), "GET", "https://"+loopback(s.control)+postern.PathAdmin+path, header, nil, nil)
		if got := code(err); got != postern.CodeUnauthorized {
			s.t.Errorf("admin API %s with a join token: got %q, want %q", path, got, postern.CodeUnauthorized)
		}
	}
	s.takePipe(m)
	return 3 + 2*8
}

// takePipe opens an edge pipe as a node, which must lead nowhere.
func (s *street) takePipe(m *stranger) {
	s.t.Helper()
	cfg := m.client().Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.NextProtos = []string{postern.EdgeProtocol}
	conn, err := tls.Dial("tcp", loopback(s.control), cfg)
	if err != nil {
		return // refused, as it should
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	name, addr := "control."+base, netip.MustParseAddrPort("198.51.100.9:1234")
	header, err := proxyproto.Header{Src: addr, Dst: addr, Authority: name, UniqueID: "1"}.AppendBinary(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	conn.Write(header)
	inner := identity.ClientConfig(m.token.Root, nil, "http/1.1")
	inner.ServerName = name
	if err := tls.Client(conn, inner).Handshake(); err == nil {
		s.t.Error("a node opened an edge pipe")
	}
}

// untold checks that nothing of victim is in what a node logs and keeps.
func (s *street) untold(name string, victim postern.NodeState) {
	s.t.Helper()
	office := s.office[strings.TrimSuffix(name, "-office")]
	if !strings.Contains(office.out.String(), "acme."+base) {
		s.t.Errorf("the log of %s says nothing of its own name", name)
	}
	s.secretsIn("the log of "+name, []byte(office.out.String()), victim)
	err := filepath.WalkDir(s.data(name), func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		s.secretsIn(path, data, victim)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// secretsIn checks that nothing that tells of victim is in data.
func (s *street) secretsIn(what string, data []byte, victim postern.NodeState) {
	s.t.Helper()
	for _, secret := range []string{
		victim.Name, victim.ID, victim.Address.String(), victim.WireGuard.String(), victim.Identity.String(),
		victim.Tunnels[0].Endpoint,
	} {
		if bytes.Contains(data, []byte(secret)) {
			s.t.Errorf("%s has %q in it", what, secret)
		}
	}
}
