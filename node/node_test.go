package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern"
	"postern/internal/member"
	"postern/internal/proxyproto"
	"postern/netstack"
)

// A world is what a node lives in: a coordinator that says what the test wants
// it to, and a gateway that relays one host name through a real tunnel.
type world struct {
	t       *testing.T
	ca      *testCA
	control *httptest.Server
	id      member.Identity
	gateway *netstack.Net
	public  string // of the gateway: TCP, host:port
	gwKey   postern.WireGuardPrivate

	mu        sync.Mutex
	changed   chan struct{} // closed when what follows changes
	mode      string        // "", "away" or "removed"
	published []postern.Publication
	reported  []postern.Status
	version   uint64
	gateways  []postern.Gateway
}

const (
	testHost = "acme.test"
	nodeID   = "n1"
)

var (
	nodeAddr    = netip.MustParseAddr("fd12:3456:789a:1::1")
	gatewayAddr = netip.MustParseAddr("fd12:3456:789a::1")
)

func newWorld(t *testing.T) *world {
	w := &world{t: t, ca: newTestCA(t), gwKey: postern.NewWireGuardPrivate(), changed: make(chan struct{}), version: 1}
	w.startControl()
	w.startGateway()
	w.gateways = []postern.Gateway{{
		ID: "g1", Name: "gw-1", Address: gatewayAddr, WireGuard: w.gwKey.Public(),
		Endpoint: fmt.Sprintf("127.0.0.1:%d", w.gateway.Port()), Public: w.public,
	}}
	return w
}

// startControl serves the control protocol with a root of its own.
func (w *world) startControl() {
	t := w.t
	rootPublic, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.id = member.Identity{Role: postern.RoleNode, Key: postern.NewIdentityPrivate(), WireGuard: postern.NewWireGuardPrivate()}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, ca, ca, rootPublic, root)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(uri string, public ed25519.PublicKey, use x509.ExtKeyUsage) []byte {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{use},
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		}, ca, public, root)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.control = httptest.NewUnstartedServer(w)
	w.control.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{
			Certificate: [][]byte{issue("postern://dep/coordinator", public, x509.ExtKeyUsageServerAuth), rootDER}, PrivateKey: key,
		}},
	}
	w.control.EnableHTTP2 = true
	w.control.StartTLS()
	t.Cleanup(func() {
		w.set(func() { w.mode = "away" })
		w.control.CloseClientConnections()
		w.control.Close()
	})
	cert, err := x509.ParseCertificate(rootDER)
	if err != nil {
		t.Fatal(err)
	}
	w.id.Root = sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	w.id.URLs = []string{w.control.URL}
	w.id.Enrollment = postern.Enrollment{
		Deployment: "dep", ID: nodeID, Name: "office", Tenant: "acme", Address: nodeAddr,
		Certificate: encodePEM("CERTIFICATE", issue("postern://dep/node/"+nodeID, w.id.Key.Public().Key(), x509.ExtKeyUsageClientAuth)),
	}
}

// set changes what the coordinator says, and tells its streams.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	w.version++
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) get(read func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	read()
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var mode string
	w.get(func() { mode = w.mode })
	switch {
	case mode == "away":
		panic(http.ErrAbortHandler)
	case mode == "removed":
		rw.Header().Set("Content-Type", "application/problem+json")
		rw.WriteHeader(http.StatusForbidden)
		json.NewEncoder(rw).Encode(postern.NewProblem(http.StatusForbidden, postern.CodeRevoked, "removed", ""))
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET " + postern.PathMap:
		w.stream(rw, r)
	case "PUT " + postern.PathServices:
		var p postern.Publication
		json.NewDecoder(r.Body).Decode(&p)
		w.get(func() { w.published = append(w.published, p) })
		json.NewEncoder(rw).Encode(postern.Published{})
	case "POST " + postern.PathCertificates:
		var req postern.CertificateRequest
		json.NewDecoder(r.Body).Decode(&req)
		f := &fakeSigner{testCA: w.ca, life: time.Hour}
		chain, err := f.sign(r.Context(), req.CSR)
		if err != nil {
			w.t.Errorf("certificate request: %v", err)
		}
		json.NewEncoder(rw).Encode(postern.Certificate{Chain: chain})
	case "POST " + postern.PathStatus:
		var s postern.Status
		json.NewDecoder(r.Body).Decode(&s)
		w.get(func() { w.reported = append(w.reported, s) })
	default:
		w.t.Errorf("the node asked for %s %s", r.Method, r.URL.Path)
	}
}

