package node

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern"
)

// denied stands for the alert access_denied in place of a certificate.
var denied = &certificate{}

// publicGateway shows cert to whoever connects, as a gateway's port would.
func publicGateway(t *testing.T, cert func() *certificate) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer raw.Close()
				if cert() == denied {
					raw.Read(make([]byte, 4<<10)) // the hello
					raw.Write([]byte{21, 3, 3, 0, 2, 2, 49})
					return
				}
				c := tls.Server(raw, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
					if hello.ServerName != "a.test" {
						t.Errorf("asked for %q", hello.ServerName)
					}
					if c := cert(); c != nil {
						return &c.Certificate, nil
					}
					return nil, nil
				}})
				if c.Handshake() == nil {
					c.Read(make([]byte, 1)) // until the lookout is done
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return "gw.localhost:" + port
}

func certFor(t *testing.T, ca *testCA, source, host string) *certificate {
	t.Helper()
	chain, key := ca.pair(host)
	cert, err := parseCertificate(chain, key, source)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestLookout(t *testing.T) {
	ca, foreign := newTestCA(t), newTestCA(t)
	ours := certFor(t, ca, SourceCA, "a.test")
	own := certFor(t, foreign, SourceFile, "a.test")
	sibling := certFor(t, ca, SourceCA, "a.test")
	theirs := certFor(t, foreign, SourceCA, "a.test")
	tests := []struct {
		name       string
		held       *certificate
		shown      []*certificate // by each gateway; nil: unrecognized_name; or denied
		state      string
		note, says string
	}{
		{"ours", ours, []*certificate{ours}, RouteReady, "", ""},
		{"another node's of the route", ours, []*certificate{sibling}, RouteReady, "another node", ""},
		{"somebody else's", ours, []*certificate{theirs}, RouteAlarm, "", "another certificate"},
		{"own files", own, []*certificate{own}, RouteReady, "", ""},
		{"own files, the private CA's is shown", own, []*certificate{ours}, RouteAlarm, "", "another certificate"},
		{"one of two gateways lies", ours, []*certificate{ours, theirs}, RouteAlarm, "", "another certificate"},
		{"one of two gateways knows us not", ours, []*certificate{nil, ours}, RouteReady, "", ""},
		{"the gateway knows us not", ours, []*certificate{nil}, RouteWaiting, "", "unrecognized name"},
		{"the gateway does not let us in", ours, []*certificate{denied}, RouteClosed, "", "has to be allowed"},
		{"one of two gateways does not let us in", ours, []*certificate{ours, denied}, RouteReady, "", ""},
		{"the other does not, either", ours, []*certificate{denied, nil}, RouteClosed, "", "has to be allowed"},
		{"one does not, the other lies", ours, []*certificate{denied, theirs}, RouteAlarm, "", "another certificate"},
		{"no gateway", ours, nil, RouteWaiting, "", "no gateway"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var gateways []postern.Gateway
			for _, cert := range tt.shown {
				gateways = append(gateways, postern.Gateway{Name: "gw", Public: publicGateway(t, func() *certificate { return cert })})
			}
			l := newLookout(func(string) (*certificate, error) { return tt.held, nil }, func() {}, nil, discard)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { l.run(ctx) })
			l.want([]string{"a.test"}, gateways, ca.pem, nil)
			await(t, "a look", func() bool { return l.get("a.test").state != "" })
			cancel()
			wg.Wait()
			v := l.get("a.test")
			if v.state != tt.state || !strings.Contains(v.note, tt.note) || (v.note == "") != (tt.note == "") {
				t.Errorf("state %q, note %q, want %q, %q", v.state, v.note, tt.state, tt.note)
			}
			if (v.err == nil) != (tt.says == "") || v.err != nil && !strings.Contains(v.err.Error(), tt.says) {
				t.Errorf("error %v, want %q", v.err, tt.says)
			}
			if tt.state == RouteReady && (v.tls != "TLS 1.3" || v.at.IsZero() || v.sha256 == "") {
				t.Errorf("ready, but saw %+v", v)
			}
		})
	}
}

func TestLookoutLooksAgainAtAnotherCertificate(t *testing.T) {
	ca := newTestCA(t)
	var mu sync.Mutex
	held := certFor(t, ca, SourceCA, "a.test")
	current := func() *certificate { mu.Lock(); defer mu.Unlock(); return held }
	l := newLookout(func(string) (*certificate, error) { return current(), nil }, func() {}, nil, discard)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { l.run(ctx) })
	l.want([]string{"a.test"}, []postern.Gateway{{Name: "gw", Public: publicGateway(t, current)}}, ca.pem, nil)
	await(t, "the first look", func() bool { return l.get("a.test").sha256 == current().sha256 })
	mu.Lock()
	held = certFor(t, ca, SourceCA, "a.test")
	mu.Unlock()
	l.again()
	await(t, "the second look", func() bool { return l.get("a.test").sha256 == current().sha256 })
}

// With a key of a public authority's certificate, what counts is the key: a renewal that
// has come to one side and not the other is no alarm, nor is another node's key that the
// map tells of.
func TestCompareKeys(t *testing.T) {
	ca := newTestCA(t)
	held := certFor(t, ca, SourceACME, "a.test")
	renewed := *held
	chain := ca.leaf(held.Leaf.PublicKey, time.Now(), time.Now().Add(time.Hour), "a.test")
	block, _ := pem.Decode(chain)
	renewed.Certificate.Certificate = [][]byte{block.Bytes}
	sibling, stranger := certFor(t, ca, SourceACME, "a.test"), certFor(t, ca, SourceACME, "a.test")
	for _, tt := range []struct {
		name  string
		shown *certificate
		state string
	}{
		{"the same", held, RouteReady},
		{"renewed", &renewed, RouteReady},
		{"another node's", sibling, RouteReady},
		{"a stranger's, from the same authority", stranger, RouteAlarm},
	} {
		g := postern.Gateway{Name: "gw", Public: publicGateway(t, func() *certificate { return tt.shown })}
		v := compare(t.Context(), nil, g, "a.test", ours{cert: held, keys: []string{sibling.spki}})
		if v.state != tt.state || (v.note != "") != (tt.shown == sibling) {
			t.Errorf("%s: state %q, note %q, %v, want %q", tt.name, v.state, v.note, v.err, tt.state)
		}
	}
}
