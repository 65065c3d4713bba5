//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern"
	"postern/internal/acme"
	"postern/internal/acme/acmetest"
	"postern/node"
)

// alarmed waits until name's node says that somebody is in between, and returns what it
// says of the first route.
func (c *certs) alarmed(name string) (r node.Route) {
	c.t.Helper()
	eventually(c.t, certsTime, func() error {
		s, err := c.tryStatus(name)
		if err != nil {
			return err
		}
		if len(s.Routes) == 0 || s.Routes[0].State != node.RouteAlarm {
			return fmt.Errorf("the node raised no alarm: %+v", s.Routes)
		}
		r = s.Routes[0]
		return nil
	})
	return r
}

// TestCertsEvilOwnKey: a gateway that ends TLS with a key of its own is seen by the node,
// and by everybody who asks.
func TestCertsEvilOwnKey(t *testing.T) {
	c := newCerts(t)
	c.node(c.tenant("acme"), "office", c.app.URL)
	const host = "acme." + base
	held := c.status("office").Routes[0].Certificate.SPKI
	eventually(t, certsTime, func() error {
		if got := c.routeOf(host).Certificates; len(got) != 1 || got[0].SPKI != held || got[0].Statement == nil {
			return fmt.Errorf("the coordinator knows of %+v", got)
		}
		return nil
	})
	c.gateway.stop()
	start := time.Now()
	c.becomeObserver(observer{
		Data: c.data("gateway"), Listen: loopback(c.https), UDP: uint16(c.udp), Advertise: loopback(c.udp),
		Public: loopback(c.https), Record: c.data("record"), Intercept: c.data("intercept.pem"),
	})
	// A node looks when its map changes, and every ten minutes; a start asks at once.
	c.restart("office")
	c.alarmed("office")
	noteFigure(t, "certs", "gateway with a key of its own: node's alarm", time.Since(start).Seconds(), "s, its start and the node's included")

	eventually(t, certsTime, func() error {
		if got := c.routeOf(host).Certificates; len(got) != 1 || got[0].Alarm == "" {
			return fmt.Errorf("the coordinator knows of no alarm: %+v", got)
		}
		return nil
	})
	var audit []postern.AuditEntry
	c.cli(&audit, "audit", "list", "--action", "certificate.alarm")
	if len(audit) == 0 || audit[0].Target != host || audit[0].Tenant != "acme" {
		t.Errorf("the audit log has %+v", audit)
	}
	if list, err := c.try("routes", "list"); err != nil || !strings.Contains(list, "ALARM") {
		t.Errorf("routes list: %v\n%s", err, list)
	}
	c.wantMetric("office", `postern_node_certificate_alarm{host="`+host+`"} 1`)
	for _, args := range [][]string{
		{"verify", c.url("acme", ""), "--connect", loopback(c.https), "--ca", c.data("acme-root.pem")},
		{"verify", c.url("acme", ""), "--connect", loopback(c.https), "--node", "--data", c.data("coordinator")},
		{"verify", c.url("acme", ""), "--connect", loopback(c.https), "--local", "--data", c.data("office")},
		{"doctor", "--data", c.data("office"), "--resolver", c.names.Addr},
	} {
		if out, err := run(t, "", append([]string{program("postern")}, args...)...); err == nil {
			t.Errorf("%v is content:\n%s", args, out)
		}
	}
	proved(t, 2, "It cannot end TLS unseen.",
		"A gateway made of the same parts ended TLS with a key of its own and read along.",
		"The node found out by itself, and said so in its status, its metrics, the list of routes and the audit log. "+
			"`postern verify` and `postern doctor` exited with 1. Browsers that trust the authority alone were warned.")
}

// wantMetric checks that the node called name has that line among its metrics.
func (c *certs) wantMetric(name, line string) {
	c.t.Helper()
	hc := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.data(name)+"/"+node.Socket)
	}}}
	defer hc.CloseIdleConnections()
	_, text, err := get(hc, "http://node/metrics")
	if err != nil || !strings.Contains(text, line+"\n") {
		c.t.Errorf("no %s among the metrics: %v", line, err)
	}
}

// An impostor stands where the gateway stood, and asks the authority for certificates in
// its own name. It answers whatever the authority asks, as who carries all traffic can.
type impostor struct {
	*acme.Manager
	hits atomic.Int64 // handshakes that it ended with a certificate of its own
}

// impersonate takes the gateway's place. Its port is free.
func (c *certs) impersonate(host string) *impostor {
	c.t.Helper()
	m, err := acme.New(acme.Config{Dir: c.data("impostor")})
	if err != nil {
		c.t.Fatal(err)
	}
	i := &impostor{Manager: m}
	ln, err := net.Listen("tcp", loopback(c.https))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { m.Run(ctx) })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { i.answer(ctx, conn) })
		}
	})
	c.t.Cleanup(func() { cancel(); ln.Close(); wg.Wait() })
	issuer := acme.Issuer{}
	issuer.Directory, issuer.Roots = c.ca.URL, c.ca.Roots
	m.Want([]string{host}, []acme.Issuer{issuer})
	return i
}

