package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"postern"
)

// relayHello sends the hello of who asks for a relay at name, empty for none, and returns
// the error of the handshake.
func relayHello(t *testing.T, addr, name string, protos ...string) error {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	return tls.Client(raw, &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true}).Handshake()
}

// What asks for a relay reaches Config.Relay, unless its name is a tenant's; all else
// does not.
func TestRelayIsToldFromBrowsers(t *testing.T) {
	asked := make(chan netip.AddrPort, 16)
	g := New(Config{Relay: func(ctx context.Context, c net.Conn, remote netip.AddrPort) error {
		defer c.Close()
		asked <- remote // before the client hears anything
		// The hello comes whole, and the options of the socket can be set.
		var name string
		err := tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name = h.ServerName
			return nil, errors.New("seen")
		}}).Handshake()
		if err == nil || err.Error() != "seen" || name == "acme.apps.example.com" {
			t.Errorf("got %v, name %q", err, name)
		}
		return io.EOF
	}, DialTimeout: 50 * time.Millisecond})
	g.SetRoutes(NewTable(postern.Map{Sections: map[string]postern.Section{
		"acme": {Tenant: "acme", Routes: []postern.Route{{Host: "acme.apps.example.com", Service: "default"}}},
	}}))
	ln := listen(t)
	serve(t, g, ln)
	for _, tt := range []struct {
		name   string
		server string
		protos []string
		want   bool
	}{
		{"no name", "", []string{postern.RelayProtocol}, true},
		{"the gateway's name", "gw1.example.com", []string{postern.RelayProtocol}, true},
		{"a tenant's name", "acme.apps.example.com", []string{postern.RelayProtocol}, false},
		{"among others", "gw1.example.com", []string{"h2", postern.RelayProtocol}, false},
		{"a browser", "gw1.example.com", []string{"h2", "http/1.1"}, false},
		{"no name, a browser", "", []string{"h2"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := relayHello(t, ln.Addr().String(), tt.server, tt.protos...); err == nil {
				t.Error("a handshake was done")
			}
			if got := len(asked) > 0; got != tt.want {
				t.Errorf("asked for a relay: %t, want %t", got, tt.want)
			}
			for len(asked) > 0 {
				if at := <-asked; !at.Addr().IsLoopback() {
					t.Errorf("at %v", at)
				}
			}
		})
	}
}

// A relay lives until what is spliced has ended, and keeps nothing open after that.
func TestRelayEndsWithTheGateway(t *testing.T) {
	up := make(chan struct{})
	g := New(Config{Relay: func(ctx context.Context, c net.Conn, _ netip.AddrPort) error {
		defer c.Close()
		close(up)
		<-ctx.Done()
		return context.Cause(ctx)
	}})
	ln := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ln) }()
	done := make(chan struct{})
	go func() { defer close(done); relayHello(t, ln.Addr().String(), "", postern.RelayProtocol) }()
	<-up
	if s := g.Stats(); s.Relays != 1 || s.Open != 1 {
		t.Errorf("got %+v", s)
	}
	cancel()
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		t.Fatal("the gateway does not end")
	}
	<-done
	if s := g.Stats(); s.Relays != 0 || s.Open != 0 {
		t.Errorf("got %+v", s)
	}
}
