package gateway

import (
	"cmp"
	"net/netip"
	"slices"

	"postern"
)

// A Table says where each server name leads, and to whom. It is immutable.
type Table struct {
	targets    map[string]Target
	admissions map[string]*admission // by tenant; those that are not there are open to all
	traits     map[Node]trait        // of all nodes of the map
}

// A trait is what a map says of a node that is not what makes it another: connections
// stay when it changes.
type trait struct {
	shared   bool // some route has others besides
	weight   int
	draining bool
}

// A Target is where a server name leads.
type Target struct {
	Tenant  string // empty: the coordinator itself, over the edge pipe
	Service string // empty for the coordinator
	Nodes   []Node // empty: nobody at present

	// Challenge is the one of Nodes that awaits a certificate authority's
	// handshakes (RFC 8737); zero: they go where all go.
	Challenge Node
}

// challenged returns where a certificate authority's handshake leads: to the node that
// awaits it alone, if one does. Another could not answer it, and the authority would
// take that for an answer.
func (t Target) challenged() Target {
	if t.Challenge != (Node{}) {
		t.Nodes = []Node{t.Challenge}
	}
	return t
}

// A Node is one that serves a name.
type Node struct {
	ID   string
	Addr netip.AddrPort // of its HTTPS listener, in the overlay
}

// NewTable returns the table that m describes. A name that two sections claim,
// as happens for a moment while it moves between tenants, belongs to the section
// that changed last, and to nobody if both changed at once; the coordinator's
// own names are always its own.
func NewTable(m postern.Map) *Table {
	t := &Table{targets: map[string]Target{}, admissions: map[string]*admission{}, traits: map[Node]trait{}}
	version := map[string]uint64{} // of the section that a name was taken from
	for tenant, s := range m.Sections {
		if s.Admission != nil {
			t.admissions[tenant] = newAdmission(s.Admission)
		}
		nodes := make(map[string]Node, len(s.Nodes))
		for _, n := range s.Nodes {
			nodes[n.ID] = Node{ID: n.ID, Addr: netip.AddrPortFrom(n.Address, postern.HTTPSPort)}
			t.traits[nodes[n.ID]] = trait{weight: cmp.Or(n.Weight, postern.DefaultWeight), draining: n.Draining}
		}
		for _, r := range s.Routes {
			switch held, claimed := version[r.Host]; {
			case claimed && held > s.Version:
				continue
			case claimed && held == s.Version:
				delete(t.targets, r.Host)
				continue
			}
			version[r.Host] = s.Version
			target := Target{Tenant: tenant, Service: r.Service, Challenge: nodes[r.Challenge]}
			for _, id := range r.Nodes {
				if n, ok := nodes[id]; ok {
					target.Nodes = append(target.Nodes, n)
				}
			}
			t.targets[r.Host] = target
		}
	}
	for _, target := range t.targets {
		for _, n := range target.Nodes {
			trait := t.traits[n]
			trait.shared = trait.shared || len(target.Nodes) > 1
			t.traits[n] = trait
		}
	}
	if d := m.Deployment(); d != nil {
		for _, name := range d.Names {
			t.targets[name] = Target{}
		}
	}
	return t
}

// Lookup returns the target of a server name in its wire form (see
// postern.CheckHost). It is false for names that lead nowhere.
func (t *Table) Lookup(name string) (Target, bool) {
	target, ok := t.targets[name]
	return target, ok
}

// holds reports whether name still leads to node of tenant; the zero Node is
// the coordinator.
func (t *Table) holds(name, tenant string, node Node) bool {
	target, ok := t.targets[name]
	return ok && target.Tenant == tenant && (tenant == "" || slices.Contains(target.Nodes, node))
}

func (t *Table) tenants() map[string]bool {
	names := map[string]bool{"": true}
	for _, target := range t.targets {
		names[target.Tenant] = true
	}
	return names
}

// dialsAhead reports whether n is to have spares.
func (t *Table) dialsAhead(n Node) bool {
	trait, ok := t.traits[n]
	return ok && !trait.draining
}
