package gateway

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"postern"
	"postern/internal/proxyproto"
	"postern/netstack"
)

// BenchmarkProbe probes a node through a tunnel on loopback: what each probe costs, both
// ends together, and what it has on the wire, WireGuard's own bytes included and those of
// UDP and IP below it not.
func BenchmarkProbe(b *testing.B) {
	ends := [2]*netstack.Net{}
	for i, cfg := range []netstack.Config{idleGateway, idleNode} {
		end, err := netstack.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { end.Close() })
		ends[i] = end
	}
	if err := errors.Join(
		ends[0].SetPeers([]netstack.Peer{idlePeer(idleNode, ends[1].Port())}),
		ends[1].SetPeers([]netstack.Peer{idlePeer(idleGateway, ends[0].Port())}),
	); err != nil {
		b.Fatal(err)
	}
	ln, err := ends[1].Listen(443)
	if err != nil {
		b.Fatal(err)
	}
	serveEach(b, ln, func(c net.Conn) {
		if h, err := proxyproto.Read(c); err == nil && h.Local {
			io.WriteString(c, postern.ProbeAnswer)
		}
	})
	g := New(Config{Dial: ends[0].DialContext})
	node := Node{Addr: addr443(idleNode.Address.String())}
	if _, err := g.probeNode(b.Context(), node); err != nil {
		b.Fatal(err)
	}
	traffic := func() uint64 { p := ends[0].Peers()[0]; return p.Received + p.Sent }
	before, cpu := traffic(), processTime(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.probeNode(b.Context(), node); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(traffic()-before)/float64(b.N), "wire-B/op")
	b.ReportMetric(float64((processTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

// processTime returns how much processor time this process has used.
func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
