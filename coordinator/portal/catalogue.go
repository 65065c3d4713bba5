package portal

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"time"

	"postern"
	"postern/coordinator"
)

// A mark puts a state in words and in a shape, so that nobody needs its colour.
type mark struct {
	Icon, Tone string
	Word       string // what it is
	Why        string // what it means, and what to do, for who operates a node
	People     string // the same for who wants to open what is there; empty: nothing to say
}

var (
	ready    = mark{"ui-online", "good", "Ready", "All is well: the node has contact with this portal, and answers through its tunnel.", ""}
	degraded = mark{"ui-info", "warn", "Degraded",
		"People get through to it, but something is not as it should be. What that is stands beside the node.",
		"If you are signed in there already, it works. Signing in there may have to wait until its machine reaches this portal again."}
	interrupted = mark{"ui-warning", "warn", "Not reachable",
		"The node has contact with this portal, but nobody gets through to it. Why stands beside the node.",
		"Its machine is switched on, but the way to it is interrupted. Mostly that passes within a minute; if it does not, tell whoever manages it."}
	unproven = mark{"ui-info", "warn", "Not proven", "DNS does not show yet that the name is the company’s. Nothing is served there.", ""}
	draining = mark{"ui-info", "warn", "Draining", "What is open goes on, and what is new is to go elsewhere.", ""}
	offline  = mark{"ui-offline", "off", "Offline",
		"Nothing is heard of the node: it is switched off, or has no Internet.",
		"Its machine is switched off, or has no Internet. You can open it as soon as its node is back."}
)

// findingMark returns the mark of a result, one of postern.FindingXxx.
func findingMark(result string) mark {
	switch result {
	case postern.FindingOK:
		return mark{Icon: "ui-check", Tone: "good", Word: "Good"}
	case postern.FindingWarning:
		return mark{Icon: "ui-info", Tone: "warn", Word: "Could be better"}
	case postern.FindingMissing:
		return mark{Icon: "ui-warning", Tone: "bad", Word: "Missing"}
	}
	return mark{Icon: "ui-warning", Tone: "bad", Word: "Problem"}
}

// certificateMark returns the mark of what a node says of its certificate.
func certificateMark(c postern.RouteCertificate) mark {
	switch {
	case c.Alarm != "":
		return mark{Icon: "ui-warning", Tone: "bad", Word: "Alarm"}
	case c.State == postern.CertificateValid:
		return mark{Icon: "ui-lock", Tone: "good", Word: "Valid"}
	case c.State == postern.CertificateWaiting:
		return mark{Icon: "clock", Tone: "warn", Word: "Waiting"}
	case c.State == postern.CertificateLate:
		return mark{Icon: "ui-warning", Tone: "warn", Word: "Late"}
	}
	return mark{Icon: "ui-warning", Tone: "bad", Word: "Expired"}
}

// markOf returns the mark of a state, one of postern.StateXxx, of what browsers reach or
// do not. Its word is the state's, but for what is degraded and not reached.
func markOf(state string, reached bool) mark {
	switch {
	case state == postern.StateReady:
		return ready
	case state == postern.StateUnproven:
		return unproven
	case state == postern.StateDraining:
		return draining
	case reached:
		return degraded
	case state == postern.StateDegraded:
		return interrupted
	}
	return offline
}

// A catalogue is what somebody may open.
type catalogue struct {
	Favourites []favourite
	Tenants    []tenantTiles
	Tiles      int
	Admission  admission

	// Of who sees no tile:
	Operates  bool
	Published bool   // something is, that they operate
	User      string // id
}

// tenantTiles are the tiles of one tenant.
type tenantTiles struct {
	Name, Title string
	Tiles       []tile
}

// A tile is a service as its tile shows it.
type tile struct {
	coordinator.Tile
	ID        string // of its element
	Title     string
	Mark      mark
	Live      bool
	Since     time.Time // that it is offline; zero: it is not, or never was anything else
	URL       string    // on the portal
	Favourite bool
	Shown     []entry // the first few
	More      []entry
}

// An entry is a place in a service as its tile shows it.
type entry struct {
	postern.Entry
	Title     string
	URL       string // on the portal
	Favourite bool
}

