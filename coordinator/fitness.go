package coordinator

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postern"
)

// Which gateways are fit for DNS follows from what they report, and from nothing else: a
// gateway whose host is lost says no goodbye, and one that comes back at once, or whose
// stream breaks, stays where it is. Why it is so: docs/decisions/gateways.md.
const (
	// reportAge is how old the last report may be of a gateway that is there: one may
	// be late.
	reportAge = 2 * postern.StatusInterval

	// resumeTime is how long after its start the coordinator takes gateways that were fit
	// before for fit that have yet to come back. Members try again within 30 s.
	resumeTime = 45 * time.Second

	// lookupInterval is how often public names of gateways are looked up, and
	// lookupTimeout how long that may take.
	lookupInterval = time.Minute
	lookupTimeout  = 10 * time.Second
)

// A sight is what is to be seen of a gateway.
type sight struct {
	open     bool      // its stream
	reported time.Time // last; zero: never
	draining bool      // as it said then
	live     int       // nodes that it gets through to
}

func (p *presence) sight(id string, now time.Time) sight {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.reports[id]
	s := sight{open: p.streams[id] != nil, reported: r.time, draining: r.draining}
	for node, peer := range r.peers {
		if p.reach(id, node, peer, now) == reaches {
			s.live++
		}
	}
	return s
}

// A verdict is what is thought of a gateway.
type verdict struct {
	sight
	state string // postern.StateReady, StateDraining or StateOffline
	postern.Fitness
}

// judge returns the verdicts on snap.gateways, in their order.
func (c *Coordinator) judge(snap *snapshot) []verdict {
	now := c.cfg.Now()
	all := make([]verdict, len(snap.gateways))
	most := 0 // live tunnels of one that is to be compared with
	for i, g := range snap.gateways {
		v := &all[i]
		v.sight = c.presence.sight(g.ID, now)
		v.state = v.stateAt(g, now)
		if v.fresh(now) && !v.draining && !g.Draining {
			most = max(most, v.live)
		}
	}
	for i, g := range snap.gateways {
		v := &all[i]
		v.Fit, v.Reason = v.fitAt(g, now, most)
		if v.reported.IsZero() && !g.Draining && now.Sub(c.started) < resumeTime && slices.Contains(c.fitBefore(), g.ID) {
			v.Fit, v.Reason = true, "it was fit when the coordinator started, and has not reported since"
		}
		var unknown string
		v.Addresses, unknown = c.addressesOf(g)
		if v.Fit && unknown != "" {
			v.Reason = unknown
		}
	}
	return all
}

func (s sight) fresh(now time.Time) bool { return now.Sub(s.reported) < reportAge }

func (s sight) stateAt(g *Member, now time.Time) string {
	switch {
	case !s.open, !s.reported.IsZero() && !s.fresh(now):
		return postern.StateOffline
	case s.draining, g.Draining:
		return postern.StateDraining
	}
	return postern.StateReady
}

// fitAt says whether g is fit, of which s is to be seen; most is how many live tunnels
// another gateway has.
func (s sight) fitAt(g *Member, now time.Time, most int) (fit bool, reason string) {
	switch {
	case g.Draining:
		return false, "drained by an operator"
	case s.reported.IsZero() && s.open:
		return false, "it has not reported yet"
	case s.reported.IsZero():
		return false, "not connected"
	case s.draining:
		return false, "it is stopping, or was stopped"
	case !s.fresh(now):
		return false, fmt.Sprintf("no report for more than %v", reportAge)
	case 2*s.live < most:
		return false, fmt.Sprintf("it has live tunnels to %d nodes, another gateway to %d", s.live, most)
	case most == 0:
		return true, "no gateway has a live tunnel"
	case !s.open:
		return true, fmt.Sprintf("not connected, and not for more than %v", reportAge)
	}
	return true, ""
}

// fitBefore returns the ids of the gateways that were fit when some were last.
func (c *Coordinator) fitBefore() []string {
	if ids := c.fit.Load(); ids != nil {
		return *ids
	}
	return nil
}

// keepFit remembers which gateways are fit, also for the next start, unless none is. What
// cannot be stored is tried again the next time.
func (c *Coordinator) keepFit(ctx context.Context) {
	snap := c.snapshot.Load()
	var fit, names []string
	for i, v := range c.judge(snap) {
		if v.Fit {
			fit, names = append(fit, snap.gateways[i].ID), append(names, snap.gateways[i].Name)
		}
	}
	same := slices.Equal(fit, c.fitBefore())
	if len(fit) == 0 || same && !c.fitUnsaved.Load() {
		return
	}
	if c.fit.Store(&fit); !same {
		c.log.Info("the gateways that are fit for DNS changed", "fit", strings.Join(names, " "))
	}
	// The request that this is a part of may be over before.
	err := c.update(context.WithoutCancel(ctx), actorSelf, func(ch *change) error {
		d, err := ch.Deployment()
		if err != nil {
			return err
		}
		d.Fit = c.fitBefore() // and not of an older change
		return ch.PutDeployment(d)
	})
	if c.fitUnsaved.Store(err != nil); err != nil {
		c.log.Warn("which gateways are fit for DNS not stored; trying again", "err", err)
	}
}

