package node

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// shake does a handshake for a.test, gets a page and hence tickets, and returns the
// connection's state.
func (s *site) shake(t *testing.T, cfg *tls.Config) tls.ConnectionState {
	t.Helper()
	raw, err := s.dial(t.Context(), "a.test")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState()
}

// What is recorded today is not for whoever has a quantum computer one day.
func TestKeyExchange(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": hello("a")})
	cfg := &tls.Config{ServerName: "a.test", RootCAs: s.ca.pool()}
	if got := s.shake(t, cfg).CurveID; got != tls.X25519MLKEM768 {
		t.Errorf("key exchange is %v", got)
	}
	cfg.CurvePreferences = []tls.CurveID{tls.X25519}
	if got := s.shake(t, cfg).CurveID; got != tls.X25519 {
		t.Errorf("for a client that knows no other: %v", got)
	}
}

// A ticket is worth nothing once its key is gone, whatever the client believes.
func TestTicketKeysRotate(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		start := time.Now()
		var passed atomic.Int64
		s := serveWith(t, SourceCA, newTable(t, map[string]Service{"a.test": hello("a")}), serverConfig{
			now: func() time.Time { return start.Add(time.Duration(passed.Load())) },
		})
		client := func() *tls.Config {
			return &tls.Config{
				ServerName: "a.test", RootCAs: s.ca.pool(), MaxVersion: version,
				ClientSessionCache: tls.NewLRUClientSessionCache(1), Time: func() time.Time { return start },
			}
		}
		first, second := client(), client()
		for _, cfg := range []*tls.Config{first, second} {
			if s.shake(t, cfg).DidResume {
				t.Fatal("resumed without a ticket")
			}
		}
		passed.Store(int64(time.Hour))
		if !s.shake(t, first).DidResume {
			t.Errorf("%s: not resumed within the hour", tls.VersionName(version))
		}
		passed.Store(int64(8 * 24 * time.Hour))
		if s.shake(t, second).DidResume {
			t.Errorf("%s: resumed by a ticket of a week ago", tls.VersionName(version))
		}
	}
}

// One HTTP/2 connection has so many requests at once and no more.
func TestHTTP2Streams(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Name: "a", Handler: http.NotFoundHandler()}})
	raw, err := s.dial(t.Context(), "a.test")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{ServerName: "a.test", RootCAs: s.ca.pool(), NextProtos: []string{"h2"}})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	settings := readSettings(t, c)
	if got := settings[http2.SettingMaxConcurrentStreams]; got != maxStreams {
		t.Errorf("streams at once: %d, want %d", got, maxStreams)
	}
	if got := settings[http2.SettingMaxHeaderListSize]; got == 0 || got > 2*maxHeaderBytes {
		t.Errorf("header list: %d bytes, want about %d", got, maxHeaderBytes)
	}
}

// readSettings returns the server's first SETTINGS frame.
func readSettings(t *testing.T, c net.Conn) map[http2.SettingID]uint32 {
	t.Helper()
	io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := f.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	sent, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("the first frame is %v", frame)
	}
	settings := map[http2.SettingID]uint32{}
	sent.ForeachSetting(func(s http2.Setting) error { settings[s.ID] = s.Val; return nil })
	return settings
}

// Metrics say what the status does.
func TestMetrics(t *testing.T) {
	end := time.Unix(1_800_000_000, 0)
	status := func() Status {
		return Status{
			Version: "v1", Member: Membership{Tenant: "acme", Name: "office"}, Control: Control{Up: true},
			Routes: []Route{
				{Host: "a.test", Service: "default", State: RouteAlarm, Certificate: &Certificate{Source: SourceACME, SHA256: "aa", NotAfter: end}},
				{Host: "b.test", Service: "books", State: RouteWaiting, Certificate: &Certificate{Source: SourceACME, Error: "refused"}},
			},
		}
	}
	w := httptest.NewRecorder()
	metricsHandler(status).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		`postern_node_info{node="office",tenant="acme",version="v1"} 1`,
		`postern_node_control_up 1`,
		`postern_node_certificate_alarm{host="a.test"} 1`,
		`postern_node_certificate_alarm{host="b.test"} 0`,
		`postern_node_certificate_failing{host="b.test",source="acme"} 1`,
		`postern_node_certificate_not_after_seconds{host="a.test",source="acme"} 1.8e+09`,
		`postern_node_route_ready{host="a.test",service="default"} 0`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no line %s in\n%s", line, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), `not_after_seconds{host="b.test"`) {
		t.Error("a certificate that is not there has an end")
	}
}
