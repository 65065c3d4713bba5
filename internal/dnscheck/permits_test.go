package dnscheck

import (
	"regexp"
	"strings"
	"testing"
)

// set is records as in a zone file, such as `0 issue "ca.test"`, at example.com.
func set(t *testing.T, records ...string) CAASet {
	t.Helper()
	s := CAASet{Asked: "example.com", Found: "example.com"}
	for _, r := range records {
		flag, rest, _ := strings.Cut(r, " ")
		tag, value, ok := strings.Cut(rest, " ")
		if !ok {
			t.Fatalf("record %q", r)
		}
		c := CAA{Tag: tag, Value: unescape(strings.Trim(value, `"`))}
		if flag == "128" {
			c.Flag = critical
		}
		s.Records = append(s.Records, c)
	}
	if len(records) == 0 {
		s.Found = ""
	}
	return s
}

const (
	account1 = "https://example.net/account/1234"
	account2 = "https://example.net/account/2345"
)

func TestPermits(t *testing.T) {
	type wishes map[Wish]string // and what is said, "" if permitted
	ca1, ca2 := Wish{Authority: "ca1.example.net"}, Wish{Authority: "ca2.example.org"}
	wild := func(w Wish) Wish { w.Wildcard = true; return w }
	net := func(account, method string) Wish {
		return Wish{Authority: "example.net", Account: account, Method: method}
	}
	const nobody = "CAA at example.com lets nobody issue"
	const only = "CAA at example.com lets only "
	malformed := wishes{ca1: nobody + ": the value \"", Wish{}: nobody, Wish{Authority: "%%%%%"}: nobody}

	tests := []struct {
		name    string
		records []string
		wishes  wishes
	}{
		// RFC 8659, sections 3 and 4.
		{"no records", nil, wishes{ca1: "", wild(ca1): "", {}: ""}},
		{"two issuers", []string{`0 issue "ca1.example.net"`, `0 issue "ca2.example.org"`},
			wishes{ca1: "", ca2: "", wild(ca1): "", {Authority: "ca3.test"}: only + "ca1.example.net and ca2.example.org issue, not ca3.test"}},
		{"nobody", []string{`0 issue ";"`}, wishes{ca1: nobody, wild(ca1): nobody + " for wildcards", {}: nobody}},
		{"nobody, empty", []string{`0 issue ""`}, wishes{ca1: nobody, {}: nobody}},
		{"nobody, blank", []string{`0 issue " ; "`}, wishes{ca1: nobody}},
		{"malformed", []string{`0 issue "%%%%%"`}, malformed},
		{"additive", []string{`0 issue ";"`, `0 issue "ca1.example.net"`, `0 issue "%%%%%"`}, wishes{ca1: "", ca2: only}},
		{"a parameter of the authority's own", []string{`0 issue "ca1.example.net; account=230123"`}, wishes{ca1: "", ca2: only}},
		{"wild", []string{`0 issue "ca1.example.net"`, `0 issuewild "ca2.example.org"`},
			wishes{ca1: "", wild(ca2): "", ca2: only + "ca1.example.net issue, not", wild(ca1): only + "ca2.example.org issue for wildcards, not ca1.example.net"}},
		{"wild2", []string{`0 issue "ca1.example.net"`}, wishes{ca1: "", wild(ca1): "", wild(ca2): only}},
		{"wild3", []string{`0 issuewild "ca2.example.org"`, `0 issue ";"`}, wishes{wild(ca2): "", wild(ca1): only, ca1: nobody, ca2: nobody}},
		{"issuewild alone", []string{`0 issuewild "ca2.example.org"`}, wishes{ca1: "", ca2: "", wild(ca2): "", wild(ca1): only}},
		{"no wildcards", []string{`0 issue "ca1.example.net"`, `0 issuewild ";"`}, wishes{ca1: "", wild(ca1): nobody + " for wildcards"}},
		{"iodef alone", []string{`0 iodef "mailto:security@example.com"`}, wishes{ca1: "", wild(ca1): ""}},
		{"critical iodef", []string{`128 iodef "mailto:security@example.com"`}, wishes{ca1: ""}},
		{"unknown tag", []string{`0 tbs "Unknown"`}, wishes{ca1: ""}},
		{"critical unknown tag", []string{`0 issue "ca1.example.net"`, `128 tbs "Unknown"`},
			wishes{ca1: nobody + `: it holds the critical property "tbs", which no authority knows`, wild(ca1): nobody, ca2: nobody}},
		{"critical unknown tag beside nothing", []string{`128 tbs "Unknown"`}, wishes{ca1: nobody}},
		{"critical issue", []string{`128 issue "ca1.example.net"`}, wishes{ca1: "", ca2: only}},
		{"case", []string{`128 IsSuE "CA1.Example.NET"`}, wishes{ca1: "", {Authority: "cA1.example.net"}: "", ca2: only}},
		{"no part of a name", []string{`0 issue "example.net"`}, wishes{ca1: only, {Authority: "net"}: only, {Authority: "example.net"}: ""}},

		// RFC 8657, appendix A.
		{"two accounts", []string{`0 issue "example.net; accounturi=` + account1 + `"`, `0 issue "example.net; accounturi=` + account2 + `"`},
			wishes{net(account1, "x"): "", net(account2, ""): "", net("", "x"): only,
				net(account1+"5", "tls-alpn-01"): only + "example.net with account " + account1 + " and example.net with account " + account2 + " issue, not example.net with account " + account1 + "5 by tls-alpn-01"}},
		{"two methods", []string{`0 issue "example.net; validationmethods=dns-01,xyz-01"`},
			wishes{net("", "dns-01"): "", net(account1, "xyz-01"): "", net("", "dns-0"): only, net("", ""): only,
				net("", "http-01"): only + "example.net by dns-01 or xyz-01 issue, not example.net by http-01"}},
		{"two methods, two records", []string{`0 issue "example.net; validationmethods=dns-01"`, `0 issue "example.net; validationmethods=xyz-01"`},
			wishes{net("", "dns-01"): "", net("", "xyz-01"): "", net("", "http-01"): only}},
		{"a method each", []string{`0 issue "example.net; accounturi=` + account1 + `; validationmethods=dns-01"`, `0 issue "example.net; accounturi=` + account2 + `; validationmethods=http-01"`},
			wishes{net(account1, "dns-01"): "", net(account2, "http-01"): "", net(account1, "http-01"): only, net(account2, "dns-01"): only}},
		{"the authority's own method", []string{`0 issue "example.net; validationmethods=dns-01,ca-foo"`}, wishes{net("", "ca-foo"): "", net("", "foo"): only}},
		{"another authority's account", []string{`0 issue "ca1.example.net; accounturi=` + account1 + `"`}, wishes{net(account1, ""): only}},

		// RFC 8657, section 3, and what is malformed beyond it.
		{"accounturi twice", []string{`0 issue "example.net; accounturi=` + account1 + `; accounturi=` + account1 + `"`},
			wishes{net(account1, ""): nobody + ": one record for example.net has two parameters accounturi"}},
		{"accounturi that is none", []string{`0 issue "example.net; accounturi=1234"`}, wishes{net("1234", ""): nobody}},
		{"accounturi empty", []string{`0 issue "example.net; accounturi="`}, wishes{net("", ""): nobody}},
		{"validationmethods twice", []string{`0 issue "example.net; validationmethods=dns-01; validationmethods=dns-01"`}, wishes{net("", "dns-01"): nobody}},
		{"validationmethods empty", []string{`0 issue "example.net; validationmethods="`}, wishes{net("", ""): nobody, net("", "dns-01"): nobody}},
		{"validationmethods malformed", []string{`0 issue "example.net; validationmethods=dns-01,,x"`}, wishes{net("", "dns-01"): nobody}},
		{"beside one that is well", []string{`0 issue "example.net; accounturi="`, `0 issue "example.net"`}, wishes{net("", ""): ""}},
		{"wildcards by account", []string{`0 issue "example.net"`, `0 issuewild "example.net; accounturi=` + account1 + `"`},
			wishes{net("", ""): "", wild(net(account1, "")): "", wild(net("", "")): only}},
		{"no value with control bytes", []string{`0 issue "example.net; a=\007"`}, wishes{net("", ""): nobody + `: the value "example.net; a=\007" is malformed`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := set(t, tt.records...)
			for w, want := range tt.wishes {
				err := s.Permits(w)
				if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
					t.Errorf("Permits(%+v) = %v, want %v", w, err, want)
				}
			}
		})
	}
}

