package coordinator

import (
	"context"
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
	State       string    // postern.StateReady if a node of it is, else the best of its nodes'
	Seen        time.Time // when a node of it was last seen; zero: never
	Nodes       []string  // names of those that serve it
	Favourites  []string  // names of its entries that the user wants to see first, "" for itself
}

// Catalogue returns what the user may open, by tenant's title, the service's and name.
func (c *Coordinator) Catalogue(ctx context.Context, user string) ([]Tile, error) { panic("stub") }

// Changed returns a channel that is closed when the registry or somebody's
// presence, so that any Catalogue, may have changed.
func (c *Coordinator) Changed() <-chan struct{} { panic("stub") }

// MayOpen returns the tile at host, which user may open: a Problem with
// CodeNotFound if there is none, CodeForbidden if they may not.
func (c *Coordinator) MayOpen(ctx context.Context, user, host string) (Tile, error) { panic("stub") }
