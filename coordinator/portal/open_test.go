package portal_test

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern"
)

func TestCatalogue(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger, postern.Service{Name: "wiki", Access: postern.Access{Who: postern.AccessGroups, Groups: []string{"writers"}}})
	newCompany(d, "globex", "Globex", postern.Service{Name: postern.DefaultService, Title: "Payroll"})
	d.member("ada", "acme", postern.TenantMember)
	d.user("bob")
	b := d.signedIn("ada")
	a := b.get("/").want(200, "Acme AG", "Ledger", "Accounting and payroll", "Books 2026", "current year", "Offline", "on office", "This tile turns live by itself")
	a.wantNot("Globex", "Payroll", "wiki", "People")
	if strings.Contains(a.body, "/open/acme/") {
		t.Error("what is offline can be opened")
	}
	acme.come()
	a = b.get("/").want(200, "Ready")
	for _, link := range []string{`href="/open/acme/default"`, `href="/open/acme/default?entry=y2026"`} {
		if !strings.Contains(a.body, link) {
			t.Errorf("no link %s", link)
		}
	}
	d.signedIn("bob").get("/").want(200, "Nothing is open to you yet").wantNot("Acme", "Make a join token")
}

func TestFavourites(t *testing.T) {
	d := deploy(t, nil)
	newCompany(d, "acme", "Acme AG", ledger).come()
	d.member("ada", "acme", postern.TenantMember)
	b := d.signedIn("ada")
	b.get("/").want(200).wantNot("Favourites")
	b.post("/favourites", "tenant", "acme", "service", "default", "on", "1").wantTo("/")
	b.post("/favourites", "tenant", "acme", "service", "default", "entry", "y2026", "on", "1").wantTo("/")
	a := b.get("/").want(200, "Favourites")
	if at := strings.Index(a.body, `id="pick-acme--default--y2026"`); at < 0 || at > strings.Index(a.body, `id="tenant-acme"`) {
		t.Error("the favourites do not come first")
	}
	b.header.Set("HX-Request", "true")
	part := b.post("/favourites", "tenant", "acme", "service", "default", "entry", "y2026", "on", "0").want(200, "Favourites", "Ledger")
	if strings.Contains(part.body, "<html") || strings.Contains(part.body, "pick-acme--default--y2026") {
		t.Error("a script got the whole page, or the favourite is still there")
	}
	a = b.post("/favourites", "tenant", "globex", "service", "default", "on", "1")
	if a.status/100 != 4 || a.header.Get("HX-Retarget") != "#notice" {
		t.Errorf("got status %d, target %q for a stranger's service", a.status, a.header.Get("HX-Retarget"))
	}
}

func TestOpen(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger,
		postern.Service{Name: "shop", Access: postern.Access{Who: postern.AccessPublic}, Entries: []postern.Entry{{Name: "sale", Path: "/sale#now"}}},
		postern.Service{Name: "own", Require: postern.RequireIssuer})
	acme.come()
	newCompany(d, "globex", "Globex", postern.Service{Name: postern.DefaultService}).come()
	u := d.member("ada", "acme", postern.TenantMember)
	b := d.signedIn("ada")
	login := func(target string) string {
		return "https://acme.apps.test:8443/.well-known/postern/login?" + url.Values{"iss": {d.PortalURL()}, "target": {target}}.Encode()
	}
	b.get("/open/acme/default").wantTo(login("/"))
	b.get("/open/acme/default?entry=y2026").wantTo(login("/2026?tab=all#top"))
	b.get("/open/acme/shop?entry=sale").wantTo("https://shop.acme.apps.test:8443/sale#now")
	b.get("/open/acme/own").wantTo("https://own.acme.apps.test:8443/")
	b.get("/open/acme/default?entry=y1999").want(404, "This place is not there any more")
	for _, path := range []string{"/open/globex/default", "/open/acme/nothing", "/open/nobody/default"} {
		b.get(path).want(403, "This is not open to you", "Ask whoever manages it").wantNot("Globex")
	}
	d.wantLog("open.refused", "user:"+u.ID+" open.refused globex globex/default")
	d.browser().get("/open/acme/default?entry=y2026").wantTo("/sign-in?next=" + url.QueryEscape("/open/acme/default?entry=y2026"))

	// A grant that is revoked between page and click.
	_, err := d.Local().Revoke(t.Context(), u.ID, "acme")
	must(t, err)
	b.get("/open/acme/default").want(403, "not open to you, or not any more")
	d.wantLog("open.refused", "user:"+u.ID, "acme/default")
}

