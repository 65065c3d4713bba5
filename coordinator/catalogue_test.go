package coordinator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// offer publishes services from m.
func (m *member) offer(services ...postern.Service) {
	m.d.t.Helper()
	must(m.d.t, m.call("PUT", postern.PathServices, postern.Publication{Services: services}, nil))
}

// outcome returns the code of err, "" for none.
func outcome(t *testing.T, err error) string {
	t.Helper()
	var p *postern.Problem
	if err != nil && !errors.As(err, &p) {
		t.Fatal(err)
	}
	if p == nil {
		return ""
	}
	return p.Code
}

// Who sees a tile, and who may go there to sign in.
func TestCatalogueAccess(t *testing.T) {
	d := deploy(t)
	ctx := t.Context()
	d.addTenant("acme")
	d.addTenant("rival")
	d.node("rival", "r").offer(postern.Service{Name: "secret"}, postern.Service{Name: "site", Access: postern.Access{Who: postern.AccessPublic}})
	accounting := postern.Access{Who: postern.AccessGroups, Groups: []string{"accounting"}}
	public, members := postern.Access{Who: postern.AccessPublic}, postern.Access{Who: postern.AccessMembers}
	d.node("acme", "a").offer(
		postern.Service{Name: "books", Access: accounting},
		postern.Service{Name: "hooks", Access: accounting, Exceptions: []postern.Exception{{Path: "/in/", Access: public}}},
		postern.Service{Name: "inner", Access: public, Exceptions: []postern.Exception{{Path: "/", Access: accounting}}},
		postern.Service{Name: "part", Access: accounting, Exceptions: []postern.Exception{{Path: "/all/", Access: members}}},
		postern.Service{Name: "plain"},
		postern.Service{Name: "site", Access: public},
	)
	grant := func(login string, req postern.GrantRequest) string {
		u, err := d.AddUser(ctx, postern.UserRequest{Login: login})
		must(t, err)
		_, err = d.PutGrant(ctx, u.ID, "acme", req)
		must(t, err)
		return u.ID
	}
	operator, err := d.AddUser(ctx, postern.UserRequest{Login: "boss", Operator: true})
	must(t, err)
	gone := grant("gone", postern.GrantRequest{Role: postern.TenantOwner})
	must(t, d.DisableUser(ctx, gone))
	stranger, err := d.AddUser(ctx, postern.UserRequest{Login: "stranger"})
	must(t, err)
	_, err = d.PutGrant(ctx, stranger.ID, "rival", postern.GrantRequest{})
	must(t, err)
	tests := []struct {
		name, user string
		sees       string // tiles
		enters     string // besides
	}{
		{"owner", grant("owner", postern.GrantRequest{Role: postern.TenantOwner}), "acme/books acme/hooks acme/inner acme/part acme/plain acme/site", ""},
		{"member", grant("member", postern.GrantRequest{}), "acme/plain acme/site", "acme/part"},
		{"in the group", grant("clerk", postern.GrantRequest{Groups: []string{"accounting"}}), "acme/books acme/hooks acme/inner acme/part acme/plain acme/site", ""},
		{"in another group", grant("guard", postern.GrantRequest{Groups: []string{"security"}}), "acme/plain acme/site", "acme/part"},
		{"of one service", grant("guest", postern.GrantRequest{Groups: []string{"accounting"}, Services: []string{"books"}}), "acme/books acme/site", ""},
		{"of a service that is none", grant("early", postern.GrantRequest{Services: []string{"later"}}), "acme/site", ""},
		{"of another tenant", stranger.ID, "rival/secret rival/site", ""},
		{"operator without a grant", operator.ID, "", ""},
		{"disabled", gone, "", ""},
		{"nobody", "unobody", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tiles, err := d.Catalogue(ctx, tt.user)
			must(t, err)
			var sees []string
			for _, v := range tiles {
				sees = append(sees, v.Tenant+"/"+v.Name)
			}
			if got := strings.Join(sees, " "); got != tt.sees {
				t.Errorf("sees %q, want %q", got, tt.sees)
			}
			may := strings.Fields(tt.sees + " " + tt.enters)
			for _, at := range []string{"acme/books", "acme/hooks", "acme/inner", "acme/part", "acme/plain", "acme/site", "rival/secret", "rival/site"} {
				tenant, service, _ := strings.Cut(at, "/")
				host := postern.ServiceHost(service, tenant, base)
				tile, err := d.MayOpen(ctx, tt.user, host)
				want := postern.CodeForbidden
				if slices.Contains(may, at) {
					want = ""
				}
				if got := outcome(t, err); got != want {
					t.Errorf("%s: got code %q, want %q", at, got, want)
				}
				if want == "" && (tile.Host != host || tile.Name != service || tile.Tenant != tenant) {
					t.Errorf("%s: got %+v", at, tile)
				}
			}
		})
	}
}

