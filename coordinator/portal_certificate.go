package coordinator

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"postern"
)

// PortalCertificates are those that a public authority signs for the portal's host
// name. The methods do not block, and are safe for concurrent use.
type PortalCertificates interface {
	// Get returns the one to show, or why there is none yet.
	Get(host string) (*tls.Certificate, error)

	// Challenge returns what to show an authority that asks whose host is (RFC
	// 8737), if one is to come.
	Challenge(host string) (*tls.Certificate, bool)

	// Status says how it stands. Of its fields Host, State, Source and those that
	// follow from the certificate need not be set.
	Status(host string) postern.HostStatus
}

// portalSources are where the certificate comes from that is shown at the portal: the
// operator's files, else a public authority, else the private CA. It is for the portal's
// host name alone: a browser takes a connection for each name that its certificate
// covers (RFC 9113, section 9.1.1).
type portalSources struct {
	host   string
	files  *certFiles         // nil: none
	public PortalCertificates // nil: none, or there are files
	own    *issued            // nil: there are files
}

func (cfg *Config) portalSources() (portalSources, error) {
	s := portalSources{host: cfg.PortalHost}
	if cfg.PortalCert != "" {
		s.files = &certFiles{host: cfg.PortalHost, cert: cfg.PortalCert, key: cfg.PortalKey, now: cfg.Now, log: cfg.Logger}
		return s, s.files.open()
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return s, err
	}
	s.public, s.own = cfg.PortalACME, &issued{host: cfg.PortalHost, authority: cfg.Authority, key: key}
	if _, err = s.own.get(); s.public != nil {
		return s, nil // outside the base domain there is nothing to show until the first is there
	}
	return s, err
}

// get returns the certificate to show now, and its source.
func (s *portalSources) get() (cert *tls.Certificate, source string, err error) {
	if s.files != nil {
		cert, err = s.files.get()
		return cert, postern.SourceFile, err
	}
	var waits error
	if s.public != nil {
		if cert, waits = s.public.Get(s.host); waits == nil {
			return cert, postern.SourceACME, nil
		}
	}
	if cert, err = s.own.get(); err != nil {
		err = errors.Join(waits, err)
	}
	return cert, postern.SourcePrivate, err
}

// challenge returns the TLS settings for an authority that asks whose the host is.
func (s *portalSources) challenge() (*tls.Config, error) {
	cert, ok := (*tls.Certificate)(nil), false
	if s.public != nil {
		cert, ok = s.public.Challenge(s.host)
	}
	if !ok {
		return nil, errors.New("no certificate authority is awaited")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{postern.ACMEProtocol},
		Certificates: []tls.Certificate{*cert},
	}, nil
}

// hangUp serves a certificate authority: there is nothing to say once the handshake is
// done (RFC 8737, section 3). The caller closes the connection.
func hangUp(*http.Server, *tls.Conn, http.Handler) {}

// status says how the portal's certificate stands.
func (s *portalSources) status(now time.Time) postern.HostStatus {
	var out postern.HostStatus
	var cert *tls.Certificate
	var err error
	if s.public != nil { // whatever is shown until it has one
		out = s.public.Status(s.host)
		out.Source = postern.SourceACME
		cert, err = s.public.Get(s.host)
	} else {
		cert, out.Source, err = s.get()
	}
	out.Host = s.host
	if err != nil {
		out.State, out.Error = postern.CertificateWaiting, cmp.Or(out.Error, err.Error())
		return out
	}
	leaf := cert.Leaf
	sum, spki := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	out.SHA256, out.SPKI = hex.EncodeToString(sum[:]), hex.EncodeToString(spki[:])
	out.Issuer, out.NotAfter = postern.IssuerName(leaf), leaf.NotAfter
	switch left := leaf.NotAfter.Sub(now); {
	case left < 0:
		out.State = postern.CertificateExpired
	case left < leaf.NotAfter.Sub(leaf.NotBefore)/lateShare:
		out.State = postern.CertificateLate
	default:
		out.State = postern.CertificateValid
	}
	return out
}

// lateShare is how many times what is left of a certificate's life fits into all of it
// when it should have been renewed long ago: authorities have it renewed with a third left.
const lateShare = 5
