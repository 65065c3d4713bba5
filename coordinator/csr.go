package coordinator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"time"

	"postern"
)

// clockSkew is how far behind a browser's clock may be.
const clockSkew = time.Hour

// maxCSR bounds a certificate request, in bytes of DER.
const maxCSR = 4 << 10

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// requestedHost returns the one host name that csr (DER, RFC 2986) asks for.
// The request must prove possession of an ECDSA P-256 key, which all browsers
// take, and ask for exactly one name, a DNS name in wire form; a common name, if
// there is one, must be the same.
func requestedHost(csr []byte) (string, *ecdsa.PublicKey, error) {
	if len(csr) > maxCSR {
		return "", nil, fmt.Errorf("it has %d bytes, more than %d", len(csr), maxCSR)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return "", nil, err
	}
	if err := req.CheckSignature(); err != nil {
		return "", nil, fmt.Errorf("its signature is wrong: %w", err)
	}
	key, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return "", nil, errors.New("its key is not ECDSA P-256")
	}
	// crypto/x509 passes over names of kinds that it does not know, and over all
	// but the last extension of one type; what is asked for must be all there is.
	names := 0
	for _, ext := range req.Extensions {
		if ext.Id.Equal(oidSubjectAltName) {
			var seq []asn1.RawValue
			if rest, err := asn1.Unmarshal(ext.Value, &seq); err != nil || len(rest) > 0 {
				return "", nil, errors.New("its subject alternative names are not well-formed")
			}
			names += len(seq)
		}
	}
	if names != 1 || len(req.DNSNames) != 1 {
		return "", nil, fmt.Errorf("it asks for %d names, %d of them DNS names; want one DNS name", names, len(req.DNSNames))
	}
	host := req.DNSNames[0]
	if err := postern.CheckHost(host); err != nil {
		return "", nil, err
	}
	if cn := req.Subject.CommonName; cn != "" && cn != host {
		return "", nil, fmt.Errorf("its common name %q is not its DNS name %q", cn, host)
	}
	return host, key, nil
}

// IssueHost has the private CA sign csr for host, which must be the one name
// that csr asks for, below the base domain. It returns PEM, leaf first, without
// the CA's own. Nothing but key and name is taken over from csr.
func (a *Authority) IssueHost(csr []byte, host string) ([]byte, error) {
	asked, key, err := requestedHost(csr)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if asked != host {
		return nil, fmt.Errorf("certificate request: it is for %q, not %q", asked, host)
	}
	cert, err := a.issueHost(host, key)
	if err != nil {
		return nil, err
	}
	return encodeCerts(cert.Raw), nil
}

// issueHost has the private CA sign a certificate for host alone.
func (a *Authority) issueHost(host string, key *ecdsa.PublicKey) (*x509.Certificate, error) {
	if host != a.base && !strings.HasSuffix(host, "."+a.base) {
		return nil, fmt.Errorf("the private CA is bound to names below %q and cannot sign %q", a.base, host)
	}
	end := a.now().Add(hostLife)
	if ca := a.private.cert.NotAfter; end.After(ca) {
		end = ca
	}
	cert, err := sign(&x509.Certificate{
		NotBefore:   a.now().Add(-clockSkew),
		NotAfter:    end,
		DNSNames:    []string{host},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.private, key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %q: %w", host, err)
	}
	return cert, nil
}
