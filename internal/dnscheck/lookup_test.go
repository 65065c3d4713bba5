package dnscheck

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"postern/internal/dnscheck/dnstest"
)

func TestTruncated(t *testing.T) {
	var zone strings.Builder
	for i := range 40 {
		fmt.Fprintf(&zone, "a.example. TXT \"%d %s\"\n", i, strings.Repeat("x", 200))
	}
	for _, lie := range []dnstest.Lie{nil, dnstest.Truncate} {
		server, r := newServer(t, zone.String())
		server.Lie(lie)
		got, err := r.TXT(t.Context(), "a.example")
		if err != nil || len(got) != 40 {
			t.Errorf("TXT gave %d texts, %v", len(got), err)
		}
		if got, want := server.Queries(), []string{"TXT a.example", "TXT a.example tcp"}; !slices.Equal(got, want) {
			t.Errorf("queries %q, want %q", got, want)
		}
	}
}

// aliases is a zone of n aliases in a row from a0.example to a TXT record.
func aliases(n int) string {
	var zone strings.Builder
	for i := range n {
		fmt.Fprintf(&zone, "a%d.example. CNAME a%d.example.\n", i, i+1)
	}
	fmt.Fprintf(&zone, "a%d.example. TXT \"x\"\n", n)
	return zone.String()
}

// DNS answers that lead nowhere, or lie, with aliases in one answer and one by one.
func TestLies(t *testing.T) {
	tests := []struct {
		name, zone string
		lie        []string // in place of the answer section
		want       string   // the text, or the end of the error
	}{
		{"16 aliases", aliases(16), nil, "x"},
		{"17 aliases", aliases(17), nil, "more than 16 aliases"},
		{"a circle", "a0.example. CNAME b.example.\nb.example. CNAME c.example.\nc.example. CNAME A0.example.\n", nil, "the aliases lead round in a circle at a0.example"},
		{"its own alias", "a0.example. CNAME a0.example.\n", nil, "the aliases lead round in a circle at a0.example"},
		{"another's record", "", []string{`b.example. TXT "evil"`}, "has no TXT record"},
		{"another's record beside", "", []string{`b.example. TXT "evil"`, `A0.Example. TXT "x"`}, "x"},
		{"an alias of another", "", []string{`b.example. CNAME c.example.`, `c.example. TXT "evil"`}, "has no TXT record"},
		{"another type", "", []string{`a0.example. A 192.0.2.1`, `a0.example. CAA 0 issue ";"`}, "has no TXT record"},
		{"another class", "", []string{`a0.example. CH TXT "evil"`}, "has no TXT record"},
		{"two aliases", "", []string{`a0.example. CNAME b.example.`, `a0.example. CNAME c.example.`}, "a0.example is an alias of both b.example and c.example"},
		{"one alias twice", `b.example. TXT "x"`, []string{`a0.example. CNAME b.example.`, `a0.example. CNAME B.EXAMPLE.`}, "x"},
		{"an alias and more", "", []string{`a0.example. CNAME b.example.`, `a0.example. TXT "x"`}, "a0.example is an alias and has records of its own"},
		{"backwards", "", []string{`c.example. TXT "x"`, `b.example. CNAME c.example.`, `a0.example. CNAME b.example.`}, "x"},
		{"too many", "", slices.Repeat([]string{`a0.example. TXT "x"`}, maxRecords+1), "257 records, more than 256"},
		{"too long", "", []string{`a0.example. TXT` + strings.Repeat(` "`+strings.Repeat("x", 250)+`"`, 17)}, "a TXT record of a0.example has 4250 bytes, more than 4096"},
		{"odd alias", "", []string{`a0.example. CNAME b\200\010.example.`, `b\200\010.example. CNAME a0.example.`}, "the aliases lead round in a circle at a0.example"},
		{"odd alias to nothing", "", []string{`a0.example. CNAME b\200\010.example.`}, `b\200\010.example, which a0.example is an alias of, does not exist`},
	}
	for _, tt := range tests {
		for _, shy := range []bool{false, true} {
			if shy && tt.lie != nil {
				continue
			}
			t.Run(fmt.Sprintf("%s/shy=%v", tt.name, shy), func(t *testing.T) {
				server, r := newServer(t, tt.zone+"\na0.example. HINFO x y\n")
				if shy {
					server.Lie(dnstest.Shy)
				}
				if tt.lie != nil {
					server.Lie(lieAt(t, "a0.example.", tt.lie))
				}
				got, err := r.TXT(t.Context(), "a0.example")
				words := strings.Join(got, " ")
				if err != nil {
					words = err.Error()
				}
				if !strings.Contains(words, tt.want) {
					t.Errorf("TXT = %q, %v; want %q", got, err, tt.want)
				}
				if strings.ContainsFunc(words, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("not fit to be shown: %q", words)
				}
			})
		}
	}
}