func (i *impostor) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := tls.Server(conn, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if cert, ok := i.Challenge(hello.ServerName); ok && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == "acme-tls/1" {
			return &tls.Config{NextProtos: hello.SupportedProtos, Certificates: []tls.Certificate{*cert}}, nil
		}
		cert, err := i.Get(hello.ServerName)
		if err != nil {
			return nil, err
		}
		return &tls.Config{Certificates: []tls.Certificate{*cert}}, nil
	}}).HandshakeContext(ctx)
	if err == nil {
		i.hits.Add(1)
	}
}

// TestCertsEvilOrders: who carries all traffic gets no certificate where CAA names the
// node's account. Where nothing does, they get one that browsers trust, and the node sees
// that it is not its own.
func TestCertsEvilOrders(t *testing.T) {
	c := newCerts(t)
	c.node(c.tenant("acme"), "office", c.app.URL)
	const host = "acme." + base
	before, err := c.shown(host)
	if err != nil {
		t.Fatal(err)
	}
	c.names.add(t, strings.Join(c.status("office").Routes[0].Certificate.Records, "\n"))
	if out, err := run(t, "", program("postern"), "doctor", "--data", c.data("office"), "--resolver", c.names.Addr); err != nil || !strings.Contains(out, "grade A") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	must(t, program("postern"), "node", "renew", host, "--data", c.data("office"))
	c.renewed(host, before) // the node itself is let in

	c.gateway.stop()
	signed := c.ca.Requests()[acmetest.Certificate]
	evil := c.impersonate(host)
	var why error
	eventually(t, certsTime, func() error {
		if why = evil.State(host).Err; why == nil {
			return errors.New("the impostor was not refused yet")
		}
		return nil
	})
	if !strings.Contains(why.Error(), "urn:ietf:params:acme:error:caa") || c.ca.Requests()[acmetest.Certificate] != signed {
		t.Errorf("the impostor was refused with %v, and %d certificates were given", why, c.ca.Requests()[acmetest.Certificate]-signed)
	}

	// Without the records, the authority has no reason to refuse.
	c.names.SetZone(t, "")
	if err := evil.Renew(host); err != nil {
		t.Fatal(err)
	}
	eventually(t, certsTime, func() error { _, err := evil.Get(host); return err })
	if cert, err := c.shown(host); err != nil || cert.PublicKey == nil {
		t.Fatalf("browsers do not trust the impostor's: %v", err)
	}
	c.restart("office")
	if r := c.alarmed("office"); !strings.Contains(r.Error, "another certificate") {
		t.Errorf("the node says %q", r.Error)
	}
	url := c.url("acme", "")
	trusted := []string{program("postern"), "verify", url, "--connect", loopback(c.https), "--ca", c.file("issuing.pem", c.ca.Issuing())}
	must(t, trusted...) // so a browser is content
	if out, err := run(t, "", append(trusted, "--local", "--data", c.data("office"))...); err == nil {
		t.Errorf("verified against the node:\n%s", out)
	}
	if evil.hits.Load() == 0 {
		t.Error("nobody was led to the impostor")
	}
	proved(t, 3, "It cannot get a certificate.",
		"A gateway, which all of the authority's handshakes come to, ordered one for a node's name with an account of its own, and answered the challenge.",
		"The authority refused: "+why.Error()+". Without the CAA records that `postern node status` prints it gave one, which browsers trust; "+
			"the node saw at once that the key is not its own, and `postern verify --local` exited with 1.")
}

// TestCertsReplay: what a gateway has recorded of a session is of no use to it.
func TestCertsReplay(t *testing.T) {
	c := newCerts(t)
	var posted atomic.Int64
	c.app.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { posted.Add(1) })
	c.node(c.tenant("acme"), "office", c.app.URL)
	const host = "acme." + base
	raw, err := net.Dial("tcp", loopback(c.https))
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	conn := tls.Client(spokenConn{raw, &said}, &tls.Config{ServerName: host, RootCAs: c.trusted()})
	fmt.Fprintf(conn, "POST /transfer HTTP/1.1\r\nHost: %s:%d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", host, c.https)
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if posted.Load() != 1 {
		t.Fatalf("the application had %d requests, want the one", posted.Load())
	}
	const again = 20
	for range again {
		raw, err := net.Dial("tcp", loopback(c.https))
		if err != nil {
			t.Fatal(err)
		}
		raw.SetDeadline(time.Now().Add(20 * time.Second))
		raw.Write(said.Bytes())
		answer, err := io.ReadAll(raw)
		raw.Close()
		if err != nil && !errors.Is(err, net.ErrClosed) || len(answer) == 0 {
			t.Logf("answered with %d bytes, %v", len(answer), err)
		}
	}
	if got := posted.Load(); got != 1 {
		t.Errorf("the application had %d requests after the replays", got-1)
	}
	proved(t, 4, "What it records is of no use to it.",
		fmt.Sprintf("All that a browser said in one session, a POST in it, was sent to the node %d times again.", again),
		"The node answered each hello with keys of its own and ended the connection at what followed. The application had no request.")
}

// A spokenConn keeps what was written to it.
type spokenConn struct {
	net.Conn
	said *bytes.Buffer
}

func (c spokenConn) Write(b []byte) (int, error) {
	c.said.Write(b)
	return c.Conn.Write(b)
}