func TestPermitsByAlias(t *testing.T) {
	s := CAASet{Asked: "erp.acme.example", Found: "acme.apps.test", Via: []string{"acme.apps.test"}, Records: []CAA{{0, "issue", "ca.test"}}}
	err := s.Permits(Wish{Authority: "other.test"})
	if want := "CAA at acme.apps.test (by alias, for erp.acme.example) lets only ca.test issue, not other.test"; err == nil || err.Error() != want {
		t.Errorf("Permits = %v, want %v", err, want)
	}
}

// What strangers publish does not fill a person's screen.
func TestPermitsIsShort(t *testing.T) {
	var records []string
	for range 100 {
		records = append(records, `0 issue "`+strings.Repeat("x", 3000+len(records))+`; accounturi=a:`+strings.Repeat("y", 4000)+`"`)
	}
	if err := set(t, records...).Permits(Wish{Authority: "ca.test"}); err == nil || len(err.Error()) > 4000 {
		t.Errorf("%d bytes", len(err.Error()))
	}
}

// issueValue is the grammar of RFC 8659, section 4.2, as one expression.
var issueValue = func() *regexp.Regexp {
	const (
		label     = `[A-Za-z0-9](?:-*[A-Za-z0-9])*`
		issuer    = label + `(?:\.` + label + `)*`
		parameter = label + `[ \t]*=[ \t]*[\x21-\x3a\x3c-\x7e]*`
	)
	return regexp.MustCompile(`\A[ \t]*(?:` + issuer + `[ \t]*)?(?:;[ \t]*(?:` + parameter + `(?:[ \t]*;[ \t]*` + parameter + `)*[ \t]*)?)?\z`)
}()

