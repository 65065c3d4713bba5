package coordinator_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern"
	"postern/coordinator"
	"postern/coordinator/sqlite"
	"postern/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const base = "apps.test"

// ownNames are the coordinator's, the portal's last.
var ownNames = []string{control, "desk." + base, "login.example.com", portalHost}

// A clock is the coordinator's time, moved by hand.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// A deployment is a coordinator that serves on loopback, with its store.
type deployment struct {
	*coordinator.Coordinator
	t         *testing.T
	dir       string
	clock     *clock
	store     *sqlite.Store
	authority *coordinator.Authority
	addr      string
	site      site
	dns       fakeDNS
	change    func(*coordinator.Config) // before each start; nil: nothing
	stop      func()
}

func deploy(t *testing.T) *deployment {
	d := &deployment{t: t, dir: t.TempDir(), clock: &clock{}}
	d.start()
	t.Cleanup(func() { d.stop() })
	return d
}

// start opens what is in d.dir and serves it.
func (d *deployment) start() {
	t := d.t
	t.Helper()
	var err error
	if d.store, err = sqlite.Open(t.Context(), filepath.Join(d.dir, "registry.db")); err != nil {
		t.Fatal(err)
	}
	if d.authority, err = coordinator.OpenAuthority(filepath.Join(d.dir, "authority"), base, d.clock.now); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.addr = ln.Addr().String()
	cfg := coordinator.Config{
		Store: d.store, Authority: d.authority, Base: base, Port: 8443, Version: "test",
		Names: ownNames[:3], URLs: []string{"https://" + d.addr}, Now: d.clock.now, Resolver: &d.dns,
	}
	if d.change != nil {
		d.change(&cfg)
	}
	d.Coordinator, err = coordinator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	adminLn, err := net.Listen("unix", filepath.Join(d.dir, postern.AdminSocket))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Serve(ctx, ln, &d.site); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	wg.Go(func() {
		if err := d.ServeAdmin(ctx, adminLn, nil); err != nil {
			t.Errorf("ServeAdmin: %v", err)
		}
	})
	d.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := d.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// operate calls the admin API over its socket; in and out may be nil.
func (d *deployment) operate(method, path string, in, out any) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.dir, postern.AdminSocket))
		},
	}}
	return call(client, method, "http://postern"+postern.PathAdmin+path, in, out)
}

// must fails the test now if err is not nil.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *deployment) addTenant(name string) {
	d.t.Helper()
	must(d.t, d.operate("POST", "/tenants", postern.TenantRequest{Name: name}, nil))
}

func (d *deployment) token(req postern.TokenRequest) postern.Token {
	d.t.Helper()
	created, err := d.IssueToken(d.t.Context(), req)
	must(d.t, err)
	token, err := postern.ParseToken(created.Secret)
	must(d.t, err)
	return token
}

// call sends in as JSON and decodes the answer into out; any answer but a 2xx
// is returned as a Problem.
func call(client *http.Client, method, url string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	return do(client, req, out)
}

func do(client *http.Client, req *http.Request, out any) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		p := new(postern.Problem)
		if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
			return fmt.Errorf("status %d with content type %q: %s", resp.StatusCode, ct, body)
		}
		if err := json.Unmarshal(body, p); err != nil {
			return fmt.Errorf("status %d: %q: %w", resp.StatusCode, body, err)
		}
		if p.Status != resp.StatusCode || p.Detail == "" || p.Code == "" || p.Title == "" {
			return fmt.Errorf("status %d: not a whole problem: %s", resp.StatusCode, body)
		}
		return p
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

// wantProblem fails the test if err is not a Problem with that status and code.
func wantProblem(t *testing.T, err error, status int, code string) {
	t.Helper()
	var p *postern.Problem
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want a problem with code %q", err, code)
	}
	if p.Status != status || p.Code != code {
		t.Fatalf("got status %d, code %q (%s), want %d, %q", p.Status, p.Code, p.Detail, status, code)
	}
}

// A member is a member as the wire sees it.
type member struct {
	postern.Enrollment
	d         *deployment
	role      postern.Role
	identity  postern.IdentityPrivate
	wireguard postern.WireGuardPrivate
	client    *http.Client
}

