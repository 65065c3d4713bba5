package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"postern"
)

// Admission keeps from a tenant's nodes who did not come by the portal:
//
//	the portal   Admit, when somebody signs in and while they are about
//	  ├─ a new source      stored at once, and Admit waits for the gateways
//	  └─ a known one       renewals, stored now and then by sweepSources
//	the store    Source, by tenant, user and prefix
//	the map      Section.Admission, for gateways: prefixes, but not whose
//	a gateway    keeps the window open while it is used, see postern.AdmissionWindow
//	             └─ tells the version that it acts on, which ends Admit's waiting
//
// Who lost their grant, was disabled or signed out everywhere is left out of the
// map, whatever the store has.

const (
	// renewAt is how much of a source's time is left when it is renewed.
	renewAt = postern.AdmissionWindow * 2 / 3

	// settling is for how long after it was stored a source is waited for.
	settling = 30 * time.Second

	// maxSources and maxUserSources bound the sources of a tenant, and those of one
	// user in it: the one that was seen first makes room for the next.
	maxSources     = 10_000
	maxUserSources = 16
)

// renewals are sources that were seen again, and are yet to be stored.
type renewals struct {
	mu   sync.Mutex
	seen map[SourceKey]time.Time
}

func (r *renewals) add(key SourceKey, seen time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = make(map[SourceKey]time.Time)
	}
	r.seen[key] = seen
}

func (r *renewals) take() map[SourceKey]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

