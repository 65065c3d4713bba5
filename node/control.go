package node

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"postern"
	"postern/internal/member"
	"postern/netstack"
)

const (
	// resolveInterval is how often names of gateways are looked up again, and
	// minResolve how soon after that failed, at first.
	resolveInterval = time.Minute
	minResolve      = 2 * time.Second

	// linkInterval is how often the control stream's state is looked at.
	linkInterval = 250 * time.Millisecond
)

// apply notes the newest map for workMap, and never blocks.
func (n *Node) apply(m postern.Map) {
	n.latest.Store(&m)
	wake(n.changed)
	if run := n.running.Load(); run != nil {
		run.key.Told(m)
	}
}

// wake puts a token into a channel that holds one.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// workMap works the newest map in, whenever there is one.
func (n *Node) workMap(ctx context.Context, run *running) error {
	tunnels := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { n.workTunnels(ctx, run, tunnels) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.changed:
			n.retable()
			wake(tunnels)
		}
	}
}

// workTunnels brings the tunnels in line with the newest map, whenever it changed, and
// looks names of gateways up again every resolveInterval, or sooner if that failed. It is
// apart from workMap because DNS takes its time, and who was revoked would have it, too.
func (n *Node) workTunnels(ctx context.Context, run *running, changed <-chan struct{}) {
	again := time.NewTicker(resolveInterval)
	defer again.Stop()
	defer run.steerer.stop()
	var at member.Lookups
	var retry <-chan time.Time
	wait := minResolve
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again.C:
		case <-n.moved:
			wait = minResolve
		case <-retry:
		}
		m := n.latest.Load()
		if m == nil {
			continue
		}
		if n.client.Lapsed() {
			_ = n.setPeers(ctx, run, postern.Map{}, nil)
			continue
		}
		_ = n.setPeers(ctx, run, *m, at) // those that need no lookup do not wait for one
		found, err := member.LookUp(ctx, *m, at)
		if ctx.Err() != nil {
			return
		}
		if at, retry = found, nil; err != nil {
			retry, wait = time.After(wait), min(2*wait, resolveInterval)
		} else {
			wait = minResolve
		}
		err = errors.Join(err, n.setPeers(ctx, run, *m, at))
		if was := run.peers.Swap(&err); err != nil && (was == nil || *was == nil || (*was).Error() != err.Error()) {
			n.log.Warn("set up tunnels to gateways", "err", err)
		}
	}
}

// retable tells the parts that serve about the newest map and what is published.
func (n *Node) retable() {
	n.tabling.Lock()
	defer n.tabling.Unlock()
	if m := n.latest.Load(); m != nil {
		n.setTable(*m, n.published.Load())
	}
}

// setTable tells the parts that serve about the routes and gateways of m, to the
// services of p.
func (n *Node) setTable(m postern.Map, p *published) {
	t := &table{gateways: map[netip.Addr]string{}, hosts: map[string]*service{}}
	d := m.Deployment()
	if d == nil {
		d = &postern.Deployment{}
	}
	n.setPeople(t, m, d)
	t.base = d.Base
	if n.client.Lapsed() {
		n.server.setTable(t) // nobody is served; certificates and sessions stay
		return
	}
	for _, g := range d.Gateways {
		t.gateways[g.Address] = g.Name
	}
	n.public.offer(d.ACME)
	var hosts []string
	by := map[source][]string{} // hosts
	keys := map[string][]string{}
	for _, r := range n.routes(m) {
		svc := p.byName[r.Service]
		t.hosts[r.Host] = svc
		hosts = append(hosts, r.Host)
		keys[r.Host] = r.Keys
		src := n.source(r.Host, svc)
		by[src] = append(by[src], r.Host)
	}
	n.server.setTable(t)
	for src, own := range by {
		if _, ok := src.(*pemFiles); !ok {
			continue // it tells by itself
		}
		for _, host := range own {
			if _, err := n.shown(src, host, time.Now()); err != nil {
				n.log.Error("no certificate to show", "server_name", host, "err", err)
			}
		}
	}
	n.issuer.want(by[n.issuer], d.CA)
	n.public.want(by[n.public])
	n.lookout.want(hosts, d.Gateways, d.CA, keys)
	n.log.Debug("map worked in", "map_version", m.Version, "routes", len(hosts), "gateways", len(d.Gateways))
}

