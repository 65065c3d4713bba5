package portal

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"postern"
	"postern/coordinator"
)

// loginPath is where nodes begin to sign people in (OpenID Connect Core 1.0,
// section 4).
const loginPath = "/.well-known/postern/login"

// A waiting is a service that somebody wants to open which is not there.
type waiting struct {
	Tile  tile
	URL   string // of the attempt
	Entry string // title; empty: the service itself
	Gone  bool   // the user may not open it any more
}

// open hands the browser over to the node that has a service.
func (p *Portal) open(w http.ResponseWriter, r *http.Request, _ coordinator.Session, u coordinator.User) {
	tenant, service := r.PathValue("tenant"), r.PathValue("service")
	name := r.URL.Query().Get("entry")
	t, e, err := p.find(r, u, tenant, service, name)
	if err != nil {
		p.refuseOpen(w, r, u, tenant, service, err)
		return
	}
	if !t.Reached {
		q := url.Values{"tenant": {tenant}, "service": {service}}
		if name != "" {
			q.Set("entry", name)
		}
		w.Header().Set("Retry-After", "30")
		p.renderLive(w, r, http.StatusServiceUnavailable, "open", u, q)
		return
	}
	if isHeld(r) && r.URL.Query().Get("anyway") == "" {
		p.hold(w, r, t, name)
		return
	}
	http.Redirect(w, r, p.doorOf(t, e.Path), http.StatusSeeOther)
}

// A held is what the page is made from of who would come to a gateway too soon.
type held struct {
	Title       string
	URL, Anyway string // of another attempt
}

// hold answers with a page that tries again, as a browser that a gateway refuses shows
// a page of its own that helps nobody.
func (p *Portal) hold(w http.ResponseWriter, r *http.Request, t coordinator.Tile, entry string) {
	q := url.Values{"anyway": {"1"}}
	if entry != "" {
		q.Set("entry", entry)
	}
	v := held{newTile(t).Title, openURL(t.Tenant, t.Name, entry), openURL(t.Tenant, t.Name, "") + "?" + q.Encode()}
	w.Header().Set("Retry-After", "5")
	w.Header().Set("Refresh", "5")
	p.render(w, r, http.StatusServiceUnavailable, "held", v)
}

// find returns the tile of a service that u may open at this moment, and its entry
// of that name, the zero one with path / for "".
func (p *Portal) find(r *http.Request, u coordinator.User, tenant, service, name string) (coordinator.Tile, postern.Entry, error) {
	e := postern.Entry{Path: "/"}
	tiles, err := p.c.Catalogue(r.Context(), u.ID)
	if err != nil {
		return coordinator.Tile{}, e, err
	}
	i := slices.IndexFunc(tiles, func(t coordinator.Tile) bool { return t.Tenant == tenant && t.Name == service })
	if i < 0 {
		// That there is something which is not for them is not theirs to know.
		return coordinator.Tile{}, e, postern.NewProblem(http.StatusForbidden, postern.CodeForbidden,
			"this is not open to you, or not any more", "ask whoever manages it; what is open to you is on your start page")
	}
	t, err := p.c.MayOpen(r.Context(), u.ID, tiles[i].Host)
	if err != nil || name == "" {
		return t, e, err
	}
	j := slices.IndexFunc(t.Entries, func(e postern.Entry) bool { return e.Name == name })
	if j < 0 {
		return t, e, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
			"this place is not there any more", "your start page shows what there is now")
	}
	return t, t.Entries[j], nil
}

func (p *Portal) refuseOpen(w http.ResponseWriter, r *http.Request, u coordinator.User, tenant, service string, err error) {
	var problem *postern.Problem
	if errors.As(err, &problem) && problem.Status < http.StatusInternalServerError {
		p.c.Note(r.Context(), coordinator.ActorUser(u.ID), "open.refused", p.c.KnownTenant(tenant), tenant+"/"+service, fmt.Sprintf("%v: %s", remoteOf(r), problem.Detail))
	}
	p.fail(w, r, err)
}

// doorOf returns the URL at which a browser enters t to get to path. Where the
// portal signs people in, the node is told so at once; elsewhere it knows best.
func (p *Portal) doorOf(t coordinator.Tile, path string) string {
	origin := strings.TrimSuffix(t.URL, "/")
	if t.Public() || t.Require == postern.RequireIssuer {
		return origin + path
	}
	q := url.Values{"iss": {p.c.PortalURL()}, "target": {path}}
	return origin + loginPath + "?" + q.Encode()
}

// viewOpen is the live part of the page of who waits for a service.
func (p *Portal) viewOpen(r *http.Request, u coordinator.User, q url.Values) (any, error) {
	tenant, service, name := q.Get("tenant"), q.Get("service"), q.Get("entry")
	t, e, err := p.find(r, u, tenant, service, name)
	if problemIn(err) != nil {
		return waiting{Gone: true}, nil
	}
	if err != nil {
		return nil, err
	}
	v := waiting{Tile: newTile(t), URL: openURL(tenant, service, name)}
	if name != "" {
		v.Entry = e.Title
	}
	return v, nil
}