// stream sends the map, whole, now and after every change.
func (w *world) stream(rw http.ResponseWriter, r *http.Request) {
	for {
		var changed chan struct{}
		var version uint64
		var gateways []postern.Gateway
		var mode string
		w.get(func() { changed, version, gateways, mode = w.changed, w.version, w.gateways, w.mode })
		if mode != "" {
			return
		}
		out := json.NewEncoder(rw)
		out.Encode(postern.MapMessage{Version: version, Section: &postern.Section{Version: version, Deployment: &postern.Deployment{
			ID: "dep", Base: "test", Port: 8443, Gateways: gateways, CA: w.ca.pem,
		}}})
		out.Encode(postern.MapMessage{Version: version, Synced: true, Section: &postern.Section{
			Tenant: "acme", Version: version,
			Nodes: []postern.Node{{ID: nodeID, Name: "office", Address: nodeAddr, WireGuard: w.id.WireGuard.Public()}},
			Routes: []postern.Route{
				{Host: testHost, Service: "default", Nodes: []string{nodeID}},
				{Host: "nobody.test", Service: "default"},
			},
		}})
		http.NewResponseController(rw).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// startGateway relays TCP connections to the node, as if all were for testHost.
func (w *world) startGateway() {
	t := w.t
	var err error
	w.gateway, err = netstack.New(netstack.Config{PrivateKey: w.gwKey, Address: gatewayAddr})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.gateway.SetPeers([]netstack.Peer{{PublicKey: w.id.WireGuard.Public(), Address: nodeAddr}}); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.public = ln.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { w.relay(c) })
		}
	})
	t.Cleanup(func() { ln.Close(); w.gateway.Close(); wg.Wait() })
}

func (w *world) relay(browser net.Conn) {
	defer browser.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	node, err := w.gateway.DialContext(ctx, netip.AddrPortFrom(nodeAddr, postern.HTTPSPort))
	if err != nil {
		return
	}
	defer node.Close()
	h := proxyproto.Header{
		Src: browser.RemoteAddr().(*net.TCPAddr).AddrPort(), Dst: browser.LocalAddr().(*net.TCPAddr).AddrPort(),
		Authority: testHost, UniqueID: "f00dfeed",
	}
	b, err := h.AppendBinary(nil)
	if err == nil {
		_, err = node.Write(b)
	}
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(node, browser); node.Close() })
	io.Copy(browser, node)
	browser.Close()
	wg.Wait()
}

// join returns the node's data directory, as joining leaves it.
func (w *world) join() *Dir {
	w.t.Helper()
	dir, err := Open(shortDir(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { dir.Close() })
	if err := dir.dir.WriteJSON("identity.json", w.id); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// start runs a node; ended yields what Run returned.
func (w *world) start(dir *Dir, services ...Service) (n *Node, stop context.CancelFunc, ended <-chan error) {
	w.t.Helper()
	return w.run(Config{Dir: dir, Services: services, Keepalive: time.Second, Version: "v1.2.3"})
}

// run is start for any configuration.
func (w *world) run(cfg Config) (n *Node, stop context.CancelFunc, ended <-chan error) {
	w.t.Helper()
	n, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- n.Run(ctx) })
	w.t.Cleanup(func() { n.Close(); cancel(); wg.Wait() })
	return n, cancel, done
}

// browse asks the gateway's public port for path at testHost.
func (w *world) browse(path string) (string, error) {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.public)
		},
		TLSClientConfig: &tls.Config{RootCAs: w.ca.pool()},
	}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+testHost+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func ready(n *Node) func() bool {
	return func() bool {
		s := n.Status()
		return len(s.Routes) == 1 && s.Routes[0].State == RouteReady
	}
}

func TestNode(t *testing.T) {
	w := newWorld(t)
	up := application(t, func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, r.Header.Get("X-Forwarded-For"), " ", r.Host)
	})
	dir := w.join()
	books := Service{Title: "Books", Upstream: up}
	n, stop, ended := w.start(dir, books)
	await(t, "ready", ready(n))
	if got, err := w.browse("/"); err != nil || got != "127.0.0.1 "+testHost {
		t.Fatalf("through the gateway: %q, %v", got, err)
	}
	await(t, "a publication", func() (ok bool) {
		w.get(func() { ok = len(w.published) > 0 })
		return ok
	})
	w.get(func() {
		if want := []postern.Service{{Name: "default", Title: "Books"}}; !reflect.DeepEqual(w.published[0].Services, want) {
			t.Errorf("published %+v, want %+v", w.published, want)
		}
	})
	await(t, "a report", func() (ok bool) {
		w.get(func() { ok = len(w.reported) > 0 })
		return ok
	})
	await(t, "the application's state", func() bool { return n.Status().Services[0].State == UpstreamUp })
	checkStatus(t, dir)

	// The coordinator is away, and the node starts from its disk.
	w.set(func() { w.mode = "away" })
	stop()
	if err := <-ended; err != nil {
		t.Fatalf("Run: %v", err)
	}
	n, stop, ended = w.start(dir, books)
	await(t, "ready without the coordinator", ready(n))
	if got, err := w.browse("/"); err != nil || got != "127.0.0.1 "+testHost {
		t.Fatalf("without the coordinator: %q, %v", got, err)
	}
	if n.Status().Control.Up {
		t.Error("the control stream is said to be up")
	}

	// It comes back with another gateway: the old one's connections end.
	w.set(func() {
		w.mode = ""
		w.gateways = slices.Clone(w.gateways)
		w.gateways[0].ID, w.gateways[0].Address, w.gateways[0].WireGuard = "g2", netip.MustParseAddr("fd12:3456:789a::2"), postern.NewWireGuardPrivate().Public()
	})
	await(t, "the old gateway's end", func() bool { _, err := w.browse("/"); return err != nil })

	w.set(func() { w.mode = "removed" })
	if err := <-ended; !errors.Is(err, member.ErrRemoved) {
		t.Errorf("Run of a removed node: %v, want %v", err, member.ErrRemoved)
	}
	stop()
}

