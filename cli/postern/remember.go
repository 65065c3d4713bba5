package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"postern"
	"postern/internal/member"
	"postern/netstack"
)

// remember keeps on disk, for the next run, where the nodes are, until ctx is
// done. It looks as often as tell does.
func (d *door) remember(ctx context.Context) {
	tick := time.NewTicker(tellInterval)
	defer tick.Stop()
	kept := d.seen
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			tick.Reset(d.pace())
		}
		if d.acting.Load() == 0 {
			continue // without a map there are no nodes yet, and that is no news
		}
		seen := d.endpoints()
		if maps.Equal(seen, kept) {
			continue
		}
		if err := seen.Save(d.dir); err != nil {
			d.log.Warn("keep where the nodes are; trying again", "err", err)
			continue
		}
		kept = seen
	}
}

// greet has peers that were somewhere at the last run learn, the first time that
// it is called, that their session is gone: turning keepalives on sends one at
// once, and for that a handshake. Left to themselves they would find out when
// they miss an answer.
func (d *door) greet(peers []netstack.Peer) error {
	if d.greeted {
		return nil
	}
	d.greeted = true
	greeting := slices.Clone(peers)
	for i, p := range greeting {
		if p.Endpoint.IsValid() {
			greeting[i].Keepalive = time.Minute
		}
	}
	return d.net.SetPeers(greeting)
}

// endpoints returns where the nodes are over UDP, as far as that is known.
func (d *door) endpoints() member.Endpoints {
	seen := make(member.Endpoints)
	for _, p := range d.peers() {
		if p.Endpoint.IsValid() && !p.Relayed {
			seen[postern.WireGuardPublic(p.PublicKey)] = p.Endpoint
		}
	}
	return seen
}
