package coordinator_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
	"postern/internal/dnscheck"
)

// What DNS says of a host, in words.
func TestCheckAddress(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.node("acme", "a", postern.DefaultService)
	for name, public := range map[string]string{"gw1": "203.0.113.7:443", "gw2": "[2001:db8::7]:443", "gw3": "gw3.example.net:443"} {
		must(t, d.gateway(name).call("PUT", postern.PathGateway, postern.Gateway{Endpoint: ":51820", Public: public}, nil))
	}
	d.dns.lead("gw3.example.net", "198.51.100.3")
	d.dns.change(func() { d.dns.via = map[string][]string{"alias.acme.example": {"acme." + base}} })
	tests := []struct {
		host   string
		addrs  []string
		result string
		words  []string
	}{
		{"none.acme.example", nil, postern.FindingMissing, []string{"leads nowhere", "does not exist", "give it the address 198.51.100.3 or 203.0.113.7 or 2001:db8::7, or make it an alias (CNAME) of acme." + base}},
		{"one.acme.example", []string{"203.0.113.7"}, postern.FindingOK, []string{"203.0.113.7, a gateway"}},
		{"all.acme.example", []string{"203.0.113.7", "2001:db8::7", "198.51.100.3"}, postern.FindingOK, []string{"203.0.113.7, 2001:db8::7 and 198.51.100.3, which are gateways"}},
		{"mapped.acme.example", []string{"::ffff:203.0.113.7"}, postern.FindingOK, nil},
		{"alias.acme.example", []string{"203.0.113.7"}, postern.FindingOK, []string{"by way of acme." + base}},
		{"else.acme.example", []string{"192.0.2.1"}, postern.FindingMissing, []string{"192.0.2.1, which is no gateway", "give it the address"}},
		{"office.acme.example", []string{"10.0.0.5"}, postern.FindingMissing, []string{"10.0.0.5 (a private address)"}},
		{"self.acme.example", []string{"127.0.0.1"}, postern.FindingMissing, []string{"127.0.0.1 (each machine's own)"}},
		{"some.acme.example", []string{"203.0.113.7", "192.0.2.1"}, postern.FindingWarning, []string{"but also to 192.0.2.1"}},
		{"acme.example", nil, postern.FindingMissing, []string{"give it the address 198.51.100.3 or 203.0.113.7 or 2001:db8::7"}},
	}
	for _, tt := range tests {
		t.Run(tt.host, func(t *testing.T) {
			d.dns.lead(tt.host, tt.addrs...)
			d.route(postern.RouteRequest{Host: tt.host, Tenant: "acme"})
			var check postern.RouteCheck
			must(t, d.operate("POST", "/routes/"+tt.host+"/check", nil, &check))
			wantFinding(t, check, "address", tt.result, tt.words...)
			apex := strings.Count(tt.host, ".") == 1
			var kinds []string
			for _, v := range check.Route.Records {
				kinds = append(kinds, v.Type+" "+v.Value)
			}
			want := "[A 203.0.113.7 AAAA 2001:db8::7 CNAME acme." + base + ".]"
			if apex {
				want = "[A 203.0.113.7 AAAA 2001:db8::7]"
			}
			if got := fmt.Sprint(kinds); got != want {
				t.Errorf("records: got %s, want %s", got, want)
			}
			for _, f := range check.Findings {
				if apex && strings.Contains(f.Hint, "CNAME") {
					t.Errorf("a zone's top is to be an alias: %q", f.Hint)
				}
			}
		})
	}
	d.dns.change(func() { d.dns.err = errors.New("one.acme.example is an alias of itself") })
	var check postern.RouteCheck
	must(t, d.operate("POST", "/routes/one.acme.example/check", nil, &check))
	wantFinding(t, check, "address", postern.FindingError, "alias of itself")
	wantFinding(t, check, "caa", postern.FindingError, "is not known", "refuse to issue")
	wantFinding(t, check, "proof", postern.FindingOK)
	wantFinding(t, check, "certificate", postern.FindingWarning, "no node has told")
}

const account = "https://acme-v02.api.letsencrypt.org/acme/acct/7"