// A stream is the live part of a page as it changes.
type stream struct {
	t      *testing.T
	lines  *bufio.Scanner
	status int
}

// follow opens the stream of the page at path, whose answer was a, if not nil.
func (b *browser) follow(path string) *stream {
	b.t.Helper()
	req := b.request("GET", path, nil)
	req.Header.Set("Accept", "text/html, text/event-stream")
	req.Header.Set("HX-Request", "true")
	resp, err := b.client.Do(req)
	must(b.t, err)
	b.t.Cleanup(func() { resp.Body.Close() })
	return &stream{b.t, bufio.NewScanner(resp.Body), resp.StatusCode}
}

// next returns the data of the next message; its event, "" for most; and io.EOF
// once there are no more.
func (s *stream) next() (event, data string, err error) {
	any := false
	for s.lines.Scan() {
		line := s.lines.Text()
		switch {
		case line == "" && any:
			return event, data, nil
		case strings.HasPrefix(line, "event: "):
			event, any = strings.TrimPrefix(line, "event: "), true
		case strings.HasPrefix(line, "data:"):
			data, any = data+strings.TrimPrefix(strings.TrimPrefix(line, "data:"), " ")+"\n", true
		}
	}
	if err := s.lines.Err(); err != nil {
		return "", "", err
	}
	return "", "", io.EOF
}

// until reads messages until one has text, and returns it.
func (s *stream) until(text string) string {
	s.t.Helper()
	for {
		_, data, err := s.next()
		if err != nil {
			s.t.Fatalf("no message with %q came: %v", text, err)
		}
		if strings.Contains(data, text) {
			return data
		}
	}
}

// source is where the page a follows its changes.
func (a *answer) source() string {
	a.t.Helper()
	return a.find(`hx-sse:connect="([^"]*)"`)
}

func TestOffline(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger)
	acme.come()
	acme.part()
	u := d.member("ada", "acme", postern.TenantMember)
	b := d.signedIn("ada")
	a := b.get("/open/acme/default?entry=y2026").want(http.StatusServiceUnavailable, "Ledger is not there at the moment", "Offline", "since", "on office", "Acme AG", "appears here by itself")
	if a.header.Get("Location") != "" || strings.Contains(a.body, `id="go"`) || !strings.Contains(a.body, "<time ") {
		t.Error("leads to a dead name, or does not say since when")
	}
	s := b.follow(a.source())
	acme.come()
	back := s.until(`id="go"`)
	if !strings.Contains(back, `href="/open/acme/default?entry=y2026"`) || !strings.Contains(back, "Ledger is back") {
		t.Errorf("got %s", back)
	}
	_, err := d.Local().Revoke(t.Context(), u.ID, "acme")
	must(t, err)
	s.until("not open to you any more")
}

// TestNotReachable: a machine whose control channel is open, and nothing else, is
// neither switched off nor away since any time, and its pages stay as they are.
func TestNotReachable(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger)
	acme.node.connect()
	acme.wait(postern.StateDegraded)
	d.member("ada", "acme", postern.TenantAdmin)
	b := d.signedIn("ada")
	for _, path := range []string{"/", "/open/acme/default", "/admin/nodes"} {
		a := b.get(path)
		a.want(a.status, "Not reachable").wantNot("since", "last open")
		if path != "/admin/nodes" {
			a.want(a.status, "switched on, but the way to it is interrupted").wantNot("switched off")
		}
		d.clock.advance(time.Minute)
		if then := b.get(path); then.source() != a.source() {
			t.Errorf("%s: another page a minute later: %s", path, then.text())
		}
	}
}

// TestDegraded: the tunnel works and the control channel does not; members are told what
// that means for them.
func TestDegraded(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger)
	acme.gateway.report(acme.node, d.clock.now())
	acme.wait(postern.StateDegraded)
	d.member("ada", "acme", postern.TenantMember)
	b := d.signedIn("ada")
	b.get("/").want(200, "Degraded", "If you are signed in there already, it works").wantNot("control channel", "since")
	b.get("/open/acme/default").want(http.StatusSeeOther)
}

