package dnscheck

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"postern/internal/dnscheck/dnstest"
)

// words lists records in one line.
func words(records []CAA) string {
	var list []string
	for _, c := range records {
		list = append(list, c.String())
	}
	return strings.Join(list, ", ")
}

// What RFC 8659 has in section 3, and the alias cases of section 7.
func TestCAA(t *testing.T) {
	const zone = `
x.y.z.     A     192.0.2.1
a.b.c.     A     192.0.2.1
b.c.       CAA   0 issue "example.com"
c.         CAA   0 issue ";"

alone.example.       CAA   0 issue "ca.example"

; The target's own records count as the name's.
erp.acme.example.    CNAME acme.apps.test.
acme.example.        CAA   0 issue "customer.example"
acme.apps.test.      CAA   128 ISSUE "operator.example"

; What is above the target does not: climbing goes on above the name.
www.acme.example.    CNAME node.apps.test.
node.apps.test.      A     192.0.2.1
apps.test.           CAA   0 issue "apps.example"

; A target without anything, and one that does not exist.
bare.other.example.  CNAME node.apps.test.
dead.acme.example.   CNAME gone.apps.test.

; A name below an alias, which leads climbing through it.
under.erp.acme.example. A  192.0.2.1

; Two aliases in a row.
far.acme.example.    CNAME near.acme.example.
near.acme.example.   CNAME acme.apps.test.

; Bytes that nobody should print.
odd.example.         CAA   0 issue "a\"b\\c\200\010"
odd.example.         CAA   0 iodef "mailto:x@odd.example"
`
	tests := []struct{ name, found, via, records, queries string }{
		{"x.y.z", "", "", "", "x.y.z y.z z"},
		{"a.b.c", "b.c", "", `0 issue "example.com"`, "a.b.c b.c"},
		{"b.c", "b.c", "", `0 issue "example.com"`, "b.c"},
		{"*.a.b.c", "b.c", "", `0 issue "example.com"`, "a.b.c b.c"},
		{"A.B.C.", "b.c", "", `0 issue "example.com"`, "a.b.c b.c"},
		{"gone.alone.example", "alone.example", "", `0 issue "ca.example"`, "gone.alone.example alone.example"},
		{"erp.acme.example", "acme.apps.test", "acme.apps.test", `128 ISSUE "operator.example"`, "erp.acme.example"},
		{"www.acme.example", "acme.example", "node.apps.test", `0 issue "customer.example"`, "www.acme.example node.apps.test acme.example"},
		{"bare.other.example", "", "node.apps.test", "", "bare.other.example node.apps.test other.example example"},
		{"dead.acme.example", "acme.example", "gone.apps.test", `0 issue "customer.example"`, "dead.acme.example acme.example"},
		{"under.erp.acme.example", "acme.apps.test", "acme.apps.test", `128 ISSUE "operator.example"`, "under.erp.acme.example erp.acme.example"},
		{"far.acme.example", "acme.apps.test", "near.acme.example acme.apps.test", `128 ISSUE "operator.example"`, "far.acme.example"},
		{"odd.example", "odd.example", "", `0 issue "a\"b\\c\200\010", 0 iodef "mailto:x@odd.example"`, "odd.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, r := newServer(t, zone)
			for _, shy := range []bool{false, true} {
				if shy {
					server.Lie(dnstest.Shy)
				}
				before := len(server.Queries())
				got, err := r.CAA(t.Context(), tt.name)
				if err != nil {
					t.Fatal(err)
				}
				asked := strings.ToLower(strings.TrimPrefix(strings.TrimSuffix(tt.name, "."), "*."))
				if got.Asked != asked || got.Found != tt.found || strings.Join(got.Via, " ") != tt.via || words(got.Records) != tt.records {
					t.Errorf("CAA = %+v", got)
				}
				if queries := strings.ReplaceAll(strings.Join(server.Queries()[before:], " "), "CAA ", ""); queries != tt.queries && !shy {
					t.Errorf("asked %v, want %v", queries, tt.queries)
				}
			}
		})
	}
	t.Run("bytes are kept", func(t *testing.T) {
		_, r := newServer(t, zone)
		got, err := r.CAA(t.Context(), "odd.example")
		if want := "a\"b\\c\xc8\n"; err != nil || got.Records[0].Value != want {
			t.Errorf("CAA = %q, %v; want %q", got.Records, err, want)
		}
	})
}

