package node

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"postern"
)

// deadAddr returns an address of loopback that nobody listens on.
func deadAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// slow stands for an application that took the connection and says nothing.
type slow struct{}

func (slow) RoundTrip(*http.Request) (*http.Response, error) { return nil, os.ErrDeadlineExceeded }

const (
	acceptBrowser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
	acceptAPI     = "application/json"
)

func TestApplicationDown(t *testing.T) {
	dead := deadAddr(t)
	down := Service{Name: "books", Title: "Acme <Books>", Upstream: "http://joe:s3cret@" + dead}
	s := serveSite(t, SourceCA, map[string]Service{
		"down.test":   down,
		"socket.test": {Title: "Acme <Books>", Upstream: "unix:/nonexistent/app.sock"},
		"slow.test":   down,
		"gone.test":   {},
		"folder.test": {Title: "Acme <Books>", Upstream: "/nonexistent/folder"},
	})
	tardy, _ := s.service("slow.test")
	tardy.transport.RegisterProtocol("tardy", slow{})
	tardy.upstream.url.Scheme = "tardy"

	tests := []struct {
		name, host string
		status     int
		retry      bool
		says       string
		code       string
	}{
		{"refused", "down.test", 502, true, "The application behind this address is not answering", postern.CodeUnavailable},
		{"no socket", "socket.test", 502, true, "The application behind this address is not answering", postern.CodeUnavailable},
		{"timeout", "slow.test", 504, true, "did not answer in time", postern.CodeUnavailable},
		{"no folder", "folder.test", 503, true, "cannot be read at present", postern.CodeUnavailable},
		{"not published", "gone.test", 404, false, "nothing is published", postern.CodeNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := s.client(t, 2)
			for _, accept := range []string{acceptBrowser, acceptAPI, "*/*", ""} {
				resp, body := get(t, c, "https://"+tt.host+"/", "Accept", accept)
				if resp.StatusCode != tt.status || (resp.Header.Get("Retry-After") != "") != tt.retry {
					t.Errorf("Accept %q: status %d, Retry-After %q, want %d", accept, resp.StatusCode, resp.Header.Get("Retry-After"), tt.status)
				}
				if resp.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("Accept %q: Cache-Control is %q", accept, resp.Header.Get("Cache-Control"))
				}
				if !strings.Contains(body, tt.says) {
					t.Errorf("Accept %q: %q does not say %q", accept, body, tt.says)
				}
				for _, inside := range []string{"127.0.0.1", dead, "s3cret", "nonexistent", "refused", "dial"} {
					if strings.Contains(body, inside) {
						t.Errorf("Accept %q: the answer shows %q", accept, inside)
					}
				}
				if accept == acceptBrowser {
					checkHTML(t, resp, body, tt.status != 404)
				} else {
					checkProblem(t, resp, body, tt.status, tt.code)
				}
			}
		})
	}
}

func checkHTML(t *testing.T, resp *http.Response, body string, titled bool) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("Content-Type is %q", got)
	}
	if got := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; ") {
		t.Errorf("Content-Security-Policy is %q", got)
	}
	for _, foreign := range []string{"<script", "src=", "href=", "url(", "@import"} {
		if strings.Contains(body, foreign) {
			t.Errorf("the page is not self-contained: %q", foreign)
		}
	}
	if strings.Contains(body, "Acme &lt;Books&gt;") != titled {
		t.Errorf("the service's title is missing, or there without need")
	}
	if !strings.Contains(body, "f00dfeed-") {
		t.Error("the page has no reference")
	}
}

func checkProblem(t *testing.T, resp *http.Response, body string, status int, code string) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type is %q", got)
	}
	var p postern.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != status || p.Code != code {
		t.Errorf("problem %+v, %v, want status %d, code %q", p, err, status, code)
	}
}

func TestOwnResource(t *testing.T) {
	proxied := make(chan string, 10)
	up := application(t, func(w http.ResponseWriter, r *http.Request) { proxied <- r.URL.Path })
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Name: "books", Upstream: up}, "gone.test": {}})
	c := s.client(t, 2)
	tests := []struct {
		name, host, path string
		status           int
		body             string
	}{
		{"health", "a.test", "health", 200, `{"status":"ok","application":"unknown"}`},
		{"health of nothing", "gone.test", "health", 503, `{"status":"degraded","application":"unknown"}`},
		{"version", "a.test", "version", 200, `{"version":"v1.2.3"}`},
		{"whoami", "a.test", "whoami", 200, `{"address":"203.0.113.7","protocol":"HTTP/2.0","tls":"TLS 1.3",` +
			`"cipher":"TLS_AES_128_GCM_SHA256","key_share":"X25519MLKEM768","server_name":"a.test","service":"books","connection":"f00dfeed"}`},
		{"anything else", "a.test", "else", 404, ""},
		{"nothing", "a.test", "", 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := get(t, c, "https://"+tt.host+ownPath+tt.path)
			if resp.StatusCode != tt.status || tt.body != "" && strings.TrimSpace(body) != tt.body {
				t.Errorf("got %d %s, want %d %s", resp.StatusCode, body, tt.status, tt.body)
			}
			if got := resp.Header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control is %q", got)
			}
		})
	}
	svc, _ := s.service("a.test")
	svc.health.set(os.ErrDeadlineExceeded)
	if resp, body := get(t, c, "https://a.test"+ownPath+"health"); resp.StatusCode != 503 || strings.Contains(body, "deadline") {
		t.Errorf("health with the application down: %d %s", resp.StatusCode, body)
	}
	for _, path := range []string{"/.well-known/postern", "/%2Ewell-known/postern/health", ownPath + "x/../health"} {
		get(t, c, "https://a.test"+path)
	}
	select {
	case path := <-proxied:
		t.Errorf("%q reached the application", path)
	default:
	}
	get(t, c, "https://a.test/.well-known/other")
	if got := <-proxied; got != "/.well-known/other" {
		t.Errorf("the application was asked for %q", got)
	}
}
