package coordinator_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"postern"
	"postern/internal/identity"
)

// A watcher reads a member's map stream.
type watcher struct {
	t      *testing.T
	cancel func()
	lines  chan []byte // closed at the stream's end
	m      postern.Map
	synced bool
}

func (m *member) watch() *watcher {
	t := m.d.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", m.d.url(postern.PathMap), nil)
	must(t, err)
	resp, err := m.client.Do(req)
	must(t, err)
	if resp.StatusCode != 200 {
		t.Fatalf("map stream: %s", resp.Status)
	}
	w := &watcher{t: t, lines: make(chan []byte, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(w.lines)
		defer resp.Body.Close()
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			w.lines <- slices.Clone(in.Bytes())
		}
	}()
	w.cancel = func() { cancel(); <-done }
	t.Cleanup(w.cancel)
	return w
}

// next takes one message in, and reports whether the stream goes on.
func (w *watcher) next() (postern.MapMessage, bool) {
	w.t.Helper()
	line, ok := <-w.lines
	if !ok {
		return postern.MapMessage{}, false
	}
	msg, err := postern.DecodeMapMessage(line)
	must(w.t, err)
	must(w.t, w.m.Apply(msg))
	if msg.Time.IsZero() {
		w.t.Errorf("message without a time: %s", line)
	}
	w.synced = w.synced || msg.Synced
	return msg, true
}

// until reads until ok.
func (w *watcher) until(what string, ok func(postern.Map) bool) {
	w.t.Helper()
	for !w.synced || !ok(w.m) {
		if _, more := w.next(); !more {
			w.t.Fatalf("stream ended before %s", what)
		}
	}
}

func (w *watcher) sync() {
	w.t.Helper()
	w.until("it was synced", func(postern.Map) bool { return true })
}

// ended reads to the stream's end.
func (w *watcher) ended() {
	w.t.Helper()
	for more := true; more; {
		_, more = w.next()
	}
}

