package main

import (
	"strings"
	"testing"
	"time"

	"postern"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// certificate returns one that ends after days.
func certificate(state string, days int) postern.RouteCertificate {
	return postern.RouteCertificate{Node: "office", HostStatus: postern.HostStatus{
		State: state, Source: postern.SourceACME, Issuer: "Let's Encrypt", NotAfter: noon.AddDate(0, 0, days).Add(time.Hour),
	}}
}

func TestCertificateWord(t *testing.T) {
	valid, soon, late := certificate(postern.CertificateValid, 41), certificate(postern.CertificateValid, 1), certificate(postern.CertificateLate, 3)
	waiting, expired, alarm := certificate(postern.CertificateWaiting, 0), certificate(postern.CertificateExpired, -1), certificate(postern.CertificateValid, 50)
	waiting.NotAfter, alarm.Alarm = time.Time{}, "another key"
	tests := []struct {
		want string
		all  []postern.RouteCertificate
	}{
		{"-", nil},
		{"acme, 41 days", []postern.RouteCertificate{valid}},
		{"acme, 1 day", []postern.RouteCertificate{valid, soon}},
		{"waiting", []postern.RouteCertificate{valid, waiting}},
		{"late, 3 days", []postern.RouteCertificate{waiting, late, valid}},
		{"expired", []postern.RouteCertificate{late, expired, waiting}},
		{"ALARM", []postern.RouteCertificate{expired, alarm}},
	}
	for _, tt := range tests {
		if got := certificateWord(noon, tt.all); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestCheckRows(t *testing.T) {
	check := postern.RouteCheck{Findings: []postern.Finding{
		{Subject: "proof", Result: postern.FindingOK, Detail: "it is there"},
		{Subject: "address", Result: postern.FindingMissing, Detail: "it leads nowhere", Hint: "lead it here"},
		{Subject: "caa", Result: postern.FindingWarning, Detail: "anybody may issue"},
		{Subject: "certificate", Result: postern.FindingError, Detail: "it has expired"},
		{Subject: "certificate", Result: postern.FindingError, Detail: "so has that"},
	}}
	text := &table{now: noon}
	checkRows(text, check)
	want := `OK       proof        it is there
MISSING  address      it leads nowhere
                      hint: lead it here
WARNING  caa          anybody may issue
ERROR    certificate  it has expired
ERROR    certificate  so has that
`
	if got := text.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := strings.Join(lackingIn(check), " "); got != "address certificate" {
		t.Errorf("lacking: got %q", got)
	}
}

func TestPrintRecords(t *testing.T) {
	proof := postern.DNSRecord{Name: "_postern-challenge.erp.acme.example", Type: "TXT", Value: `"postern=s"`, Purpose: postern.PurposeProof}
	address := postern.DNSRecord{Name: "erp.acme.example", Type: "A", Value: "203.0.113.7", Purpose: postern.PurposeAddress}
	alias := postern.DNSRecord{Name: "erp.acme.example", Type: "CNAME", Value: "acme.apps.example.com.", Purpose: postern.PurposeAddress}
	caa := postern.DNSRecord{Name: "erp.acme.example", Type: "CAA", Value: `128 issuewild ";"`, Purpose: postern.PurposeCAA}
	tests := []struct {
		name    string
		records []postern.DNSRecord
		only    []string
		want    string
	}{
		{"all", []postern.DNSRecord{proof, address, alias, caa}, nil, `; That the name is acme's. Nothing is served there before this is seen; then it may go.
_postern-challenge.erp.acme.example.  IN  TXT    "postern=s"

; Where it leads.
erp.acme.example.                     IN  A      203.0.113.7
; Or, in place of the addresses, an alias: it follows the gateways when they move, but then
; the operator's CAA records count and not yours (RFC 8659, section 3).
;erp.acme.example.                    IN  CNAME  acme.apps.example.com.

; Recommended, in the name's own zone: nobody but the node's account gets a certificate.
erp.acme.example.                     IN  CAA    128 issuewild ";"
`},
		{"the proof alone", []postern.DNSRecord{proof, alias}, []string{postern.PurposeProof}, `; That the name is acme's. Nothing is served there before this is seen; then it may go.
_postern-challenge.erp.acme.example.  IN  TXT    "postern=s"
`},
		{"no addresses, no account", []postern.DNSRecord{alias}, nil, `; Where it leads. In place of the alias, A and AAAA records with the gateways' addresses leave
; it to your own CAA records who may issue certificates.
erp.acme.example.  IN  CNAME  acme.apps.example.com.

; Who may issue certificates: ` + "`postern routes check erp.acme.example`" + ` shows the CAA records to add
; as soon as a node has an account at a certificate authority.
`},
		{"nothing", nil, []string{postern.PurposeAddress}, "; Where it leads: A and AAAA records with the addresses of the gateways.\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			printRecords(&got, postern.RouteState{Host: "erp.acme.example", Tenant: "acme", Records: tt.records}, tt.only)
			if got.String() != tt.want {
				t.Errorf("got\n%swant\n%s", got.String(), tt.want)
			}
		})
	}
}
