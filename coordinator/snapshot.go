package coordinator

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"postern"
)

// A snapshot is the registry as members are told of it. It never changes; the
// sections that a change did not touch are shared with the snapshot before.
type snapshot struct {
	version    uint64
	row        Deployment
	deployment *postern.Section  // with own names and all gateways
	gateways   []*Member         // by name
	boots      map[string]string // by gateway id; see postern.Gateway
	tenants    map[string]*tenantMap
	members    map[postern.IdentityPublic]*Member // all
	byID       map[string]*Member                 // all

	superseded chan struct{} // closed when there is a newer one
}

// A tenantMap is one tenant's part of a snapshot.
type tenantMap struct {
	Tenant
	section *postern.Section // with all nodes and routes, of the version that nodes are told
	gates   *postern.Section // the same with who is admitted and who awaits an authority, as gateways are told, of a version of its own
	people  []postern.Person // only nodes are told of
	ended   []string         // the same
	nodes   []*Member        // by name
	custom  map[string]Claim // by host: the claims that were proven, as of then

	challenges map[string]challenge // by host; only gateways are told of
	keys       shownKeys            // only nodes that share a route are told of
}

func firstSnapshot(cfg *Config, tx Tx, d Deployment) (*snapshot, error) {
	tenants, err := tx.Tenants().All()
	if err != nil {
		return nil, err
	}
	ch := &change{Tx: tx, cfg: cfg, now: cfg.Now(), touched: map[string]bool{"": true}}
	for _, t := range tenants {
		ch.touch(t.Name)
	}
	return ch.build(&snapshot{}, d)
}