// checkStatus holds what the socket says of TestNode's node against the world.
func checkStatus(t *testing.T, dir *Dir) {
	t.Helper()
	s, err := QueryStatus(t.Context(), dir.Path(Socket))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Membership{ID: nodeID, Name: "office", Tenant: "acme", Address: nodeAddr, Deployment: "dep"}); s.Member != want {
		t.Errorf("member is %+v, want %+v", s.Member, want)
	}
	if s.Version != "v1.2.3" || s.Started.IsZero() || s.Draining || !s.Control.Up || s.MapVersion == 0 || s.Connections.Accepted == 0 {
		t.Errorf("status is %+v", s)
	}
	if len(s.Tunnels) != 1 || s.Tunnels[0].Gateway != "gw-1" || s.Tunnels[0].Handshake.IsZero() || s.Tunnels[0].Received == 0 ||
		!strings.HasPrefix(s.Tunnels[0].Endpoint, "127.0.0.1:") {
		t.Errorf("tunnels are %+v", s.Tunnels)
	}
	if len(s.Routes) != 1 {
		t.Fatalf("routes are %+v", s.Routes)
	}
	r := s.Routes[0]
	if r.Host != testHost || r.URL != "https://acme.test:8443" || r.Service != "default" || r.SeenTLS != "TLS 1.3" || r.Error != "" ||
		r.Certificate == nil || r.Certificate.Source != SourceCA || r.Certificate.SHA256 != r.SeenSHA256 {
		t.Errorf("route is %+v, certificate %+v", r, r.Certificate)
	}
	if len(s.Services) != 1 || s.Services[0].Title != "Books" || !strings.HasPrefix(s.Services[0].Upstream, "http://127.0.0.1:") {
		t.Errorf("services are %+v", s.Services)
	}
}

// Close ends a drain that a request holds up.
func TestCloseEndsTheDrain(t *testing.T) {
	w := newWorld(t)
	began := make(chan struct{})
	n, stop, ended := w.start(w.join(), Service{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			close(began)
			<-r.Context().Done()
		}
	})})
	await(t, "ready", ready(n))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.browse("/hang") })
	<-began
	stop()
	await(t, "draining", func() bool { return n.Status().Draining })
	select {
	case err := <-ended:
		t.Fatalf("Run returned %v with a request under way", err)
	default:
	}
	n.Close()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	joined := w.join()
	gateway := w.join()
	id := w.id
	id.Role = postern.RoleGateway
	if err := gateway.dir.WriteJSON("identity.json", id); err != nil {
		t.Fatal(err)
	}
	empty, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	app := Service{Handler: http.NotFoundHandler()}
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"not joined", Config{Dir: empty}, member.ErrNotJoined.Error()},
		{"a gateway's membership", Config{Dir: gateway}, "want a node's"},
		{"keepalive of half a second", Config{Dir: joined, Keepalive: time.Second / 2}, "keepalive 500ms"},
		{"keepalive of a day", Config{Dir: joined, Keepalive: 24 * time.Hour}, "keepalive 24h"},
		{"a file and services", Config{Dir: joined, File: "x", Services: []Service{app}}, "want either a configuration file, or services"},
		{"no such file", Config{Dir: joined, File: "nowhere.yaml"}, "nowhere.yaml: no such file"},
		{"a service twice", Config{Dir: joined, Services: []Service{app, app}}, `service "default" is there twice`},
		{"a bad service", Config{Dir: joined, Services: []Service{{Name: "books", Upstream: "htp:/x"}}}, `service "books": upstream "htp:/x"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
