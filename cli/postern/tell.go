package main

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"postern"
	"postern/gateway"
)

const (
	// tellInterval is how often a gateway looks for news to tell, and how much time
	// it lets go by between news that cannot wait.
	tellInterval = 500 * time.Millisecond

	// retellInterval is how long it waits after what it told was not heard.
	retellInterval = 2 * time.Second

	// fresh is how long a handshake vouches for a tunnel: WireGuard makes a new
	// one every 2 minutes while there is traffic (whitepaper, section 6.2).
	fresh = 3 * time.Minute
)

// tell tells the coordinator, until ctx is done, where this gateway is reached,
// whenever the control stream came up; and how its tunnels are, and which map it
// acts on, whenever a tunnel came, went or moved, or its node answers or no longer
// answers, at once when it lets in others than before or is to stop, and every
// postern.StatusInterval.
//
// It also has nodes probed that did not answer, when something comes from them.
func (d *door) tell(ctx context.Context) {
	tick := time.NewTicker(tellInterval)
	defer tick.Stop()
	var told, reported, refused time.Time
	var why string // it was refused
	var last map[string]string
	var silent map[string]uint64
	var acting uint64 // as was told
	parted := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(d.pace())
		case <-d.news:
			if time.Since(reported) < tellInterval {
				tick.Reset(tellInterval) // and not when the pace says
				continue
			}
		}
		s := d.status()
		silent = d.listen(s, silent)
		link := d.client.Link()
		if !link.Up {
			continue
		}
		if !link.Since.Equal(told) {
			if time.Since(refused) < retellInterval {
				continue
			}
			if err := d.client.SetGateway(ctx, d.opts.advertise, d.opts.public); err != nil {
				// Until it succeeds no node finds the way here.
				if refused = time.Now(); err.Error() != why && ctx.Err() == nil {
					d.log.Warn("tell the coordinator this gateway's addresses; trying again", "err", err)
				}
				why = err.Error()
				continue
			}
			told, reported, refused, why = link.Since, time.Time{}, time.Time{}, ""
		}
		now := time.Now()
		paths := tunnelPaths(s, now)
		if now.Sub(reported) < postern.StatusInterval && maps.Equal(paths, last) && d.awaited.Load() <= acting && s.Draining == parted {
			continue
		}
		if err := d.client.Report(ctx, s); err != nil {
			d.log.Debug("report to the coordinator", "err", err)
			continue
		}
		reported, last, acting = now, paths, s.Map
		if s.Draining && !parted {
			close(d.parted)
			parted = true
		}
	}
}

// listen has the nodes of s probed anew that do not answer, if more came from them than
// before, by id. It returns how much came from those nodes.
func (d *door) listen(s postern.Status, before map[string]uint64) map[string]uint64 {
	silent := make(map[string]uint64)
	for _, p := range s.Peers {
		if p.Probe == nil || p.Probe.Error == "" {
			continue
		}
		if received, ok := before[p.ID]; ok && p.Received != received {
			if n, ok := (*d.nodes.Load())[p.ID]; ok {
				d.gw.Heard(gatewayNode(n.ID, n.Address))
			}
		}
		silent[p.ID] = p.Received
	}
	return silent
}

// gatewayNode returns the node with that id and overlay address as the gateway knows it.
func gatewayNode(id string, addr netip.Addr) gateway.Node {
	return gateway.Node{ID: id, Addr: netip.AddrPortFrom(addr, postern.HTTPSPort)}
}

// status is what the coordinator hears of the tunnels.
func (d *door) status() postern.Status {
	s := postern.Status{
		Version: programVersion(), Time: time.Now(), Map: d.acting.Load(), Boot: d.boot, Draining: d.stopping.Load(),
	}
	ids := d.ids.Load()
	if ids == nil {
		return s
	}
	for _, p := range d.peers() {
		peer := postern.PeerStatus{ID: (*ids)[p.Address], Handshake: p.Handshake, Received: p.Received, Sent: p.Sent, MTU: p.MTU}
		if p.Endpoint.IsValid() {
			peer.Endpoint, peer.Path = p.Endpoint.String(), postern.CarrierUDP
		}
		if p.Relayed {
			peer.Path = postern.CarrierRelay
		}
		if peer.ID != "" {
			peer.Probe = d.gw.Probed(gatewayNode(peer.ID, p.Address))
			s.Peers = append(s.Peers, peer)
		}
	}
	return s
}

// tunnelPaths returns where each tunnel that works leads to, by node, and whether the
// node answers probes.
func tunnelPaths(s postern.Status, now time.Time) map[string]string {
	paths := make(map[string]string)
	for _, p := range s.Peers {
		if now.Sub(p.Handshake) < fresh {
			paths[p.ID] = p.Path + " " + p.Endpoint
		}
		if p.Probe != nil && p.Probe.Error != "" {
			paths[p.ID] += " silent"
		}
	}
	return paths
}