// leadsToAll reports whether a name is one of those that are to lead to all gateways.
func (c *Coordinator) leadsToAll(host string) bool {
	return host == c.cfg.Base || strings.HasSuffix(host, "."+c.cfg.Base)
}

// addressesOf returns where browsers reach g. If that is not known, it says why.
func (c *Coordinator) addressesOf(g *Member) (addrs []netip.Addr, unknown string) {
	host := publicHost(g)
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, ""
	}
	switch {
	case host == "":
		return []netip.Addr{}, "it has not told where browsers reach it"
	case c.leadsToAll(host):
		return []netip.Addr{}, fmt.Sprintf("its public name %s is one of those that lead to all gateways: start it with --public and its own address", host)
	case c.cfg.Resolver == nil:
		return []netip.Addr{}, fmt.Sprintf("there is nobody to ask for its public name %s", host)
	}
	if l := c.lookedUp()[host]; len(l.addrs) > 0 {
		return l.addrs, ""
	} else if l.err != nil {
		return []netip.Addr{}, fmt.Sprintf("its public name %s leads nowhere: %v", host, l.err)
	}
	return []netip.Addr{}, fmt.Sprintf("its public name %s has yet to be looked up", host)
}

// A lookup is what DNS said of a gateway's public name, the last time that it said
// something.
type lookup struct {
	addrs []netip.Addr // sorted
	err   error        // of the last time
}

// lookedUp returns what came of looking up public names of gateways, by name; nil before
// any was.
func (c *Coordinator) lookedUp() map[string]lookup {
	if l := c.lookups.Load(); l != nil {
		return *l
	}
	return nil
}

// keepLookups looks public names of gateways up, now and then and when there are others,
// until ctx is done.
func (c *Coordinator) keepLookups(ctx context.Context) error {
	tick := time.NewTicker(lookupInterval)
	defer tick.Stop()
	for again := true; ; {
		snap := c.snapshot.Load()
		c.lookUp(ctx, snap, again)
		select {
		case <-tick.C:
			again = true
		case <-snap.superseded:
			again = false
		case <-ctx.Done():
			return nil
		}
	}
}

// lookUp looks up the public names of snap's gateways, or those alone that were not yet.
func (c *Coordinator) lookUp(ctx context.Context, snap *snapshot, all bool) {
	before, now := c.lookedUp(), make(map[string]lookup)
	for _, g := range snap.gateways {
		host := publicHost(g)
		if _, err := netip.ParseAddr(host); host == "" || err == nil || c.leadsToAll(host) || c.cfg.Resolver == nil {
			continue
		}
		l, known := before[host]
		if all || !known {
			asking, cancel := context.WithTimeout(ctx, lookupTimeout)
			at, err := c.cfg.Resolver.Addresses(asking, host)
			cancel()
			if l.err = err; err == nil {
				l.addrs = slices.Clone(at.Addrs)
				slices.SortFunc(l.addrs, netip.Addr.Compare)
			}
		}
		now[host] = l
	}
	c.lookups.Store(&now)
}

// dnsState returns which addresses are to be in DNS: those of the gateways that are fit,
// of those that were last if none is, and of all before any was.
func (c *Coordinator) dnsState(snap *snapshot) postern.DNSState {
	verdicts, before := c.judge(snap), c.fitBefore()
	out := postern.DNSState{
		Base: c.cfg.Base, Names: []string{"*." + c.cfg.Base}, TTL: postern.DNSTTL,
		A: []netip.Addr{}, AAAA: []netip.Addr{}, Gateways: []postern.DNSGateway{},
	}
	for _, name := range c.cfg.Names {
		if !c.leadsToAll(name) {
			out.Names = append(out.Names, name)
		}
	}
	var fit, kept, all []netip.Addr
	anyFit, anyBefore := false, false
	for i, g := range snap.gateways {
		v := verdicts[i]
		all = append(all, v.Addresses...)
		if v.Fit {
			anyFit, fit = true, append(fit, v.Addresses...)
		}
		if slices.Contains(before, g.ID) {
			anyBefore, kept = true, append(kept, v.Addresses...)
		}
		out.Gateways = append(out.Gateways, postern.DNSGateway{ID: g.ID, Name: g.Name, Fitness: v.Fitness})
	}
	chosen := fit
	if len(chosen) == 0 {
		chosen, out.Kept = kept, !anyFit && len(kept) > 0
	}
	if len(chosen) == 0 && !anyBefore {
		chosen = all
	}
	slices.SortFunc(chosen, netip.Addr.Compare)
	for _, addr := range slices.Compact(chosen) {
		if addr.Is4() {
			out.A = append(out.A, addr)
		} else {
			out.AAAA = append(out.AAAA, addr)
		}
	}
	return out
}