// No answer at any level is an error, and never "none".
func TestCAAWithoutAnswer(t *testing.T) {
	const zone = "a.b.example. A 192.0.2.1\nlink.b.example. CNAME target.test.\nc.example. CAA 0 issue \"ca.test\"\n"
	tests := []struct{ name, fail, want string }{
		{"a.b.example", "a.b.example", "SERVFAIL for CAA of a.b.example"},
		{"a.b.example", "b.example", "SERVFAIL for CAA of b.example"},
		{"a.b.example", "example", "SERVFAIL for CAA of example"},
		{"link.b.example", "target.test", "SERVFAIL for CAA of target.test"},
		{"c.example", "example", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name+" fails at "+tt.fail, func(t *testing.T) {
			server, r := newServer(t, zone)
			fail := dnstest.Fail(tt.fail, dns.RcodeServerFailure)
			server.Lie(func(q dns.Question, tcp bool, m *dns.Msg) *dns.Msg { return fail(q, tcp, dnstest.Shy(q, tcp, m)) })
			if tt.fail == "target.test" {
				server.SetZone(t, zone+"target.test. A 192.0.2.1\n")
			}
			got, err := r.CAA(t.Context(), tt.name)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			want := "who may issue for " + tt.name + " is unknown, so no authority may: DNS server " + server.Addr + " answered " + tt.want
			if err == nil || err.Error() != want || errors.Is(err, ErrNone) {
				t.Errorf("CAA = %+v, %v; want %v", got, err, want)
			}
		})
	}
}

func TestCAABadInput(t *testing.T) {
	server, r := newServer(t, "")
	for _, name := range []string{"", ".", "*", "*.", "a..b", "192.0.2.1", "a b.example", "_x.example", "*.*.example"} {
		if got, err := r.CAA(t.Context(), name); err == nil {
			t.Errorf("CAA(%q) = %+v", name, got)
		}
	}
	if got := server.Queries(); len(got) > 0 {
		t.Errorf("asked %q", got)
	}
	server.Lie(lieAt(t, "a.example.", slices.Repeat([]string{`a.example. CAA 0 issue ";"`}, maxRecords+1)))
	if got, err := r.CAA(t.Context(), "a.example"); err == nil {
		t.Errorf("CAA of too many records = %+v", got)
	}
	server.Lie(change(func(m *dns.Msg) {
		m.Rcode = dns.RcodeSuccess
		m.Answer = []dns.RR{&dns.RFC3597{
			Hdr:   dns.RR_Header{Name: "a.example.", Rrtype: dns.TypeCAA, Class: dns.ClassINET},
			Rdata: "00056973737565" + strings.Repeat("78", maxValue+1),
		}}
	}))
	if got, err := r.CAA(t.Context(), "a.example"); err == nil || !strings.Contains(err.Error(), "a CAA record of a.example has 4097 bytes") {
		t.Errorf("CAA of a long record = %.100v, %v", got.Records, err)
	}
	// A record without a tag is nobody's property.
	server.Lie(change(func(m *dns.Msg) {
		m.Rcode = dns.RcodeSuccess
		m.Answer = []dns.RR{&dns.RFC3597{
			Hdr:   dns.RR_Header{Name: "a.example.", Rrtype: dns.TypeCAA, Class: dns.ClassINET},
			Rdata: "8000",
		}}
	}))
	got, err := r.CAA(t.Context(), "a.example")
	if err != nil || got.Permits(Wish{Authority: "ca.test"}) == nil {
		t.Errorf("CAA of a record without a tag = %+v, %v", got, err)
	}
}
