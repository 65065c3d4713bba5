package coordinator_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/internal/identity"
	"postern/internal/proxyproto"
)

const control = "control." + base

// pipe opens an edge pipe as m does for a stranger at remote who asked for name.
func (m *member) pipe(remote, name string) (net.Conn, error) {
	conn, err := tls.Dial("tcp", m.d.addr, identity.ClientConfig(m.d.authority.Root(), m.certificate(), postern.EdgeProtocol))
	if err != nil {
		return nil, err
	}
	if p := conn.ConnectionState().NegotiatedProtocol; p != postern.EdgeProtocol {
		conn.Close()
		return nil, fmt.Errorf("protocol %q", p)
	}
	header, err := proxyproto.Header{
		Src: netip.MustParseAddrPort(remote), Dst: netip.MustParseAddrPort("192.0.2.2:443"), Authority: name,
	}.AppendBinary(nil)
	if err == nil {
		_, err = conn.Write(header)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// through returns a client whose connections go through m's pipes, and that
// asks for serverName inside.
func (m *member) through(remote, routed, serverName string, cert *tls.Certificate, protos ...string) *http.Client {
	cfg := identity.ClientConfig(m.d.authority.Root(), cert, protos...)
	cfg.ServerName = serverName
	tr := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			outer, err := m.pipe(remote, routed)
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
	m.d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// What comes out of a pipe is served like any connection, as from the
// stranger's own address.
func TestEdgePipe(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	g := d.gateway("door")
	for _, proto := range []string{"h2", "http/1.1"} {
		client := g.through("203.0.113.7:4711", control, control, nil, proto)
		var challenge postern.Challenge
		must(t, call(client, "GET", "https://"+control+postern.PathEnroll, nil, &challenge))
		if challenge.WireGuard.IsZero() {
			t.Errorf("%s: no challenge", proto)
		}
		wantProblem(t, call(client, "POST", "https://"+control+postern.PathEnroll, struct{}{}, nil), 422, postern.CodeInvalid)
	}
	var entries []postern.AuditEntry
	must(t, d.operate("GET", "/audit", nil, &entries))
	if last := entries[len(entries)-1]; !strings.HasPrefix(last.Detail, "203.0.113.7: ") {
		t.Errorf("the coordinator saw %q, want 203.0.113.7", last.Detail)
	}
	// A gateway takes the coordinator's address for its own endpoint from there too.
	client := g.through("198.51.100.9:1", control, control, g.certificate(), "h2")
	must(t, call(client, "PUT", "https://"+control+postern.PathGateway, postern.Gateway{Endpoint: ":51820"}, nil))
	var all []postern.GatewayState
	must(t, d.operate("GET", "/gateways", nil, &all))
	if all[0].Endpoint != "198.51.100.9:51820" {
		t.Errorf("endpoint: got %q", all[0].Endpoint)
	}
}

func TestEdgePipeRefused(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	g, a := d.gateway("door"), d.node("acme", "a")
	removed := d.gateway("gone")
	must(t, d.operate("DELETE", "/gateways/"+removed.ID, nil, nil))
	tests := []struct {
		name           string
		who            *member
		routed, server string
		protos         []string
	}{
		{"by a node", a, control, control, []string{"h2"}},
		{"by a removed gateway", removed, control, control, []string{"h2"}},
		{"for a tenant's name", g, "acme." + base, "acme." + base, []string{"h2"}},
		{"for another name than routed", g, control, "other." + base, []string{"h2"}},
		{"for a name routed as another", g, "other." + base, control, []string{"h2"}},
		{"a pipe in a pipe", g, control, control, []string{postern.EdgeProtocol}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := tt.who.through("203.0.113.7:4711", tt.routed, tt.server, nil, tt.protos...)
			if err := call(client, "GET", "https://"+control+postern.PathEnroll, nil, nil); err == nil {
				t.Error("it was served")
			}
		})
	}
	t.Run("without a header", func(t *testing.T) {
		conn, err := tls.Dial("tcp", d.addr, identity.ClientConfig(d.authority.Root(), g.certificate(), postern.EdgeProtocol))
		must(t, err)
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes, want none", n)
		}
	})
	t.Run("without a certificate", func(t *testing.T) {
		conn, err := tls.Dial("tcp", d.addr, identity.ClientConfig(d.authority.Root(), nil, postern.EdgeProtocol))
		must(t, err)
		defer conn.Close()
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes, want none", n)
		}
	})
}

// Who says nothing makes room for who does, and costs no member its connection.
func TestStrangersMakeRoom(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a")
	watch := a.watch()
	watch.sync()
	var first net.Conn
	for range 1100 { // above what one source may have
		conn, err := net.Dial("tcp", d.addr)
		must(t, err)
		defer conn.Close()
		if first == nil {
			first = conn
		}
	}
	d.node("acme", "b", postern.DefaultService)
	must(t, first.SetReadDeadline(time.Now().Add(5*time.Second))) // a handshake may take 10
	if _, err := first.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the first to be silent: got %v, want it to be cut off", err)
	}
	a.publish("erp")
	watch.until("it told of the route", func(m postern.Map) bool { return len(m.Sections["acme"].Routes) == 1 })
	watch.cancel()
}

// A gateway's pipes must not end in pipes.
func TestNoGatewayJoinsThroughAPipe(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	g := d.gateway("door")
	through := func(a *attempt) { a.client = g.through("203.0.113.7:4711", control, control, nil, "h2") }
	token := d.token(postern.TokenRequest{Role: postern.RoleGateway})
	second := d.newMember(postern.RoleGateway)
	wantProblem(t, second.join(token, "second", through), 403, postern.CodeForbidden)
	must(t, second.join(token, "second")) // the token is as good as before
	must(t, d.newMember(postern.RoleNode).join(d.token(postern.TokenRequest{Tenant: "acme"}), "a", through))
}

// A removed gateway's pipes are cut.
func TestRemoveCutsPipes(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	g, a := d.gateway("door"), d.node("acme", "a")
	client := g.through("203.0.113.7:4711", control, control, a.certificate(), "h2")
	resp, err := client.Get("https://" + control + postern.PathMap)
	must(t, err)
	defer resp.Body.Close()
	in := json.NewDecoder(resp.Body)
	for msg := (postern.MapMessage{}); !msg.Synced; {
		must(t, in.Decode(&msg))
	}
	must(t, d.operate("DELETE", "/gateways/"+g.ID, nil, nil))
	for err == nil {
		err = in.Decode(new(postern.MapMessage))
	}
}

// Only the pinned root is good enough for a client.
func TestControlTLS(t *testing.T) {
	d := deploy(t)
	foreign := identity.ClientConfig(postern.RootHash{1}, nil)
	if conn, err := tls.Dial("tcp", d.addr, foreign); err == nil {
		conn.Close()
		t.Error("a client with another root was content")
	}
	old := identity.ClientConfig(d.authority.Root(), nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if conn, err := tls.Dial("tcp", d.addr, old); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was good enough")
	}
}