func TestCheckCAA(t *testing.T) {
	const host, other = "erp.acme.example", "https://acme-v02.api.letsencrypt.org/acme/acct/8"
	caa := func(asked, found, account string) dnscheck.CAASet {
		s := dnscheck.CAASet{Asked: asked, Found: found}
		if account != "" {
			s.Records = []dnscheck.CAA{{Tag: "issue", Value: "letsencrypt.org; accounturi=" + account}}
		}
		if found != asked && found != "" {
			s.Via = []string{found}
		}
		return s
	}
	with := []postern.RouteCertificate{{Node: "a", HostStatus: postern.HostStatus{Account: account, Authority: "letsencrypt.org"}}}
	tests := []struct {
		name         string
		caa          dnscheck.CAASet
		certificates []postern.RouteCertificate
		result       string
		words        []string
	}{
		{"own", caa(host, host, account), with, postern.FindingOK, []string{"grade B: CAA at " + host + " lets only letsencrypt.org with account " + account + " issue"}},
		{"hosted", caa("acme."+base, "acme."+base, account), nil, postern.FindingOK, []string{"grade A: CAA at acme." + base}},
		{"alias", caa(host, "acme."+base, account), with, postern.FindingWarning, []string{"grade C", "in place of the alias"}},
		{"none", caa(host, "", ""), with, postern.FindingWarning, []string{"No CAA record counts", "add the CAA records"}},
		{"none, and no account", caa(host, "", ""), nil, postern.FindingWarning, []string{"No CAA record counts", "as soon as a node has an account"}},
		{"forbidden", caa(host, host, other), with, postern.FindingMissing,
			[]string{account + " may not", "lets only letsencrypt.org with account " + other + " issue, not letsencrypt.org with account " + account + " by tls-alpn-01"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := coordinator.CAAFinding(tt.caa, nil, tt.certificates, base, nil)
			wantFinding(t, postern.RouteCheck{Findings: []postern.Finding{f}}, "caa", tt.result, tt.words...)
		})
	}
}

func TestCAARecords(t *testing.T) {
	certificates := []postern.RouteCertificate{}
	for _, a := range [][2]string{
		{account, "letsencrypt.org"}, {"", "letsencrypt.org"}, {account, "letsencrypt.org"}, {account, ""},
		{"https://acme.zerossl.com/v2/DV90/account/x", "sectigo.com"}, {"javascript:x", "ca.example"},
	} {
		certificates = append(certificates, postern.RouteCertificate{HostStatus: postern.HostStatus{Account: a[0], Authority: a[1]}})
	}
	var got []string
	for _, v := range coordinator.CAARecords("erp.acme.example", certificates) {
		got = append(got, v.Name+" "+v.Type+" "+v.Value)
	}
	want := []string{
		`erp.acme.example CAA 128 issue "letsencrypt.org; accounturi=` + account + `; validationmethods=tls-alpn-01"`,
		`erp.acme.example CAA 128 issue "sectigo.com; accounturi=https://acme.zerossl.com/v2/DV90/account/x; validationmethods=tls-alpn-01"`,
		`erp.acme.example CAA 128 issuewild ";"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := coordinator.CAARecords("erp.acme.example", nil); got != nil {
		t.Errorf("without an account: %+v", got)
	}
}

func TestCheckCertificate(t *testing.T) {
	until := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	of := func(h postern.HostStatus) postern.RouteState {
		return postern.RouteState{State: postern.StateReady, Certificates: []postern.RouteCertificate{{Node: "a", HostStatus: h}}}
	}
	tests := []struct {
		name   string
		state  postern.RouteState
		result string
		words  []string
	}{
		{"none", postern.RouteState{Service: "erp"}, postern.FindingWarning, []string{"no node", "publishes the service erp"}},
		{"valid", of(postern.HostStatus{State: postern.CertificateValid, Issuer: "R11", NotAfter: until}), postern.FindingOK, []string{"node a has one of R11, until 2026-05-06"}},
		{"waiting", of(postern.HostStatus{State: postern.CertificateWaiting, Error: "urn:ietf:params:acme:error:dns: no\n"}), postern.FindingWarning, []string{"none yet: urn:ietf:params:acme:error:dns: no"}},
		{"late", of(postern.HostStatus{State: postern.CertificateLate, Source: "acme", NotAfter: until, Error: "rateLimited"}), postern.FindingWarning, []string{"no newer one", "rateLimited"}},
		{"expired", of(postern.HostStatus{State: postern.CertificateExpired, Source: "file", NotAfter: until}), postern.FindingError, []string{"has expired, until 2026-05-06"}},
		{"alarm", of(postern.HostStatus{State: postern.CertificateValid, Alarm: "gw1 showed another key"}), postern.FindingError, []string{"ALARM: gw1 showed another key", "do not sign in"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantFinding(t, postern.RouteCheck{Findings: coordinator.CertificateFindings(tt.state)}, "certificate", tt.result, tt.words...)
		})
	}
	if got := coordinator.CertificateFindings(postern.RouteState{State: postern.StateUnproven}); got != nil {
		t.Errorf("before the proof: %+v", got)
	}
}
