package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"postern"
)

// A Tile is a service of a tenant, as somebody sees it who may open it.
type Tile struct {
	postern.Service
	Tenant      string
	TenantTitle string
	Host        string // where it is opened
	URL         string
	State       string    // the best of its nodes'
	Reached     bool      // browsers get through to one of them
	Seen        time.Time // when a node of it was last seen; zero: never
	Nodes       []string  // names of those that serve it
	Favourites  []string  // names of its entries that the user wants to see first, "" for itself
}

// Catalogue returns what the user may open, by tenant's title, the service's and name.
// Nobody sees anything of a tenant that they were not granted, not even what is public.
func (c *Coordinator) Catalogue(ctx context.Context, user string) ([]Tile, error) {
	var favourites []Favourite
	err := c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		favourites, err = tx.Favourites().Of(user)
		return err
	})
	if err != nil {
		return nil, err
	}
	snap := c.snapshot.Load()
	tiles := []Tile{}
	for _, t := range snap.tenants {
		p := t.person(user)
		if p == nil {
			continue
		}
		for name, o := range t.offers() {
			if !o.opens(p, "/") {
				continue
			}
			tile := c.tile(snap, t, o, p, postern.ServiceHost(name, t.Name, c.cfg.Base))
			for _, f := range favourites {
				if f.Tenant == t.Name && f.Service == name {
					tile.Favourites = append(tile.Favourites, f.Entry)
				}
			}
			tiles = append(tiles, tile)
		}
	}
	slices.SortFunc(tiles, func(a, b Tile) int {
		return cmp.Or(cmp.Compare(a.TenantTitle, b.TenantTitle), cmp.Compare(a.Tenant, b.Tenant),
			cmp.Compare(cmp.Or(a.Title, a.Name), cmp.Or(b.Title, b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return tiles, nil
}

// MayOpen returns the tile at host, which user may open, or a part of it: a Problem
// with CodeNotFound if there is none, CodeForbidden if they may not.
func (c *Coordinator) MayOpen(_ context.Context, user, host string) (Tile, error) {
	snap := c.snapshot.Load()
	t, r := snap.route(host)
	if t == nil || len(r.Nodes) == 0 {
		return Tile{}, notFound(ErrNotFound, "service at", host, "nothing is published there at present")
	}
	o, p := t.offers()[r.Service], t.person(user)
	if p == nil || !o.admits(p) {
		return Tile{}, forbidden(fmt.Sprintf("you may not open %q", host), "ask whoever manages it for you")
	}
	return c.tile(snap, t, o, p, host), nil
}

// tile returns o, of t, as p sees it at host.
func (c *Coordinator) tile(snap *snapshot, t *tenantMap, o offer, p *postern.Person, host string) Tile {
	tile := Tile{
		Service: o[0].Service, Tenant: t.Name, TenantTitle: t.Title,
		Host: host, URL: c.HostURL(host),
	}
	best, now := health{state: postern.StateOffline}, c.cfg.Now()
	tile.Entries = o.entries(p)
	for _, s := range o {
		tile.Require = cmp.Or(tile.Require, s.Require)
		tile.Nodes = append(tile.Nodes, s.node.Name)
		best = best.better(c.presence.health(s.node.ID, snap.gateways, now))
		if _, seen := c.presence.control(s.node, now); seen.After(tile.Seen) {
			tile.Seen = seen
		}
	}
	tile.State, tile.Reached = best.state, best.reached
	return tile
}

// An offer is a service as each of a tenant's nodes publishes it that do, by the
// nodes' names; there is at least one. The first says what it is called. What it may
// be to somebody, it has to be at all of them: a browser may get to any.
type offer []offered

type offered struct {
	postern.Service
	node *Member
}

// offers returns what t's nodes publish, by the services' names.
func (t *tenantMap) offers() map[string]offer {
	all := make(map[string]offer)
	for _, n := range t.nodes {
		for _, s := range n.Services {
			all[s.Name] = append(all[s.Name], offered{s, n})
		}
	}
	return all
}

// opens reports whether p may open what is at urlPath, which is decoded.
func (s offered) opens(p *postern.Person, urlPath string) bool {
	return !slices.ContainsFunc(s.AccessAt(urlPath), func(a postern.Access) bool { return !a.Allows(p, s.Name) })
}

func (o offer) opens(p *postern.Person, urlPath string) bool {
	return !slices.ContainsFunc(o, func(s offered) bool { return !s.opens(p, urlPath) })
}

// admits reports whether p may open the whole or a part that takes signing in.
func (o offer) admits(p *postern.Person) bool {
	return !slices.ContainsFunc(o, func(s offered) bool {
		return !s.opens(p, "/") && !slices.ContainsFunc(s.Exceptions, func(e postern.Exception) bool {
			return !e.Public() && e.Allows(p, s.Name)
		})
	})
}

// entries returns the entries of all nodes that p may open, each once.
func (o offer) entries(p *postern.Person) []postern.Entry {
	var all []postern.Entry
	seen := make(map[string]bool)
	for _, s := range o {
		for _, e := range s.Entries {
			at, err := url.Parse(e.Path)
			if err != nil || seen[e.Name] || !o.opens(p, at.Path) {
				continue
			}
			seen[e.Name] = true
			all = append(all, e)
		}
	}
	return all
}