// A node is told of itself, its own routes and the gateways; of nobody else.
func TestNodeMap(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	a := d.node("acme", "a", postern.DefaultService, "erp")
	d.node("acme", "neighbour", "erp", "secret")
	d.node("rival", "rivalnode", postern.DefaultService)
	g := d.gateway("door")
	must(t, g.call("PUT", postern.PathGateway, postern.Gateway{Endpoint: ":51820", Public: "203.0.113.1:443"}, nil))
	w := a.watch()
	var raw []string
	for !w.synced {
		line := <-w.lines
		raw = append(raw, string(line))
		msg, err := postern.DecodeMapMessage(line)
		must(t, err)
		must(t, w.m.Apply(msg))
		w.synced = msg.Synced
	}
	for _, word := range []string{"rival", "neighbour", "secret"} {
		if strings.Contains(strings.Join(raw, "\n"), word) {
			t.Errorf("node's map contains %q:\n%s", word, raw)
		}
	}
	got := w.m.Sections["acme"]
	want := postern.Section{
		Tenant: "acme", Version: got.Version,
		Nodes: []postern.Node{{ID: a.ID, Name: "a", Address: a.Address, WireGuard: a.wireguard.Public(), Identity: a.identity.Public()}},
		Routes: []postern.Route{
			{Host: "acme." + base, Service: postern.DefaultService, Nodes: []string{a.ID}},
			{Host: "erp.acme." + base, Service: "erp", Nodes: []string{a.ID}, Keys: []string{""}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("section: got %+v, want %+v", got, want)
	}
	dep := w.m.Deployment()
	wantGateways := []postern.Gateway{{
		ID: g.ID, Name: "door", Address: g.Address, WireGuard: g.wireguard.Public(),
		Endpoint: "127.0.0.1:51820", Public: "203.0.113.1:443", Identity: g.identity.Public(),
	}}
	if !reflect.DeepEqual(dep.Gateways, wantGateways) {
		t.Errorf("gateways: got %+v, want %+v", dep.Gateways, wantGateways)
	}
	if dep.Names != nil || dep.ID != d.authority.Deployment() || dep.Base != base || dep.Port != 8443 || len(dep.CA) == 0 {
		t.Errorf("deployment: got %+v", dep)
	}
	var keys jose.JSONWebKeySet
	if dep.Portal == nil || dep.Portal.Issuer != "https://"+portalHost+":8443" || json.Unmarshal(dep.Portal.Keys, &keys) != nil {
		t.Fatalf("portal: got %+v", dep.Portal)
	}
	if k := keys.Keys; len(k) != 1 || !k[0].IsPublic() || !d.authority.SignInKey().PublicKey.Equal(k[0].Key) {
		t.Errorf("portal's keys: got %s", dep.Portal.Keys)
	}
	if len(w.m.Sections) != 2 {
		t.Errorf("got %d sections, want 2", len(w.m.Sections))
	}
}

func TestGatewayMap(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("other")
	a1, a2 := d.node("acme", "a1", "erp"), d.node("acme", "a2", "erp")
	g := d.gateway("door")
	d.gateway("back")
	w := g.watch()
	w.sync()
	dep := w.m.Deployment()
	if len(dep.Gateways) != 1 || dep.Gateways[0].ID != g.ID || !slices.Equal(dep.Names, ownNames) || dep.Portal != nil {
		t.Errorf("deployment: got %+v", dep)
	}
	s := w.m.Sections["acme"]
	want := []postern.Route{{Host: "erp.acme." + base, Service: "erp", Nodes: []string{a1.ID, a2.ID}}}
	if len(s.Nodes) != 2 || !reflect.DeepEqual(s.Routes, want) {
		t.Errorf("section: got %+v, want routes %+v", s, want)
	}
	untouched := w.m.Sections["other"].Version

	a2.publish()
	w.until("a2 withdrew", func(m postern.Map) bool { return len(m.Sections["acme"].Routes[0].Nodes) == 1 })
	a1.publish()
	w.until("nobody publishes", func(m postern.Map) bool { return len(m.Sections["acme"].Routes) == 0 })
	must(t, d.operate("DELETE", "/nodes/"+a2.ID, nil, nil))
	w.until("a2 is gone", func(m postern.Map) bool { return len(m.Sections["acme"].Nodes) == 1 })
	if got := w.m.Sections["other"].Version; got != untouched {
		t.Errorf("another tenant's section came again: version %d after %d", got, untouched)
	}
	must(t, d.operate("DELETE", "/tenants/acme", nil, nil))
	w.until("acme is gone", func(m postern.Map) bool { _, there := m.Sections["acme"]; return !there })
	d.addTenant("late")
	w.until("late is there", func(m postern.Map) bool { _, there := m.Sections["late"]; return there })
}

// A removed member's stream ends at once, and it is told why afterwards.
func TestRemoveEndsStream(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, b, g := d.node("acme", "a"), d.node("acme", "b"), d.gateway("door")
	streams := map[*member]*watcher{a: a.watch(), b: b.watch(), g: g.watch()}
	for _, w := range streams {
		w.sync()
	}
	for _, tt := range []struct {
		m    *member
		path string
	}{{a, "/nodes/" + a.ID}, {b, "/tenants/acme"}, {g, "/gateways/" + g.ID}} {
		must(t, d.operate("DELETE", tt.path, nil, nil))
		streams[tt.m].ended()
		for _, path := range []string{postern.PathRenew, postern.PathStatus} {
			wantProblem(t, tt.m.call("POST", path, struct{}{}, nil), 403, postern.CodeRevoked)
		}
		wantProblem(t, tt.m.call("GET", postern.PathMap, nil, nil), 403, postern.CodeRevoked)
	}
}

func TestNewestStreamWins(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a")
	first := a.watch()
	first.sync()
	second := a.watch()
	second.sync()
	first.ended()
	a.publish("erp")
	second.until("the route is there", func(m postern.Map) bool { return len(m.Sections["acme"].Routes) == 1 })
	var nodes []postern.NodeState
	must(t, d.operate("GET", "/nodes", nil, &nodes))
	if nodes[0].State != postern.StateDegraded {
		t.Errorf("state: got %q, want %q", nodes[0].State, postern.StateDegraded)
	}
}

// Versions and membership outlive a restart, also one with an older registry.
func TestRestart(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a", "erp"), d.gateway("door")
	w := g.watch()
	w.sync()
	backup := d.dir + "/backup.db"
	must(t, d.store.Backup(t.Context(), backup))
	for range 5 { // these changes will be lost
		a.publish()
		a.publish("erp")
	}
	w.until("the last change is there", func(m postern.Map) bool { return m.Version > w.m.Sections[""].Version+5 })
	held := w.m.Clone()
	w.cancel()
	d.stop()
	must(t, restore(backup, d.dir+"/registry.db"))
	d.start()
	for _, m := range []*member{a, g} {
		again := &watcher{}
		m.client = d.clientFor(m.certificate())
		*again = *m.watch()
		if m == g {
			again.m = held.Clone() // what is told now must be newer than that
		}
		again.sync()
		if len(again.m.Sections["acme"].Routes) != 1 {
			t.Errorf("after the restart: got %+v", again.m)
		}
		if again.m.Version <= held.Version {
			t.Errorf("map version %d after %d", again.m.Version, held.Version)
		}
		again.cancel()
	}
}

// A reader that stops for a while gets the newest section, not each there was.
func TestSlowReader(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a"), d.gateway("door")
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Serve(ctx, ln, nil); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	defer wg.Wait()
	defer cancel()

	client, server := net.Pipe() // holds nothing: what is not read is not written
	ln.conns <- server
	conn := tls.Client(client, identity.ClientConfig(d.authority.Root(), g.certificate(), "http/1.1"))
	defer client.Close()
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", postern.PathMap)
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil) // its body has no end to close at
	must(t, err)
	in := bufio.NewScanner(resp.Body)
	next := func() postern.MapMessage {
		if !in.Scan() {
			t.Fatalf("stream ended: %v", in.Err())
		}
		msg, err := postern.DecodeMapMessage(in.Bytes())
		must(t, err)
		return msg
	}
	for !next().Synced {
	}
	const changes = 20
	for i := range changes {
		a.publish([]string{"one", "two"}[i%2])
	}
	version, got := d.mapVersion(), 0
	for {
		if msg := next(); msg.Section != nil {
			got++
			if msg.Section.Version == version {
				break
			}
		}
	}
	if got > 2 {
		t.Errorf("%d sections for %d changes, want the one that was on its way and the newest", got, changes)
	}
}

// A pipeListener accepts what is sent to conns.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (d *deployment) mapVersion() uint64 {
	var o postern.Overview
	must(d.t, d.operate("GET", "/status", nil, &o))
	return o.MapVersion
}

