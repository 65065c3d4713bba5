package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
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

// GatewayPeers returns the tunnels of a node: one to each gateway of m whose endpoint
// is an address, or was looked up; kept open through NAT by a packet every keepalive. Others
// have none yet: WireGuard would greet them in vain, and again only seconds after the
// endpoint is known. One that was looked up in vain waits without an endpoint, or stays
// where it is.
func GatewayPeers(m postern.Map, at Lookups, keepalive time.Duration) []netstack.Peer {
	d := m.Deployment()
	if d == nil {
		return nil
	}
	var peers []netstack.Peer
	for _, g := range d.Gateways {
		if endpoint, ok := at.of(g); ok {
			peers = append(peers, netstack.Peer{PublicKey: g.WireGuard, Address: g.Address, ID: g.ID, Endpoint: endpoint, Keepalive: keepalive})
		}
	}
	return peers
}

// Lookups are what came of looking endpoints of gateways up, by HOST:PORT; invalid
// where nothing did.
type Lookups map[string]netip.AddrPort

// of returns where g is, and whether that is as much as can be known.
func (l Lookups) of(g postern.Gateway) (netip.AddrPort, bool) {
	if g.Endpoint == "" {
		return netip.AddrPort{}, false
	}
	if addr, err := netip.ParseAddrPort(g.Endpoint); err == nil {
		return addr, true
	}
	addr, ok := l[g.Endpoint]
	return addr, ok
}

// lookupTimeout bounds looking up one endpoint.
const lookupTimeout = 5 * time.Second

// LookUp looks up the endpoints of m's gateways that are names, all at the same time: none
// waits for another's. The error says which could not be: these are where they were before,
// since a gateway seldom moves while DNS is away.
func LookUp(ctx context.Context, m postern.Map, before Lookups) (Lookups, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	d := m.Deployment()
	if d == nil {
		return nil, nil
	}
	found, failed := make([]netip.AddrPort, len(d.Gateways)), make([]error, len(d.Gateways))
	var wg sync.WaitGroup
	for i, g := range d.Gateways {
		if g.Endpoint == "" {
			continue
		}
		wg.Go(func() {
			var err error
			if found[i], err = resolve(ctx, g.Endpoint); err != nil {
				failed[i] = fmt.Errorf("endpoint of gateway %q: %w", g.Name, err)
				found[i] = before[g.Endpoint]
			}
		})
	}
	wg.Wait()
	at := make(Lookups)
	for i, g := range d.Gateways {
		if g.Endpoint != "" {
			at[g.Endpoint] = found[i]
		}
	}
	return at, errors.Join(failed...)
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
	if postern.IsLocalhost(host) {
		host = "127.0.0.1" // see RFC 6761, section 6.3
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(n)), nil
}
