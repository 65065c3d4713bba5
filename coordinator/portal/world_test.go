package portal_test

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
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"postern"
)

// A machine is a node or a gateway as the coordinator sees it.
type machine struct {
	postern.Enrollment
	d      *deployment
	client *http.Client
}

// control returns a client of the control port that shows cert, if not nil.
func (d *deployment) control(cert *tls.Certificate) *http.Client {
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "control." + base, MinVersion: tls.VersionTLS13}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	tr := &http.Transport{
		TLSClientConfig: cfg, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, d.addr)
		},
	}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

const controlURL = "https://control." + base

// join enrols a machine.
func (d *deployment) join(role postern.Role, tenant, name string) *machine {
	t := d.t
	t.Helper()
	created, err := d.IssueToken(t.Context(), postern.TokenRequest{Role: role, Tenant: tenant})
	must(t, err)
	token, err := postern.ParseToken(created.Secret)
	must(t, err)
	identity, wireguard := postern.NewIdentityPrivate(), postern.NewWireGuardPrivate()
	client := d.control(nil)
	resp, err := client.Get(controlURL + postern.PathEnroll)
	must(t, err)
	var challenge postern.Challenge
	err = json.NewDecoder(resp.Body).Decode(&challenge)
	resp.Body.Close()
	must(t, err)
	binding, err := resp.TLS.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	must(t, err)
	body, err := json.Marshal(postern.EnrollRequest{
		Token: token.ID, Role: role, Name: name, Identity: identity.Public(), WireGuard: wireguard.Public(),
		Host: postern.Host{Name: "buero-pc", OS: "linux", Arch: "amd64", Version: "1"},
	})
	must(t, err)
	message := postern.EnrollMessage(binding, body)
	shared, err := wireguard.Shared(challenge.WireGuard)
	must(t, err)
	mac := hmac.New(sha256.New, shared)
	mac.Write(message)
	req, err := http.NewRequest("POST", controlURL+postern.PathEnroll, bytes.NewReader(body))
	must(t, err)
	for header, proof := range map[string][]byte{
		postern.HeaderTokenSignature:    ed25519.Sign(token.Key(), message),
		postern.HeaderIdentitySignature: ed25519.Sign(identity.Key(), message),
		postern.HeaderWireGuardProof:    mac.Sum(nil),
	} {
		req.Header.Set(header, base64.StdEncoding.EncodeToString(proof))
	}
	m := &machine{d: d}
	m.send(client, req, &m.Enrollment)
	cert := &tls.Certificate{PrivateKey: identity.Key()}
	for rest := m.Certificate; len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	m.client = d.control(cert)
	return m
}

func (m *machine) send(client *http.Client, req *http.Request, out any) {
	t := m.d.t
	t.Helper()
	resp, err := client.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s: status %d: %s", req.URL, resp.StatusCode, body)
	}
	if out != nil {
		must(t, json.Unmarshal(body, out))
	}
}

func (m *machine) call(method, path string, in any) {
	t := m.d.t
	t.Helper()
	body, err := json.Marshal(in)
	must(t, err)
	req, err := http.NewRequest(method, controlURL+path, bytes.NewReader(body))
	must(t, err)
	m.send(m.client, req, nil)
}

// publish makes m, a node, publish services and nothing else.
func (m *machine) publish(services ...postern.Service) {
	m.d.t.Helper()
	m.call("PUT", postern.PathServices, postern.Publication{Services: services})
}

// connect opens m's control stream, and returns what closes it.
func (m *machine) connect() (disconnect func()) {
	t := m.d.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", controlURL+postern.PathMap, nil)
	must(t, err)
	resp, err := m.client.Do(req)
	must(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("map stream: status %d", resp.StatusCode)
	}
	_, err = resp.Body.Read(make([]byte, 1))
	must(t, err)
	disconnect = func() {
		cancel()
		resp.Body.Close()
	}
	t.Cleanup(disconnect)
	return disconnect
}

// report makes m, a gateway, say when it last shook hands with node.
func (m *machine) report(node *machine, handshake time.Time) {
	m.d.t.Helper()
	m.call("POST", postern.PathStatus, postern.Status{Peers: []postern.PeerStatus{{ID: node.ID, Handshake: handshake}}})
}

// A company is a tenant with a node, the services of which are not there until it
// is told to come.
type company struct {
	d       *deployment
	node    *machine
	gateway *machine
	leave   func()
}

// ledger is what a company's node publishes.
var ledger = postern.Service{
	Name: postern.DefaultService, Title: "Ledger", Description: "Accounting and payroll.", Icon: "book",
	Entries: []postern.Entry{{Name: "y2026", Title: "Books 2026", Path: "/2026?tab=all#top", Note: "current year"}, {Name: "y2025", Path: "/2025"}},
}

func newCompany(d *deployment, name, title string, services ...postern.Service) *company {
	d.t.Helper()
	d.tenant(name, title)
	c := &company{d: d, node: d.join(postern.RoleNode, name, "office"), gateway: d.join(postern.RoleGateway, "", "gw-"+name)}
	c.node.publish(services...)
	return c
}

func (c *company) come() {
	c.d.t.Helper()
	c.leave = c.node.connect()
	c.gateway.report(c.node, c.d.clock.now())
	c.wait(postern.StateReady)
}

func (c *company) part() {
	c.d.t.Helper()
	c.leave()
	c.gateway.report(c.node, time.Time{})
	c.wait(postern.StateOffline)
}

func (c *company) wait(state string) {
	t := c.d.t
	t.Helper()
	eventually(t, "the node to be "+state, func() bool {
		n, err := c.d.Local().Node(t.Context(), c.node.ID)
		must(t, err)
		return n.State == state
	})
}

func TestWorld(t *testing.T) {
	d := deploy(t, nil)
	c := newCompany(d, "acme", "Acme", ledger)
	c.come()
	c.part()
}