func TestMembersOnly(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	stranger := &member{d: d, client: d.clientFor(nil)}
	node, gateway := d.node("acme", "a"), d.gateway("door")
	other := deploy(t)
	other.addTenant("acme")
	foreign := other.node("acme", "a")
	foreign.d, foreign.client = d, d.clientFor(foreign.certificate())
	tests := []struct {
		name, method, path string
		who                *member
		status             int
		code               string
	}{
		{"map", "GET", postern.PathMap, stranger, 401, postern.CodeUnauthorized},
		{"renew", "POST", postern.PathRenew, stranger, 401, postern.CodeUnauthorized},
		{"services", "PUT", postern.PathServices, stranger, 401, postern.CodeUnauthorized},
		{"certificates", "POST", postern.PathCertificates, stranger, 401, postern.CodeUnauthorized},
		{"gateway", "PUT", postern.PathGateway, stranger, 401, postern.CodeUnauthorized},
		{"status", "POST", postern.PathStatus, stranger, 401, postern.CodeUnauthorized},
		{"of another deployment", "GET", postern.PathMap, foreign, 401, postern.CodeUnauthorized},
		{"gateway publishes", "PUT", postern.PathServices, gateway, 403, postern.CodeForbidden},
		{"gateway asks for a certificate", "POST", postern.PathCertificates, gateway, 403, postern.CodeForbidden},
		{"node as a gateway", "PUT", postern.PathGateway, node, 403, postern.CodeForbidden},
		{"no such path", "GET", "/v1/nothing", node, 404, postern.CodeNotFound},
		{"admin without a token", "GET", postern.PathAdmin + "/nodes", node, 401, postern.CodeUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantProblem(t, tt.who.call(tt.method, tt.path, struct{}{}, nil), tt.status, tt.code)
		})
	}
}