func (d *deployment) newMember(role postern.Role) *member {
	return &member{d: d, role: role, identity: postern.NewIdentityPrivate(), wireguard: postern.NewWireGuardPrivate()}
}

// clientFor returns a client with that certificate, or none.
func (d *deployment) clientFor(cert *tls.Certificate) *http.Client {
	tr := &http.Transport{TLSClientConfig: identity.ClientConfig(d.authority.Root(), cert), ForceAttemptHTTP2: true}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (d *deployment) url(path string) string { return "https://" + d.addr + path }

// An attempt is an enrolment that a test may spoil before it is sent.
type attempt struct {
	req             postern.EnrollRequest
	token           ed25519.PrivateKey
	spoil           func(h http.Header, body *[]byte)
	client          *http.Client // nil: over a connection of its own
	otherConnection bool         // send the proofs over another connection than the challenge's
}

// join enrols m with token; name is its wish.
func (m *member) join(token postern.Token, name string, change ...func(*attempt)) error {
	a := attempt{token: token.Key(), req: postern.EnrollRequest{
		Token: token.ID, Role: m.role, Name: name,
		Identity: m.identity.Public(), WireGuard: m.wireguard.Public(),
		Host: postern.Host{Name: "Büro-PC.local", OS: "linux", Arch: "amd64", Version: "1"},
	}}
	for _, f := range change {
		f(&a)
	}
	tr := &http.Transport{TLSClientConfig: identity.ClientConfig(m.d.authority.Root(), nil), ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	if a.client != nil {
		client = a.client
	}
	var challenge postern.Challenge
	resp, err := client.Get(m.d.url(postern.PathEnroll))
	if err != nil {
		return err
	}
	err = json.NewDecoder(resp.Body).Decode(&challenge)
	resp.Body.Close()
	if err != nil {
		return err
	}
	binding, err := resp.TLS.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	if err != nil {
		return err
	}
	if a.otherConnection {
		tr.CloseIdleConnections()
	}
	body, err := json.Marshal(a.req)
	if err != nil {
		return err
	}
	message := postern.EnrollMessage(binding, body)
	shared, err := m.wireguard.Shared(challenge.WireGuard)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, shared)
	mac.Write(message)
	h := http.Header{}
	for name, proof := range map[string][]byte{
		postern.HeaderTokenSignature:    ed25519.Sign(a.token, message),
		postern.HeaderIdentitySignature: ed25519.Sign(m.identity.Key(), message),
		postern.HeaderWireGuardProof:    mac.Sum(nil),
	} {
		h.Set(name, base64.StdEncoding.EncodeToString(proof))
	}
	if a.spoil != nil {
		a.spoil(h, &body)
	}
	req, err := http.NewRequest("POST", m.d.url(postern.PathEnroll), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = h
	if err := do(client, req, &m.Enrollment); err != nil {
		return err
	}
	m.client = m.d.clientFor(m.certificate())
	return nil
}

func (m *member) certificate() *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: m.identity.Key()}
	for rest := m.Certificate; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return cert
		}
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
}

func (m *member) call(method, path string, in, out any) error {
	return call(m.client, method, m.d.url(path), in, out)
}

// node returns a new node of tenant.
func (d *deployment) node(tenant, name string, services ...string) *member {
	d.t.Helper()
	m := d.newMember(postern.RoleNode)
	must(d.t, m.join(d.token(postern.TokenRequest{Tenant: tenant}), name))
	if len(services) > 0 {
		m.publish(services...)
	}
	return m
}

func (d *deployment) gateway(name string) *member {
	d.t.Helper()
	m := d.newMember(postern.RoleGateway)
	must(d.t, m.join(d.token(postern.TokenRequest{Role: postern.RoleGateway}), name))
	return m
}

func (m *member) publish(services ...string) postern.Published {
	m.d.t.Helper()
	p := postern.Publication{Services: []postern.Service{}}
	for _, s := range services {
		p.Services = append(p.Services, postern.Service{Name: s})
	}
	var out postern.Published
	must(m.d.t, m.call("PUT", postern.PathServices, p, &out))
	return out
}

// eventually waits until ok, and fails the test if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}
