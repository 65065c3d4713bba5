package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"postern"
)

func TestIsPublic(t *testing.T) {
	for domain, want := range map[string]bool{
		"apps.acme.com": true, "acme.com": true, "apps.acme.co.uk": true, "xn--bcher-kva.de": true,
		"acme.duckdns.org": true, "acme.github.io": true, // below what somebody else gives away
		"apps.example.com": false, "example.org": false, "apps.myexample.com": true, "example.net.de": true,
		"postern.localhost": false, "localhost": false, "apps.test": false, "x.invalid": false, "apps.example": false,
		"office.local": false, "office.internal": false, "nas.home.arpa": false, "x.onion": false,
		"office.lan": false, "corp": false, "office.corp": false,
	} {
		if got := isPublic(domain); got != want {
			t.Errorf("%s: got %v, want %v", domain, got, want)
		}
	}
}

func TestACMEOptions(t *testing.T) {
	le := []postern.ACMEIssuer{{Directory: letsEncrypt}}
	own := []postern.ACMEIssuer{{Directory: "https://ca.test/d", Roots: []byte("r"), Profile: "p"}, {Directory: "https://b.test/d", Roots: []byte("r"), Profile: "p"}}
	for _, tt := range []struct {
		name   string
		o      certificateOptions
		domain string
		want   *postern.ACME
		err    string
	}{
		{"public name", certificateOptions{email: "a@b.de"}, "apps.acme.com", &postern.ACME{Issuers: le, Email: "a@b.de"}, ""},
		{"public name, private CA", certificateOptions{source: "private-ca", email: "a@b.de"}, "apps.acme.com", nil, ""},
		{"for documents", certificateOptions{}, "apps.example.com", nil, ""},
		{"for documents, insisting", certificateOptions{source: "acme"}, "apps.example.com", &postern.ACME{Issuers: le}, ""},
		{"directories", certificateOptions{directories: []string{"https://ca.test/d", "https://b.test/d"}, roots: []byte("r"), profile: "p"},
			"apps.test", &postern.ACME{Issuers: own}, ""},
		{"a profile for nobody", certificateOptions{profile: "p"}, "apps.test", nil, "an authority's settings are given"},
		{"the binding stays here", certificateOptions{keyID: "k", hmac: "h"}, "apps.acme.com", &postern.ACME{Issuers: le}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.o.settle(tt.domain)
			if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %+v, %v; want %+v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestCertificateNotes(t *testing.T) {
	a := &postern.ACME{Issuers: []postern.ACMEIssuer{{Directory: letsEncrypt}, {Directory: "https://ca.test:14000/dir"}}}
	for _, tt := range []struct {
		name string
		a    *postern.ACME
		port uint16
		want string
	}{
		{"private CA", nil, 8443, "private CA"},
		{"authorities", a, 443, "of acme-v02.api.letsencrypt.org, then ca.test:14000, "},
		{"another port", a, 8443, "no other port than 443: lead that to 8443"},
	} {
		if got := strings.Join(certificateNotes(tt.a, tt.port), "\n"); !strings.Contains(got, tt.want) || strings.Contains(got, "443: lead") != strings.Contains(tt.want, "443: lead") {
			t.Errorf("%s: got %q", tt.name, got)
		}
	}
}

func TestCertificateLines(t *testing.T) {
	now := time.Now()
	tab := &table{now: now}
	for _, tt := range []struct {
		name string
		h    postern.HostStatus
		want []string // the beginnings of lines
	}{
		{"waiting", postern.HostStatus{State: "waiting", Source: "acme", Error: "order at ca.test"},
			[]string{"certificate waiting, public authority; meanwhile the private CA's is shown", "order at ca.test"}},
		{"valid", postern.HostStatus{State: "valid", Source: "acme", NotAfter: now.Add(time.Hour), Renewal: now.Add(time.Minute)},
			[]string{"certificate valid, public authority, until "}},
		{"files", postern.HostStatus{State: "late", Source: "file", NotAfter: now}, []string{"certificate late, files, until "}},
	} {
		got := certificateLines(tab, tt.h, true)
		if len(got) != len(tt.want) {
			t.Errorf("%s: got %q", tt.name, got)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], tt.want[i]) {
				t.Errorf("%s: got %q, want %q", tt.name, got[i], tt.want[i])
			}
		}
	}
}
