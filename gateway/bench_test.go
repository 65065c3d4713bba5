package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"postern/internal/proxyproto"
)

// BenchmarkThroughput moves bytes to a node through the gateway over loopback.
// The baseline is the plainest TCP proxy: two io.Copy.
func BenchmarkThroughput(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			addr := way.start(b, func(c net.Conn) { io.Copy(io.Discard, c) })
			c := dialHello(b, addr)
			defer c.Close()
			buf := make([]byte, 256<<10)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConnections opens a connection, says a hello, gets one byte back and
// hangs up.
func BenchmarkConnections(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			addr := way.start(b, func(c net.Conn) {
				io.ReadFull(c, make([]byte, len(benchHello)))
				c.Write([]byte{1})
			})
			b.ReportAllocs()
			for b.Loop() {
				c := dialHello(b, addr)
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}

var benchHello = helloFor("a.example")

// ways are how a client reaches a node: start runs the node, which handles what
// follows the gateway's header, and returns where the client connects to.
var ways = []struct {
	name  string
	start func(b *testing.B, node func(net.Conn)) string
}{
	{"gateway", startGateway},
	{"bare", startBare},
}

func startGateway(b *testing.B, node func(net.Conn)) string {
	nodeAddr := startServer(b, func(c net.Conn) {
		if _, err := proxyproto.Read(c); err == nil {
			node(c)
		}
	})
	g := New(Config{Limits: unlimited, Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", nodeAddr)
	}})
	g.SetRoutes(NewTable(mapOf(section("acme", "a.example", "fd00::1"))))
	ln := listen(b)
	serve(b, g, ln)
	return ln.Addr().String()
}

func startBare(b *testing.B, node func(net.Conn)) string {
	nodeAddr := startServer(b, node)
	return startServer(b, func(c net.Conn) {
		up, err := net.Dial("tcp", nodeAddr)
		if err != nil {
			return
		}
		defer up.Close()
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(up, c); up.(*net.TCPConn).CloseWrite() })
		io.Copy(c, up)
		c.(*net.TCPConn).CloseWrite()
		wg.Wait()
	})
}

// startServer calls handle for each connection until the benchmark ends.
func startServer(b *testing.B, handle func(net.Conn)) string {
	ln := listen(b)
	serveEach(b, ln, handle)
	return ln.Addr().String()
}

// serveEach calls handle for each connection of ln until the benchmark ends.
func serveEach(b *testing.B, ln net.Listener, handle func(net.Conn)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	b.Cleanup(func() { ln.Close(); wg.Wait() })
}

func dialHello(b *testing.B, addr string) net.Conn {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.Write(benchHello); err != nil {
		b.Fatal(err)
	}
	return c
}