func TestIssueValue(t *testing.T) {
	tests := []struct {
		value string
		valid bool
	}{
		{"", true}, {";", true}, {" \t;\t ", true}, {"ca.test", true}, {"ca.test;", true}, {" ca.test ; ", true},
		{"a", true}, {"a-b--c.d9", true}, {"ca.test;a=b", true}, {"ca.test ; a = b ; c = d ", true}, {";a=", true},
		{"ca.test; a=b=c\"\\'", true}, {"; a=b", true}, {"ca.test;a-b=1;c=", true},
		{"ca.test.", false}, {".ca.test", false}, {"ca..test", false}, {"-a", false}, {"a-", false}, {"a_b", false},
		{"ca test", false}, {"ca.test; a", false}, {"ca.test; a=b;", false}, {"ca.test;;", false}, {"ca.test; ;a=b", false},
		{"ca.test; =b", false}, {"ca.test; a=b c", false}, {"ca.test; a=b\x00", false}, {"ca.test\n", false},
		{"ca.test; a=\x7f", false}, {"ca.test; a=\xc8", false}, {"ca.test; a-=b", false}, {"\xc8", false}, {"ca.test a=b", false},
	}
	for _, tt := range tests {
		if _, _, err := parseIssueValue(tt.value); (err == nil) != tt.valid {
			t.Errorf("parseIssueValue(%q): %v, want valid = %v", tt.value, err, tt.valid)
		}
		if issueValue.MatchString(tt.value) != tt.valid {
			t.Errorf("the oracle is wrong about %q", tt.value)
		}
	}
}

// The parser takes what the grammar does, and what it read means the same when
// written again.
func FuzzIssueValue(f *testing.F) {
	for _, s := range []string{"", ";", "ca.test; accounturi=https://a/1; validationmethods=dns-01,x", " a-b ; c = d ", "%%", "a;;", "a; b=c;", "a; accounturi=x:y; accounturi=x:y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		issuer, params, err := parseIssueValue(s)
		if want := issueValue.MatchString(s); (err == nil) != want {
			t.Fatalf("parseIssueValue(%q): %v, and the grammar says %v", s, err, want)
		}
		g := parseGrant(s)
		if g.satisfiable() && !g.permits(Wish{Authority: issuer, Account: g.account, Method: strings.Join(g.methods[:min(1, len(g.methods))], "")}) {
			t.Fatalf("%+v does not permit what it names", g)
		}
		if g.satisfiable() && g.permits(Wish{Authority: issuer + "x", Account: g.account}) {
			t.Fatalf("%+v permits another", g)
		}
		if err != nil {
			if g.satisfiable() {
				t.Fatalf("malformed %q permits: %+v", s, g)
			}
			return
		}
		again := issuer
		for _, p := range params {
			again += ";" + p.tag + "=" + p.value
		}
		issuer2, params2, err := parseIssueValue(again)
		if err != nil || issuer2 != issuer || len(params2) != len(params) {
			t.Fatalf("%q became %q: %v", s, again, err)
		}
		for i := range params {
			if params[i] != params2[i] {
				t.Fatalf("%q became %q", params[i], params2[i])
			}
		}
	})
}
