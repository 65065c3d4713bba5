package netstack

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	published "golang.zx2c4.com/wireguard/tun/netstack"
)

// BenchmarkBulk and BenchmarkPingPong run the same traffic over two hosts of
// ours and over the glue that wireguard-go publishes; x-glue is how many times
// the glue's speed ours is, in this run.

func BenchmarkBulk(b *testing.B) {
	const chunk = 1 << 20
	compare(b, func(b *testing.B, from, to net.Conn) {
		b.SetBytes(chunk)
		done := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, to); done <- err }()
		buf := make([]byte, chunk)
		for b.Loop() {
			if _, err := from.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		from.Close()
		<-done
	})
}

func BenchmarkPingPong(b *testing.B) {
	compare(b, func(b *testing.B, from, to net.Conn) {
		done := make(chan error, 1)
		go func() { _, err := io.Copy(to, to); done <- err }()
		buf := make([]byte, 1)
		for b.Loop() {
			if _, err := from.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(from, buf); err != nil {
				b.Fatal(err)
			}
		}
		from.Close()
		<-done
	})
}

// BenchmarkPeers is the status of 5,000 peers.
func BenchmarkPeers(b *testing.B) {
	const peers = 5000
	h := newHost(b, 1)
	set := make([]Peer, peers)
	for i := range set {
		a := [16]byte{0: 0xfd, 1: 1, 14: byte(i >> 8), 15: byte(i)}
		set[i] = Peer{
			PublicKey: Key{byte(i), byte(i >> 8), 1}, Address: netip.AddrFrom16(a),
			Endpoint: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 9),
		}
	}
	h.mustSetPeers(b, set...)
	b.ReportAllocs()
	for b.Loop() {
		if got := len(h.Peers()); got != peers {
			b.Fatalf("got %d peers, want %d", got, peers)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/peers, "ns/peer")
}

// compare runs f over the glue and over ours, and reports the ratio.
func compare(b *testing.B, f func(b *testing.B, from, to net.Conn)) {
	perOp := map[string]float64{}
	for _, pipe := range []struct {
		name string
		make func(testing.TB) (from, to net.Conn)
	}{
		{"glue", newGluePipe},
		{"ours", newPipe},
	} {
		b.Run(pipe.name, func(b *testing.B) {
			from, to := pipe.make(b)
			b.ReportAllocs()
			f(b, from, to)
			perOp[pipe.name] = b.Elapsed().Seconds() / float64(b.N)
			if glue, ok := perOp["glue"]; ok && pipe.name == "ours" {
				b.ReportMetric(glue/perOp["ours"], "x-glue")
			}
		})
	}
}

func newPipe(t testing.TB) (from, to net.Conn) {
	node, gateway := newPair(t)
	return connect(t, gateway, node)
}

// newGluePipe is newPipe with the glue in the place of the link and the stack's
// settings.
func newGluePipe(t testing.TB) (from, to net.Conn) {
	t.Helper()
	type end struct {
		net     *published.Net
		device  *device.Device
		address netip.Addr
		key     Key
		port    uint16
	}
	ends := [2]end{{address: overlay(1)}, {address: overlay(2)}}
	for i := range ends {
		e := &ends[i]
		tunDevice, n, err := published.CreateNetTUN([]netip.Addr{e.address}, nil, defaultMTU)
		if err != nil {
			t.Fatal(err)
		}
		e.net = n
		e.device = device.NewDevice(tunDevice, conn.NewDefaultBind(), &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf})
		t.Cleanup(e.device.Close)
		private := newPrivateKey(t)
		if e.key, err = publicKey(private); err != nil {
			t.Fatal(err)
		}
		if err := e.device.IpcSet("private_key=" + hex.EncodeToString(private[:]) + "\n"); err != nil {
			t.Fatal(err)
		}
		if err := e.device.Up(); err != nil {
			t.Fatal(err)
		}
		var s deviceStatus
		if err := e.device.IpcGetOperation(&s); err != nil {
			t.Fatal(err)
		}
		e.port = s.port
	}
	for i := range ends {
		other := ends[1-i]
		if err := ends[i].device.IpcSet(fmt.Sprintf("public_key=%x\nallowed_ip=%v/128\nendpoint=127.0.0.1:%d\n",
			other.key[:], other.address, other.port)); err != nil {
			t.Fatal(err)
		}
	}
	dst := netip.AddrPortFrom(ends[1].address, 443)
	ln, err := ends[1].net.ListenTCPAddrPort(dst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if from, err = ends[0].net.DialContextTCPAddrPort(t.Context(), dst); err != nil {
		t.Fatal(err)
	}
	if to, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close(); to.Close() })
	return from, to
}
