package coordinator_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// An authority gives a certificate when it is told to.
type authority struct {
	mu        sync.Mutex
	cert      *tls.Certificate
	challenge *tls.Certificate
	renewal   time.Time
}

func (a *authority) Get(host string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cert == nil {
		return nil, errors.New("order at ca.test: pending")
	}
	return a.cert, nil
}

func (a *authority) Challenge(host string) (*tls.Certificate, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.challenge, a.challenge != nil && host == a.challenge.Leaf.DNSNames[0]
}

func (a *authority) Status(string) postern.HostStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	return postern.HostStatus{Account: "https://ca.test/acct/1", Renewal: a.renewal}
}

func (a *authority) set(fn func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fn()
}

// idPeACME is the extension that carries the digest (RFC 8737, section 6.1).
var idPeACME = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// certificate returns one for host; as a challenge's it has the extension.
func certificate(t *testing.T, host string, notAfter time.Time, challenge bool) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), DNSNames: []string{host}, NotBefore: notAfter.Add(-90 * 24 * time.Hour), NotAfter: notAfter,
		Subject: pkix.Name{CommonName: "Test CA", Organization: []string{"Tests"}},
	}
	if challenge {
		template.ExtraExtensions = []pkix.Extension{{Id: idPeACME, Critical: true, Value: []byte{4, 2, 1, 2}}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func deployACME(t *testing.T, a coordinator.PortalCertificates, change func(*coordinator.Config)) *deployment {
	d := &deployment{t: t, dir: t.TempDir(), clock: &clock{}}
	d.change = func(cfg *coordinator.Config) {
		cfg.PortalACME = a
		if change != nil {
			change(cfg)
		}
	}
	d.start()
	t.Cleanup(func() { d.stop() })
	return d
}

// roads are the two ways to the portal.
func (d *deployment) roads(name string) map[string]func() (net.Conn, error) {
	g := d.gateway("door")
	return map[string]func() (net.Conn, error){
		"direct": d.direct, "edge pipe": func() (net.Conn, error) { return g.pipe("203.0.113.7:4711", name) },
	}
}

// An authority finds the challenge's certificate, by either way, and nothing behind it.
func TestPortalChallenge(t *testing.T) {
	a := &authority{}
	d := deployACME(t, a, nil)
	for name, dial := range d.roads(portalHost) {
		t.Run(name, func(t *testing.T) {
			ask := func(server string, protos ...string) (*tls.Conn, error) {
				conn, err := dial()
				must(t, err)
				t.Cleanup(func() { conn.Close() })
				must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
				c := tls.Client(conn, &tls.Config{ServerName: server, NextProtos: protos, InsecureSkipVerify: true})
				return c, c.Handshake()
			}
			hasExtension := func(c *tls.Conn) bool {
				leaf := c.ConnectionState().PeerCertificates[0]
				return slices.ContainsFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(idPeACME) })
			}
			a.set(func() { a.challenge = nil })
			if _, err := ask(portalHost, "acme-tls/1"); err == nil {
				t.Error("the handshake succeeded though no authority is awaited")
			}
			a.set(func() { a.challenge = certificate(t, portalHost, time.Now().Add(time.Hour), true) })
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				conn, err := dial()
				must(t, err)
				defer conn.Close()
				must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
				c := tls.Client(conn, &tls.Config{
					ServerName: portalHost, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version,
				})
				must(t, c.Handshake())
				if p := c.ConnectionState().NegotiatedProtocol; p != "acme-tls/1" || !hasExtension(c) {
					t.Errorf("version %x: got protocol %q", version, p)
				}
				fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: "+portalHost+"\r\n\r\n")
				if got, _ := io.ReadAll(c); len(got) > 0 {
					t.Errorf("after the handshake: got %q", got)
				}
			}
			for _, protos := range [][]string{nil, {"h2"}, {"acme-tls/1", "h2"}, {"h2", "acme-tls/1"}} {
				c, err := ask(portalHost, protos...)
				if err != nil || hasExtension(c) {
					t.Errorf("%q: got the challenge's certificate, or %v", protos, err)
				}
			}
			if _, err := ask(control, "acme-tls/1"); err == nil {
				t.Error("the control name has a challenge")
			}
		})
	}
}

