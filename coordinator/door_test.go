package coordinator_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
	"postern/coordinator/sqlite"
)

const portalHost = "portal." + base

// A site answers with what it sees of a request.
type site struct {
	mu    sync.Mutex
	hosts []string // of the last ServeToken
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A stream of events needs both.
	rc := http.NewResponseController(w)
	if err := rc.SetWriteDeadline(time.Time{}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "portal sees %s, %d certificates", addrOf(r.RemoteAddr), len(r.TLS.PeerCertificates))
	rc.Flush()
}

func (s *site) EndStreams() {}

func (s *site) ServeToken(w http.ResponseWriter, r *http.Request, hosts []string) {
	s.mu.Lock()
	s.hosts = hosts
	s.mu.Unlock()
	if _, err := io.ReadAll(r.Body); err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	w.Write([]byte("{}"))
}

func addrOf(hostport string) string {
	host, _, _ := net.SplitHostPort(hostport)
	return host
}

// portalTLS is what a browser that trusts the private CA asks the portal with.
// asked counts how often it is asked for a certificate.
func (d *deployment) portalTLS(asked *int, protos ...string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(d.authority.CA())
	return &tls.Config{
		RootCAs: pool, ServerName: portalHost, NextProtos: protos, Time: d.clock.now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			*asked++
			return new(tls.Certificate), nil
		},
	}
}

// browser returns a client that goes through dial for every name.
func (d *deployment) browser(cfg *tls.Config, dial func() (net.Conn, error)) *http.Client {
	tr := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			outer, err := dial()
			if err != nil {
				return nil, err
			}
			conn := tls.Client(outer, cfg)
			if err := conn.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			return conn, nil
		},
	}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (d *deployment) direct() (net.Conn, error) { return net.Dial("tcp", d.addr) }

func get(t *testing.T, client *http.Client, url string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body), resp.Header
}

