package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// redirects serves g's redirects on a listener in memory until the test ends.
func redirects(t *testing.T, g *Gateway) (ln *memListener, stop func() error) {
	t.Helper()
	ln = newMemListener("198.51.100.1:80")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.ServeRedirect(ctx, ln) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { stop() })
	return ln, stop
}

func TestRedirect(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, tt := range []struct {
		name     string
		port     uint16
		request  string // without the final empty line
		status   int
		location string
	}{
		{"root", 0, "GET / HTTP/1.1\r\nHost: acme.example", 308, "https://acme.example/"},
		{"path and query", 0, "GET /a%2fb/?q=1&r=%20 HTTP/1.1\r\nHost: acme.example", 308, "https://acme.example/a%2fb/?q=1&r=%20"},
		{"POST", 0, "POST /form HTTP/1.1\r\nHost: acme.example\r\nContent-Length: 4\r\n\r\nbody", 308, "https://acme.example/form"},
		{"port of the request is dropped", 0, "GET / HTTP/1.1\r\nHost: acme.example:80", 308, "https://acme.example/"},
		{"public port", 8443, "GET /x HTTP/1.1\r\nHost: acme.localhost:8080", 308, "https://acme.localhost:8443/x"},
		{"upper case", 0, "GET / HTTP/1.1\r\nHost: ACME.Example", 308, "https://acme.example/"},
		{"trailing dot", 0, "GET / HTTP/1.1\r\nHost: acme.example.", 308, "https://acme.example/"},
		{"two slashes", 0, "GET //evil.example/x HTTP/1.1\r\nHost: acme.example", 308, "https://acme.example//evil.example/x"},
		{"absolute form", 0, "GET http://acme.example/x HTTP/1.1\r\nHost: other.example", 308, "https://acme.example/x"},
		{"long path", 0, "GET /" + long + " HTTP/1.1\r\nHost: acme.example", 308, "https://acme.example/" + long},
		{"HTTP/1.0 without host", 0, "GET / HTTP/1.0", 400, ""},
		{"IPv4 address", 0, "GET / HTTP/1.1\r\nHost: 192.0.2.1", 400, ""},
		{"IPv6 address", 0, "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80", 400, ""},
		{"user in the host", 0, "GET / HTTP/1.1\r\nHost: acme.example@evil.example", 400, ""},
		{"slash in the host", 0, "GET / HTTP/1.1\r\nHost: evil.example/acme", 400, ""},
		{"underscore", 0, "GET / HTTP/1.1\r\nHost: a_b.example", 400, ""},
		{"no name", 0, "GET / HTTP/1.1\r\nHost: :80", 400, ""},
		{"OPTIONS *", 0, "OPTIONS * HTTP/1.1\r\nHost: acme.example", 400, ""},
		{"CONNECT", 0, "CONNECT acme.example:443 HTTP/1.1\r\nHost: acme.example:443", 400, ""},
		{"headers over 8 KiB", 0, "GET / HTTP/1.1\r\nHost: acme.example\r\nX: " + strings.Repeat(long, 20), 431, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln, _ := redirects(t, New(Config{HTTPSPort: tt.port}))
				c, err := ln.dial(netip.MustParseAddrPort("192.0.2.1:1"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, tt.request+"\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if got := resp.Header.Get("Location"); resp.StatusCode != tt.status || got != tt.location {
					t.Errorf("got %d to %q, want %d to %q", resp.StatusCode, got, tt.status, tt.location)
				}
				if body, _ := io.ReadAll(resp.Body); len(body) > 0 && tt.status == 308 {
					t.Errorf("got content %q", body)
				}
				if !resp.Close {
					t.Error("the connection stays open")
				}
			})
		})
	}
}

// TestRedirectSlow: a client that is slow with its request is hung up on.
func TestRedirectSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, _ := redirects(t, New(Config{}))
		start := time.Now()
		c, err := ln.dial(netip.MustParseAddrPort("192.0.2.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: ")
		readAll(c)
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("closed after %v, want 5 s", took)
		}
	})
}

// TestRedirectEnds: ServeRedirect returns nil when told to end, also with a
// connection open, and the listener's failure otherwise.
func TestRedirectEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(g *Gateway, ln *memListener, stop func() error) error
		want error
	}{
		{"context", func(_ *Gateway, _ *memListener, stop func() error) error { return stop() }, nil},
		{"Close", func(g *Gateway, _ *memListener, stop func() error) error {
			g.Close()
			synctest.Wait()
			return stop()
		}, nil},
		{"listener", func(_ *Gateway, ln *memListener, stop func() error) error {
			ln.Close()
			synctest.Wait()
			return stop()
		}, net.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := New(Config{})
				ln, stop := redirects(t, g)
				c, err := ln.dial(netip.MustParseAddrPort("192.0.2.1:1"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				synctest.Wait()
				if err := tt.do(g, ln, stop); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		})
	}
}

// TestRedirectLimits: the limits of a source hold on both ports together, and
// not for the load balancers.
func TestRedirectLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{
			Limits:    Limits{SourceConns: 2},
			ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
		})
		ln, _ := redirects(t, g)
		for i, addr := range []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"} {
			c, err := ln.dial(netip.MustParseAddrPort(addr))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			synctest.Wait()
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err = c.Read(make([]byte, 1))
			if got, want := errors.Is(err, syscall.ECONNRESET), i == 2; got != want {
				t.Errorf("connection %d from %s: reset %v, want %v", i, addr, got, want)
			}
		}
		if _, err := g.limiter.enter(time.Now(), nil, netip.MustParseAddr("192.0.2.1")); reasonOf(err) != SourceConns {
			t.Errorf("on the other port: got %v, want %v", err, SourceConns)
		}
	})
}