// A tile is made from all nodes that publish its service, and only as open as the
// least open of them.
func TestTile(t *testing.T) {
	d := deploy(t)
	ctx := t.Context()
	must(t, d.operate("POST", "/tenants", postern.TenantRequest{Name: "acme", Title: "Acme Joinery"}, nil))
	must(t, d.operate("POST", "/tenants", postern.TenantRequest{Name: "zeta", Title: "A Zeta"}, nil))
	d.node("zeta", "z", "one")
	b, a := d.node("acme", "b"), d.node("acme", "a")
	entry := func(name, path string) postern.Entry { return postern.Entry{Name: name, Path: path} }
	board := postern.Exception{Path: "/board/", Access: postern.Access{Who: postern.AccessGroups, Groups: []string{"board"}}}
	b.offer(
		postern.Service{Name: "books", Title: "Other words", Require: postern.RequirePasskey, Entries: []postern.Entry{entry("y2024", "/2024"), entry("y2025", "/elsewhere")}},
		postern.Service{Name: "wiki", Title: "A wiki"},
	)
	a.offer(
		postern.Service{Name: "books", Title: "Books", Description: "Double entry.", Icon: "book", Exceptions: []postern.Exception{board},
			Entries: []postern.Entry{entry("y2025", "/2025?q=1#top"), entry("minutes", "/board/minutes")}},
		postern.Service{Name: "early"}, postern.Service{Name: "late", Access: board.Access},
	)
	d.node("acme", "c").offer(postern.Service{Name: "early", Access: board.Access}, postern.Service{Name: "late"})
	u := d.person("acme", "anna", postern.TenantMember)
	_, err := d.Local().Grant(ctx, u.ID, "zeta", postern.GrantRequest{})
	must(t, err)
	for _, f := range []coordinator.Favourite{{Tenant: "acme", Service: "books"}, {Tenant: "acme", Service: "books", Entry: "y2025"}, {Tenant: "zeta", Service: "books"}} {
		f.User = u.ID
		must(t, d.SetFavourite(ctx, f, true))
	}
	tiles, err := d.Catalogue(ctx, u.ID)
	must(t, err)
	var order []string
	for _, v := range tiles {
		order = append(order, v.TenantTitle+"/"+v.Name)
	}
	if got := strings.Join(order, ", "); got != "A Zeta/one, Acme Joinery/wiki, Acme Joinery/books" {
		t.Fatalf("tiles: got %s", got)
	}
	books := tiles[2]
	if books.Title != "Books" || books.Description != "Double entry." || books.Icon != "book" || books.Require != postern.RequirePasskey {
		t.Errorf("words: got %+v", books)
	}
	if want := []postern.Entry{entry("y2025", "/2025?q=1#top"), entry("y2024", "/2024")}; !slices.Equal(books.Entries, want) {
		t.Errorf("entries: got %+v, want %+v", books.Entries, want)
	}
	if books.Host != "books.acme."+base || books.URL != "https://books.acme."+base+":8443" || !slices.Equal(books.Nodes, []string{"a", "b"}) {
		t.Errorf("place: got %+v", books)
	}
	if !slices.Equal(books.Favourites, []string{"", "y2025"}) || tiles[0].Favourites != nil {
		t.Errorf("favourites: got %q and %q", books.Favourites, tiles[0].Favourites)
	}

	d.route(postern.RouteRequest{Host: "books.example.com", Tenant: "acme", Service: "books"})
	d.route(postern.RouteRequest{Host: "none.example.com", Tenant: "acme", Service: "none"})
	tile, err := d.MayOpen(ctx, u.ID, "books.example.com")
	must(t, err)
	if tile.Host != "books.example.com" || tile.URL != "https://books.example.com:8443" || tile.Name != "books" || tile.Title != "Books" {
		t.Errorf("custom route: got %+v", tile)
	}
	for _, host := range []string{"none.example.com", "nothing.acme." + base, "nobody." + base, "BOOKS.acme." + base, ""} {
		if _, err := d.MayOpen(ctx, u.ID, host); outcome(t, err) != postern.CodeNotFound {
			t.Errorf("%q: got %v", host, err)
		}
	}
}

