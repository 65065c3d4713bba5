package postern

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// A Map is the newest of each section that a member was told, and what a member
// keeps on disk to start from when the coordinator is away.
type Map struct {
	Version  uint64             `json:"version"`
	Sections map[string]Section `json:"sections"` // by tenant; "" is the deployment's
}

// ErrOldMap says that a coordinator offered a map older than the one held.
var ErrOldMap = errors.New("the coordinator's map is older than the one held")

// Clone returns a copy of m that can change without m. Sections are shared: a
// section is replaced whole and never written to.
func (m Map) Clone() Map {
	return Map{Version: m.Version, Sections: maps.Clone(m.Sections)}
}

// Apply works msg into m. It fails with ErrOldMap for a message older than m,
// and changes nothing then. It does not act on Synced: who follows a stream
// knows what came over it.
func (m *Map) Apply(msg MapMessage) error {
	if msg.Version < m.Version {
		return fmt.Errorf("%w: version %d after %d", ErrOldMap, msg.Version, m.Version)
	}
	if s := msg.Section; s != nil {
		if held, ok := m.Sections[s.Tenant]; ok && s.Version < held.Version {
			return fmt.Errorf("%w: section %q version %d after %d", ErrOldMap, s.Tenant, s.Version, held.Version)
		}
		if m.Sections == nil {
			m.Sections = map[string]Section{}
		}
		m.Sections[s.Tenant] = *s
	}
	if msg.Removed != "" {
		delete(m.Sections, msg.Removed)
	}
	m.Version = msg.Version
	return nil
}

// Deployment returns the deployment's part of the map, nil if it never came.
func (m Map) Deployment() *Deployment { return m.Sections[""].Deployment }

// MaxMapLine bounds one line of the map stream, in bytes.
const MaxMapLine = 16 << 20

// DecodeMapMessage reads one line of the map stream and checks everything that
// a member will rely on: names in wire form, addresses of the overlay's kind, no
// name, key, address or id twice in a section, no route to a node that the section lacks.
func DecodeMapMessage(line []byte) (MapMessage, error) {
	var msg MapMessage
	if err := json.Unmarshal(line, &msg); err != nil {
		return MapMessage{}, fmt.Errorf("decode map message: %w", err)
	}
	if msg.Section != nil {
		if err := msg.Section.check(); err != nil {
			return MapMessage{}, fmt.Errorf("map section %q: %w", msg.Section.Tenant, err)
		}
		if msg.Section.Version > msg.Version {
			return MapMessage{}, fmt.Errorf("map section %q: version %d in map version %d",
				msg.Section.Tenant, msg.Section.Version, msg.Version)
		}
		if msg.Removed != "" {
			return MapMessage{}, errors.New("map message: a section and a removal in one")
		}
	}
	return msg, nil
}

func (s *Section) check() error {
	if (s.Tenant == "") != (s.Deployment != nil) {
		return errors.New("want either a tenant or a deployment")
	}
	seen := unique{}
	if d := s.Deployment; d != nil {
		if len(s.Nodes)+len(s.Routes)+len(s.People) > 0 {
			return errors.New("nodes, routes or people that belong to no tenant")
		}
		if err := CheckHost(d.Base); err != nil {
			return err
		}
		for _, name := range d.Names {
			if err := errors.Join(CheckHost(name), seen.add("name", name)); err != nil {
				return err
			}
		}
		for _, g := range d.Gateways {
			if err := checkMember(seen, g.ID, g.Address, g.WireGuard); err != nil {
				return fmt.Errorf("gateway %q: %w", g.Name, err)
			}
		}
		return nil
	}
	if err := CheckLabel("tenant", s.Tenant); err != nil {
		return err
	}
	nodes := unique{}
	for _, n := range s.Nodes {
		if err := checkMember(seen, n.ID, n.Address, n.WireGuard); err != nil {
			return fmt.Errorf("node %q: %w", n.Name, err)
		}
		if n.Weight < 0 || n.Weight > MaxWeight {
			return fmt.Errorf("node %q: weight %d", n.Name, n.Weight)
		}
		nodes[n.ID] = true
	}
	for _, r := range s.Routes {
		if err := errors.Join(CheckHost(r.Host), seen.add("host", r.Host)); err != nil {
			return err
		}
		for _, id := range r.Nodes {
			if !nodes[id] {
				return fmt.Errorf("route %q leads to node %q, which is not in the section", r.Host, id)
			}
		}
		if r.Challenge != "" && !slices.Contains(r.Nodes, r.Challenge) {
			return fmt.Errorf("route %q: node %q awaits its challenge, but does not serve it", r.Host, r.Challenge)
		}
	}
	for _, p := range s.People {
		if p.ID == "" {
			return fmt.Errorf("person %q has no id", p.Login)
		}
		if err := seen.add("person", p.ID); err != nil {
			return err
		}
	}
	return s.Admission.check()
}

func (a *Admission) check() error {
	if a == nil {
		return nil
	}
	for _, p := range a.Allowed {
		if !p.IsValid() {
			return errors.New("admission of no prefix")
		}
	}
	for _, s := range a.Sources {
		if !s.Prefix.IsValid() {
			return errors.New("admission of no source")
		}
	}
	return nil
}

func checkMember(seen unique, id string, addr netip.Addr, key WireGuardPublic) error {
	if id == "" {
		return errors.New("no id")
	}
	if !overlayAddr(addr) {
		return fmt.Errorf("address %v is not of an overlay: want a unique local IPv6 address (RFC 4193)", addr)
	}
	if key.IsZero() {
		return errors.New("no WireGuard key")
	}
	return errors.Join(seen.add("id", id), seen.add("address", addr.String()), seen.add("WireGuard key", key.String()))
}

// overlayAddr reports whether addr lies in fd00::/8 and has no zone.
func overlayAddr(addr netip.Addr) bool {
	return addr.Is6() && addr.Zone() == "" && addr.As16()[0] == 0xfd
}

// unique finds what is there twice.
type unique map[string]bool

func (u unique) add(what, value string) error {
	key := what + "\x00" + value
	if u[key] {
		return fmt.Errorf("%s %q is there twice", what, value)
	}
	u[key] = true
	return nil
}
