package postern_test

import (
	"strings"
	"testing"

	"postern"
)

func TestCheckTenant(t *testing.T) {
	for _, good := range []string{"acme", "a", "4711", "a-b", strings.Repeat("a", 63)} {
		if err := postern.CheckTenant(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "-a", "a-", "Acme", "a.b", "a_b", "a b", "ä", "xn--bcher-kva", "portal", "control", strings.Repeat("a", 64),
	} {
		if err := postern.CheckTenant(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCheckHost(t *testing.T) {
	long := strings.Repeat("a.", 125) + "com"
	for _, good := range []string{"acme.apps.example.com", "localhost", "xn--bcher-kva.example", "1.2.3.4.example", long} {
		if err := postern.CheckHost(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ".", "a.", ".a", "a..b", "A.example", "a_b.example", "bücher.example", "-a.example", "a-.example",
		"192.0.2.1", "2001:db8::1", "1.2.3", "0x7f.1", "a b", "a/b", "a:443", "*.example", strings.Repeat("a", 64) + ".b", "x" + long,
	} {
		if err := postern.CheckHost(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"ERP.Acme.Example": "erp.acme.example", "bücher.example": "xn--bcher-kva.example",
		" a.example. ": "a.example", "BÜCHER.example": "xn--bcher-kva.example",
	} {
		if got, err := postern.ParseHost(in); err != nil || got != want {
			t.Errorf("ParseHost(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "a..b", "192.0.2.1", "a b.example", "xn--zzzzzzzzz.example"} {
		if got, err := postern.ParseHost(bad); err == nil {
			t.Errorf("ParseHost(%q) = %q, want an error", bad, got)
		}
	}
}

func TestServiceHost(t *testing.T) {
	if got, want := postern.ServiceHost(postern.DefaultService, "acme", "apps.example.com"), "acme.apps.example.com"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := postern.ServiceHost("books", "acme", "apps.example.com"), "books.acme.apps.example.com"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
