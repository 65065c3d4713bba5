package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern"
)

// aSite is a TLS server of example.com, and the file with what it is trusted by.
func aSite(t *testing.T) (s *httptest.Server, caFile string) {
	t.Helper()
	s = httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(caFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, caFile
}

// postern runs the command, and returns its exit code and what it prints.
func runPostern(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), append([]string{"postern"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestVerify(t *testing.T) {
	s, caFile := aSite(t)
	addr := strings.TrimPrefix(s.URL, "https://")
	spki := hexHash(s.Certificate().RawSubjectPublicKeyInfo)

	code, out, errs := runPostern("verify", "https://example.com", "--connect", addr, "--ca", caFile, "--json")
	var v verification
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if !v.Trusted || v.SPKI != spki || v.TLS != "TLS 1.3" || v.KeyExchange != "X25519MLKEM768" || len(v.Chain) != 1 ||
		v.Chain[0].SHA256 != hexHash(s.Certificate().Raw) || v.Compared != "" {
		t.Errorf("saw %+v", v)
	}

	code, out, errs = runPostern("verify", "example.com", "--connect", addr)
	if code != 1 || !strings.Contains(out, "Trusted:      no: ") || !strings.Contains(out, spki) || !strings.Contains(errs, "not verified") {
		t.Errorf("not trusted: exit %d\n%s%s", code, out, errs)
	}
	code, _, errs = runPostern("verify", "other.example", "--connect", addr, "--ca", caFile)
	if code != 1 || !strings.Contains(errs, "not other.example") {
		t.Errorf("another name's certificate: exit %d, %s", code, errs)
	}
	for _, words := range [][]string{{"http://example.com"}, {"https://10.0.0.1"}, {}, {"example.com", "--identity", "x"}} {
		if code, _, errs := runPostern(append([]string{"verify"}, words...)...); code != 2 {
			t.Errorf("verify %q: exit %d, %s", words, code, errs)
		}
	}
	if code, _, errs := runPostern("verify", "example.com", "--connect", "127.0.0.1:1"); code != 1 || !strings.Contains(errs, "refused") {
		t.Errorf("nobody there: exit %d, %s", code, errs)
	}
}

func TestVerifyCompares(t *testing.T) {
	now := time.Now()
	key, other := postern.NewIdentityPrivate(), postern.NewIdentityPrivate()
	signed := func(by postern.IdentityPrivate, at time.Time, hosts ...postern.Holding) *postern.Statement {
		payload, err := json.Marshal(postern.Holdings{Node: "n1", Time: at, Hosts: hosts})
		if err != nil {
			t.Fatal(err)
		}
		return &postern.Statement{Payload: payload, Signature: ed25519.Sign(by.Key(), postern.StatementMessage(payload))}
	}
	ours, theirs := postern.Holding{Host: "a.test", SPKI: "aa"}, postern.Holding{Host: "a.test", SPKI: "bb"}
	tests := []struct {
		name         string
		statements   []*postern.Statement
		trusted      bool
		result, says string // of the first
		good         bool
	}{
		{"the same", []*postern.Statement{signed(key, now, ours)}, true, sameKey, "", true},
		{"the same, by a private CA", []*postern.Statement{signed(key, now, ours)}, false, sameKey, "", true},
		{"different", []*postern.Statement{signed(key, now, theirs)}, true, differentKey, "", false},
		{"another node answered", []*postern.Statement{signed(key, now, theirs), signed(key, now, ours)}, true, differentKey, "", true},
		{"not signed by the node", []*postern.Statement{signed(other, now, ours)}, true, unknownKey, "not signed", false},
		{"nothing signed", []*postern.Statement{nil}, true, unknownKey, "signed nothing", false},
		{"another host", []*postern.Statement{signed(key, now, postern.Holding{Host: "b.test", SPKI: "aa"})}, true, unknownKey, "holds no certificate", false},
		{"said long ago", []*postern.Statement{signed(key, now.Add(-48*time.Hour), ours)}, true, sameKey, "2d ago", true},
		{"nobody was asked", nil, true, "", "", true},
		{"nobody was asked, not trusted", nil, false, "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &verification{URL: "https://a.test", SPKI: "aa", Trusted: tt.trusted, TrustError: "unknown authority"}
			for _, s := range tt.statements {
				v.Nodes = append(v.Nodes, v.compare(postern.RouteCertificate{Node: "office", Identity: key.Public(), Statement: s}, "a.test"))
			}
			v.settle()
			if len(v.Nodes) > 0 && (v.Nodes[0].Result != tt.result || !strings.Contains(v.Nodes[0].Error, tt.says)) {
				t.Errorf("got %+v, want %q about %q", v.Nodes[0], tt.result, tt.says)
			}
			if err := v.verdict(); (err == nil) != tt.good {
				t.Errorf("verdict: %v, want good: %v", err, tt.good)
			}
		})
	}
}
