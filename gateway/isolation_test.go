package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern"
	"postern/internal/proxyproto"
)

// TestEachToItsOwn: whatever the order in which many clients' bytes come, every
// byte reaches a node of the tenant whose name the client said, none reaches
// another's, and the header names what the hello does.
func TestEachToItsOwn(t *testing.T) {
	names := []string{"a.example", "b.example", "c.example", "d.example"}
	var sections []postern.Section
	for i, name := range names {
		s := section(fmt.Sprintf("tenant%d", i), name, fmt.Sprintf("fd00::%d", i+1))
		s.Routes = append(s.Routes, postern.Route{Host: "shop." + name, Service: "shop", Nodes: s.Routes[0].Nodes})
		sections = append(sections, s)
	}
	w := newWorld(t, Config{Limits: unlimited}, mapOf(sections...))
	type sender struct {
		conn   *memConn
		tenant int // -1: unknown name
		name   string
		all    []byte   // that it sends
		parts  [][]byte // that are left to send
	}
	rapid.Check(t, func(rt *rapid.T) {
		var senders []*sender
		for i := range rapid.IntRange(1, 10).Draw(rt, "clients") {
			s := &sender{conn: w.client(), tenant: rapid.IntRange(-1, len(names)-1).Draw(rt, "tenant")}
			s.name = "unknown.example"
			if s.tenant >= 0 {
				s.name = rapid.SampledFrom([]string{"", "shop."}).Draw(rt, "service") + names[s.tenant]
			}
			hello := testHello{extensions: []testExtension{sni(s.name)}}
			s.all = hello.bytes(rapid.IntRange(1, len(hello.message())-1).Draw(rt, "record cut"))
			s.all = fmt.Appendf(s.all, "payload of client %d for %s", i, s.name)
			for rest := s.all; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(rt, "segment")
				s.parts, rest = append(s.parts, rest[:n]), rest[n:]
			}
			senders = append(senders, s)
		}
		for left := len(senders); left > 0; {
			s := senders[rapid.IntRange(0, len(senders)-1).Draw(rt, "who")]
			if len(s.parts) == 0 {
				continue
			}
			s.conn.Write(s.parts[0]) // fails once the client was refused
			if s.parts = s.parts[1:]; len(s.parts) == 0 {
				s.conn.CloseWrite()
				left--
			}
		}
		want := make([][][]byte, len(names)) // by tenant: what its node gets
		for _, s := range senders {
			if s.tenant >= 0 {
				want[s.tenant] = append(want[s.tenant], s.all)
			} else if got, _ := readAll(s.conn); got != fatal(112) {
				rt.Fatalf("unknown name: got %q, want alert 112", got)
			}
		}
		for tenant := range want {
			for range want[tenant] {
				node, h := w.accept(w.node(fmt.Sprintf("fd00::%d", tenant+1)))
				got, err := readAll(node)
				if err != nil {
					rt.Fatal(err)
				}
				if i := indexOf(want[tenant], got); i < 0 {
					rt.Fatalf("tenant %d got %q, which nobody sent to it", tenant, got)
				} else {
					want[tenant][i] = nil
				}
				if said, _, err := parseHello([]byte(got)); said.name != h.Authority || err != nil {
					rt.Fatalf("the header says %q, the hello %q, %v", h.Authority, said.name, err)
				}
				fmt.Fprintf(node, "answer of tenant %d", tenant)
				node.Close()
			}
		}
		for _, s := range senders {
			if s.tenant >= 0 {
				w.expect(s.conn, fmt.Sprintf("answer of tenant %d", s.tenant))
			}
			s.conn.Close()
		}
		for addr, n := range w.nodes {
			if len(n.conns) > 0 {
				rt.Fatalf("node %v was dialed once too often", addr)
			}
		}
	})
}

func indexOf(list [][]byte, b string) int {
	for i := range list {
		if list[i] != nil && string(list[i]) == b {
			return i
		}
	}
	return -1
}

