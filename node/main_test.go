package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern"
	"postern/internal/acme/acmetest"
	"postern/internal/datadir"
	"postern/internal/proxyproto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(acmetest.Leaked)) }

var discard = slog.New(slog.DiscardHandler)

// newDataDir returns an empty data directory of a node.
func newDataDir(t testing.TB) *datadir.Dir {
	t.Helper()
	dir, err := datadir.Open(t.TempDir(), postern.RoleNode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// await polls until ok is true.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		<-tick.C
	}
}

// A testCA stands in for the deployment's private CA.
type testCA struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{t, cert, key, encodePEM("CERTIFICATE", der)}
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// leaf returns a certificate for public and names, valid from until to, in PEM.
func (ca *testCA) leaf(public any, from, to time.Time, names ...string) []byte {
	ca.t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		ca.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: names, NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.cert, public, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	return encodePEM("CERTIFICATE", der)
}

// pair returns a fresh certificate and its key for names, in PEM.
func (ca *testCA) pair(names ...string) (chain, key []byte) {
	ca.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		ca.t.Fatal(err)
	}
	return ca.leaf(k.Public(), time.Now().Add(-time.Minute), time.Now().Add(time.Hour), names...), encodePEM("PRIVATE KEY", der)
}

func (ca *testCA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// files writes a fresh pair for names into a directory of the test.
func (ca *testCA) files(names ...string) (certFile, keyFile string) {
	ca.t.Helper()
	dir := ca.t.TempDir()
	chain, key := ca.pair(names...)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(ca.t, certFile, chain)
	write(ca.t, keyFile, key)
	return certFile, keyFile
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A site is a running server, with loopback TCP for its overlay.
type site struct {
	*server
	ca   *testCA
	addr string
	stop func() // begins the drain, and waits

	mu    sync.Mutex
	certs map[string]*certificate
}

var (
	browser   = netip.MustParseAddrPort("203.0.113.7:50123")
	loopback4 = netip.MustParseAddr("127.0.0.1")
)

// serveSite serves services by host name, with certificates from the source given.
func serveSite(t testing.TB, source string, hosts map[string]Service) *site {
	t.Helper()
	return serveWith(t, source, newTable(t, hosts), serverConfig{})
}

// serveWith is serveSite for a table, with what the configuration says of sign-ins.
func serveWith(t testing.TB, source string, tab *table, cfg serverConfig) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{ca: newTestCA(t), addr: ln.Addr().String(), certs: map[string]*certificate{}}
	for host := range tab.hosts {
		chain, key := s.ca.pair(host)
		if s.certs[host], err = parseCertificate(chain, key, source); err != nil {
			t.Fatal(err)
		}
	}
	cfg.certificate = func(host string) (*certificate, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if cert := s.certs[host]; cert != nil {
			return cert, nil
		}
		return nil, errNoCertificate
	}
	cfg.version, cfg.drain, cfg.log = "v1.2.3", 20*time.Second, discard
	s.server = mustServer(t, cfg)
	s.setTable(tab)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.serve(ctx, context.WithoutCancel(ctx), ln); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	s.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(s.stop)
	return s
}

// mustServer returns a server of cfg.
func mustServer(t testing.TB, cfg serverConfig) *server {
	t.Helper()
	s, err := newServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newTable returns a table in which loopback is a gateway. A service without
// upstream and handler is one that is no longer published; one that does not say who
// may open it is for everybody.
func newTable(t testing.TB, hosts map[string]Service) *table {
	t.Helper()
	tab := &table{gateways: map[netip.Addr]string{loopback4: "gw-1"}, hosts: map[string]*service{}}
	for host, s := range hosts {
		tab.hosts[host] = nil
		if s.Upstream == "" && s.Handler == nil {
			continue
		}
		if s.Access == "" {
			s.Access = postern.AccessPublic
		}
		svc, err := newService(s, discard)
		if err != nil {
			t.Fatal(err)
		}
		tab.hosts[host] = svc
		if svc.transport != nil {
			t.Cleanup(svc.transport.CloseIdleConnections)
		}
	}
	return tab
}

// dial connects to the site as the gateway does for a browser.
func (s *site) dial(ctx context.Context, authority string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	h := proxyproto.Header{Src: browser, Dst: netip.MustParseAddrPort("198.51.100.1:443"), Authority: authority, UniqueID: "f00dfeed"}
	b, err := h.AppendBinary(nil)
	if err == nil {
		_, err = c.Write(b)
	}
	return c, err
}

// client returns a browser of the given protocol, 1 or 2.
func (s *site) client(t *testing.T, version int) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(addr)
			return s.dial(ctx, host)
		},
		TLSClientConfig:    &tls.Config{RootCAs: s.ca.pool()},
		DisableCompression: true,
		ForceAttemptHTTP2:  version == 2,
	}
	if version == 1 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get does one GET, with header as name, value, name, value.
func get(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	return do(t, c, req)
}

func do(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return resp, body.String()
}

// testConn is a connection as the entrance makes them, without a network.
func testConn() *conn {
	return &conn{header: proxyproto.Header{Src: browser, Authority: "a.test"}, id: "f00d", gateway: "gw-1"}
}
