package coordinator_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
	"postern/internal/identity"
)

func openAuthority(t *testing.T, dir string) *coordinator.Authority {
	t.Helper()
	a, err := coordinator.OpenAuthority(dir, base, nil)
	must(t, err)
	return a
}

func TestAuthorityFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "authority")
	a := openAuthority(t, dir)
	stat, err := os.Stat(dir)
	must(t, err)
	if stat.Mode().Perm() != 0o700 {
		t.Errorf("directory's mode: got %v, want 0700", stat.Mode().Perm())
	}
	before := map[string][]byte{}
	for _, name := range []string{"root", "control-ca", "coordinator", "ca"} {
		for _, ext := range []string{".key", ".pem"} {
			stat, err := os.Stat(filepath.Join(dir, name+ext))
			must(t, err)
			if ext == ".key" && stat.Mode().Perm() != 0o600 {
				t.Errorf("mode of %s%s: got %v, want 0600", name, ext, stat.Mode().Perm())
			}
			before[name+ext], err = os.ReadFile(filepath.Join(dir, name+ext))
			must(t, err)
		}
	}
	for _, name := range []string{"signin.key", "seal.key"} {
		stat, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if stat.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: got %v, want 0600", name, stat.Mode().Perm())
		}
		before[name], err = os.ReadFile(filepath.Join(dir, name))
		must(t, err)
	}
	again := openAuthority(t, dir)
	if !a.SignInKey().Equal(again.SignInKey()) {
		t.Error("the second time it is another sign-in key")
	}
	if a.Root() != again.Root() || a.Deployment() != again.Deployment() {
		t.Error("the second time it is another authority")
	}
	for name, want := range before {
		got, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s changed", name)
		}
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != len(before) {
		t.Errorf("%d files, want %d", len(entries), len(before))
	}
}

// Everything but a new control CA works without the root's key.
func TestRootOffline(t *testing.T) {
	dir, away := t.TempDir(), filepath.Join(t.TempDir(), "root.key")
	online := openAuthority(t, dir)
	must(t, os.Rename(filepath.Join(dir, "root.key"), away))
	must(t, os.Remove(filepath.Join(dir, "coordinator.pem"))) // signed anew by the control CA
	a := openAuthority(t, dir)
	if a.RootKey() || !online.RootKey() {
		t.Errorf("RootKey: got %v offline and %v online", a.RootKey(), online.RootKey())
	}
	if a.Root() != online.Root() {
		t.Error("offline, the root is another")
	}
	_, err := a.IssueMember(identity.Name{Deployment: a.Deployment(), Role: postern.RoleNode, ID: "x"}, postern.NewIdentityPrivate().Public())
	must(t, err)
	must(t, os.Remove(filepath.Join(dir, "control-ca.pem")))
	if _, err := coordinator.OpenAuthority(dir, base, nil); err == nil || !strings.Contains(err.Error(), "bring root.key back") {
		t.Errorf("control CA missing: got %v, want an error that says what to do", err)
	}
	must(t, os.Rename(away, filepath.Join(dir, "root.key")))
	openAuthority(t, dir)
}