// A favourite is a service, or an entry of it, to be shown first.
type favourite struct {
	Tile  tile
	Entry *entry // nil: the service itself
}

// shownEntries is how many entries of a tile are shown before one asks for more.
const shownEntries = 6

func openURL(tenant, service, entry string) string {
	at := "/open/" + tenant + "/" + service
	if entry != "" {
		at += "?entry=" + url.QueryEscape(entry)
	}
	return at
}

func newTile(t coordinator.Tile) tile {
	v := tile{
		Tile: t, ID: t.Tenant + "--" + t.Name, Title: cmp.Or(t.Title, t.Name), Mark: markOf(t.State, t.Reached), Live: t.Reached,
		URL: openURL(t.Tenant, t.Name, ""), Favourite: slices.Contains(t.Favourites, ""),
	}
	if t.State == postern.StateOffline {
		v.Since = t.Seen // the time of day, while a control channel is open
	}
	if t.Title == "" && t.Name == postern.DefaultService {
		v.Title = t.TenantTitle
	}
	for i, e := range t.Entries {
		shown := entry{e, cmp.Or(e.Title, e.Name), openURL(t.Tenant, t.Name, e.Name), slices.Contains(t.Favourites, e.Name)}
		if i < shownEntries || len(t.Entries) == shownEntries+1 {
			v.Shown = append(v.Shown, shown)
		} else {
			v.More = append(v.More, shown)
		}
	}
	return v
}

func newCatalogue(tiles []coordinator.Tile) catalogue {
	c := catalogue{Tiles: len(tiles)}
	for _, t := range tiles {
		v := newTile(t)
		if n := len(c.Tenants); n == 0 || c.Tenants[n-1].Name != t.Tenant {
			c.Tenants = append(c.Tenants, tenantTiles{Name: t.Tenant, Title: cmp.Or(t.TenantTitle, t.Tenant)})
		}
		last := &c.Tenants[len(c.Tenants)-1]
		last.Tiles = append(last.Tiles, v)
		if v.Favourite {
			c.Favourites = append(c.Favourites, favourite{Tile: v})
		}
		for _, e := range slices.Concat(v.Shown, v.More) {
			if e.Favourite {
				c.Favourites = append(c.Favourites, favourite{v, &e})
			}
		}
	}
	return c
}

// viewCatalogue is the catalogue's live part.
func (p *Portal) viewCatalogue(r *http.Request, u coordinator.User, _ url.Values) (any, error) {
	tiles, err := p.c.Catalogue(r.Context(), u.ID)
	if err != nil {
		return nil, err
	}
	c := newCatalogue(tiles)
	c.Admission = p.admission(r, u.ID)
	if c.Tiles == 0 {
		o, err := p.c.Operator(r.Context(), u.ID)
		if err != nil {
			return nil, err
		}
		if o == nil {
			return c, nil
		}
		routes, err := o.Routes(r.Context(), "")
		if err != nil {
			return nil, err
		}
		c.Operates, c.Published, c.User = true, len(routes) > 0, u.ID
	}
	return c, nil
}

func (p *Portal) cataloguePage(w http.ResponseWriter, r *http.Request, _ coordinator.Session, u coordinator.User) {
	p.renderLive(w, r, http.StatusOK, "catalogue", u, url.Values{})
}

func (p *Portal) setFavourite(w http.ResponseWriter, r *http.Request, _ coordinator.Session, u coordinator.User) {
	f := coordinator.Favourite{
		User: u.ID, Tenant: r.FormValue("tenant"), Service: r.FormValue("service"), Entry: r.FormValue("entry"),
	}
	if err := p.c.SetFavourite(r.Context(), f, r.FormValue("on") == "1"); err != nil {
		p.fail(w, r, err)
		return
	}
	if !fromScript(r) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	data, err := p.viewCatalogue(r, u, nil)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	p.write(w, http.StatusOK, "catalogue", "live", data)
}

// versionOf tells what was rendered from what was rendered later.
func versionOf(html []byte) string {
	sum := sha256.Sum256(html)
	return hex.EncodeToString(sum[:8])
}
