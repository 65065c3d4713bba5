package connect

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serve answers one connection with what answer says to its request.
func serve(t *testing.T, answer func(*http.Request) string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			io.WriteString(c, answer(req))
		}
	}()
	return ln.Addr().String()
}

func TestThroughProxy(t *testing.T) {
	for _, tt := range []struct{ name, answer, want string }{
		{"lets through", "HTTP/1.1 200 OK\r\nVia: x\r\n\r\nhello", ""},
		{"lets through, in other words", "HTTP/1.1 202 Accepted\r\n\r\nhello", ""},
		{"refuses", "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"},
		{"speaks no HTTP", "SSH-2.0-x\r\n\r\n", "read its answer"},
		{"hangs up", "", "read its answer"},
		{"never ends", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxAnswer), "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := ""
			addr := serve(t, func(r *http.Request) string {
				asked = r.Method + " " + r.Host + " " + r.Header.Get("Proxy-Authorization")
				return tt.answer
			})
			p, err := ParseProxy("http://user:pa%2Fss@" + addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			c, err := p.Dial(ctx, "gw.example.com:443")
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "pa") && strings.Contains(err.Error(), "pa/ss") {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
			if asked != "CONNECT gw.example.com:443 Basic dXNlcjpwYS9zcw==" {
				t.Errorf("asked %q", asked)
			}
		})
	}
}

func TestParseProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://env.example.com:8080")
	t.Setenv("NO_PROXY", "inside.example.com")
	for _, tt := range []struct{ setting, addr, want string }{
		{"", "gw.example.com:443", "env.example.com:8080"},
		{"", "inside.example.com:443", ""},
		{"", "127.0.0.1:443", ""},
		{"", "gw.postern.localhost:443", ""},
		{"http://p.example.com:3128/", "localhost:443", ""},
		{Direct, "gw.example.com:443", ""},
		{"https://p.example.com", "gw.example.com:443", "p.example.com"},
		{"http://p.example.com:3128/", "inside.example.com:443", ""},
	} {
		p, err := ParseProxy(tt.setting)
		if err != nil {
			t.Errorf("%q: %v", tt.setting, err)
			continue
		}
		got := ""
		if u, err := p(tt.addr); err != nil {
			t.Error(err)
		} else if u != nil {
			got = u.Host
		}
		if got != tt.want {
			t.Errorf("%q for %s: got %q, want %q", tt.setting, tt.addr, got, tt.want)
		}
	}
	for _, bad := range []string{"p.example.com:3128", "socks5://p:1", "http://", "http://u:secret@p/path", "http://u:secret@p:port", "none"} {
		if _, err := ParseProxy(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}
