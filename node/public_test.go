package node

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"postern"
	"postern/internal/acme/acmetest"
)

// A node waits for its turn while another of the route is getting its certificate, tells
// when it is done, and shows what the authority gave.
func TestPublicTurns(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ca := acmetest.Start(t, acmetest.Options{Port: ln.Addr().(*net.TCPAddr).Port})
	var mu sync.Mutex
	var asked []postern.ChallengeRequest
	challenge := func(_ context.Context, req postern.ChallengeRequest) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, req)
		if len(asked) == 1 {
			return postern.NewProblem(http.StatusServiceUnavailable, postern.CodeUnavailable, "another node is getting its certificate", "")
		}
		return nil
	}
	p, err := newPublic(filepath.Join(t.TempDir(), "acme"), challenge, func() {}, discard)
	if err != nil {
		t.Fatal(err)
	}
	if p.offered() {
		t.Error("there is an authority before anybody named one")
	}
	p.offer(&postern.ACME{Issuers: []postern.ACMEIssuer{{Directory: ca.URL, Roots: ca.Roots}}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); ln.Close(); wg.Wait() })
	wg.Go(func() { p.manager.Run(ctx) })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				tls.Server(conn, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
					cert := p.challenge(hello.ServerName)
					if cert == nil {
						return nil, errors.New("no authority is awaited")
					}
					return &tls.Config{NextProtos: hello.SupportedProtos, Certificates: []tls.Certificate{*cert}}, nil
				}}).HandshakeContext(ctx)
			})
		}
	})
	p.want([]string{"a.test"})
	await(t, "a certificate", func() bool { _, err := p.get("a.test", time.Now()); return err == nil })
	mu.Lock()
	defer mu.Unlock()
	want := []postern.ChallengeRequest{{Host: "a.test"}, {Host: "a.test"}, {Host: "a.test", Done: true}}
	if !slices.Equal(asked, want) {
		t.Errorf("the coordinator was asked %+v, want %+v", asked, want)
	}
	cert, err := p.get("a.test", time.Now())
	if again, _ := p.get("a.test", time.Now()); err != nil || again != cert || cert.source != SourceACME || cert.spki == "" {
		t.Errorf("got %+v, then %+v, %v", cert, again, err)
	}
	st := cert.status()
	p.describe("a.test", st, time.Now())
	if st.Account == "" || len(st.Authorities) != 1 || len(st.Records) != 2 || st.Renewal.IsZero() {
		t.Errorf("described as %+v", st)
	}
	p.setOwn(nil)
	p.offer(nil)
	if p.offered() {
		t.Error("there is an authority that nobody names any more")
	}
}
