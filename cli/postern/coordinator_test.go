package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestCheckDomain(t *testing.T) {
	fresh, settled := filepath.Join(t.TempDir(), "none"), t.TempDir()
	if err := os.WriteFile(filepath.Join(settled, configFile), []byte(`{"domain":"com"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, dir, asked string
		want             string // empty: refused
	}{
		{"a company's", fresh, "Apps.Example.com", "apps.example.com"},
		{"below a suffix", fresh, "example.co.uk", "example.co.uk"},
		{"localhost", fresh, "localhost", "localhost"},
		{"below localhost", fresh, "apps.localhost", "apps.localhost"},
		{"test", fresh, "test", "test"},
		{"below test", fresh, "apps.test", "apps.test"},
		{"internal", fresh, "internal", "internal"},
		{"at home", fresh, "home.arpa", "home.arpa"},
		{"a host's", fresh, "github.io", "github.io"}, // its owner may well run one
		{"a top-level domain", fresh, "com", ""},
		{"a public suffix", fresh, "co.uk", ""},
		{"in capitals", fresh, "CO.UK", ""},
		{"no domain", fresh, "not a domain", ""},
		{"none at the first start", fresh, "", ""},
		{"settled before", settled, "com", "com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := checkDomain(tt.dir, tt.asked)
			var f *failure
			if got != tt.want || (err == nil) != (tt.want != "") || err != nil && (!errors.As(err, &f) || f.code != exitMisused) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if _, err := os.Stat(fresh); err == nil {
		t.Errorf("%s was made", fresh)
	}
	if got, err := checkDomain(settled, ""); got != "" || err != nil {
		t.Errorf("settled, and not asked for: got %q, %v", got, err)
	}
}
