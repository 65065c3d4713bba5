package dnscheck

import (
	"strings"
	"testing"

	"postern"
)

func TestGrade(t *testing.T) {
	const zone = `
acme.apps.example.com.    CAA 128 issue "letsencrypt.org; accounturi=https://ca.test/1; validationmethods=tls-alpn-01"
acme.apps.example.com.    CAA 128 issuewild ";"
loose.apps.example.com.   CAA 0 issue "letsencrypt.org"
bare.apps.example.com.    A 192.0.2.1

acme.example.             CAA 0 issue "letsencrypt.org; accounturi=https://ca.test/2"
own.acme.example.         A 192.0.2.1
erp.acme.example.         CNAME acme.apps.example.com.
crm.acme.example.         CNAME bare.apps.example.com.
two.acme.example.         CNAME own.acme.example.
round.acme.example.       CNAME back.apps.example.com.
back.apps.example.com.    CNAME acme.example.
cdn.acme.example.         CNAME edge.cdn.test.
edge.cdn.test.            CAA 0 issue "ca.test; accounturi=https://ca.test/3"
wide.acme.example.        CNAME loose.apps.example.com.

any.example.              CAA 0 issue "letsencrypt.org"
mixed.example.            CAA 0 issue "letsencrypt.org; accounturi=https://ca.test/1"
mixed.example.            CAA 0 issue "ca.test; validationmethods=tls-alpn-01"
dns.example.              CAA 0 issue "ca.test; validationmethods=dns-01,dns-persist-01"
both.example.             CAA 0 issue "ca.test; validationmethods=dns-01,http-01"
mail.example.             CAA 0 iodef "mailto:x@mail.example"
wild.example.             CAA 0 issuewild ";"
never.example.            CAA 0 issue ";"
broken.example.           CAA 0 issue "%%%"
future.example.           CAA 128 tbs "x"
link.free.example.        CNAME bare.apps.example.com.
co.uk.                    CAA 0 issue "ca.test; accounturi=https://ca.test/9"
`
	tests := []struct {
		name string
		want Grade
		says []string
	}{
		{"acme.apps.example.com", GradeA, []string{"CAA at acme.apps.example.com lets only letsencrypt.org with account https://ca.test/1 by tls-alpn-01 issue.", "hosted name", "the operator's DNS decides"}},
		{"books.acme.apps.example.com", GradeA, nil},
		{"loose.apps.example.com", GradeNone, []string{"pins no account at letsencrypt.org", "whoever carries the traffic"}},
		{"bare.apps.example.com", GradeNone, []string{"No CAA record counts for bare.apps.example.com"}},

		{"own.acme.example", GradeB, []string{"CAA at acme.example lets only letsencrypt.org with account https://ca.test/2 issue.", "neither a gateway nor the operator"}},
		{"acme.example", GradeB, nil},
		{"gone.acme.example", GradeB, nil},
		{"two.acme.example", GradeB, nil}, // an alias at home
		{"dns.example", GradeB, []string{"by dns-01 or dns-persist-01"}},
		{"never.example", GradeB, []string{"lets nobody issue"}},
		{"broken.example", GradeB, []string{"lets nobody issue"}},
		{"future.example", GradeB, []string{"lets nobody issue"}},

		{"erp.acme.example", GradeC, []string{"by alias", "CAA records above erp.acme.example do not count", "the operator can"}},
		{"crm.acme.example", GradeC, []string{"There is an alias (CNAME) to bare.apps.example.com", "as soon as there are any", "the operator decides"}},
		{"cdn.acme.example", GradeC, []string{"who holds the DNS of edge.cdn.test decides", "who holds it can"}},
		{"round.acme.example", GradeC, []string{"back.apps.example.com"}},
		{"x.co.uk", GradeC, []string{"That is the DNS of co.uk, not of x.co.uk"}},

		{"any.example", GradeNone, []string{"pins no account at letsencrypt.org"}},
		{"wide.acme.example", GradeNone, []string{"pins no account"}},
		{"mixed.example", GradeNone, []string{"pins no account at ca.test"}},
		{"both.example", GradeNone, []string{"pins no account at ca.test"}},
		{"mail.example", GradeNone, []string{"does not restrict who may issue"}},
		{"wild.example", GradeNone, []string{"does not restrict who may issue"}},
		{"link.free.example", GradeNone, []string{"No CAA record counts", "There is an alias (CNAME) to bare.apps.example.com"}},
		{"nothing.test", GradeNone, nil},
	}
	_, r := newServer(t, zone)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := r.CAA(t.Context(), tt.name)
			if err != nil {
				t.Fatal(err)
			}
			for _, base := range []string{"apps.example.com", "Apps.Example.com."} {
				got, says := s.Grade(base)
				if got != tt.want {
					t.Errorf("grade %v, want %v: %s", got, tt.want, says)
				}
				for _, want := range tt.says {
					if !strings.Contains(says, want) {
						t.Errorf("says %q, want %q in it", says, want)
					}
				}
			}
		})
	}
}

func TestRecord(t *testing.T) {
	tests := []struct {
		name, host, authority, account, want string
	}{
		{"plain", "Acme.apps.example.com.", "LetsEncrypt.org", "https://acme-v02.api.letsencrypt.org/acme/acct/1", `128 issue "letsencrypt.org; accounturi=https://acme-v02.api.letsencrypt.org/acme/acct/1; validationmethods=tls-alpn-01"`},
		{"any account", "acme.apps.example.com", "ca.test", "", `128 issue "ca.test; validationmethods=tls-alpn-01"`},
		{"a parameter smuggled in", "acme.apps.example.com", "ca.test", "https://a/1; validationmethods=http-01", `128 issue "ca.test; accounturi=https://a/1%3B%20validationmethods=http-01; validationmethods=tls-alpn-01"`},
		{"quotes", "acme.apps.example.com", "ca.test", "https://a/\"\\é\n", `128 issue "ca.test; accounturi=https://a/\"\\%C3%A9%0A; validationmethods=tls-alpn-01"`},
		{"no authority", "acme.apps.example.com", "", "https://a/1", `128 issue ";"`},
		{"an authority that is none", "acme.apps.example.com", "ca.test; x=y", "https://a/1", `128 issue ";"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Record(tt.host, tt.authority, tt.account)
			if want := (postern.DNSRecord{Name: "acme.apps.example.com", Type: "CAA", Value: tt.want, Purpose: "caa"}); got != want {
				t.Errorf("Record = %+v, want %+v", got, want)
			}
			// It means that in a zone, and over the wire.
			_, r := newServer(t, got.Name+". CAA "+got.Value+"\n"+got.Name+". CAA "+NoWildcards(tt.host).Value+"\n")
			s, err := r.CAA(t.Context(), tt.host)
			if err != nil {
				t.Fatal(err)
			}
			wish := Wish{Authority: tt.authority, Account: encode(tt.account), Method: "tls-alpn-01"}
			if err := s.Permits(wish); (err == nil) != (tt.want != `128 issue ";"`) {
				t.Errorf("Permits = %v", err)
			}
			for _, other := range []Wish{
				{Authority: "other.test", Account: tt.account, Method: "tls-alpn-01"},
				{Authority: tt.authority, Account: tt.account, Method: "http-01"},
				{Authority: tt.authority, Account: tt.account, Method: "tls-alpn-01", Wildcard: true},
			} {
				if s.Permits(other) == nil {
					t.Errorf("permits %+v", other)
				}
			}
		})
	}
}
