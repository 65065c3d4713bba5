package coordinator

import (
	"context"
	"maps"
	"slices"

	"postern"
)

// Nodes that share a route have keys of their own. Each is told what the others show
// browsers (Route.Keys), so that it takes another's certificate for what it is, and
// nobody else's. What nodes show is not stored: after a restart of the coordinator they
// tell again, and are told of an unknown key until then.

// shownKeys are the keys that a tenant's nodes show, by node id and host.
type shownKeys map[string]map[string]string

// with returns k with what nodes show that tell anew, without nodes that are gone.
func (k shownKeys) with(told shownKeys, nodes []*Member) shownKeys {
	next := make(shownKeys, len(nodes))
	for _, n := range nodes {
		if keys, ok := told[n.ID]; ok {
			next[n.ID] = keys
		} else if keys, ok := k[n.ID]; ok {
			next[n.ID] = keys
		}
	}
	return next
}

// others returns the keys that the nodes of r but the one with id show, sorted; one that
// is not known is empty.
func (k shownKeys) others(r postern.Route, id string) []string {
	var keys []string
	for _, node := range r.Nodes {
		if node != id {
			keys = append(keys, k[node][r.Host])
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// sharedKeys returns the keys that the node with id shows at routes that others serve too,
// by host, and whether t had others until now.
func (t *tenantMap) sharedKeys(id string, hosts map[string]postern.HostStatus) (shown map[string]string, news bool) {
	shown = make(map[string]string)
	for host, h := range hosts {
		if r, ok := t.routeTo(id, host); ok && len(r.Nodes) > 1 && h.SPKI != "" {
			shown[host] = h.SPKI
		}
	}
	return shown, !maps.Equal(shown, t.keys[id])
}

// keepKeys has those that share a route with m, of tenant t, told of the keys that it
// shows by now.
func (c *Coordinator) keepKeys(ctx context.Context, t *tenantMap, m *Member, now told) error {
	if _, news := t.sharedKeys(m.ID, now.hosts); !news {
		return nil
	}
	return c.update(ctx, actorMember(m), func(ch *change) error {
		t := c.snapshot.Load().tenants[m.Tenant] // of now, that nobody else is writing
		if t == nil {
			return nil // removed in the meantime
		}
		if shown, news := t.sharedKeys(m.ID, now.hosts); news {
			ch.keys = map[string]shownKeys{m.Tenant: {m.ID: shown}}
			ch.touch(m.Tenant)
		}
		return nil
	})
}