// snapshot returns what follows prev once ch is committed, nil if the map is the same.
func (ch *change) snapshot(prev *snapshot) (*snapshot, error) {
	if len(ch.touched)+len(ch.moved) == 0 {
		return nil, nil
	}
	d, err := ch.Deployment()
	if err != nil {
		return nil, err
	}
	d.MapVersion++
	if err := ch.PutDeployment(d); err != nil {
		return nil, err
	}
	next, err := ch.build(prev, d)
	if err != nil {
		return nil, err
	}
	for tenant := range ch.touched {
		if err := checkSize(prev.tenants[tenant], next.tenants[tenant]); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// maxSection bounds a tenant's section of the map, in bytes of JSON. A line that
// gateways do not take would keep all other tenants' changes from them, too.
const maxSection = postern.MaxMapLine / 4

// maxPeople bounds what a tenant's nodes are told of its people, in bytes of JSON,
// with all that there may ever be of ends of their sessions: signing out is never
// refused.
const maxPeople = postern.MaxMapLine / 2

// checkSize refuses what makes a tenant's section grow above maxSection, or its people
// above maxPeople. Either may be nil.
func checkSize(prev, next *tenantMap) error {
	if size := next.size(); size > maxSection && size > prev.size() {
		return postern.NewProblem(http.StatusConflict, postern.CodeTooMany,
			fmt.Sprintf("tenant %q has more nodes and services than gateways can be told of", next.Name),
			"remove nodes, or publish fewer services")
	}
	if size := next.peopleSize(); size > maxPeople && size > prev.peopleSize() {
		return postern.NewProblem(http.StatusConflict, postern.CodeTooMany,
			fmt.Sprintf("tenant %q has more people than nodes can be told of", next.Name),
			"take its grants from who needs them no longer")
	}
	return nil
}

func (t *tenantMap) size() int {
	if t == nil {
		return 0
	}
	return jsonSize(t.section)
}

func (t *tenantMap) peopleSize() int {
	if t == nil {
		return 0
	}
	const ended = maxEnded * len(`"0123456789abcdef",`)
	signedOut := slices.Clone(t.people)
	for i := range signedOut {
		signedOut[i].NotBefore = 9_999_999_999 // as long as it gets until the year 2286
	}
	return jsonSize(signedOut) + ended*len(t.people)
}

func jsonSize(v any) int {
	text, err := json.Marshal(v)
	if err != nil {
		panic("coordinator: a section has no JSON: " + err.Error())
	}
	return len(text)
}

func (ch *change) build(prev *snapshot, d Deployment) (*snapshot, error) {
	next := &snapshot{
		version: d.MapVersion, row: d,
		deployment: prev.deployment, gateways: prev.gateways, boots: prev.boots,
		tenants: maps.Clone(prev.tenants), members: maps.Clone(prev.members), byID: maps.Clone(prev.byID),
		superseded: make(chan struct{}),
	}
	if next.tenants == nil {
		next.tenants = make(map[string]*tenantMap)
		next.members, next.byID = make(map[postern.IdentityPublic]*Member), make(map[string]*Member)
	}
	for tenant := range ch.touched {
		var err error
		if tenant == "" {
			err = next.buildDeployment(ch)
		} else {
			err = next.buildTenant(ch, tenant)
		}
		if err != nil {
			return nil, err
		}
	}
	for tenant := range ch.moved {
		t := next.tenants[tenant]
		if t == nil {
			continue // removed, with sources left in the store
		}
		moved := *t
		if err := moved.buildGates(ch, next.version, t.gates); err != nil {
			return nil, err
		}
		next.tenants[tenant] = &moved
	}
	return next, nil
}

func (s *snapshot) buildDeployment(ch *change) error {
	s.drop(s.gateways)
	var err error
	if s.gateways, err = s.take(ch, ""); err != nil {
		return err
	}
	s.settleBoots(ch)
	d := &postern.Deployment{
		ID: s.row.ID, Base: ch.cfg.Base, Port: ch.cfg.Port, Names: ch.cfg.Names, CA: ch.cfg.Authority.CA(),
		Portal: ch.cfg.portal(), ACME: ch.cfg.ACME, Lease: int64(max(ch.cfg.Lease, 0) / time.Second),
	}
	for _, g := range s.gateways {
		d.Gateways = append(d.Gateways, postern.Gateway{
			ID: g.ID, Name: g.Name, Address: g.Address, WireGuard: g.WireGuard, Endpoint: g.Endpoint, Public: g.Public,
			Identity: g.Identity, Boot: s.boots[g.ID], Draining: g.Draining,
		})
	}
	s.deployment = &postern.Section{Version: s.version, Deployment: d}
	return nil
}

func (s *snapshot) buildTenant(ch *change, name string) error {
	var told *postern.Section // gateways
	var challenges map[string]challenge
	var keys shownKeys
	if old := s.tenants[name]; old != nil {
		told, challenges, keys = old.gates, old.challenges, old.keys
		s.drop(old.nodes)
		delete(s.tenants, name)
	}
	row, err := ch.Tenants().Get(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	t := &tenantMap{Tenant: row, custom: make(map[string]Claim), challenges: challenges}
	if t.nodes, err = s.take(ch, name); err != nil {
		return err
	}
	t.keys = keys.with(ch.keys[name], t.nodes)
	claims, err := ch.Claims().In(name)
	if err != nil {
		return err
	}
	t.section = &postern.Section{Tenant: name, Version: s.version}
	serving := make(map[string][]string) // service to node ids
	for _, n := range t.nodes {
		t.section.Nodes = append(t.section.Nodes, postern.Node{
			ID: n.ID, Name: n.Name, Address: n.Address, WireGuard: n.WireGuard, Identity: n.Identity,
			Weight: n.Weight, Draining: n.Draining,
		})
		for _, service := range n.Services {
			serving[service.Name] = append(serving[service.Name], n.ID)
		}
	}
	for service, nodes := range serving {
		t.section.Routes = append(t.section.Routes, postern.Route{
			Host: postern.ServiceHost(service, name, ch.cfg.Base), Service: service, Nodes: nodes,
		})
	}
	for _, c := range claims {
		if c.Proven.IsZero() {
			continue // nobody is told of it
		}
		t.custom[c.Host] = c
		t.section.Routes = append(t.section.Routes, postern.Route{
			Host: c.Host, Service: c.Service, Nodes: serving[c.Service],
		})
	}
	slices.SortFunc(t.section.Routes, func(a, b postern.Route) int { return cmp.Compare(a.Host, b.Host) })
	if t.people, err = ch.people(name); err != nil {
		return err
	}
	if t.ended, err = ch.ended(name); err != nil {
		return err
	}
	s.tenants[name] = t
	return t.buildGates(ch, s.version, told)
}

// take reads the members of tenant, by name, into the index of all.
func (s *snapshot) take(ch *change, tenant string) ([]*Member, error) {
	rows, err := ch.Members().In(tenant)
	if err != nil {
		return nil, err
	}
	members := make([]*Member, len(rows))
	for i := range rows {
		members[i] = &rows[i]
		s.members[rows[i].Identity], s.byID[rows[i].ID] = members[i], members[i]
	}
	slices.SortFunc(members, func(a, b *Member) int { return cmp.Compare(a.Name, b.Name) })
	return members, nil
}

// drop takes members out of the index of all.
func (s *snapshot) drop(members []*Member) {
	for _, m := range members {
		delete(s.members, m.Identity)
		delete(s.byID, m.ID)
	}
}

// sections returns what m is to be told. A node is told of no other node, and
// nothing of other tenants; a gateway is told of no people.
func (s *snapshot) sections(m *Member) map[string]*postern.Section {
	if m.Role == postern.RoleGateway {
		all := make(map[string]*postern.Section, len(s.tenants)+1)
		for name, t := range s.tenants {
			all[name] = t.gates
		}
		all[""] = s.deploymentFor(func(d *postern.Deployment) {
			d.Portal, d.ACME = nil, nil
			d.Gateways = slices.DeleteFunc(slices.Clone(d.Gateways), func(g postern.Gateway) bool { return g.ID != m.ID })
			for i := range d.Gateways {
				d.Gateways[i].Boot = ""
			}
		})
		return all
	}
	return map[string]*postern.Section{
		"": s.deploymentFor(func(d *postern.Deployment) {
			d.Names, d.Gateways = nil, slices.Clone(d.Gateways)
			for i := range d.Gateways {
				d.Gateways[i].Draining = false // nodes keep their tunnels
			}
		}),
		m.Tenant: s.tenants[m.Tenant].sectionFor(m),
	}
}

func (s *snapshot) deploymentFor(edit func(*postern.Deployment)) *postern.Section {
	d := *s.deployment.Deployment
	edit(&d)
	return &postern.Section{Version: s.deployment.Version, Deployment: &d}
}

func (t *tenantMap) sectionFor(m *Member) *postern.Section {
	own := &postern.Section{
		Tenant: t.Name, Version: t.section.Version, Routes: t.routesOf(m), People: t.people, Ended: t.ended,
	}
	for i, r := range own.Routes {
		if shared, ok := t.route(r.Host); ok {
			own.Routes[i].Keys = t.keys.others(shared, m.ID)
		}
	}
	for _, n := range t.section.Nodes {
		if n.ID == m.ID {
			own.Nodes = append(own.Nodes, n)
		}
	}
	return own
}

// checkRouted refuses m a host that is not routed to it. t is m's tenant; nil: removed.
func (t *tenantMap) checkRouted(m *Member, host string) error {
	if t != nil {
		if _, ok := t.routeTo(m.ID, host); ok {
			return nil
		}
	}
	return forbidden(fmt.Sprintf("%q is not routed to this node", host), "publish the service first")
}

// routesOf returns the routes that lead to m, and that they lead to m.
func (t *tenantMap) routesOf(m *Member) []postern.Route {
	routes := []postern.Route{}
	for _, r := range t.section.Routes {
		if slices.Contains(r.Nodes, m.ID) {
			routes = append(routes, postern.Route{Host: r.Host, Service: r.Service, Nodes: []string{m.ID}})
		}
	}
	return routes
}
