package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// hello answers with the service's name.
func hello(name string) Service {
	return Service{Name: name, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, name)
	})}
}

func TestEachHostItsService(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": hello("a"), "b.test": hello("b")})
	for _, version := range []int{1, 2} {
		c := s.client(t, version)
		for host, want := range map[string]string{"a.test": "a", "b.test": "b"} {
			resp, got := get(t, c, "https://"+host+"/")
			if got != want || resp.ProtoMajor != version {
				t.Errorf("GET %s over HTTP/%d = %q over %s, want %q", host, version, got, resp.Proto, want)
			}
		}
	}
}

func TestServerNames(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": hello("a"), "b.test": hello("b"), "new.test": hello("n")})
	s.mu.Lock()
	delete(s.certs, "new.test")
	s.mu.Unlock()
	tests := []struct {
		name, serverName, authority string
		alert                       string // empty: none
	}{
		{"ours", "a.test", "a.test", ""},
		{"upper case", "A.TEST", "a.test", ""},
		{"not ours", "c.test", "c.test", "unrecognized name"},
		{"none", "", "a.test", "unrecognized name"},
		{"ours, routed by another of ours", "a.test", "b.test", "unrecognized name"},
		{"ours, routed by nothing", "a.test", "", "unrecognized name"},
		{"below ours", "x.a.test", "x.a.test", "unrecognized name"},
		{"no certificate yet", "new.test", "new.test", "internal error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				raw, err := s.dial(t.Context(), tt.authority)
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				c := tls.Client(raw, &tls.Config{ServerName: tt.serverName, MaxVersion: version, InsecureSkipVerify: true})
				err = c.HandshakeContext(t.Context())
				switch {
				case tt.alert == "" && err != nil:
					t.Errorf("%s: %v", tls.VersionName(version), err)
				case tt.alert != "" && (err == nil || !strings.Contains(err.Error(), tt.alert)):
					t.Errorf("%s: error %v, want alert %q", tls.VersionName(version), err, tt.alert)
				}
			}
		})
	}
	t.Run("TLS 1.1", func(t *testing.T) {
		raw, err := s.dial(t.Context(), "a.test")
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		c := tls.Client(raw, &tls.Config{ServerName: "a.test", MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true})
		if err := c.HandshakeContext(t.Context()); err == nil {
			t.Error("TLS 1.1 was accepted")
		}
	})
}

// A ticket needs no certificate, so the name must be checked before it.
func TestResumedSessionIsHeldAgainstItsRoute(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": hello("a"), "b.test": hello("b")})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := &tls.Config{ServerName: "a.test", RootCAs: s.ca.pool(), MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		handshake := func(authority string) (tls.ConnectionState, error) {
			raw, err := s.dial(t.Context(), authority)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			c := tls.Client(raw, cfg)
			if err := c.HandshakeContext(t.Context()); err != nil {
				return tls.ConnectionState{}, err
			}
			// Tickets come with the first answer.
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
			_, err = io.Copy(io.Discard, c)
			return c.ConnectionState(), err
		}
		for i, resumed := range []bool{false, true} {
			if state, err := handshake("a.test"); err != nil || state.DidResume != resumed {
				t.Fatalf("%s, handshake %d: resumed %v, %v, want %v", tls.VersionName(version), i, state.DidResume, err, resumed)
			}
		}
		if _, err := handshake("b.test"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: resumed for a.test when routed by b.test: %v", tls.VersionName(version), err)
		}
	}
}

// A hello that offers acme-tls/1 alone passes every gateway, whatever the tenant
// admits: there must be nothing behind it for a stranger, with a ticket or without.
func TestNothingBehindACMEProtocol(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Name: "a", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the application was reached")
	})}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := &tls.Config{ServerName: "a.test", RootCAs: s.ca.pool(), MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		shake := func(protos ...string) (*tls.Conn, error) {
			raw, err := s.dial(t.Context(), "a.test")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { raw.Close() })
			cfg := cfg.Clone()
			cfg.NextProtos = protos
			c := tls.Client(raw, cfg)
			return c, c.HandshakeContext(t.Context())
		}
		for _, ticket := range []bool{false, true} {
			if ticket {
				c, err := shake()
				if err != nil {
					t.Fatal(err)
				}
				// Tickets come with the first answer, which is the node's own.
				io.WriteString(c, "GET /.well-known/postern/health HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
				io.Copy(io.Discard, c)
				if _, ok := cfg.ClientSessionCache.Get("a.test"); !ok {
					t.Fatalf("%s: no ticket", tls.VersionName(version))
				}
			}
			c, err := shake("acme-tls/1")
			if err == nil {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
				got, _ := io.ReadAll(c)
				t.Errorf("%s, ticket %v: the handshake was done, and it answers %q", tls.VersionName(version), ticket, got)
			} else if !isAlert(err, tls.AlertError(120)) {
				t.Errorf("%s, ticket %v: got %v, want the alert no_application_protocol", tls.VersionName(version), ticket, err)
			}
		}
	}
}

