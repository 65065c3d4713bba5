package coordinator

import (
	"crypto"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern"
	"postern/internal/identity"
)

// Lifetimes of what an Authority signs.
const (
	memberLife = 30 * 24 * time.Hour
	serverLife = 90 * 24 * time.Hour
	hostLife   = 90 * 24 * time.Hour
	caLife     = 10 * 365 * 24 * time.Hour
)

// forever is the end of what does not end (RFC 5280, section 4.1.2.5).
var forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// An Authority holds a deployment's keys and certificates:
//
//	root.key         Ed25519; may be moved offline once all else is made
//	root.pem         signed by itself; its hash is what tokens pin
//	control-ca.*     Ed25519, signed by the root; signs all members
//	coordinator.*    Ed25519, signed by the control CA; the control port's own
//	ca.*             ECDSA P-256, signed by itself: the private CA for browsers,
//	                 bound to the base domain. The root has no part in it.
//	signin.key       ECDSA P-256; signs the portal's tokens, in no certificate
//	seal.key         256 bits; encrypts the secrets that the registry keeps
//
// It is safe for concurrent use.
type Authority struct {
	base    string
	now     func() time.Time
	root    *x509.Certificate
	rootKey crypto.Signer // nil: offline
	control pair
	private pair
	signIn  jose.JSONWebKey // private
	seal    cipher.AEAD

	mu      sync.Mutex
	server  pair
	serving *tls.Certificate // server with its chain
	dir     string
}

// A pair is a certificate and its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// OpenAuthority opens the authority kept in dir, and makes what is missing: all
// of it when dir is missing or empty. base is the base domain, for ever. A nil
// now is time.Now.
//
// It fails for a private key that others may read, a certificate that is not its
// key's or not of this authority, and for what it cannot make without the root's
// key; the error says what to do.
func OpenAuthority(dir, base string, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	if err := postern.CheckHost(base); err != nil {
		return nil, fmt.Errorf("base domain: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &Authority{base: base, now: now, dir: dir}
	for _, open := range []func() error{a.openRoot, a.openControl, a.openPrivate, a.openServer, a.openSignIn, a.openSeal} {
		if err := open(); err != nil {
			return nil, fmt.Errorf("authority: %w", err)
		}
	}
	return a, nil
}

// Deployment returns the deployment's id, which follows from the root's key.
func (a *Authority) Deployment() string {
	root := a.Root()
	return postern.TokenID(root[:]).String()
}

// Root returns the hash by which tokens pin the root.
func (a *Authority) Root() postern.RootHash { return identity.HashRoot(a.root) }

// RootKey reports whether the root's private half is on this machine.
func (a *Authority) RootKey() bool { return a.rootKey != nil }

// Roots returns the pool with the root alone.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

// CA returns the private CA's certificate in PEM.
func (a *Authority) CA() []byte { return encodeCerts(a.private.cert.Raw) }

// IssueMember returns a certificate that lets key speak for name, and the
// control CA's behind it, in PEM.
func (a *Authority) IssueMember(name identity.Name, key postern.IdentityPublic) ([]byte, error) {
	cert, err := a.issueControl(name.URI(), key.Key(), x509.ExtKeyUsageClientAuth, memberLife)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %v: %w", name, err)
	}
	return encodeCerts(cert.Raw, a.control.cert.Raw), nil
}

// ServerCertificate returns what the control port shows: its chain ends with the
// root. It is renewed when less than a third of its life is left; what is held
// is shown until that succeeds, as no member looks at its dates.
func (a *Authority) ServerCertificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.serving != nil && a.server.cert.NotAfter.Sub(a.now()) >= serverLife/3 {
		return a.serving, nil
	}
	cert, err := a.issueControl(a.serverName().URI(), a.server.key.Public(), x509.ExtKeyUsageServerAuth, serverLife)
	if err == nil {
		err = a.writeCert("coordinator", cert)
	}
	switch {
	case err == nil:
		a.serve(cert)
	case a.serving == nil:
		return nil, fmt.Errorf("issue the coordinator's certificate: %w", err)
	}
	return a.serving, nil
}

func (a *Authority) serverName() identity.Name {
	return identity.Name{Deployment: a.Deployment(), Role: postern.RoleCoordinator}
}

// serve takes cert into use; mu is held, or nobody else has a yet.
func (a *Authority) serve(cert *x509.Certificate) {
	a.server.cert = cert
	a.serving = &tls.Certificate{
		Certificate: [][]byte{cert.Raw, a.control.cert.Raw, a.root.Raw},
		PrivateKey:  a.server.key,
		Leaf:        cert,
	}
}