func TestAuthorityRefuses(t *testing.T) {
	other := t.TempDir()
	openAuthority(t, other)
	take := func(dir, name string) {
		b, err := os.ReadFile(filepath.Join(other, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	tests := []struct {
		name  string
		spoil func(dir string) error
		want  string
	}{
		{"key that others may read", func(dir string) error { return os.Chmod(filepath.Join(dir, "ca.key"), 0o640) }, "chmod 600 "},
		{"another root key", func(dir string) error { take(dir, "root.key"); return nil }, "root.key is not the key of root.pem"},
		{"another root", func(dir string) error { take(dir, "root.key"); take(dir, "root.pem"); return nil }, "control-ca.pem is not signed by root.pem"},
		{"another CA's key", func(dir string) error { take(dir, "ca.key"); return nil }, "ca.key is not the key of ca.pem"},
		{"no root", func(dir string) error {
			os.Remove(filepath.Join(dir, "root.key"))
			return os.Remove(filepath.Join(dir, "root.pem"))
		}, "root.pem is missing"},
		{"no control key", func(dir string) error { return os.Remove(filepath.Join(dir, "control-ca.key")) }, "control-ca.key is missing"},
		{"sign-in key of another kind", func(dir string) error {
			take(dir, "root.key")
			return os.Rename(filepath.Join(dir, "root.key"), filepath.Join(dir, "signin.key"))
		}, "signin.key is not ECDSA P-256"},
		{"key cut short", func(dir string) error { return os.Truncate(filepath.Join(dir, "control-ca.key"), 20) }, "control-ca.key: want a PEM block"},
		{"seal key that others may read", func(dir string) error { return os.Chmod(filepath.Join(dir, "seal.key"), 0o604) }, "chmod 600 "},
		{"seal key cut short", func(dir string) error { return os.Truncate(filepath.Join(dir, "seal.key"), 40) }, "seal.key: want a PEM block"},
		{"seal key of another size", func(dir string) error {
			text := "-----BEGIN POSTERN SEAL KEY-----\nAAAA\n-----END POSTERN SEAL KEY-----\n"
			return os.WriteFile(filepath.Join(dir, "seal.key"), []byte(text), 0o600)
		}, "seal.key: "},
		{"certificate empty", func(dir string) error { return os.Truncate(filepath.Join(dir, "ca.pem"), 0) }, "ca.pem: want a PEM block"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			openAuthority(t, dir)
			must(t, tt.spoil(dir))
			_, err := coordinator.OpenAuthority(dir, base, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := coordinator.OpenAuthority(other, "elsewhere.test", nil); err == nil || !strings.Contains(err.Error(), base) {
		t.Errorf("another base domain: got %v", err)
	}
}

// A crash between a key and its certificate loses nothing.
func TestAuthorityAfterCrash(t *testing.T) {
	for _, name := range []string{"root", "control-ca", "ca", "coordinator"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a := openAuthority(t, dir)
			must(t, os.Remove(filepath.Join(dir, name+".pem")))
			if again := openAuthority(t, dir); again.Root() != a.Root() || again.Deployment() != a.Deployment() {
				t.Error("it is another authority now")
			}
		})
	}
}

func TestServerCertificateRenewal(t *testing.T) {
	c := &clock{}
	dir := filepath.Join(t.TempDir(), "authority")
	a, err := coordinator.OpenAuthority(dir, base, c.now)
	must(t, err)
	first, err := a.ServerCertificate()
	must(t, err)
	c.advance(59 * 24 * time.Hour)
	same, err := a.ServerCertificate()
	must(t, err)
	if same != first {
		t.Error("renewed with more than a third of its life left")
	}
	c.advance(2 * 24 * time.Hour)
	next, err := a.ServerCertificate()
	must(t, err)
	if next == first || !next.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("not renewed with less than a third of its life left")
	}
	if len(next.Certificate) != 3 {
		t.Errorf("chain of %d, want leaf, control CA and root", len(next.Certificate))
	}
	// A disk that takes nothing is no reason to turn members away.
	must(t, os.RemoveAll(dir))
	c.advance(200 * 24 * time.Hour)
	if held, err := a.ServerCertificate(); err != nil || held != next {
		t.Errorf("without a disk: got %v, want what is held", err)
	}
}

// The clock may stand before what was signed earlier; chains verify all the same.
func TestClockBack(t *testing.T) {
	c := &clock{}
	a, err := coordinator.OpenAuthority(t.TempDir(), base, c.now)
	must(t, err)
	c.advance(-1000 * time.Hour)
	name := identity.Name{Deployment: a.Deployment(), Role: postern.RoleGateway, ID: "x"}
	text, err := a.IssueMember(name, postern.NewIdentityPrivate().Public())
	must(t, err)
	got, _, err := identity.VerifyMember(parseChain(t, text), a.Roots())
	must(t, err)
	if got != name {
		t.Errorf("got %v, want %v", got, name)
	}
}

func parseChain(t *testing.T, text []byte) (chain []*x509.Certificate) {
	t.Helper()
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return chain
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		chain, text = append(chain, cert), rest
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCSR(t testing.TB, key crypto.Signer, req x509.CertificateRequest) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &req, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// The private CA is bound to the base domain, by a constraint that browsers keep.
func TestPrivateCA(t *testing.T) {
	a := openAuthority(t, t.TempDir())
	ca := parseChain(t, a.CA())[0]
	if !ca.IsCA || !ca.MaxPathLenZero || !ca.PermittedDNSDomainsCritical || !slices.Equal(ca.PermittedDNSDomains, []string{base}) {
		t.Errorf("CA: got path length %d, critical %v, domains %v", ca.MaxPathLen, ca.PermittedDNSDomainsCritical, ca.PermittedDNSDomains)
	}
	if key, ok := ca.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() || ca.CheckSignatureFrom(ca) != nil {
		t.Error("CA is not an ECDSA P-256 key that signed itself")
	}
	host := "acme." + base
	text, err := a.IssueHost(newCSR(t, newKey(t), x509.CertificateRequest{DNSNames: []string{host}}), host)
	must(t, err)
	chain := parseChain(t, text)
	leaf, pool := chain[0], x509.NewCertPool()
	pool.AddCert(ca)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	must(t, err)
	if len(chain) != 1 || leaf.IsCA || !slices.Equal(leaf.DNSNames, []string{host}) || len(leaf.ExtKeyUsage) != 1 {
		t.Errorf("leaf: got chain of %d, CA %v, names %v, uses %v", len(chain), leaf.IsCA, leaf.DNSNames, leaf.ExtKeyUsage)
	}
	if life := time.Until(leaf.NotAfter); life > 90*24*time.Hour || life < 89*24*time.Hour {
		t.Errorf("leaf lives %v, want 90 days", life)
	}
	outside := "erp.example.com"
	if _, err := a.IssueHost(newCSR(t, newKey(t), x509.CertificateRequest{DNSNames: []string{outside}}), outside); err == nil {
		t.Error("signed a name outside the base domain")
	}
	for _, near := range []string{"x" + base, "apps.test.example"} {
		if _, err := a.IssueHost(newCSR(t, newKey(t), x509.CertificateRequest{DNSNames: []string{near}}), near); err == nil {
			t.Errorf("signed %q, which only looks like the base domain", near)
		}
	}
}

// otherName is a subject alternative name of a kind that crypto/x509 passes over.
func otherName(t testing.TB, host string) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(host)},
		{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, 3}}, // registeredID
	})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
}

