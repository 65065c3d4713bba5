package netstack

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/crypto/blake2s"
	"golang.zx2c4.com/wireguard/device"
)

func TestLimitedAs(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"192.0.2.1", "192.0.2.1"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"fe80::1%eth0", "fe80::"},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.1"},
	} {
		if got := limitedAs(netip.MustParseAddr(tt.addr)); got.String() != tt.want {
			t.Errorf("%s counts as %v, want %s", tt.addr, got, tt.want)
		}
	}
	if got := limitedAs(netip.Addr{}); got.IsValid() {
		t.Errorf("no address counts as %v", got)
	}
}

// initiation returns a handshake initiation (whitepaper, section 5.4.2) of nobody for a
// host whose public key is key: its first MAC, which takes no secret, is good.
func initiation(key Key) []byte {
	b := make([]byte, device.MessageInitiationSize)
	rand.Read(b)
	binary.LittleEndian.PutUint32(b, device.MessageInitiationType)
	at := len(b) - 2*blake2s.Size128
	secret := blake2s.Sum256(append([]byte(device.WGLabelMAC1), key[:]...))
	mac, err := blake2s.New128(secret[:])
	if err != nil {
		panic(err)
	}
	mac.Write(b[:at])
	mac.Sum(b[:at])
	clear(b[at+blake2s.Size128:])
	return b
}

// TestHandshakeFlood: handshakes of nobody, each of which costs a multiplication on the
// curve, are answered with cookies when they are too many. Those with a session do not
// notice, and what the flood leaves behind is WireGuard's queue of them: 1,024 buffers of
// 64 KiB, which the next packets use.
func TestHandshakeFlood(t *testing.T) {
	node, gateway := newPair(t)
	dialed, accepted := connect(t, node, gateway)
	mustEcho(t, dialed, accepted)
	c, err := net.Dial("udp", gateway.peer.Endpoint.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before := heap()
	const sent = 20_000
	for i := range sent {
		if _, err := c.Write(initiation(gateway.key)); err != nil {
			t.Fatal(err)
		}
		if i%2000 == 0 {
			mustEcho(t, dialed, accepted)
		}
	}
	mustEcho(t, dialed, accepted)
	after := heap()
	t.Logf("%d initiations, %d cookies; heap %d KiB before, %d KiB after", sent, gateway.Cookies(), before>>10, after>>10)
	if gateway.Cookies() < 100 {
		t.Errorf("%d initiations got %d cookies, want 100", sent, gateway.Cookies())
	}
	if after > before+128<<20 {
		t.Errorf("the flood left %d KiB behind", (after-before)>>10)
	}
}