func TestMisdirected(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": hello("a"), "b.test": hello("b")})
	tests := []struct {
		name, host string
		status     int
	}{
		{"same", "a.test", 200},
		{"with port", "a.test:8443", 200},
		{"other case", "A.Test", 200},
		{"another of ours", "b.test", 421},
		{"a stranger's", "evil.test", 421},
		{"name with a tail", "a.test.evil.test", 421},
		{"trailing dot", "a.test.", 421},
		{"no port", "a.test:", 200},
		{"two hosts", "a.test:443,evil.test", 421},
		{"tail in the port", "a.test:.evil.test", 421},
		{"two ports", "a.test:443:443", 421},
		{"brackets", "[a.test]:1", 421},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, version := range []int{1, 2} {
				for _, path := range []string{"/", ownPath + "whoami"} {
					resp, body := get(t, s.client(t, version), "https://a.test"+path, "Host", tt.host)
					if resp.StatusCode != tt.status {
						t.Errorf("HTTP/%d %s: status %d, want %d", version, path, resp.StatusCode, tt.status)
					}
					if tt.status == 421 && body == "b" {
						t.Errorf("HTTP/%d: the other service answered", version)
					}
				}
			}
		})
	}
}

// A target with a scheme that nobody knows is no path: an application would take it for the
// host and the path that it asks for.
func TestOpaqueTarget(t *testing.T) {
	app := application(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "heard %s%s", r.Host, r.URL.Path) })
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: app + "/public"}})
	c := s.client(t, 1)
	for target, status := range map[string]int{
		"/x": 200, "a:http://evil.test/secret": 421, "a:b/../secret": 421, "http:evil.test": 421, "A:/x": 200, "https://a.test/x": 200, "https://evil.test/x": 421,
	} {
		req, err := http.NewRequest(http.MethodGet, "https://a.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = target
		resp, body := do(t, c, req)
		if resp.StatusCode != status || status == 200 && body != "heard a.test/public/x" {
			t.Errorf("%q: %d, %s", target, resp.StatusCode, body)
		}
	}
}

func TestHSTS(t *testing.T) {
	tests := []struct{ name, source, want string }{
		{"own files", SourceFile, "max-age=31536000"},
		{"private CA", SourceCA, ""},
	}
	pinning := Service{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serveSite(t, tt.source, map[string]Service{"a.test": pinning})
			for _, path := range []string{"/", ownPath + "version"} {
				resp, _ := get(t, s.client(t, 1), "https://a.test"+path)
				if got := resp.Header.Get("Strict-Transport-Security"); got != tt.want {
					t.Errorf("%s: Strict-Transport-Security is %q, want %q", path, got, tt.want)
				}
			}
		})
	}
}

func TestRoutesComeAndGo(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": hello("a"), "gone.test": {}})
	c := s.client(t, 2)
	if resp, body := get(t, c, "https://gone.test/", "Accept", "text/html"); resp.StatusCode != 404 || !strings.Contains(body, "nothing is published") {
		t.Errorf("a host without service: %d %q", resp.StatusCode, body)
	}
	get(t, c, "https://a.test/")
	s.setTable(newTable(t, nil))
	if resp, _ := get(t, c, "https://a.test/"); resp.StatusCode != 404 {
		t.Errorf("a removed host on an open connection: %d, want 404", resp.StatusCode)
	}
	if _, err := s.client(t, 2).Get("https://a.test/"); err == nil {
		t.Error("a removed host takes new connections")
	}
}

func TestGatewayRemoved(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": hello("a")})
	c, err := s.dial(t.Context(), "a.test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn := tls.Client(c, &tls.Config{ServerName: "a.test", RootCAs: s.ca.pool()})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	tab := *s.table.Load()
	tab.gateways = map[netip.Addr]string{netip.MustParseAddr("fd00::9"): "gw-9"}
	s.setTable(&tab)
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection of a removed gateway lives on")
	}
	if _, err := s.client(t, 1).Get("https://a.test/"); err == nil {
		t.Error("a removed gateway makes connections")
	}
	await(t, "counters", func() bool {
		got := s.entrance.counts()
		return got.Open == 0 && got.Accepted == 2 && got.Refused == 1
	})
}

func TestDrain(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-finish
		io.WriteString(w, "done")
	})}})
	type answer struct {
		body string
		err  error
	}
	answers := make(chan answer, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		resp, err := s.client(t, 1).Get("https://a.test/")
		if err != nil {
			answers <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		answers <- answer{string(body), err}
	})
	<-began
	stopped := make(chan struct{})
	wg.Go(func() { s.stop(); close(stopped) })
	await(t, "no new connections", func() bool {
		c, err := s.dial(t.Context(), "a.test")
		if err != nil {
			return true
		}
		c.Close()
		return false
	})
	select {
	case <-stopped:
		t.Error("serve returned with a request under way")
	default:
	}
	close(finish)
	if got := <-answers; got.body != "done" || got.err != nil {
		t.Errorf("the request under way got %q, %v", got.body, got.err)
	}
	<-stopped
}

func TestConnectIsRefused(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": hello("a")})
	raw, err := s.dial(t.Context(), "a.test")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{ServerName: "a.test", RootCAs: s.ca.pool()})
	if _, err := io.WriteString(c, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(got), "HTTP/1.1 405 ") {
		t.Errorf("CONNECT got %.60q", got)
	}
}
