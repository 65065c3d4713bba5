package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"postern/internal/proxyproto"
	"postern/netstack"
)

// BenchmarkFirstAnswer is how long a client waits for the first byte of a node's
// answer to its hello, in round trips of the tunnel between gateway and node: on a
// spare, and where there are none.
func BenchmarkFirstAnswer(b *testing.B) {
	const rtt = 40 * time.Millisecond
	for _, way := range []struct {
		name string
		conn func(net.Conn) net.Conn
	}{
		{"dialed", func(c net.Conn) net.Conn { return struct{ net.Conn }{c} }}, // without ReadReady
		{"spare", func(c net.Conn) net.Conn { return c }},
	} {
		b.Run(way.name, func(b *testing.B) {
			addr := startTunnel(b, rtt/2, way.conn)
			for range 3 {
				firstAnswer(b, addr)
			}
			var total time.Duration
			for b.Loop() {
				<-time.After(2 * rtt) // for a spare to be replaced
				total += firstAnswer(b, addr)
			}
			b.ReportMetric(float64(total)/float64(b.N)/float64(rtt), "rtt")
		})
	}
}

func firstAnswer(b *testing.B, addr string) time.Duration {
	start := time.Now()
	c := dialHello(b, addr)
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// startTunnel starts a gateway, and a node that answers with a byte, over a path
// that takes delay each way. The gateway has what conn makes of its connections to
// the node. It returns where clients connect to.
func startTunnel(b *testing.B, delay time.Duration, conn func(net.Conn) net.Conn) string {
	hosts := map[string]*netstack.Net{}
	for name, cfg := range map[string]netstack.Config{"gateway": idleGateway, "node": idleNode} {
		h, err := netstack.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { h.Close() })
		hosts[name] = h
	}
	toNode := startDelay(b, delay, hosts["node"].Port())
	if err := errors.Join(
		hosts["gateway"].SetPeers([]netstack.Peer{idlePeer(idleNode, toNode)}),
		hosts["node"].SetPeers([]netstack.Peer{idlePeer(idleGateway, hosts["gateway"].Port())}),
	); err != nil {
		b.Fatal(err)
	}
	nodes, err := hosts["node"].Listen(443)
	if err != nil {
		b.Fatal(err)
	}
	serveEach(b, nodes, func(c net.Conn) {
		if _, err := proxyproto.Read(c); err == nil {
			io.ReadFull(c, make([]byte, len(benchHello)))
			c.Write([]byte{1})
			io.Copy(io.Discard, c)
		}
	})
	g := New(Config{Limits: unlimited, Dial: func(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
		c, err := hosts["gateway"].DialContext(ctx, dst)
		if err != nil {
			return nil, err
		}
		return conn(c), nil
	}})
	g.SetRoutes(NewTable(mapOf(section("acme", "a.example", idleNode.Address.String()))))
	ln := listen(b)
	serve(b, g, ln)
	return ln.Addr().String()
}

// startDelay relays UDP to and from a port of loopback, and delays every packet. It
// returns the port of whoever is relayed.
func startDelay(b *testing.B, delay time.Duration, port uint16) uint16 {
	loopback := netip.MustParseAddr("127.0.0.1")
	var conns [2]*net.UDPConn // towards the one who calls, towards port
	for i := range conns {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
		if err != nil {
			b.Fatal(err)
		}
		conns[i] = c
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	ends := [2]netip.AddrPort{{}, netip.AddrPortFrom(loopback, port)}
	for i, in := range conns {
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, from, err := in.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				mu.Lock()
				ends[i] = from
				to := ends[1-i]
				mu.Unlock()
				packet := append([]byte(nil), buf[:n]...)
				wg.Add(1)
				time.AfterFunc(delay, func() {
					defer wg.Done()
					conns[1-i].WriteToUDPAddrPort(packet, to)
				})
			}
		})
	}
	b.Cleanup(func() {
		conns[0].Close()
		conns[1].Close()
		wg.Wait()
	})
	return conns[0].LocalAddr().(*net.UDPAddr).AddrPort().Port()
}
