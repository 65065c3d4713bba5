package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"postern"
)

// A node that gets a certificate from a public authority proves that it has the host
// name by answering a handshake of the authority's (RFC 8737). Of the nodes that share
// the name, only it can:
//
//	a node       asks at PathChallenges, before it tells the authority to come
//	the map      Route.Challenge, for gateways alone
//	a gateway    leads those handshakes to that node, and tells the version that it acts on
//	the node     is answered, has the authority come, and says when it is done
//
// None of it is stored: after a restart of the coordinator a node asks again.

const (
	// challengeAge is how long an authority is awaited of which nothing is heard.
	challengeAge = 10 * time.Minute

	// maxChallenges bounds those of one tenant at a time.
	maxChallenges = 64
)

// What a node that asks is made to wait.
type challengeWaits struct {
	turn     time.Duration // for another of the same name to be done
	gateways time.Duration // for gateways to act on it; if one does not, the node goes on
}

// A challenge is a node's wait for an authority.
type challenge struct {
	node  string // id
	until time.Time
}

// awaits says who awaits an authority at one of tenant's hosts; the zero challenge: nobody.
func (ch *change) awaits(tenant, host string, by challenge) {
	if ch.challenges == nil {
		ch.challenges = make(map[string]map[string]challenge)
	}
	if ch.challenges[tenant] == nil {
		ch.challenges[tenant] = make(map[string]challenge)
	}
	ch.challenges[tenant][host] = by
	ch.move(tenant)
}

// settleChallenges brings t's challenges up to date with ch and its routes, and says
// them in routes, which it may change.
func (t *tenantMap) settleChallenges(ch *change) (routes []postern.Route) {
	all := maps.Clone(t.challenges)
	for host, by := range ch.challenges[t.Name] {
		if all == nil {
			all = make(map[string]challenge)
		}
		all[host] = by
	}
	routes = slices.Clone(t.section.Routes)
	t.challenges = make(map[string]challenge, len(all))
	for i, r := range routes {
		if by, ok := all[r.Host]; ok && ch.now.Before(by.until) && slices.Contains(r.Nodes, by.node) {
			t.challenges[r.Host] = by
			routes[i].Challenge = by.node
		}
	}
	return routes
}

func (c *Coordinator) postChallenges(r *http.Request, m *Member) (any, error) {
	var req postern.ChallengeRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if err := postern.CheckHost(req.Host); err != nil {
		return nil, invalid(err, "")
	}
	if req.Done {
		return struct{}{}, c.endChallenge(r.Context(), m, req.Host)
	}
	if !c.limits.challenge.allow(m.ID) {
		return nil, tooMany()
	}
	if err := c.takeChallenge(r.Context(), m, req.Host); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.waits.gateways)
	defer cancel()
	err := c.awaitGateways(ctx, c.snapshot.Load().tenantsNamed(m.Tenant))
	if err != nil && r.Context().Err() == nil {
		c.log.Warn("a gateway is slow to lead a certificate authority to a node", "tenant", m.Tenant, "node", m.Name, "err", err)
		err = nil
	}
	return struct{}{}, err
}

// takeChallenge has authorities' handshakes at host go to m. While another node has
// them it waits for its turn.
func (c *Coordinator) takeChallenge(ctx context.Context, m *Member, host string) error {
	turn := time.NewTimer(c.waits.turn)
	defer turn.Stop()
	for {
		snap := c.snapshot.Load()
		busy, err := snap.checkChallenge(m, host, c.cfg.Now())
		if err == nil && !busy {
			err = c.update(ctx, actorMember(m), func(ch *change) (err error) {
				snap = c.snapshot.Load() // of now, that nobody else is writing
				if busy, err = snap.checkChallenge(m, host, ch.now); err == nil && !busy {
					ch.awaits(m.Tenant, host, challenge{m.ID, ch.now.Add(challengeAge)})
				}
				return err
			})
		}
		if err != nil || !busy {
			return err
		}
		select {
		case <-snap.superseded:
		case <-turn.C:
			return postern.NewProblem(http.StatusServiceUnavailable, postern.CodeUnavailable,
				fmt.Sprintf("another node is getting its certificate for %q", host), "try again in half a minute")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// checkChallenge refuses m an authority's handshakes at a host that is not routed to it.
// It is busy as long as another node there is not done, and its time is not over.
func (s *snapshot) checkChallenge(m *Member, host string, now time.Time) (busy bool, err error) {
	t := s.tenants[m.Tenant]
	if err := t.checkRouted(m, host); err != nil {
		return false, err
	}
	held, ok := t.challenges[host]
	if !ok && len(t.challenges) >= maxChallenges {
		return false, postern.NewProblem(http.StatusTooManyRequests, postern.CodeTooMany,
			fmt.Sprintf("tenant %q awaits authorities at %d names already", t.Name, len(t.challenges)), "try again in a minute")
	}
	return ok && held.node != m.ID && now.Before(held.until), nil
}

// endChallenge forgets that m awaits an authority at host, if it does.
func (c *Coordinator) endChallenge(ctx context.Context, m *Member, host string) error {
	if t := c.snapshot.Load().tenants[m.Tenant]; t == nil || t.challenges[host].node != m.ID {
		return nil
	}
	return c.update(ctx, actorMember(m), func(ch *change) error {
		if t := c.snapshot.Load().tenants[m.Tenant]; t != nil && t.challenges[host].node == m.ID {
			ch.awaits(m.Tenant, host, challenge{})
		}
		return nil
	})
}

// sweepChallenges forgets challenges whose time is over.
func (c *Coordinator) sweepChallenges(ctx context.Context) {
	over := func(t *tenantMap, now time.Time) bool {
		for _, by := range t.challenges {
			if !now.Before(by.until) {
				return true
			}
		}
		return false
	}
	tenants := slices.DeleteFunc(c.snapshot.Load().tenantsNamed(""), func(t *tenantMap) bool { return !over(t, c.cfg.Now()) })
	if len(tenants) == 0 {
		return
	}
	err := c.update(ctx, actorLocal, func(ch *change) error {
		for _, t := range tenants {
			ch.move(t.Name)
		}
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		c.log.Warn("challenges whose time is over not forgotten", "err", err)
	}
}

// AwaitGateway returns when a gateway that is connected acts on the map, so that an
// authority's handshakes for the portal find a way, or with an error when ctx is done.
func (c *Coordinator) AwaitGateway(ctx context.Context) error {
	for {
		ok, news := c.presence.anyActs(c.snapshot.Load().gateways)
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("wait for a gateway: %w", context.Cause(ctx))
		}
	}
}
