package main

import (
	"errors"
	"net/netip"

	"postern"
	"postern/internal/relay"
)

// node returns a node of the map that is applied.
func (d *door) node(id string) (postern.Node, bool) {
	nodes := d.nodes.Load()
	if nodes == nil {
		return postern.Node{}, false
	}
	n, ok := (*nodes)[id]
	return n, ok
}

// identity returns the identity of a node, false for one that may have no relay.
func (d *door) identity(id string) (postern.IdentityPublic, bool) {
	n, ok := d.node(id)
	return n.Identity, ok && !n.Identity.IsZero()
}

// attach leads a node's relay into its tunnel.
func (d *door) attach(id string, remote netip.AddrPort, send func([][]byte)) (relay.Link, error) {
	n, ok := d.node(id)
	if !ok {
		return nil, errors.New("the node was removed")
	}
	r, err := d.net.AttachRelay(n.WireGuard, remote, send)
	if err != nil {
		return nil, err // and not a Link that is no nil
	}
	return r, nil
}
