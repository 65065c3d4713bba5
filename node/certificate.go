package node

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"postern"
)

// A certificate is a chain and its key, ready to be shown.
type certificate struct {
	tls.Certificate // with Leaf
	source          string
	sha256          string // of the leaf, in hex
	spki            string // SHA-256 of the leaf's SubjectPublicKeyInfo, in hex
}

// parseCertificate reads a chain, leaf first, and its key, both PEM. It fails if
// they do not belong together.
func parseCertificate(chain, key []byte, source string) (*certificate, error) {
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, err
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return newCertificate(cert, source), nil
}

// newCertificate returns cert, which has its Leaf.
func newCertificate(cert tls.Certificate, source string) *certificate {
	return &certificate{
		Certificate: cert, source: source,
		sha256: hexSHA256(cert.Leaf.Raw), spki: hexSHA256(cert.Leaf.RawSubjectPublicKeyInfo),
	}
}

func hexSHA256(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// status describes c.
func (c *certificate) status() *Certificate {
	return &Certificate{
		Source: c.source, Issuer: postern.IssuerName(c.Leaf), SHA256: c.sha256, SPKI: c.spki, NotAfter: c.Leaf.NotAfter,
	}
}

// expired returns an error if c is not valid any more.
func (c *certificate) expired(now time.Time) error {
	if now.After(c.Leaf.NotAfter) {
		return fmt.Errorf("it expired on %s", c.Leaf.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// renewal returns when c is to be replaced: with a third of its life left.
func (c *certificate) renewal() time.Time {
	life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
	return c.Leaf.NotAfter.Add(-life / 3)
}

// clockSkew is how far a fresh certificate may seem to lie in the future.
const clockSkew = time.Hour

// verify checks that c is for host and for nothing else, valid now, and leads to
// a root in ca (PEM).
func (c *certificate) verify(host string, ca []byte, now time.Time) error {
	if l := c.Leaf; len(l.DNSNames) != 1 || l.DNSNames[0] != host ||
		len(l.IPAddresses)+len(l.EmailAddresses)+len(l.URIs) > 0 {
		return fmt.Errorf("certificate is for %q, want %q alone", l.DNSNames, host)
	}
	return verifyChain(c.Leaf, c.Certificate.Certificate[1:], host, ca, now)
}

func verifyChain(leaf *x509.Certificate, rest [][]byte, host string, ca []byte, now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return errors.New("the map has no private CA")
	}
	for _, der := range rest {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(cert)
	}
	if early := leaf.NotBefore.Sub(now); early > 0 && early < clockSkew {
		now = leaf.NotBefore
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between, CurrentTime: now})
	return err
}