func (a *Authority) issueControl(name *url.URL, key crypto.PublicKey, use x509.ExtKeyUsage, life time.Duration) (*x509.Certificate, error) {
	since := a.since(a.control.cert)
	return sign(&x509.Certificate{
		NotBefore:   since,
		NotAfter:    since.Add(life),
		URIs:        []*url.URL{name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{use},
	}, a.control, key)
}

// since returns the time from which what issuer signs now is valid: now, but
// never before the issuer itself, whatever the clock did in between.
func (a *Authority) since(issuer *x509.Certificate) time.Time {
	if now := a.now(); now.After(issuer.NotBefore) {
		return now
	}
	return issuer.NotBefore
}

func (a *Authority) openRoot() error {
	key, err := a.readKey("root")
	if err != nil {
		return err
	}
	cert, err := a.readCert("root")
	switch {
	case err != nil:
		return err
	case key == nil && cert == nil:
		if left := a.anyFile(); left != "" {
			return fmt.Errorf("root.pem is missing beside %s: bring it back from the backup", left)
		}
		if key, err = a.makeKey("root", newEd25519); err != nil {
			return err
		}
	case cert != nil:
		a.root, a.rootKey = cert, key
		return a.match("root", pair{cert, key})
	}
	self := pair{key: key}
	self.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "Postern root"}, NotBefore: a.now(), NotAfter: forever,
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign,
	}
	if cert, err = sign(self.cert, self, key.Public()); err != nil {
		return err
	}
	a.root, a.rootKey = cert, key
	return a.writeCert("root", cert)
}

func (a *Authority) openControl() error {
	p, err := a.readPair("control-ca", newEd25519)
	if err != nil {
		return err
	}
	if p.cert != nil {
		a.control = p
		if err := p.cert.CheckSignatureFrom(a.root); err != nil {
			return fmt.Errorf("control-ca.pem is not signed by root.pem: %w", err)
		}
		if a.now().Before(p.cert.NotAfter.Add(-caLife / 10)) {
			return nil
		}
		if a.rootKey == nil && a.now().Before(p.cert.NotAfter) {
			return nil // good for a while yet
		}
	}
	if a.rootKey == nil {
		return errors.New("the control CA has to be signed anew and root.key is not here: " +
			"bring root.key back into this directory, start once, and take it offline again")
	}
	since := a.since(a.root)
	p.cert, err = sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Postern control CA"}, NotBefore: since, NotAfter: since.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}, pair{a.root, a.rootKey}, p.key.Public())
	if err != nil {
		return err
	}
	a.control = p
	return a.writeCert("control-ca", p.cert)
}

func (a *Authority) openPrivate() error {
	p, err := a.readPair("ca", newP256)
	if err != nil {
		return err
	}
	if p.cert != nil {
		a.private = p
		if domains := p.cert.PermittedDNSDomains; len(domains) != 1 || domains[0] != a.base {
			return fmt.Errorf("ca.pem is bound to the base domain %q, not %q: the base domain of a deployment stays as it is", domains, a.base)
		}
		return nil
	}
	self := pair{key: p.key}
	self.cert = &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Postern private CA for " + a.base},
		NotBefore: a.now().Add(-clockSkew), NotAfter: a.now().Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		// Names of other kinds are not bound by a constraint on DNS names (RFC
		// 5280, section 4.2.1.10), so addresses are shut out by their own.
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{a.base},
		ExcludedIPRanges:            []*net.IPNet{anyIP(net.IPv4len), anyIP(net.IPv6len)},
	}
	if p.cert, err = sign(self.cert, self, p.key.Public()); err != nil {
		return err
	}
	a.private = p
	return a.writeCert("ca", p.cert)
}

func anyIP(size int) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, size), Mask: make(net.IPMask, size)}
}

func (a *Authority) openServer() error {
	p, err := a.readPair("coordinator", newEd25519)
	if err != nil {
		return err
	}
	a.server = p
	// One that an earlier control CA signed is no use; it is made anew.
	if p.cert != nil && p.cert.CheckSignatureFrom(a.control.cert) == nil {
		a.serve(p.cert)
	}
	_, err = a.ServerCertificate()
	return err
}

// sign has issuer sign template, whose public key is key.
func sign(template *x509.Certificate, issuer pair, key crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, key, issuer.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newEd25519() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

func newP256() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func encodeCerts(ders ...[]byte) []byte {
	var b []byte
	for _, der := range ders {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return b
}
