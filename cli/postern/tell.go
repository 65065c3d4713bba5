package main

import (
	"context"
	"maps"
	"time"

	"postern"
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
// acts on, whenever a tunnel came, went or moved, at once when it lets in others
// than before or is to stop, and every postern.StatusInterval.
func (d *door) tell(ctx context.Context) {
	tick := time.NewTicker(tellInterval)
	defer tick.Stop()
	var told, reported, refused time.Time
	var why string // it was refused
	var last map[string]string
	var acting uint64 // as was told
	parted := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.news:
			if time.Since(reported) < tellInterval {
				continue
			}
		}
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
		now, s := time.Now(), d.status()
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

// status is what the coordinator hears of the tunnels.
func (d *door) status() postern.Status {
	s := postern.Status{
		Version: programVersion(), Time: time.Now(), Map: d.acting.Load(), Boot: d.boot, Draining: d.stopping.Load(),
	}
	ids := d.ids.Load()
	if ids == nil {
		return s
	}
	for _, p := range d.net.Peers() {
		peer := postern.PeerStatus{ID: (*ids)[p.Address], Handshake: p.Handshake, Received: p.Received, Sent: p.Sent, MTU: p.MTU}
		if p.Endpoint.IsValid() {
			peer.Endpoint, peer.Path = p.Endpoint.String(), postern.CarrierUDP
		}
		if p.Relayed {
			peer.Path = postern.CarrierRelay
		}
		if peer.ID != "" {
			s.Peers = append(s.Peers, peer)
		}
	}
	return s
}

// tunnelPaths returns where each tunnel that answers leads to, by node.
func tunnelPaths(s postern.Status, now time.Time) map[string]string {
	paths := make(map[string]string)
	for _, p := range s.Peers {
		if now.Sub(p.Handshake) < fresh {
			paths[p.ID] = p.Path + " " + p.Endpoint
		}
	}
	return paths
}