// Admit lets the source of addr, where user is at the portal, through to the
// tenants that they were granted, where that takes admission: for
// postern.AdmissionWindow, and longer while they use it. It waits until the
// connected gateways act on that, or ctx is done; an error after ctx is done leaves
// the source admitted all the same. It is cheap to call for every request.
func (c *Coordinator) Admit(ctx context.Context, user string, addr netip.Addr) error {
	tenants := c.snapshot.Load().guarded(user, addr)
	if len(tenants) == 0 {
		return nil
	}
	seen := make(map[string]time.Time) // by tenant
	prefix := SourceOf(addr)
	err := c.cfg.Store.View(ctx, func(tx Tx) error {
		all, err := tx.Sources().Of(user)
		for _, s := range all {
			if s.Prefix == prefix {
				seen[s.Tenant] = s.Seen
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("admit %v: %w", prefix, err)
	}
	var missing []string
	fresh := false
	now := c.cfg.Now()
	for _, t := range tenants {
		key := SourceKey{t.Name, user, prefix}
		age := now.Sub(seen[t.Name])
		switch {
		case age >= postern.AdmissionWindow || seen[t.Name].Unix() < t.person(user).NotBefore:
			missing = append(missing, t.Name)
		case age > postern.AdmissionWindow-renewAt:
			c.renewals.add(key, now)
		case age < settling:
			fresh = true
		}
	}
	if len(missing) > 0 {
		if err := c.admit(ctx, user, prefix, missing); err != nil {
			return err
		}
	} else if !fresh {
		return nil
	}
	return c.awaitGateways(ctx, tenants)
}

// guarded returns the tenants in mode admission that user was granted, but for those
// that let addr in anyway.
func (s *snapshot) guarded(user string, addr netip.Addr) []*tenantMap {
	if !addr.IsValid() {
		return nil
	}
	var tenants []*tenantMap
	for _, t := range s.tenants {
		if t.Admission.Mode == postern.AdmissionPortal && t.person(user) != nil && !t.allows(addr) {
			tenants = append(tenants, t)
		}
	}
	return tenants
}

// allows reports whether t always lets addr in.
func (t *tenantMap) allows(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(t.Admission.Allowed, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// person returns the one with that id, if they were granted t; nil if not.
func (t *tenantMap) person(id string) *postern.Person {
	i, ok := slices.BinarySearchFunc(t.people, id, func(p postern.Person, id string) int { return strings.Compare(p.ID, id) })
	if !ok {
		return nil
	}
	return &t.people[i]
}

// until returns until when gateways are told to admit a source; zero: they are not.
func (t *tenantMap) until(source netip.Prefix) time.Time {
	if t.gates.Admission == nil {
		return time.Time{}
	}
	all := t.gates.Admission.Sources
	i, ok := slices.BinarySearchFunc(all, source, func(s postern.Source, p netip.Prefix) int { return s.Prefix.Compare(p) })
	if !ok {
		return time.Time{}
	}
	return all[i].Until
}

// admit stores that user was seen at a source, for these tenants.
func (c *Coordinator) admit(ctx context.Context, user string, prefix netip.Prefix, tenants []string) error {
	if !c.limits.admit.allow(user) {
		return tooMany()
	}
	return c.update(ctx, ActorUser(user), func(ch *change) error {
		u, err := activeUser(ch, user)
		if err != nil {
			return err
		}
		s := Source{SourceKey{User: user, Prefix: prefix}, ch.now}
		if s.Seen.Before(u.NotBefore) {
			s.Seen = u.NotBefore // who signed in again within that second
		}
		for _, t := range tenants {
			s.Tenant = t
			if err := ch.putSource(s); err != nil {
				return err
			}
		}
		return nil
	})
}

// putSource stores a source, and makes room for it.
func (ch *change) putSource(s Source) error {
	all, err := ch.Sources().In(s.Tenant)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(o Source) bool { return o.SourceKey == s.SourceKey })
	slices.SortFunc(all, func(a, b Source) int { return a.Seen.Compare(b.Seen) })
	mine := slices.DeleteFunc(slices.Clone(all), func(o Source) bool { return o.User != s.User })
	var out []Source
	switch {
	case len(mine) >= maxUserSources:
		out = mine[:len(mine)-maxUserSources+1]
	case len(all) >= maxSources:
		out = all[:len(all)-maxSources+1]
	}
	for _, o := range out {
		if err := ch.Sources().Delete(o.SourceKey); err != nil {
			return err
		}
	}
	ch.move(s.Tenant)
	return ch.Sources().Put(s)
}

// awaitGateways returns when all connected gateways act on what they are told of
// who is admitted to tenants, or with an error when ctx is done.
func (c *Coordinator) awaitGateways(ctx context.Context, tenants []*tenantMap) error {
	snap := c.snapshot.Load()
	var version uint64
	for _, t := range tenants {
		if now := snap.tenants[t.Name]; now != nil {
			version = max(version, now.gates.Version)
		}
	}
	for {
		ok, news := c.presence.act(c.snapshot.Load().gateways, version, c.cfg.Now())
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("wait until gateways act on map version %d: %w", version, context.Cause(ctx))
		}
	}
}

// buildGates makes t's section as gateways are told it, from its section, people and
// challenges: prev, which may be nil, if that is the same. Most of what people do, such as signing
// out, changes what nodes are told and nothing for gateways.
func (t *tenantMap) buildGates(ch *change, version uint64, prev *postern.Section) error {
	gates := *t.section
	gates.Routes = t.settleChallenges(ch)
	var err error
	if gates.Admission, err = t.admission(ch); err != nil {
		return err
	}
	if prev != nil {
		gates.Version = prev.Version
		if reflect.DeepEqual(&gates, prev) {
			t.gates = prev
			return nil
		}
	}
	gates.Version = version
	t.gates = &gates
	return nil
}

// admission returns from where gateways are told to admit, nil for from anywhere.
func (t *tenantMap) admission(ch *change) (*postern.Admission, error) {
	out := &postern.Admission{Mode: t.Admission.Mode, Allowed: t.Admission.Allowed}
	if out.Mode == "" || out.Mode == postern.AdmissionOpen {
		return nil, nil
	}
	if out.Mode != postern.AdmissionPortal {
		return out, nil
	}
	rows, err := ch.Sources().In(t.Name)
	if err != nil {
		return nil, err
	}
	until := make(map[netip.Prefix]time.Time)
	for _, s := range rows {
		p, end := t.person(s.User), s.Seen.Add(postern.AdmissionWindow)
		if p != nil && p.NotBefore <= s.Seen.Unix() && end.After(ch.now) && end.After(until[s.Prefix]) {
			until[s.Prefix] = end
		}
	}
	for prefix, end := range until {
		out.Sources = append(out.Sources, postern.Source{Prefix: prefix, Until: end})
	}
	slices.SortFunc(out.Sources, func(a, b postern.Source) int { return a.Prefix.Compare(b.Prefix) })
	return out, nil
}

// sweepSources stores renewals and forgets sources whose time is over. What cannot be
// stored is renewed when its user comes by again.
func (c *Coordinator) sweepSources(ctx context.Context) {
	const batch = 1000
	renewed := c.renewals.take()
	over := func(tx Tx) ([]Source, error) {
		return tx.Sources().Unseen(c.cfg.Now().Add(-postern.AdmissionWindow), batch)
	}
	for found := batch; found == batch; {
		err := c.cfg.Store.View(ctx, func(tx Tx) error { // writes wait for the disk
			all, err := over(tx)
			found = len(all)
			return err
		})
		if err == nil && found+len(renewed) > 0 {
			err = c.update(ctx, actorLocal, func(ch *change) error {
				for key, seen := range renewed {
					if err := ch.renewSource(key, seen); err != nil {
						return err
					}
				}
				all, err := over(ch)
				for _, s := range all {
					ch.move(s.Tenant)
					err = errors.Join(err, ch.Sources().Delete(s.SourceKey))
				}
				return err
			})
			renewed = nil
		}
		if err != nil {
			c.log.Warn("sources not renewed or forgotten", "err", err)
			return
		}
	}
}

// renewSource stores that a source was seen again, if it is still there and was not
// stored anew since.
func (ch *change) renewSource(key SourceKey, seen time.Time) error {
	s, err := ch.Sources().Get(key)
	if errors.Is(err, ErrNotFound) || err == nil && !seen.After(s.Seen) {
		return nil
	}
	if err != nil {
		return err
	}
	s.Seen = seen
	ch.move(key.Tenant)
	return ch.Sources().Put(s)
}

// Admitted returns until when addr is admitted to the tenants that user was granted,
// as gateways are told: the soonest, or zero if one of them does not admit it.
// needed is false if none of them asks for it.
func (c *Coordinator) Admitted(_ context.Context, user string, addr netip.Addr) (until time.Time, needed bool) {
	tenants := c.snapshot.Load().guarded(user, addr)
	for i, t := range tenants {
		end := t.until(SourceOf(addr))
		if i == 0 || end.Before(until) {
			until = end
		}
	}
	if !until.After(c.cfg.Now()) {
		until = time.Time{}
	}
	return until, len(tenants) > 0
}
