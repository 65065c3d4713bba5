package node

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
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
	portal    *testPortal // nil: there is none
	people    []postern.Person
	ended     []string
	routed    string // service that testHost leads to; empty: default
	posing    string // issuer that the portal is said to be; empty: its own
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
	case "POST " + postern.PathToken:
		w.redeem(rw, r)
	default:
		w.t.Errorf("the node asked for %s %s", r.Method, r.URL.Path)
	}
}

// redeem answers as the portal's token endpoint does.
func (w *world) redeem(rw http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		w.t.Errorf("redeem: %v", err)
	}
	tokens, err := w.portal.redeem(r.Context(), r.PostForm)
	rw.Header().Set("Content-Type", "application/json")
	if err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(rw).Encode(err)
		return
	}
	json.NewEncoder(rw).Encode(tokens)
}

// stream sends the map, whole, now and after every change.
func (w *world) stream(rw http.ResponseWriter, r *http.Request) {
	for {
		var changed chan struct{}
		var version uint64
		var gateways []postern.Gateway
		var mode string
		var portal *postern.Portal
		var people []postern.Person
		var ended []string
		var routed string
		w.get(func() {
			changed, version, gateways, mode = w.changed, w.version, w.gateways, w.mode
			people, ended, routed = w.people, w.ended, cmp.Or(w.routed, postern.DefaultService)
			if w.portal != nil {
				portal = w.portal.told()
				portal.Issuer = cmp.Or(w.posing, portal.Issuer)
			}
		})
		if mode != "" {
			return
		}
		out := json.NewEncoder(rw)
		out.Encode(postern.MapMessage{Version: version, Section: &postern.Section{Version: version, Deployment: &postern.Deployment{
			ID: "dep", Base: "test", Port: 8443, Gateways: gateways, CA: w.ca.pem, Portal: portal,
		}}})
		out.Encode(postern.MapMessage{Version: version, Synced: true, Section: &postern.Section{
			Tenant: "acme", Version: version,
			Nodes: []postern.Node{{ID: nodeID, Name: "office", Address: nodeAddr, WireGuard: w.id.WireGuard.Public()}},
			Routes: []postern.Route{
				{Host: testHost, Service: routed, Nodes: []string{nodeID}},
				{Host: "nobody.test", Service: "default"},
			},
			People: people, Ended: ended,
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