func TestPublishRefused(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a")
	many := make([]postern.Service, 65)
	for i := range many {
		many[i].Name = "s" + strings.Repeat("x", i%60)
	}
	tests := []struct {
		name     string
		services []postern.Service
	}{
		{"no label", []postern.Service{{Name: "a.b"}}},
		{"twice", []postern.Service{{Name: "a"}, {Name: "b"}, {Name: "a"}}},
		{"title of two lines", []postern.Service{{Name: "a", Title: "a\nb"}}},
		{"too many", many},
		{"an icon that is none", []postern.Service{{Name: "a", Icon: "skull"}}},
		{"an entry elsewhere", []postern.Service{{Name: "a", Entries: []postern.Entry{{Name: "e", Path: "//evil.example/"}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantProblem(t, a.call("PUT", postern.PathServices, postern.Publication{Services: tt.services}, nil), 422, postern.CodeInvalid)
		})
	}
}

// TestPublishCatalogue holds what operators are told of a node against what it
// said, and what it said against what others are told.
func TestPublishCatalogue(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a")
	services := []postern.Service{
		{Name: "books", Title: "Books", Description: "Double entry.", Icon: "book", Entries: []postern.Entry{
			{Name: "y2026", Title: "2026", Path: "/y/2026", Note: "open"}, {Name: "y2025", Path: "/y/2025"},
		}},
		{Name: "files"},
	}
	publish := func() (audits int) {
		t.Helper()
		must(t, a.call("PUT", postern.PathServices, postern.Publication{Services: services}, nil))
		var nodes []postern.NodeState
		must(t, d.operate("GET", "/nodes", nil, &nodes))
		if !reflect.DeepEqual(nodes[0].Services, services) {
			t.Errorf("operators are told %+v, want %+v", nodes[0].Services, services)
		}
		var log []postern.AuditEntry
		must(t, d.operate("GET", "/audit", nil, &log))
		for _, e := range log {
			if e.Action == "node.publish" {
				audits++
			}
		}
		return audits
	}
	if got := publish(); got != 1 {
		t.Errorf("%d entries in the audit log, want 1", got)
	}
	if got := publish(); got != 1 {
		t.Errorf("the same again: %d entries in the audit log, want 1", got)
	}
	services[0].Entries[1].Note = "closed"
	if got := publish(); got != 2 {
		t.Errorf("another note: %d entries in the audit log, want 2", got)
	}
}

func TestGatewayAddress(t *testing.T) {
	d := deploy(t)
	g := d.gateway("door")
	tests := []struct{ name, in, want string }{
		{"empty", "", ""},
		{"no host", ":51820", "127.0.0.1:51820"},
		{"unspecified", "0.0.0.0:51820", "127.0.0.1:51820"},
		{"unspecified IPv6", "[::]:51820", "127.0.0.1:51820"},
		{"address", "[2001:db8::1]:51820", "[2001:db8::1]:51820"},
		{"name", "Door.Example.com:443", "door.example.com:443"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			must(t, g.call("PUT", postern.PathGateway, postern.Gateway{Endpoint: tt.in, Public: tt.in}, nil))
			var all []postern.GatewayState
			must(t, d.operate("GET", "/gateways", nil, &all))
			if all[0].Endpoint != tt.want || all[0].Public != tt.want {
				t.Errorf("got %q and %q, want %q", all[0].Endpoint, all[0].Public, tt.want)
			}
		})
	}
	for _, bad := range []string{"x", "host:0", "host:65536", "a b:1", "host:name"} {
		wantProblem(t, g.call("PUT", postern.PathGateway, postern.Gateway{Endpoint: bad}, nil), 422, postern.CodeInvalid)
	}
}

// restore puts a backup in the place of the registry at path.
func restore(backup, path string) error {
	for _, old := range []string{path + "-wal", path + "-shm"} {
		os.Remove(old)
	}
	return os.Rename(backup, path)
}
