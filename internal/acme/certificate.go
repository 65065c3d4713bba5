package acme

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// parseChain reads a chain in PEM, leaf first, and joins it with key. It fails if they
// do not belong together.
func parseChain(chain []byte, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	cert := &tls.Certificate{PrivateKey: key}
	for rest := chain; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, errors.New("it ends with something that is not PEM")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("there is a %q in the chain", clean(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if cert.Leaf == nil {
			cert.Leaf = c
		}
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	if cert.Leaf == nil {
		return nil, errors.New("there is no certificate in it")
	}
	if !key.PublicKey.Equal(cert.Leaf.PublicKey) {
		return nil, errors.New("it is for another key than ours")
	}
	return cert, nil
}

// verify checks that cert is for host and for nothing else, is of use to a TLS server,
// and is signed by the next in its chain, as each is up to the last. Who signed the
// last is the authority's affair, and a browser's. A root at the end is left out after
// that: nobody needs it.
func verify(cert *tls.Certificate, host string) error {
	l := cert.Leaf
	if len(l.DNSNames) != 1 || l.DNSNames[0] != host || len(l.IPAddresses)+len(l.EmailAddresses)+len(l.URIs) > 0 {
		return fmt.Errorf("it is for %q, want %q alone", l.DNSNames, host)
	}
	// The last serves as root, be it the leaf.
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	last := l
	for _, der := range cert.Certificate[1:] {
		between.AddCert(last)
		var err error
		if last, err = x509.ParseCertificate(der); err != nil {
			return err
		}
	}
	roots.AddCert(last)
	_, err := l.Verify(x509.VerifyOptions{
		DNSName: host, Roots: roots, Intermediates: between,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		CurrentTime: l.NotBefore.Add(l.NotAfter.Sub(l.NotBefore) / 2), // dates are another matter
	})
	if n := len(cert.Certificate); err == nil && n > 1 && last.CheckSignatureFrom(last) == nil {
		cert.Certificate = cert.Certificate[:n-1]
	}
	return err
}

// clockSkew is how wrong a clock may be when a certificate is new: a clock in the wrong
// time zone must not keep us from having one.
const clockSkew = 24 * time.Hour

// fresh checks the dates of a certificate that was just issued.
func fresh(l *x509.Certificate, now time.Time) error {
	switch {
	case l.NotBefore.After(now.Add(clockSkew)), !l.NotAfter.After(now):
		return fmt.Errorf("it is for %s to %s, and this machine's clock says %s", stamp(l.NotBefore), stamp(l.NotAfter), stamp(now))
	}
	return nil
}

// dates returns an error if a certificate that is held is not valid now.
func dates(l *x509.Certificate, now time.Time) error {
	switch {
	case now.After(l.NotAfter):
		return fmt.Errorf("it expired on %s by this machine's clock, which says %s", stamp(l.NotAfter), stamp(now))
	case now.Before(l.NotBefore.Add(-time.Minute)):
		return fmt.Errorf("it is not valid before %s by this machine's clock, which says %s", stamp(l.NotBefore), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// third returns when l is to be replaced if nobody says when: with a third of its life
// left, and up to a tenth of that later.
func third(l *x509.Certificate) time.Time {
	third := l.NotAfter.Sub(l.NotBefore) / 3
	return l.NotAfter.Add(-third + time.Duration(fraction(l)*float64(third)/10))
}

// latest returns when l has to be replaced whatever anybody says.
func latest(l *x509.Certificate) time.Time {
	return l.NotAfter.Add(-l.NotAfter.Sub(l.NotBefore) / 10)
}

// fraction returns a number in [0, 1) that is random, but always the same for l: so the
// moment to renew, chosen once, outlives restarts.
func fraction(l *x509.Certificate) float64 {
	var b [8]byte
	if n := len(l.Signature); n > 16 {
		copy(b[:], l.Signature[n-16:]) // of an ECDSA or RSA signature, neither head nor sign
	}
	return float64(binary.BigEndian.Uint64(b[:])>>11) / (1 << 53)
}
