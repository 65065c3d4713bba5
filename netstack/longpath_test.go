package netstack

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// On a long path the buffers grow from what an idle connection has to what the
// path holds, or a flow would be capped at 64 KiB a round trip.
func TestBuffersGrowOnLongPath(t *testing.T) {
	const oneWay, size = 20 * time.Millisecond, 8 << 20
	node, gateway := newHost(t, 1), newHost(t, 2)
	path := newLongPath(t, gateway.peer.Endpoint, oneWay)
	gateway.mustSetPeers(t, node.hidden())
	p := gateway.peer
	p.Endpoint = path.address()
	node.mustSetPeers(t, p)
	up, down := connect(t, node, gateway)

	if got := down.ep.SocketOptions().GetReceiveBufferSize(); got != bufferDefault {
		t.Errorf("idle receive buffer: got %d bytes, want %d", got, bufferDefault)
	}
	var wg sync.WaitGroup
	start := time.Now()
	wg.Go(func() {
		if _, err := up.Write(make([]byte, size)); err != nil {
			t.Error(err)
		}
		up.CloseWrite()
	})
	if n, err := io.Copy(io.Discard, down); n != size || err != nil {
		t.Errorf("received %d bytes, %v", n, err)
	}
	wg.Wait()
	trips := float64(time.Since(start)) / float64(2*oneWay)
	t.Logf("%d KiB a round trip of %v", int(size/trips)>>10, 2*oneWay)
	if got := down.ep.SocketOptions().GetReceiveBufferSize(); got < 4*bufferDefault {
		t.Errorf("receive buffer: got %d bytes, want growth beyond %d", got, 4*bufferDefault)
	}
	if got := up.ep.SocketOptions().GetSendBufferSize(); got < 4*bufferDefault {
		t.Errorf("send buffer: got %d bytes, want growth beyond %d", got, 4*bufferDefault)
	}
}

// A longPath forwards UDP between one client and one server, each way late by a
// constant.
type longPath struct {
	in, out *net.UDPConn
	wg      sync.WaitGroup
}

type latePacket struct {
	due  time.Time
	data []byte
	to   netip.AddrPort
}

func newLongPath(t *testing.T, server netip.AddrPort, oneWay time.Duration) *longPath {
	t.Helper()
	p := &longPath{in: listenUDP(t), out: listenUDP(t)}
	p.in.SetReadBuffer(8 << 20)
	p.out.SetReadBuffer(8 << 20)
	var client atomic.Pointer[netip.AddrPort] // set before the server answers
	p.forward(p.in, p.out, oneWay, func(from netip.AddrPort) netip.AddrPort {
		client.Store(&from)
		return server
	})
	p.forward(p.out, p.in, oneWay, func(netip.AddrPort) netip.AddrPort { return *client.Load() })
	t.Cleanup(func() {
		p.in.Close()
		p.out.Close()
		p.wg.Wait()
	})
	return p
}

func (p *longPath) address() netip.AddrPort { return p.in.LocalAddr().(*net.UDPAddr).AddrPort() }

// forward starts moving packets from one socket to the other.
func (p *longPath) forward(from, to *net.UDPConn, oneWay time.Duration, route func(netip.AddrPort) netip.AddrPort) {
	late := make(chan latePacket, 1<<14)
	p.wg.Go(func() {
		defer close(late)
		for {
			buf := make([]byte, 2048)
			n, src, err := from.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			late <- latePacket{time.Now().Add(oneWay), buf[:n], route(src)}
		}
	})
	p.wg.Go(func() {
		for l := range late {
			if left := time.Until(l.due); left > 0 {
				<-time.After(left)
			}
			to.WriteToUDPAddrPort(l.data, l.to)
		}
	})
}
