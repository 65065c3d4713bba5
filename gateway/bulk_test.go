package gateway

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"postern/internal/proxyproto"
	"postern/netstack"
)

// BenchmarkBulk downloads from a node through its tunnel, by so many connections of one
// tenant, in one process: as it is, and with who looks whether the machine is behind. The
// ratio of the two is what that costs a tenant alone.
func BenchmarkBulk(b *testing.B) {
	for _, flows := range []int{1, 8, 100} {
		for _, way := range []string{"plain", "behind"} {
			b.Run(fmt.Sprintf("%d/%s", flows, way), func(b *testing.B) { bulk(b, flows, way == "behind") })
		}
	}
}

func bulk(b *testing.B, flows int, behind bool) {
	near, far := newBenchHost(b, idleGateway), newBenchHost(b, idleNode)
	peer := func(h, other *netstack.Net, cfg netstack.Config) {
		if err := h.SetPeers([]netstack.Peer{idlePeer(cfg, other.Port())}); err != nil {
			b.Fatal(err)
		}
	}
	peer(near, far, idleNode)
	peer(far, near, idleGateway)
	node, err := far.Listen(443)
	if err != nil {
		b.Fatal(err)
	}
	serveEach(b, node, func(c net.Conn) {
		if _, err := proxyproto.Read(c); err == nil {
			sendForever(c)
		}
	})
	cfg := Config{Limits: unlimited, Dial: near.DialContext}
	if behind {
		cfg.Behind = near.Behind
	}
	g := New(cfg)
	g.SetRoutes(NewTable(mapOf(section("acme", "a.example", idleNode.Address.String()))))
	ln := listen(b)
	serve(b, g, ln)

	const piece = 1 << 20
	pieces := make(chan struct{})
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(pieces)
	for range flows {
		c := dialHello(b, ln.Addr().String())
		clients.Go(func() {
			defer c.Close()
			for range pieces {
				if _, err := io.CopyN(io.Discard, c, piece); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.SetBytes(piece)
	b.ReportAllocs()
	for b.Loop() {
		pieces <- struct{}{}
	}
}

func newBenchHost(b *testing.B, cfg netstack.Config) *netstack.Net {
	h, err := netstack.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { h.Close() })
	return h
}
