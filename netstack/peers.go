package netstack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A Peer is a host that may reach us, and that we may reach.
type Peer struct {
	PublicKey [32]byte   // X25519
	Address   netip.Addr // its virtual IPv6 address, the only source it may use

	// ID is who the peer is, whatever its key: with another key, but the same ID and
	// address, it is the same peer still. If empty, the key alone says who it is.
	ID string

	// Endpoint is where to reach it at first; WireGuard then follows it as it
	// roams. If zero, it will come to us.
	Endpoint netip.AddrPort

	// Keepalive is the interval of persistent keepalives, in whole seconds, at
	// most 65535. If zero, none are sent.
	Keepalive time.Duration
}

func (p Peer) check() error {
	if err := checkAddress(p.Address); err != nil {
		return err
	}
	if p.Endpoint != (netip.AddrPort{}) && (!p.Endpoint.IsValid() || p.Endpoint.Port() == 0) {
		return fmt.Errorf("endpoint %v is no address and port", p.Endpoint)
	}
	if p.Keepalive < 0 || p.Keepalive > math.MaxUint16*time.Second || p.Keepalive%time.Second != 0 {
		return fmt.Errorf("keepalive %v is not within 0 to %d whole seconds", p.Keepalive, math.MaxUint16)
	}
	return nil
}

// SetPeers makes peers the whole set of peers. What is already so is left alone,
// so sessions, connections and endpoints that roamed survive; a peer whose
// Endpoint is not the one last set is sent there. A peer with another key than before, see
// Peer.ID, keeps its connections and its relay, and gets a new session. Connections to a
// peer that is gone, or to an address that is now another peer's, are aborted before
// SetPeers returns, and not one more byte of theirs is read or written.
//
// Keys and addresses must be unique in the set, and not the host's own. If
// peers is not valid, nothing is changed. After any other error the set is partly
// applied; SetPeers may be called again.
func (n *Net) SetPeers(peers []Peer) error {
	n.configuring.Lock()
	defer n.configuring.Unlock()
	want, err := n.index(peers)
	if err != nil {
		return fmt.Errorf("set peers: %w", err)
	}
	if n.isClosed() {
		return net.ErrClosed
	}
	heirs := n.heirs(want)
	// In this order: nobody dials an address any more, its packets stop, then
	// the connections that were there are aborted.
	kept := maps.Clone(*n.routes.Load())
	gone := map[netip.Addr]bool{}
	for key, have := range n.peers {
		if _, ok := heirs[key]; ok {
			continue
		}
		if now, ok := want[key]; !ok || now.Address != have.Address {
			gone[have.Address] = true
			delete(kept, have.Address)
		}
	}
	n.routes.Store(&kept)
	err = n.apply(want, heirs)
	n.abort(gone)
	all := make(map[netip.Addr]bool, len(n.peers))
	for _, p := range n.peers {
		all[p.Address] = true
	}
	n.routes.Store(&all)
	n.link.paths.keep(all)
	n.link.pathMTUs.keep(all)
	return err
}

// heirs returns the keys that peers have by now, by those that they had before.
func (n *Net) heirs(want map[Key]Peer) map[Key]Key {
	heirs := map[Key]Key{}
	byAddress := map[netip.Addr]Key{} // made when it is needed, which is seldom
	for key, have := range n.peers {
		if _, ok := want[key]; ok || have.ID == "" {
			continue
		}
		if len(byAddress) == 0 {
			for key, p := range want {
				byAddress[p.Address] = key
			}
		}
		if heir, ok := byAddress[have.Address]; ok && want[heir].ID == have.ID {
			heirs[key] = heir
		}
	}
	return heirs
}

// index checks peers and returns them by key, endpoints in one form.
func (n *Net) index(peers []Peer) (map[Key]Peer, error) {
	if len(peers) > device.MaxPeers {
		return nil, fmt.Errorf("%d peers are more than %d", len(peers), device.MaxPeers)
	}
	byKey := make(map[Key]Peer, len(peers))
	byAddress := map[netip.Addr]Key{n.address: n.key}
	for _, p := range peers {
		key := Key(p.PublicKey)
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("peer %v: %w", key, err)
		}
		if _, ok := byKey[key]; ok || key == n.key {
			return nil, fmt.Errorf("peer %v: key is taken", key)
		}
		if other, ok := byAddress[p.Address]; ok {
			return nil, fmt.Errorf("peer %v: address %v is taken by %v", key, p.Address, other)
		}
		if p.Endpoint.IsValid() {
			p.Endpoint = netip.AddrPortFrom(p.Endpoint.Addr().Unmap(), p.Endpoint.Port())
		}
		byKey[key] = p
		byAddress[p.Address] = key
	}
	return byKey, nil
}

// apply brings the device from n.peers to want, one peer at a time: n.peers
// stays what the device has, come what may.
func (n *Net) apply(want map[Key]Peer, heirs map[Key]Key) error {
	for key := range n.peers {
		if _, ok := want[key]; ok {
			continue
		}
		if heir, ok := heirs[key]; ok {
			if n.relayed[key] {
				n.relayed[heir] = true
			}
			n.carriers.inherit(key, heir)
		}
		if err := n.device.IpcSet(fmt.Sprintf("public_key=%s\nremove=true\n", hex.EncodeToString(key[:]))); err != nil {
			return fmt.Errorf("remove peer %v: %w", key, err)
		}
		delete(n.peers, key)
		delete(n.relayed, key)
		n.carriers.forget(key)
	}
	for key, p := range want {
		have, ok := n.peers[key]
		if ok && have == p {
			continue
		}
		if err := n.device.IpcSet(n.changes(have, p)); err != nil {
			return fmt.Errorf("set peer %v: %w", key, err)
		}
		n.peers[key] = p
	}
	return nil
}

// changes returns what makes have, which is zero for a new peer, into want, in
// WireGuard's configuration protocol (wireguard.com/xplatform).
func (n *Net) changes(have, want Peer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%s\n", hex.EncodeToString(want.PublicKey[:]))
	if want.Endpoint != have.Endpoint && want.Endpoint.IsValid() || have == (Peer{}) {
		b.WriteString(n.endpointLine(want))
	}
	if want.Address != have.Address {
		fmt.Fprintf(&b, "replace_allowed_ips=true\nallowed_ip=%v/128\n", want.Address)
	}
	if want.Keepalive != have.Keepalive {
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", want.Keepalive/time.Second)
	}
	return b.String()
}

// abort aborts every connection to one of addresses: those in use, those being
// made, and those that TCP is still closing.
func (n *Net) abort(addresses map[netip.Addr]bool) {
	if len(addresses) == 0 {
		return
	}
	for _, ep := range n.stack.RegisteredEndpoints() {
		// GetRemoteAddress knows none before the handshake is done.
		id := ep.(tcpip.Endpoint).Info().(*stack.TransportEndpointInfo).ID
		if addresses[addrFrom(id.RemoteAddress)] {
			ep.Abort()
		}
	}
}

// errNoPeer is for an address that no peer has.
var errNoPeer = errors.New("no peer has this address")

// reachable returns errNoPeer unless a peer has a.
func (n *Net) reachable(a netip.Addr) error {
	if !(*n.routes.Load())[a] {
		return errNoPeer
	}
	return nil
}
