package netstack

import (
	"net/netip"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/device"
)

// Under load, WireGuard asks whoever shakes hands to show that it is where it says, with a
// cookie, and takes 20 handshakes a second from one address (whitepaper, sections 5.3 and
// 5.4.7). The address is what an endpoint's DstIP says, which our bind uses for nothing
// else. WireGuard's own bind sends to it; so elsewhere than on Linux, where gateways run,
// the whole address counts.

// limitedAs returns what addr counts as: a network has 2^64 addresses of IPv6 for nothing.
func limitedAs(addr netip.Addr) netip.Addr {
	if !addr.Is6() || addr.Is4In6() {
		return addr
	}
	p, _ := addr.Prefix(64) // of an IPv6 address there is one
	return p.Addr()
}

// cookies counts the handshakes that were answered with a cookie.
type cookies struct{ sent atomic.Uint64 }

// count looks at what is sent.
func (c *cookies) count(bufs [][]byte) {
	if b := bufs[0]; len(b) == device.MessageCookieReplySize && b[0] == device.MessageCookieReplyType {
		c.sent.Add(1)
	}
}

// Cookies returns how many handshakes were answered with a cookie so far, since there
// were too many.
func (n *Net) Cookies() uint64 { return n.carriers.cookies.sent.Load() }
