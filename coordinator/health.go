package coordinator

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"postern"
)

// A health is how a node does, by all that is known of it.
type health struct {
	state   string // one of the postern.StateXxx
	reached bool   // browsers get through to it
	reason  string // why the state is not ready, for a person
}

// better returns the one of a and b that does more for a browser.
func (a health) better(b health) health {
	if b.worth() > a.worth() {
		return b
	}
	return a
}

func (a health) worth() int {
	switch {
	case a.state == postern.StateReady:
		return 3
	case a.reached: // traffic flows without the control stream
		return 2
	case a.state == postern.StateDegraded:
		return 1
	}
	return 0
}

// Reasons, for who runs a node.
const (
	reasonOffline = "neither the coordinator nor a gateway hears of it: it is switched off, or has no Internet"
	reasonControl = "its machine serves, but has no contact with the coordinator: nobody new can sign in there, and changes do not reach it"
	reasonPath    = "it has contact with the coordinator, but no tunnel to a gateway: neither UDP nor TLS on port 443 passes from its network, or the gateway has just restarted"
	reasonDoor    = "no gateway is connected to the coordinator"
	reasonResume  = "the coordinator has just started, and has yet to hear of it"
)

// health returns how the node with id does.
func (p *presence) health(id string, gateways []*Member, now time.Time) health {
	p.mu.Lock()
	defer p.mu.Unlock()
	control := p.streams[id] != nil
	var missing []string // gateways that do not reach it
	var why string       // as one of them says
	h, doors, tunnel := health{}, false, false
	for _, g := range gateways {
		peer := p.reports[g.ID].peers[id]
		switch p.reach(g.ID, id, peer, now) {
		case reaches:
			h.reached = true
		case misses:
			missing, why = append(missing, g.Name), peer.Probe.Error
		}
		if p.there(g.ID, now) {
			doors, tunnel = true, tunnel || isFresh(peer.Handshake, now)
		}
	}
	switch {
	case control && h.reached && len(missing) == 0:
		h.state = postern.StateReady
	case p.resumes(id, gateways, now):
		h.state, h.reached, h.reason = postern.StateDegraded, true, reasonResume
	case !control && !h.reached:
		h.state, h.reason = postern.StateOffline, reasonOffline
	case !control:
		h.state, h.reason = postern.StateDegraded, reasonControl
	case h.reached:
		h.state, h.reason = postern.StateDegraded, fmt.Sprintf("not reached from %s: %s", gatewaysNamed(missing), why)
	case !doors:
		h.state, h.reason = postern.StateDegraded, reasonDoor
	case tunnel && why != "":
		h.state, h.reason = postern.StateDegraded, "its tunnel is up, but it serves nobody: "+why
	default:
		h.state, h.reason = postern.StateDegraded, reasonPath
	}
	return h
}

// resume says which members there were when the coordinator started, and until when it
// waits for them.
func (p *presence) resume(known map[string]*Member, until time.Time) {
	p.before, p.resumed = make(map[string]bool, len(known)), until
	for id := range known {
		p.before[id] = true
	}
}

// resumes reports whether it is the coordinator that has to find out how the node with id
// does: it has just started, and the node, or all gateways, have yet to come back. Until
// then what browsers reach is what they reached before. The lock is held.
func (p *presence) resumes(id string, gateways []*Member, now time.Time) bool {
	if !p.before[id] || !now.Before(p.resumed) {
		return false
	}
	_, ended := p.seen[id]
	if p.streams[id] == nil && !ended {
		return true
	}
	for _, g := range gateways {
		if _, said := p.reports[g.ID]; said || !p.before[g.ID] {
			return false
		}
	}
	return len(gateways) > 0
}

func gatewaysNamed(names []string) string {
	if len(names) == 1 {
		return "gateway " + names[0]
	}
	return "gateways " + strings.Join(names, ", ")
}

// A reach is whether a gateway gets through to a node.
type reach int

const (
	unknown reach = iota
	reaches
	misses // its probes are not answered
)

// reach returns whether a gateway gets through to a node, of which peer is what the
// gateway says. Where a gateway does not probe, or has yet to, its handshake counts. An
// answer or a handshake is enough while the node's stream is open, or was not open yet
// since the coordinator started. When the stream has ended, the node may have been
// switched off: then only what came through the tunnel after that counts. While it has
// just opened, what was missed may have been before that, and the handshake counts again.
// The lock is held.
func (p *presence) reach(gateway, node string, peer postern.PeerStatus, now time.Time) reach {
	ended, known := p.seen[node]
	open := p.streams[node] != nil || !known
	switch {
	case peer.Probe != nil && peer.Probe.Error != "" && !p.came(node, now):
		if !p.there(gateway, now) {
			return unknown // what it said last is old
		}
		return misses
	case peer.Probe != nil && peer.Probe.Error == "":
		if isFresh(peer.Probe.Time, now) && (open || peer.Probe.Time.After(ended)) {
			return reaches
		}
	case isFresh(peer.Handshake, now):
		h, ok := p.heard[[2]string{gateway, node}]
		if open || ok && !h.after.Before(ended) && now.Sub(h.until) < heardFor {
			return reaches
		}
	}
	return unknown
}

// comesFor is how long a node that has come is not held to the probes that it missed: the
// gateway asks it anew as soon as it hears of it, and tells.
const comesFor = 10 * time.Second

// came reports whether a node's stream is open since just now. The lock is held.
func (p *presence) came(node string, now time.Time) bool {
	s := p.streams[node]
	return s != nil && now.Sub(s.opened) < comesFor
}

// there reports whether a gateway is connected, and says how its nodes do. The lock is held.
func (p *presence) there(gateway string, now time.Time) bool {
	said := p.reports[gateway].time
	return p.streams[gateway] != nil && (said.IsZero() || now.Sub(said) < reportAge)
}

// tunnels returns the tunnels of the node with id, by gateway.
func (p *presence) tunnels(id string, gateways []*Member) []postern.Tunnel {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []postern.Tunnel{}
	for _, g := range gateways {
		peer, ok := p.reports[g.ID].peers[id]
		if !ok {
			continue
		}
		all = append(all, postern.Tunnel{
			Gateway: g.Name, Endpoint: peer.Endpoint, Handshake: peer.Handshake, Received: peer.Received,
			Sent: peer.Sent, Reported: p.reports[g.ID].time, Path: peer.Path, Probe: peer.Probe,
		})
	}
	return all
}

// moved reports whether gateways get through to other nodes than the last time.
func (p *presence) moved(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	reached := make(map[[2]string]reach)
	for gateway, r := range p.reports {
		for node, peer := range r.peers {
			if to := p.reach(gateway, node, peer, now); to != unknown {
				reached[[2]string{gateway, node}] = to
			}
		}
	}
	changed := !maps.Equal(reached, p.reached)
	p.reached = reached
	return changed
}

// tellMoved rings if gateways get through to other nodes than the last time.
func (c *Coordinator) tellMoved() {
	if c.presence.moved(c.cfg.Now()) {
		c.changed.ring()
	}
}