// The portal has a certificate for its own name alone, asks for none, and is
// reached through a gateway as it is on its own port.
func TestPortalByServerName(t *testing.T) {
	d := deploy(t)
	g := d.gateway("door")
	roads := map[string]struct {
		dial func() (net.Conn, error)
		from string
	}{
		"direct":    {d.direct, "127.0.0.1"},
		"edge pipe": {func() (net.Conn, error) { return g.pipe("203.0.113.7:4711", portalHost) }, "203.0.113.7"},
	}
	for name, road := range roads {
		for _, proto := range []string{"h2", "http/1.1"} {
			t.Run(name+" "+proto, func(t *testing.T) {
				asked := 0
				client := d.browser(d.portalTLS(&asked, proto), road.dial)
				req, err := http.NewRequest("GET", "https://"+portalHost+":8443/", nil)
				must(t, err)
				resp, err := client.Do(req)
				must(t, err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				must(t, err)
				if want := "portal sees " + road.from + ", 0 certificates"; string(body) != want {
					t.Errorf("got %q, want %q", body, want)
				}
				if leaf := resp.TLS.PeerCertificates[0]; !slices.Equal(leaf.DNSNames, []string{portalHost}) || len(leaf.IPAddresses) > 0 {
					t.Errorf("certificate is for %q %v", leaf.DNSNames, leaf.IPAddresses)
				}
				if asked > 0 {
					t.Error("the portal asked for a certificate")
				}
				if v := resp.Header.Get("Strict-Transport-Security"); v != "" {
					t.Errorf("HSTS under a private CA: %q", v)
				}
			})
		}
	}
	t.Run("control asks", func(t *testing.T) {
		asked := 0
		cfg := d.portalTLS(&asked, "h2")
		cfg.ServerName, cfg.InsecureSkipVerify = control, true
		status, body, _ := get(t, d.browser(cfg, d.direct), "https://"+control+postern.PathEnroll)
		if asked != 1 || status != 200 || strings.Contains(body, "portal") {
			t.Errorf("asked %d times, answered %d %q", asked, status, body)
		}
	})
}

// A request on a connection to one is never served by the other.
func TestPortalMisdirected(t *testing.T) {
	d := deploy(t)
	tests := []struct {
		name, server, host string
		want               int
	}{
		{"portal", portalHost, portalHost, 200},
		{"portal with a port", portalHost, portalHost + ":8443", 200},
		{"control at the portal", portalHost, control, 421},
		{"tenant at the portal", portalHost, "acme." + base, 421},
		{"address at the portal", portalHost, "127.0.0.1", 421},
		{"trailing dot", portalHost, portalHost + ".", 421},
		{"name with a tail", portalHost, portalHost + ".evil.test", 421},
		{"portal at control", control, portalHost, 421},
		{"portal at an address", "", portalHost, 421},
		{"portal at another own name", "desk." + base, portalHost + ":8443", 421},
		{"control", control, control, 404},
	}
	for _, tt := range tests {
		for _, proto := range []string{"h2", "http/1.1"} {
			t.Run(tt.name+" "+proto, func(t *testing.T) {
				cfg := d.portalTLS(new(int), proto)
				cfg.ServerName, cfg.InsecureSkipVerify = tt.server, true
				status, body, _ := get(t, d.browser(cfg, d.direct), "https://x.test/", "Host", tt.host)
				if status != tt.want {
					t.Errorf("got %d, want %d: %s", status, tt.want, body)
				}
			})
		}
	}
}

func (d *deployment) portalLeaf() (*x509.Certificate, error) {
	conn, err := tls.Dial("tcp", d.addr, d.portalTLS(new(int)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func TestPortalCertificateIsRenewed(t *testing.T) {
	d := deploy(t)
	first, err := d.portalLeaf()
	must(t, err)
	d.clock.advance(50 * 24 * time.Hour)
	same, err := d.portalLeaf()
	must(t, err)
	if !same.Equal(first) {
		t.Error("renewed with 40 days left")
	}
	for range 4 { // past the end of the first, and of the next
		d.clock.advance(61 * 24 * time.Hour)
		next, err := d.portalLeaf()
		must(t, err)
		if next.Equal(first) || d.clock.now().After(next.NotAfter) {
			t.Errorf("after %v: got one until %v", d.clock.off, next.NotAfter)
		}
	}
}

// A selfSigned certificate and its key are files that a test may write over.
type selfSigned struct{ cert, key string }

func newSelfSigned(t *testing.T) selfSigned {
	dir := t.TempDir()
	return selfSigned{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

func (s selfSigned) write(t *testing.T, serial int64, notAfter time.Time, names ...string) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: names, NotBefore: notAfter.Add(-48 * time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(s.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(s.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	// Two writes within one tick of the file system's clock look alike.
	at := time.Unix(1_700_000_000+serial, 0)
	must(t, os.Chtimes(s.cert, at, at))
}

// An operator's own certificate for the portal follows its files, and what is of
// no use never replaces what is.
func TestPortalOwnCertificate(t *testing.T) {
	files := newSelfSigned(t)
	d := &deployment{t: t, dir: t.TempDir(), clock: &clock{}}
	d.change = func(cfg *coordinator.Config) { cfg.PortalCert, cfg.PortalKey = files.cert, files.key }
	soon := time.Now().Add(24 * time.Hour)
	files.write(t, 1, soon, portalHost)
	d.start()
	t.Cleanup(func() { d.stop() })
	cfg := d.portalTLS(new(int), "h2")
	cfg.InsecureSkipVerify = true
	shown := func() int64 {
		d.clock.advance(3 * time.Second)
		conn, err := tls.Dial("tcp", d.addr, cfg)
		must(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	steps := []struct {
		name string
		make func()
		want int64
	}{
		{"as at the start", func() {}, 1},
		{"renewed", func() { files.write(t, 2, soon, portalHost) }, 2},
		{"wildcard", func() { files.write(t, 3, soon, "*."+base) }, 2},
		{"with a tenant's name", func() { files.write(t, 4, soon, portalHost, "acme."+base) }, 2},
		{"expired", func() { files.write(t, 5, time.Now().Add(-time.Hour), portalHost) }, 2},
		{"gone", func() { must(t, os.Remove(files.cert)) }, 2},
		{"still gone", func() {}, 2},
		{"back", func() { files.write(t, 6, soon, portalHost) }, 6},
	}
	for _, s := range steps {
		s.make()
		if got := shown(); got != s.want {
			t.Errorf("%s: got certificate %d, want %d", s.name, got, s.want)
		}
	}
	_, _, header := get(t, d.browser(cfg, d.direct), "https://"+portalHost+"/")
	if v := header.Get("Strict-Transport-Security"); v != "max-age=31536000" {
		t.Errorf("HSTS: got %q", v)
	}
}

func TestPortalConfig(t *testing.T) {
	good, wild, books := newSelfSigned(t), newSelfSigned(t), newSelfSigned(t)
	books.write(t, 1, time.Now().Add(time.Hour), "books.example.com")
	good.write(t, 1, time.Now().Add(time.Hour), "login.example.com")
	wild.write(t, 1, time.Now().Add(time.Hour), "*.example.com")
	tests := []struct {
		name string
		cfg  coordinator.Config
		want string // "": it is taken
	}{
		{"by default", coordinator.Config{}, ""},
		{"another below the base domain", coordinator.Config{PortalHost: "sso." + base}, ""},
		{"a tenant's", coordinator.Config{PortalHost: "acme." + base}, `is tenant "acme"'s`},
		{"a custom route's", coordinator.Config{PortalHost: "books.example.com", PortalCert: books.cert, PortalKey: books.key}, `is routed to tenant "acme"`},
		{"a tenant's service's", coordinator.Config{PortalHost: "erp.acme." + base}, "not directly below"},
		{"outside, without a certificate", coordinator.Config{PortalHost: "login.example.com"}, "the private CA is bound to"},
		{"outside", coordinator.Config{PortalHost: "login.example.com", PortalCert: good.cert, PortalKey: good.key}, ""},
		{"with a wildcard", coordinator.Config{PortalHost: "login.example.com", PortalCert: wild.cert, PortalKey: wild.key}, "has to be for"},
		{"with another's certificate", coordinator.Config{PortalCert: good.cert, PortalKey: good.key}, "has to be for"},
		{"with another's key", coordinator.Config{PortalHost: "login.example.com", PortalCert: good.cert, PortalKey: wild.key}, "does not match"},
		{"without the key", coordinator.Config{PortalCert: good.cert}, "belong together"},
		{"where gateways pass members through", coordinator.Config{PortalHost: "control." + base}, "where members reach"},
		{"where tokens lead", coordinator.Config{PortalHost: "sso." + base, URLs: []string{"https://192.0.2.1:8443", "https://sso." + base + ":8443"}}, "where members reach"},
		{"no host name", coordinator.Config{PortalHost: "Portal." + base}, "is not one of"},
	}
	d := deploy(t)
	d.addTenant("acme")
	d.route(postern.RouteRequest{Host: "books.example.com", Tenant: "acme"})
	d.stop()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store, err := sqlite.Open(t.Context(), filepath.Join(d.dir, "registry.db"))
			must(t, err)
			defer store.Close()
			cfg := tt.cfg
			cfg.Store, cfg.Authority, cfg.Base = store, d.authority, base
			_, err = coordinator.New(cfg)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// Nobody else gets the portal's name.
func TestPortalNameIsTaken(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("desk2")
	wantProblem(t, d.operate("POST", "/tenants", postern.TenantRequest{Name: "portal"}, nil), 422, postern.CodeInvalid)
	outside := &deployment{t: t, dir: t.TempDir(), clock: &clock{}}
	files := newSelfSigned(t)
	files.write(t, 1, time.Now().Add(time.Hour), "sign-in.example.com")
	outside.change = func(cfg *coordinator.Config) {
		cfg.PortalHost, cfg.PortalCert, cfg.PortalKey = "sign-in.example.com", files.cert, files.key
	}
	outside.start()
	t.Cleanup(func() { outside.stop() })
	outside.addTenant("acme")
	wantProblem(t, outside.operate("POST", "/routes", postern.RouteRequest{Host: "sign-in.example.com", Tenant: "acme"}, nil), 409, postern.CodeTaken)
}

// A node may redeem what is for its own hosts, and nobody else anything.
func TestTokenRequest(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("other")
	a, b := d.node("acme", "a", postern.DefaultService, "erp"), d.node("other", "b", "erp")
	d.route(postern.RouteRequest{Host: "books.example.com", Tenant: "acme", Service: "erp"})
	for _, tt := range []struct {
		who  *member
		want []string
	}{
		{a, []string{"acme." + base, "books.example.com", "erp.acme." + base}},
		{b, []string{"erp.other." + base}},
		{d.node("acme", "idle"), nil},
	} {
		must(t, tt.who.call("POST", postern.PathToken, nil, nil))
		d.site.mu.Lock()
		if !slices.Equal(d.site.hosts, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.who.Name, d.site.hosts, tt.want)
		}
		d.site.mu.Unlock()
	}
	wantProblem(t, d.gateway("door").call("POST", postern.PathToken, nil, nil), 403, postern.CodeForbidden)
	wantProblem(t, call(d.clientFor(nil), "POST", d.url(postern.PathToken), nil, nil), 401, postern.CodeUnauthorized)
	if err := a.call("POST", postern.PathToken, strings.Repeat("x", 17<<10), nil); err == nil || !strings.Contains(err.Error(), "413") {
		t.Errorf("17 KiB: got %v", err)
	}
	must(t, d.operate("DELETE", "/nodes/"+a.ID, nil, nil))
	wantProblem(t, a.call("POST", postern.PathToken, nil, nil), 403, postern.CodeRevoked)
}

// A host is a client if something there asks the portal who people are.
func TestClient(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a")
	public := postern.Access{Who: postern.AccessPublic}
	services := []postern.Service{
		{Name: postern.DefaultService},
		{Name: "site", Access: public},
		{Name: "shop", Access: public, Exceptions: []postern.Exception{{Path: "/admin/", Access: postern.Access{Who: postern.AccessMembers}}}},
		{Name: "hook", Access: public, Exceptions: []postern.Exception{{Path: "/in/", Access: public}}},
		{Name: "own", Require: postern.RequireIssuer},
		{Name: "safe", Require: postern.RequirePasskey},
	}
	must(t, a.call("PUT", postern.PathServices, postern.Publication{Services: services}, nil))
	d.route(postern.RouteRequest{Host: "books.example.com", Tenant: "acme"})
	d.route(postern.RouteRequest{Host: "idle.example.com", Tenant: "acme", Service: "gone"})
	for host, want := range map[string]bool{
		"acme." + base: true, "site.acme." + base: false, "shop.acme." + base: true, "hook.acme." + base: false,
		"own.acme." + base: false, "safe.acme." + base: true, "books.example.com": true, "idle.example.com": false,
		"nothing." + base: false, portalHost: false, control: false, "": false, "ACME." + base: false, "acme." + base + ".": false,
	} {
		origin, ok := d.Client(host)
		if ok != want {
			t.Errorf("%q: got %v, want %v", host, ok, want)
		}
		if want := "https://" + host + ":8443"; ok && origin != want {
			t.Errorf("got origin %q, want %q", origin, want)
		}
	}
	must(t, d.operate("DELETE", "/nodes/"+a.ID, nil, nil))
	if _, ok := d.Client("acme." + base); ok {
		t.Error("a client without a node")
	}
}
