package node

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
)

// BenchmarkRequest asks for small answers on one kept connection. The baseline is
// what the standard library takes for that: a server and a reverse proxy that do
// nothing of what a node does. x-bare is how many times its time ours is, in this run.
func BenchmarkRequest(b *testing.B) {
	up := httptest.NewServer(hello("small").Handler)
	b.Cleanup(up.Close)
	var bare float64 // seconds per request
	for _, way := range []struct {
		name string
		dial func(b *testing.B, upstream string) net.Conn
	}{{"bare", dialBare}, {"node", dialNode}} {
		b.Run(way.name, func(b *testing.B) {
			c := way.dial(b, up.URL)
			in := bufio.NewReader(c)
			b.ReportAllocs()
			for b.Loop() {
				if err := askSmall(c, in); err != nil {
					b.Fatal(err)
				}
			}
			perRequest := b.Elapsed().Seconds() / float64(b.N)
			if way.name == "bare" {
				bare = perRequest
			}
			b.ReportMetric(perRequest/bare, "x-bare")
		})
	}
}

// askSmall has one answer come from c, through in.
func askSmall(c net.Conn, in *bufio.Reader) error {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func dialNode(b *testing.B, upstream string) net.Conn {
	s := serveSite(b, SourceCA, map[string]Service{"a.test": {Upstream: upstream}})
	raw, err := s.dial(b.Context(), "a.test")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { raw.Close() })
	return tls.Client(raw, &tls.Config{RootCAs: s.ca.pool(), ServerName: "a.test"})
}

func dialBare(b *testing.B, upstream string) net.Conn {
	target, err := url.Parse(upstream)
	if err != nil {
		b.Fatal(err)
	}
	s := httptest.NewTLSServer(&httputil.ReverseProxy{
		Rewrite:    func(pr *httputil.ProxyRequest) { pr.SetURL(target) },
		BufferPool: copyBuffers,
	})
	b.Cleanup(s.Close)
	c, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}
