package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern"
	"postern/netstack"
)

// NodePeers returns the tunnels of a gateway: one to each node of m. Nodes dial
// in, from behind whatever NAT, so none has an endpoint.
func NodePeers(m postern.Map) []netstack.Peer {
	var peers []netstack.Peer
	for _, s := range m.Sections {
		for _, n := range s.Nodes {
			peers = append(peers, netstack.Peer{PublicKey: n.WireGuard, Address: n.Address, ID: n.ID})
		}
	}
	return peers
}

// GatewayPeers returns the tunnels of a node: one to each gateway of m, kept
// open through NAT by a packet every keepalive. A gateway without endpoint has
// none yet: WireGuard would greet it in vain, and again only seconds after its
// endpoint is known. Endpoints that are names are looked up; for those that
// cannot be, the error says so and the peer waits without one.
func GatewayPeers(ctx context.Context, m postern.Map, keepalive time.Duration) ([]netstack.Peer, error) {
	d := m.Deployment()
	if d == nil {
		return nil, nil
	}
	var peers []netstack.Peer
	var failed []error
	for _, g := range d.Gateways {
		if g.Endpoint == "" {
			continue
		}
		endpoint, err := resolve(ctx, g.Endpoint)
		if err != nil {
			failed = append(failed, fmt.Errorf("endpoint of gateway %q: %w", g.Name, err))
		}
		peers = append(peers, netstack.Peer{PublicKey: g.WireGuard, Address: g.Address, ID: g.ID, Endpoint: endpoint, Keepalive: keepalive})
	}
	return peers, errors.Join(failed...)
}

// resolve turns host:port into an address and port.
func resolve(ctx context.Context, hostport string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q is no number", port)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		host = "127.0.0.1" // see RFC 6761, section 6.3
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(n)), nil
}