// The page is there at once, under the private CA's certificate, and then under the
// authority's; files go before both.
func TestPortalSources(t *testing.T) {
	a := &authority{}
	d := deployACME(t, a, nil)
	cfg := d.portalTLS(new(int), "h2")
	cfg.InsecureSkipVerify = true
	see := func() (names []string, issuer, hsts string) {
		conn, err := tls.Dial("tcp", d.addr, cfg)
		must(t, err)
		defer conn.Close()
		_, _, header := get(t, d.browser(cfg, d.direct), "https://"+portalHost+"/")
		leaf := conn.ConnectionState().PeerCertificates[0]
		return leaf.DNSNames, leaf.Issuer.CommonName, header.Get("Strict-Transport-Security")
	}
	status := func() postern.HostStatus {
		var o postern.Overview
		must(t, d.operate("GET", "/status", nil, &o))
		return o.Portal
	}
	if _, issuer, hsts := see(); issuer == "Test CA" || hsts != "" {
		t.Errorf("at first: got issuer %q, HSTS %q", issuer, hsts)
	}
	if s := status(); s.State != postern.CertificateWaiting || s.Source != postern.SourceACME || s.Host != portalHost ||
		s.Error != "order at ca.test: pending" || s.SHA256 != "" {
		t.Errorf("at first: got %+v", s)
	}
	end := time.Now().Add(60 * 24 * time.Hour).Truncate(time.Second)
	a.set(func() { a.cert, a.renewal = certificate(t, portalHost, end, false), end.Add(-30*24*time.Hour) })
	if names, issuer, hsts := see(); !slices.Equal(names, []string{portalHost}) || issuer != "Test CA" || hsts != "max-age=31536000" {
		t.Errorf("then: got %q by %q, HSTS %q", names, issuer, hsts)
	}
	if s := status(); s.State != postern.CertificateValid || s.Source != postern.SourceACME || !s.NotAfter.Equal(end) || s.Issuer != "Tests Test CA" ||
		s.Account != "https://ca.test/acct/1" || !s.Renewal.Equal(end.Add(-30*24*time.Hour)) || len(s.SHA256) != 64 || len(s.SPKI) != 64 || s.Error != "" {
		t.Errorf("then: got %+v", s)
	}
	d.clock.advance(50 * 24 * time.Hour)
	if s := status(); s.State != postern.CertificateLate {
		t.Errorf("with ten days left: got %+v", s)
	}
	d.clock.advance(20 * 24 * time.Hour)
	if s := status(); s.State != postern.CertificateExpired {
		t.Errorf("after its end: got %+v", s)
	}
	d.clock.advance(-70 * 24 * time.Hour)

	files := newSelfSigned(t)
	files.write(t, 1, time.Now().Add(24*time.Hour), portalHost)
	old := d.change
	d.stop()
	d.change = func(cfg *coordinator.Config) { old(cfg); cfg.PortalCert, cfg.PortalKey = files.cert, files.key }
	d.start()
	if _, issuer, hsts := see(); issuer == "Test CA" || hsts == "" {
		t.Errorf("with files: got issuer %q, HSTS %q", issuer, hsts)
	}
	if s := status(); s.Source != postern.SourceFile || s.State != postern.CertificateValid || s.Account != "" {
		t.Errorf("with files: got %+v", s)
	}
}

// A portal outside the base domain needs nobody's files if there is an authority.
func TestPortalOutsideByACME(t *testing.T) {
	const host = "portal.example.com"
	a := &authority{}
	d := deployACME(t, a, func(cfg *coordinator.Config) { cfg.PortalHost = host })
	cfg := &tls.Config{ServerName: host, InsecureSkipVerify: true}
	if conn, err := tls.Dial("tcp", d.addr, cfg); err == nil {
		conn.Close()
		t.Error("something was shown before there is anything")
	}
	a.set(func() { a.cert = certificate(t, host, time.Now().Add(time.Hour), false) })
	conn, err := tls.Dial("tcp", d.addr, cfg)
	must(t, err)
	conn.Close()
}

// Who operates tenants alone is not told what passes between operator and authority.
func TestPortalStatusOfManagers(t *testing.T) {
	a := &authority{}
	d := deployACME(t, a, nil)
	mine := d.side("acme")
	o, err := d.Operator(t.Context(), mine.manager)
	must(t, err)
	got, err := o.Status(t.Context())
	must(t, err)
	if got.Portal.State != postern.CertificateWaiting || got.Portal.Error != "" || got.Portal.Account != "" {
		t.Errorf("got %+v", got.Portal)
	}
}