func TestCertificates(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	a := d.node("acme", "a", postern.DefaultService)
	d.node("acme", "b", "erp")
	d.node("rival", "r", postern.DefaultService)
	d.route(postern.RouteRequest{Host: "erp.example.com", Tenant: "acme"})
	host := "acme." + base
	key := newKey(t)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	names := func(names ...string) x509.CertificateRequest { return x509.CertificateRequest{DNSNames: names} }
	ask := func(csr []byte) (c postern.Certificate, err error) {
		return c, a.call("POST", postern.PathCertificates, postern.CertificateRequest{CSR: csr}, &c)
	}
	got, err := ask(newCSR(t, key, names(host)))
	must(t, err)
	if leaf := parseChain(t, got.Chain)[0]; !key.PublicKey.Equal(leaf.PublicKey) || leaf.VerifyHostname(host) != nil {
		t.Errorf("got a certificate for %v", leaf.DNSNames)
	}
	cn := names(host)
	cn.Subject.CommonName = host
	_, err = ask(newCSR(t, key, cn))
	must(t, err)

	flipped := newCSR(t, key, names(host))
	flipped[len(flipped)-1] ^= 1
	otherCN, ip, mail, uri, odd := names(host), names(host), names(host), names(host), x509.CertificateRequest{}
	otherCN.Subject.CommonName = "rival." + base
	ip.IPAddresses = []net.IP{{127, 0, 0, 1}}
	mail.EmailAddresses = []string{"a@example.com"}
	uri.URIs = []*url.URL{{Scheme: "https", Host: "x"}}
	odd.ExtraExtensions = []pkix.Extension{otherName(t, host)}
	tests := []struct {
		name   string
		csr    []byte
		status int
		code   string
	}{
		{"nothing", nil, 422, postern.CodeInvalid},
		{"garbage", []byte("x"), 422, postern.CodeInvalid},
		{"signature wrong", flipped, 422, postern.CodeInvalid},
		{"another's name", newCSR(t, key, names("rival."+base)), 403, postern.CodeForbidden},
		{"a neighbour's service", newCSR(t, key, names("erp.acme."+base)), 403, postern.CodeForbidden},
		{"the coordinator's name", newCSR(t, key, names("control."+base)), 403, postern.CodeForbidden},
		{"custom route outside the base domain", newCSR(t, key, names("erp.example.com")), 422, postern.CodeInvalid},
		{"two names", newCSR(t, key, names(host, "x."+host)), 422, postern.CodeInvalid},
		{"no name", newCSR(t, key, x509.CertificateRequest{}), 422, postern.CodeInvalid},
		{"common name alone", newCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: host}}), 422, postern.CodeInvalid},
		{"another common name", newCSR(t, key, otherCN), 422, postern.CodeInvalid},
		{"wildcard", newCSR(t, key, names("*."+base)), 422, postern.CodeInvalid},
		{"upper case", newCSR(t, key, names(strings.ToUpper(host))), 422, postern.CodeInvalid},
		{"address too", newCSR(t, key, ip), 422, postern.CodeInvalid},
		{"mail address too", newCSR(t, key, mail), 422, postern.CodeInvalid},
		{"URI too", newCSR(t, key, uri), 422, postern.CodeInvalid},
		{"name of an unknown kind too", newCSR(t, key, odd), 422, postern.CodeInvalid},
		{"P-384", newCSR(t, p384, names(host)), 422, postern.CodeInvalid},
		{"Ed25519", newCSR(t, ed, names(host)), 422, postern.CodeInvalid},
		{"too long", newCSR(t, key, names(host, strings.Repeat("x", 5000))), 422, postern.CodeInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ask(tt.csr)
			wantProblem(t, err, tt.status, tt.code)
		})
	}
}

// Whatever a node sends, what is signed is for that one host and no CA.
func FuzzIssueHost(f *testing.F) {
	a, err := coordinator.OpenAuthority(f.TempDir(), base, nil)
	if err != nil {
		f.Fatal(err)
	}
	host := "acme." + base
	key := newKey(f)
	f.Add(newCSR(f, key, x509.CertificateRequest{DNSNames: []string{host}}))
	f.Add(newCSR(f, key, x509.CertificateRequest{DNSNames: []string{host, "b"}}))
	f.Add(newCSR(f, key, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{otherName(f, host)}}))
	f.Fuzz(func(t *testing.T, csr []byte) {
		text, err := a.IssueHost(csr, host)
		if err != nil {
			return
		}
		chain := parseChain(t, text)
		leaf := chain[0]
		if len(chain) != 1 || leaf.IsCA || !slices.Equal(leaf.DNSNames, []string{host}) ||
			len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) > 0 || leaf.Subject.String() != "" {
			t.Errorf("signed %v, %q, CA %v", leaf.DNSNames, leaf.Subject, leaf.IsCA)
		}
	})
}
