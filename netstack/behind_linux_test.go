//go:build !android

package netstack

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
)

// TestBehind: a socket that holds much that was not read says so, until it was.
func TestBehind(t *testing.T) {
	b := newBind(slog.New(slog.DiscardHandler)).(*bind)
	if b.behind() {
		t.Error("a bind that is closed is behind")
	}
	_, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.behind() {
		t.Error("behind with nothing")
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 10_000 {
		if b.behind() {
			return
		}
		if _, err := c.Write(make([]byte, 1400)); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("not behind with 14 MB")
}
