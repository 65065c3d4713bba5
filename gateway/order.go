package gateway

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
)

// order returns t's nodes in the order in which f is to try them, and those to try if
// none of them serves it: those that are being drained. A node that does not answer
// probes comes after those that do, and after being drained if it is all that there is
// besides: probes may be wrong, so that none is left out.
//
// Among equals the order is the same for all connections of a source to a tenant, at
// every gateway, by rendezvous hashing (Thaler and Ravishankar, 1998): when a node comes
// or goes, or its weight changes, those sources move that go there or went there.
func (g *Gateway) order(f *flow, t Target) (nodes, drained []Node) {
	if len(t.Nodes) < 2 {
		return t.Nodes, nil
	}
	traits, key := g.routes.Load().traits, f.stickiness()
	var place [4][]scored // healthy, draining, unhealthy, both
	for _, n := range t.Nodes {
		trait, i := traits[n], 0
		if trait.draining {
			i = 1
		}
		if !g.prober.healthy(n) {
			i += 2
		}
		place[i] = append(place[i], scored{n, score(key, n.ID, trait.weight)})
	}
	if len(place[0]) == 0 {
		return best(place[1], place[2], place[3]), nil
	}
	return best(place[0], place[2]), best(place[1], place[3])
}

// A scored is a node and how much a source prefers it.
type scored struct {
	Node
	score float64
}

// best returns the nodes of each of places, one place after the other.
func best(places ...[]scored) (nodes []Node) {
	for _, place := range places {
		slices.SortFunc(place, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
		for _, s := range place {
			nodes = append(nodes, s.Node)
		}
	}
	return nodes
}

// stickiness returns what decides to which node f goes: where it comes from, and its
// tenant.
func (f *flow) stickiness() string {
	source := sourceKeys(f.src)[0].Addr().As16()
	return string(source[:]) + f.tenant + "\x00"
}

// score returns how much who has key prefers the node with id. The share of keys at
// which a node has the highest score is that of its weight (Schindelhauer and Schomaker,
// Weighted Distributed Hash Tables, 2005, the logarithmic method).
func score(key, id string, weight int) float64 {
	h := sha256.Sum256([]byte(key + id))
	u := (float64(binary.BigEndian.Uint64(h[:])>>11) + 0.5) / (1 << 53) // in (0, 1)
	return float64(weight) / -math.Log(u)
}