// lieAt gives an answer section of one's own for one name.
func lieAt(t *testing.T, name string, section []string) dnstest.Lie {
	t.Helper()
	var rrs []dns.RR
	for _, s := range section {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return func(q dns.Question, _ bool, m *dns.Msg) *dns.Msg {
		if q.Name == name {
			m.Answer, m.Rcode = nil, dns.RcodeSuccess
			for _, rr := range rrs {
				m.Answer = append(m.Answer, dns.Copy(rr)) // packing writes to it
			}
		}
		return m
	}
}

// A name that does not exist has no records, and an answer cannot say both.
func TestRecordsOfNoName(t *testing.T) {
	server, r := newServer(t, `a.example. TXT "x"`)
	server.Lie(change(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }))
	got, err := r.TXT(t.Context(), "a.example")
	if err == nil || !strings.HasSuffix(err.Error(), "there are records of a.example, and yet no such name") {
		t.Errorf("TXT = %q, %v", got, err)
	}
}

// Whatever bytes come: no panic, and nothing that was not on the way from the
// name to the records.
func FuzzAnswer(f *testing.F) {
	query := new(dns.Msg).SetQuestion("a.example.", dns.TypeTXT)
	query.Id = 7
	seed := func(code int, section ...string) {
		m := new(dns.Msg).SetReply(query)
		m.Rcode = code
		for _, s := range section {
			rr, err := dns.NewRR(s)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
		f.Add(wire[:len(wire)-1])
	}
	seed(0)
	seed(3)
	seed(0, `a.example. TXT "x" "\200"`)
	seed(0, `a.example. CNAME b.example.`, `b.example. CNAME A.example.`)
	seed(0, `a.example. CNAME b\000.example.`, `b\000.example. TXT "x\\"`, `c.example. TXT "evil"`)
	f.Fuzz(func(t *testing.T, wire []byte) {
		answer, err := match(query, wire)
		if err != nil {
			return
		}
		_ = reason(answer)
		c := chain{at: "a.example", seen: map[string]bool{"a.example": true}}
		records, err := c.follow(answer.Answer, dns.TypeTXT)
		if len(c.via) > maxAliases || len(records) > maxRecords {
			t.Fatalf("%d aliases, %d records", len(c.via), len(records))
		}
		if err != nil {
			return
		}
		for _, rr := range records {
			txt, ok := rr.(*dns.TXT)
			if !ok || fold(rr.Header().Name) != c.at || len(c.via) > 0 && c.via[len(c.via)-1] != c.at {
				t.Fatalf("%v after %v", rr, c.via)
			}
			// What is unescaped is what was on the wire.
			for _, s := range txt.Txt {
				if got := escape(unescape(s)); got != s {
					t.Fatalf("%q became %q", s, got)
				}
			}
		}
	})
}

// An answer cut in the middle of a record still sends one to TCP.
func TestCutInsideRecord(t *testing.T) {
	query := new(dns.Msg).SetQuestion("a.example.", dns.TypeTXT)
	m := new(dns.Msg).SetReply(query)
	rr, err := dns.NewRR(`a.example. TXT "some text"`)
	if err != nil {
		t.Fatal(err)
	}
	m.Answer = []dns.RR{rr}
	for _, truncated := range []bool{false, true} {
		m.Truncated = truncated
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got, err := match(query, wire[:len(wire)-3])
		if (err == nil) != truncated || truncated && !got.Truncated {
			t.Errorf("match with truncated = %v: %v, %v", truncated, got, err)
		}
	}
}