// A tile and a route are as good as the best of their nodes.
func TestTileState(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, b, g := d.node("acme", "a", "books"), d.node("acme", "b", "books"), d.gateway("door")
	u := d.person("acme", "anna", postern.TenantMember)
	var seen time.Time
	check := func(what, want string) {
		t.Helper()
		eventually(t, what, func() bool {
			tiles, err := d.Catalogue(t.Context(), u.ID)
			must(t, err)
			var r postern.RouteState
			must(t, d.operate("GET", "/routes/books.acme."+base+"/match", nil, &r))
			seen = tiles[0].Seen
			return tiles[0].State == want && r.State == want
		})
	}
	report := func(nodes ...*member) {
		status := postern.Status{}
		for _, n := range nodes {
			status.Peers = append(status.Peers, postern.PeerStatus{ID: n.ID, Handshake: d.clock.now()})
		}
		must(t, g.call("POST", postern.PathStatus, status, nil))
	}
	check("nothing", postern.StateOffline)
	if !seen.IsZero() {
		t.Errorf("never seen: got %v", seen)
	}
	w := a.watch()
	check("a's control stream", postern.StateDegraded)
	report(b)
	check("b's tunnel besides", postern.StateDegraded)
	report(a, b)
	check("a's tunnel too", postern.StateReady)
	d.clock.advance(time.Minute)
	w.cancel()
	check("a's control stream is gone", postern.StateDegraded)
	if age := d.clock.now().Sub(seen); age < 0 || age > 30*time.Second {
		t.Errorf("seen: got %v ago", age)
	}
	d.clock.advance(3 * time.Minute)
	check("all is old", postern.StateOffline)
}

// Whoever waits for a change learns of each that a tile can show, and of no report
// that says the same again.
func TestChanged(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a", "books"), d.gateway("door")
	u := d.person("acme", "anna", postern.TenantMember)
	rang := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	handshake := d.clock.now()
	report := func() {
		must(t, g.call("POST", postern.PathStatus, postern.Status{Peers: []postern.PeerStatus{{ID: a.ID, Handshake: handshake}}}, nil))
	}
	var w *watcher
	steps := []struct {
		name string
		do   func()
		want bool
	}{
		{"publish", func() { a.offer(postern.Service{Name: "books", Title: "Books"}) }, true},
		{"publish the same", func() { a.offer(postern.Service{Name: "books", Title: "Books"}) }, false},
		{"grant", func() {
			_, err := d.Local().Grant(t.Context(), u.ID, "acme", postern.GrantRequest{Groups: []string{"g"}})
			must(t, err)
		}, true},
		{"stream opens", func() { w = a.watch(); w.sync() }, true},
		{"handshake", report, true},
		{"the same handshake", report, false},
		{"a newer handshake", func() { d.clock.advance(time.Minute); handshake = d.clock.now(); report() }, false},
		{"it ages", func() { d.clock.advance(179 * time.Second); report() }, false},
		{"it is too old", func() { d.clock.advance(2 * time.Second); report() }, true},
		{"a look at it", func() { _, err := d.Catalogue(t.Context(), u.ID); must(t, err) }, false},
	}
	for _, tt := range steps {
		c := d.Changed()
		tt.do()
		if got := rang(c); got != tt.want {
			t.Fatalf("%s: rang %v, want %v", tt.name, got, tt.want)
		}
	}
	c := d.Changed()
	w.cancel()
	eventually(t, "the stream's end to ring", func() bool { return rang(c) })
}