// TestSwapsUnderLoad changes the route ten thousand times and more while clients
// come. A
// connection's node is always one that the name led to between the connection's
// start and its arrival; and in the end no connection is left at a node that the
// name no longer leads to.
func TestSwapsUnderLoad(t *testing.T) {
	const swaps, clients = 10_000, 8
	// In epoch k the name leads to node k, of one of two tenants.
	addr := func(k int) netip.Addr {
		a := netip.MustParseAddr("fd00::").As16()
		a[14], a[15] = byte(k>>8), byte(k)
		return netip.AddrFrom16(a)
	}
	table := func(k int) *Table {
		return NewTable(mapOf(section(fmt.Sprintf("tenant%d", k%2), "a.example", addr(k).String())))
	}
	var begun, done atomic.Int64 // epochs
	arrivals := make(chan *memConn, 1024)
	g := New(Config{Limits: unlimited, Dial: func(_ context.Context, dst netip.AddrPort) (net.Conn, error) {
		near, far := memPipe(addr443("fd00:1::1"), dst)
		arrivals <- far
		return near, nil
	}})
	g.SetRoutes(table(0))
	ln := newMemListener("198.51.100.1:443")
	var served sync.WaitGroup
	served.Go(func() { g.Serve(t.Context(), ln) })

	stop := make(chan struct{})
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for port := uint16(1); ; port++ {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := ln.dial(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(c), 1}), port))
				if err != nil {
					t.Error(err)
					return
				}
				from := done.Load()
				conn.Write(fmt.Appendf(helloFor("a.example"), "%08d", from))
				conn.SetReadDeadline(time.Now().Add(20 * time.Second))
				if got, err := readAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("client: got %q, %v; want an end once the route is gone", got, err)
				}
				conn.Close()
			}
		})
	}
	var late []*memConn
	var reached atomic.Int64
	var arrive sync.WaitGroup
	arrive.Go(func() {
		for c := range arrivals {
			h, err := proxyproto.Read(c)
			if err != nil { // the route was gone before the greeting
				c.Close()
				continue
			}
			k := int(c.local.(*net.TCPAddr).IP[14])<<8 | int(c.local.(*net.TCPAddr).IP[15])
			said := make([]byte, len(helloFor("a.example"))+8)
			to := begun.Load()
			if _, err := io.ReadFull(c, said); err != nil {
				c.Close()
				continue
			}
			var from int64
			fmt.Sscanf(string(said[len(said)-8:]), "%d", &from)
			if int64(k) < from || int64(k) > to || h.Authority != "a.example" {
				t.Errorf("a connection of epochs %d to %d reached the node of epoch %d", from, to, k)
			}
			if reached.Add(1)%2 == 0 {
				c.Close()
			} else {
				late = append(late, c)
			}
		}
	})
	for k := 1; k <= swaps || reached.Load() < 1000 && k < 1<<16; k++ {
		begun.Store(int64(k))
		g.SetRoutes(table(k))
		done.Store(int64(k))
		runtime.Gosched()
	}
	close(stop)
	g.SetRoutes(NewTable(mapOf())) // every connection that is open ends
	wg.Wait()
	g.Close()
	served.Wait()
	close(arrivals)
	arrive.Wait()
	for _, c := range late {
		c.SetReadDeadline(time.Now().Add(time.Second))
		if got, err := readAll(c); err != nil {
			t.Errorf("left at a node: %q, %v", got, err)
		}
		c.Close()
	}
	if n := reached.Load(); n < 1000 {
		t.Errorf("only %d connections arrived: not much of a load", n)
	}
}

// TestEndToEnd: TLS is between the client and the node. Each name shows its own
// node's certificate, for every ALPN, and crypto/tls on the node read the name
// that the gateway routed by.
func TestEndToEnd(t *testing.T) {
	names := []string{"a.example", "b.example"}
	w := newWorld(t, Config{Limits: unlimited},
		mapOf(section("acme", names[0], "fd00::1"), section("other", names[1], "fd00::2")))
	roots := x509.NewCertPool()
	var nodes sync.WaitGroup
	stop := make(chan struct{})
	for i, name := range names {
		cert := selfSigned(t, name)
		roots.AddCert(cert.Leaf)
		n := w.node(fmt.Sprintf("fd00::%d", i+1))
		nodes.Go(func() { serveTLS(t, n, cert, stop) })
	}
	defer nodes.Wait()
	defer close(stop)
	for _, name := range names {
		for _, alpn := range []string{"h2", "http/1.1", "acme-tls/1"} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(fmt.Sprintf("%s %s %s", name, alpn, tls.VersionName(version)), func(t *testing.T) {
					c := tls.Client(w.client(), &tls.Config{
						RootCAs: roots, ServerName: name, NextProtos: []string{alpn}, MaxVersion: version,
					})
					defer c.Close()
					if err := c.Handshake(); err != nil {
						t.Fatal(err)
					}
					if got := c.ConnectionState().NegotiatedProtocol; got != alpn {
						t.Errorf("got ALPN %q, want %q", got, alpn)
					}
					want := "you asked for " + name
					if got, err := readAll(c); got != want || err != nil {
						t.Errorf("got %q, %v; want %q", got, err, want)
					}
				})
			}
		}
	}
	c := tls.Client(w.client(), &tls.Config{ServerName: "unknown.example"})
	defer c.Close()
	if err := c.Handshake(); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("unknown name: got %v, want the alert for it", err)
	}
}

// serveTLS answers each connection to n over TLS, until stop.
func serveTLS(t *testing.T, n *memNode, cert tls.Certificate, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case conn := <-n.conns:
			h, err := proxyproto.Read(conn)
			if err != nil {
				t.Error(err)
			}
			c := tls.Server(conn, &tls.Config{
				Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1", "acme-tls/1"},
			})
			if err := c.Handshake(); err != nil {
				t.Error(err)
			}
			if name := c.ConnectionState().ServerName; name != h.Authority {
				t.Errorf("the node reads %q, the gateway routed %q", name, h.Authority)
			}
			fmt.Fprintf(c, "you asked for %s", c.ConnectionState().ServerName)
			c.Close()
		}
	}
}

func selfSigned(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
