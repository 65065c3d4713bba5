package node

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"postern"
)

func TestCertificateSources(t *testing.T) {
	ca := newTestCA(t)
	certFile, keyFile := ca.files("a.test")
	otherCert, otherKey := ca.files("b.test")
	tests := []struct {
		name        string
		service     Service
		field, says string // of the error; empty: none
	}{
		{"nothing said", Service{}, "", ""},
		{"public", Service{Certificate: SourceACME}, "", ""},
		{"private", Service{Certificate: SourceCA}, "", ""},
		{"files", Service{CertFile: certFile, KeyFile: keyFile}, "", ""},
		{"files, said so", Service{Certificate: SourceFile, CertFile: certFile, KeyFile: keyFile}, "", ""},
		{"no such source", Service{Certificate: "letsencrypt"}, "certificate", "want acme, private-ca or file"},
		{"files that are not there", Service{Certificate: SourceFile}, "cert_file", "want a certificate file"},
		{"one file", Service{CertFile: certFile}, "cert_file", "both"},
		{"files against what is said", Service{Certificate: SourceACME, CertFile: certFile, KeyFile: keyFile}, "certificate", "contradict"},
		{"another's key", Service{CertFile: certFile, KeyFile: otherKey}, "cert_file", "does not match"},
		{"one host from files", Service{Hosts: []HostCertificate{{Host: "b.test", CertFile: otherCert, KeyFile: otherKey}}}, "", ""},
		{"files for another host", Service{Hosts: []HostCertificate{{Host: "c.test", CertFile: otherCert, KeyFile: otherKey}}}, "hosts[0].cert_file", "not c.test"},
		{"a host that is none", Service{Hosts: []HostCertificate{{Host: "*.test", Certificate: SourceCA}}}, "hosts[0].host", ""},
		{"a host twice", Service{Hosts: []HostCertificate{{Host: "b.test", Certificate: SourceCA}, {Host: "b.test", Certificate: SourceACME}}}, "hosts[1].host", "twice"},
		{"a host without a source", Service{Hosts: []HostCertificate{{Host: "b.test"}}}, "hosts[0].certificate", "want"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.service.Handler = http.NotFoundHandler()
			_, err := newService(tt.service, discard)
			var wrong *postern.FieldError
			switch {
			case tt.field == "" && err != nil:
				t.Error(err)
			case tt.field != "" && (!errors.As(err, &wrong) || wrong.Field != tt.field || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("got %v, want %q about %q", err, tt.says, tt.field)
			}
		})
	}
}

// A host's own source counts before its service's.
func TestSourceOfHost(t *testing.T) {
	ca := newTestCA(t)
	certFile, keyFile := ca.files("b.test")
	svc, err := newService(Service{
		Handler: http.NotFoundHandler(), Certificate: SourceACME,
		Hosts: []HostCertificate{{Host: "b.test", CertFile: certFile, KeyFile: keyFile}, {Host: "c.test", Certificate: SourceCA}},
	}, discard)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"a.test": SourceACME, "b.test": SourceFile, "c.test": SourceCA} {
		if got, files := svc.sourceOf(host); got != want || (files != nil) != (want == SourceFile) {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

// Browsers take a connection for every name that its certificate covers, so none may
// cover two services, or other tenants' names.
func TestCertificateForTwoServices(t *testing.T) {
	ca := newTestCA(t)
	one, other := &service{Service: Service{Name: "one"}}, &service{Service: Service{Name: "other"}}
	tab := &table{base: "apps.test", judged: new(sync.Map), hosts: map[string]*service{
		"a.acme.test": one, "b.acme.test": other, "acme.apps.test": one, "erp.acme.apps.test": one,
	}}
	for _, tt := range []struct {
		names []string
		says  string // empty: it is good
	}{
		{[]string{"a.acme.test"}, ""},
		{[]string{"a.acme.test", "acme.apps.test", "elsewhere.test"}, ""},
		{[]string{"*.acme.apps.test"}, ""},
		{[]string{"a.acme.test", "b.acme.test"}, "for a.acme.test and for b.acme.test, which lead to two services"},
		{[]string{"*.acme.test"}, "two services"},
		{[]string{"acme.apps.test", "*.apps.test"}, "all tenants' names"},
	} {
		chain, key := ca.pair(tt.names...)
		cert, err := parseCertificate(chain, key, SourceFile)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it is remembered
			err := tab.exclusive(cert)
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q: got %v, want %q", tt.names, err, tt.says)
			}
		}
	}
}
