package portal

import (
	"strings"
	"testing"
	"time"

	"postern"
)

// certified is a route whose nodes tell of all that can be with a certificate.
func certified() postern.RouteState {
	until := time.Date(2026, 5, 6, 7, 8, 0, 0, time.UTC)
	of := func(node string, h postern.HostStatus) postern.RouteCertificate {
		return postern.RouteCertificate{Node: node, HostStatus: h}
	}
	return postern.RouteState{
		Host: "erp.acme.example", Tenant: "acme", Service: "books", Kind: "custom", State: postern.StateReady, Nodes: []string{"office", "attic"}, Proven: until,
		Certificates: []postern.RouteCertificate{
			of("office", postern.HostStatus{State: postern.CertificateValid, NotAfter: until}),
			of("attic", postern.HostStatus{State: postern.CertificateWaiting, Error: "waiting for order at acme-v02.api.letsencrypt.org: urn:ietf:params:acme:error:rateLimited: too many certificates already issued for <acme.example>"}),
			of("cellar", postern.HostStatus{State: postern.CertificateLate, NotAfter: until, Error: "urn:ietf:params:acme:error:caa: forbidden"}),
			of("shed", postern.HostStatus{State: postern.CertificateExpired, NotAfter: until}),
			of("barn", postern.HostStatus{State: postern.CertificateValid, NotAfter: until, Alarm: "gateway gw1 showed key 3f2a… in place of ours"}),
		},
		Records: []postern.DNSRecord{
			{Name: "erp.acme.example", Type: "A", Value: "203.0.113.7", Purpose: postern.PurposeAddress},
			{Name: "erp.acme.example", Type: "CNAME", Value: "acme.apps.example.com.", Purpose: postern.PurposeAddress},
			{Name: "erp.acme.example", Type: "CAA", Value: `128 issue "letsencrypt.org; accounturi=https://acme-v02.api.letsencrypt.org/acme/acct/1234567; validationmethods=tls-alpn-01"`, Purpose: postern.PurposeCAA},
		},
	}
}

// What nodes tell of certificates is on both pages, in the authority's own words, and an
// alarm is above all else.
func TestCertificatesOnPages(t *testing.T) {
	all, err := parsePages()
	if err != nil {
		t.Fatal(err)
	}
	state := certified()
	pages := map[string]any{
		"routes": routeTable{titles{"acme": "Acme AG"}, []postern.RouteState{state}, alarmsIn(state)},
		"route": routeView{
			RouteState: state, Title: "Acme AG", Alarms: alarmsIn(state), Addresses: recordsOf(state.Records, postern.PurposeAddress, false),
			Alias: recordsOf(state.Records, postern.PurposeAddress, true), CAA: recordsOf(state.Records, postern.PurposeCAA, false),
		},
	}
	for name, data := range pages {
		t.Run(name, func(t *testing.T) {
			body, err := all.execute(name, "live", data)
			if err != nil {
				t.Fatal(err)
			}
			text := string(body)
			for _, want := range []string{
				"Valid", "Waiting", "Late", "Expired", "Alarm", "6 May 2026", "urn:ietf:params:acme:error:rateLimited", "&lt;acme.example&gt;", "error:caa: forbidden",
				`role="alert"`, "Somebody else’s certificate was shown at erp.acme.example", "Gateway gw1 showed key 3f2a… in place of ours",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in %s", want, text)
				}
			}
			if at := strings.Index(text, `role="alert"`); at > strings.Index(text, "Ready") {
				t.Error("the alarm is below the rest")
			}
		})
	}
}

func TestRecordsOf(t *testing.T) {
	proof := []postern.DNSRecord{{Name: "_postern-challenge.x.example", Type: "TXT", Value: `"postern=s"`, Purpose: postern.PurposeProof}}
	if got := recordsOf(proof, postern.PurposeProof, false); len(got) != 1 || got[0] != (record{"TXT", "_postern-challenge.x.example", "postern=s"}) {
		t.Errorf("got %+v", got)
	}
	if got := recordsOf(certified().Records, postern.PurposeAddress, true); len(got) != 1 || got[0].Value != "acme.apps.example.com" {
		t.Errorf("got %+v", got)
	}
	if got := recordsOf(certified().Records, postern.PurposeAddress, false); len(got) != 1 || got[0].Type != "A" {
		t.Errorf("got %+v", got)
	}
}