// TestNodesPage: who manages a node reads why it is not well, by which path it is reached
// and how quickly it answers, in words.
func TestNodesPage(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger)
	acme.come()
	defer acme.gateway.connect()()
	d.member("ada", "acme", postern.TenantAdmin)
	b := d.signedIn("ada")
	report := func(probe *postern.ProbeStatus) {
		now := d.clock.now()
		acme.gateway.call("POST", postern.PathStatus, postern.Status{Time: now, Peers: []postern.PeerStatus{
			{ID: acme.node.ID, Handshake: now, Path: postern.CarrierRelay, Endpoint: "192.0.2.7:1", Probe: probe},
		}})
	}
	b.get("/admin/nodes").want(200, "Ready", "not asked yet").wantNot("Draining") // a gateway's state, and there are none
	report(&postern.ProbeStatus{Time: d.clock.now(), RTT: postern.Duration(42 * time.Millisecond)})
	b.get("/admin/nodes").want(200, "Ready", "TLS on port 443", "42 ms").wantNot("tls-443", "degraded", "Last contact")
	d.clock.advance(10 * time.Second) // it came so long ago that it should answer
	report(&postern.ProbeStatus{Time: d.clock.now(), Error: "no answer within 2 s"})
	acme.wait(postern.StateDegraded)
	b.get("/admin/nodes").want(200, "Not reachable", "Its tunnel is up, but it serves nobody: no answer within 2 s.").wantNot("42 ms")
	_, err := d.Local().ChangeNode(t.Context(), acme.node.ID, postern.NodeChange{Draining: new(true)})
	must(t, err)
	b.get("/admin/nodes").want(200, "It is being drained")
}

func TestLiveCatalogue(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger)
	u := d.member("ada", "acme", postern.TenantMember)
	b := d.signedIn("ada")
	s := b.follow(b.get("/").want(200, "Offline").source())
	acme.come()
	if first := s.until("Ledger"); !strings.Contains(first, "Ready") {
		t.Errorf("the first message says nothing new: %s", first)
	}
	other := ledger
	other.Title = "Books"
	acme.node.publish(other)
	s.until("Books</a>")
	acme.part()
	s.until("Offline")
	_, err := d.Local().Revoke(t.Context(), u.ID, "acme")
	must(t, err)
	s.until("Nothing is open to you yet")
	// A page that was rendered before something changed is told at once.
	acme.come()
	_, err = d.Local().Grant(t.Context(), u.ID, "acme", postern.GrantRequest{})
	must(t, err)
	b.follow("/events?view=catalogue&seen=0123456789abcdef").until("Books")
}

func TestStreamEndsWithSession(t *testing.T) {
	d := deploy(t, nil)
	u := d.user("ada")
	b := d.signedIn("ada")
	s := b.follow(b.get("/").source())
	must(t, d.EndSessions(t.Context(), "local", u.ID))
	event, _, err := s.next()
	if event != "ended" || err != nil {
		t.Fatalf("got event %q, %v", event, err)
	}
	if _, _, err := s.next(); err != io.EOF {
		t.Errorf("the stream goes on: %v", err)
	}
	if again := b.follow("/events?view=catalogue"); again.status != http.StatusUnauthorized {
		t.Errorf("without a session: status %d", again.status)
	}
}

func TestStreams(t *testing.T) {
	d := deploy(t, nil)
	d.user("ada")
	d.user("bob")
	b := d.signedIn("ada")
	b.get("/events?view=nodes").want(403, "for those who manage a company")
	b.get("/events?view=nothing").want(404)
	at := b.get("/").source()
	for range 12 {
		if s := b.follow(at); s.status != 200 {
			t.Fatalf("status %d", s.status)
		}
	}
	if s := b.follow(at); s.status != http.StatusTooManyRequests {
		t.Errorf("the 13th: status %d", s.status)
	}
	if s := d.signedIn("bob").follow(at); s.status != 200 {
		t.Errorf("somebody else: status %d", s.status)
	}
	start := time.Now()
	d.stop()
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("the server waited %v for streams", took)
	}
}