// setPeople fills in what m says of people, and of where they sign in.
func (n *Node) setPeople(t *table, m postern.Map, d *postern.Deployment) {
	t.port = d.Port
	var err error
	if t.portal, err = newPortal(d.Portal); err != nil {
		n.log.Error("nobody can sign in: the map's portal is of no use", "err", err)
	}
	s, ok := m.Sections[n.id.Enrollment.Tenant]
	if !ok {
		return
	}
	t.tenant, t.people, t.ended = s.Tenant, map[string]*postern.Person{}, map[string]bool{}
	for i := range s.People {
		t.people[s.People[i].ID] = &s.People[i]
	}
	for _, sid := range s.Ended {
		t.ended[sid] = true
	}
}

// routes returns the routes of m that lead to this node.
func (n *Node) routes(m postern.Map) []postern.Route {
	var mine []postern.Route
	for _, r := range m.Sections[n.id.Enrollment.Tenant].Routes {
		if slices.Contains(r.Nodes, n.id.Enrollment.ID) {
			mine = append(mine, r)
		}
	}
	return mine
}

// setPeers brings the tunnels in line with m, as far as it is known where they lead.
func (n *Node) setPeers(ctx context.Context, run *running, m postern.Map, at member.Lookups) error {
	peers := member.GatewayPeers(m, at, time.Duration(n.keepalive.Load()))
	err := run.net.SetPeers(peers)
	var gateways []postern.Gateway
	if d := m.Deployment(); d != nil {
		for _, g := range d.Gateways {
			if slices.ContainsFunc(peers, func(p netstack.Peer) bool { return p.PublicKey == g.WireGuard }) {
				gateways = append(gateways, g)
			}
		}
	}
	run.steerer.want(ctx, gateways)
	return err
}

// publish tells the coordinator what the node publishes, each time that it
// changed or the control stream came up, until it is heard.
func (n *Node) publish(ctx context.Context) error {
	tick := time.NewTicker(linkInterval)
	defer tick.Stop()
	var told struct {
		link time.Time  // Since of the link over which it was heard
		what *published // nil: nothing yet
	}
	var tried *published
	var retry time.Time
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		link, what := n.client.Link(), n.published.Load()
		if !link.Up || link.Since.Equal(told.link) && what == told.what || what == tried && time.Now().Before(retry) {
			continue
		}
		out, err := n.client.Publish(ctx, what.publication())
		tried = what
		n.refused.Store(&err)
		if err != nil {
			retry = time.Now().Add(backoff(failures, time.Minute))
			failures++
			if ctx.Err() == nil {
				n.log.Warn("publish services; trying again", "err", err)
			}
			continue
		}
		told.link, told.what, retry, failures = link.Since, what, time.Time{}, 0
		n.log.Info("published services", "services", len(what.order), "routes", len(out.Routes))
		n.issuer.retry()
	}
}

// report tells the coordinator about the tunnels and certificates, from when the control stream
// is up.
func (n *Node) report(ctx context.Context) error {
	tick := time.NewTicker(linkInterval)
	defer tick.Stop()
	for !n.client.Link().Up {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	n.client.ReportEvery(ctx, postern.StatusInterval, n.news, func() postern.Status {
		now := time.Now()
		s := postern.Status{Version: n.cfg.Version, Time: now, Hosts: n.hostStatuses(now)}
		var err error
		if s.Statement, err = newStatement(n.id.Enrollment.ID, n.id.Key.Key(), s.Hosts, now); err != nil {
			n.log.Error("sign what this node says of its certificates", "err", err)
		}
		for _, t := range n.tunnels() {
			s.Peers = append(s.Peers, postern.PeerStatus{
				ID: t.ID, Endpoint: t.Endpoint, Handshake: t.Handshake, Received: t.Received, Sent: t.Sent, Path: t.Path, MTU: t.MTU,
			})
		}
		return s
	})
	return nil
}

// errOffline says that the coordinator cannot be asked for a certificate now.
var errOffline = errors.New("the control stream is down")

// sign has the private CA sign csr.
func (n *Node) sign(ctx context.Context, csr []byte) ([]byte, error) {
	if !n.client.Link().Up {
		return nil, errOffline
	}
	cert, err := n.client.Certificate(ctx, csr)
	return cert.Chain, err
}

// setAuthorities makes authorities count in place of the deployment's, if there are any.
// They were read before without an error; if what they name on disk is gone since, those
// that counted before go on.
func (n *Node) setAuthorities(authorities []Authority) {
	issuers, err := readAuthorities(authorities)
	if err != nil {
		n.log.Error("authorities for certificates are of no use; going on with those before", "err", err)
		return
	}
	n.public.setOwn(issuers)
	n.retable()
}
