//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"postern"
)

// revocationTime is what is promised from a revocation to the last byte; how much
// longer it may take here is for a machine that has a browser to run, too.
const (
	revocationTime  = 2 * time.Second
	revocationSlack = 4 * time.Second
)

// keepTelling sends an event to whoever listens, until ctx is done.
func (a *application) keepTelling(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case <-ctx.Done():
			return
		case a.next <- struct{}{}:
		}
	}
}

// stayConnected opens a stream of events and a WebSocket in the page, and waits until
// both work.
func (b *browser) stayConnected(t testing.TB) {
	t.Helper()
	eval[bool](b, t, `
		window.got = 0;
		window.cut = {};
		const events = new EventSource("/events?n=1000000");
		events.onmessage = () => { got++; window.last = Date.now(); };
		events.onerror = () => { cut.events ??= Date.now(); };
		const socket = new WebSocket("wss://" + location.host + "/socket");
		socket.onclose = () => { cut.socket ??= Date.now(); };
		socket.onmessage = () => { window.echoed = true; };
		new Promise(r => { socket.onopen = () => { socket.send("hello"); r(true); }; })`)
	eventually(t, pageTime, func() error {
		if !eval[bool](b, t, "got > 3 && window.echoed === true && !cut.events && !cut.socket") {
			return errors.New("the page's connections do not work")
		}
		return nil
	})
}

// isCut waits until both connections of stayConnected have ended, and returns how long
// after begin the later one did. No event came after that.
func (b *browser) isCut(t testing.TB, begin time.Time) time.Duration {
	t.Helper()
	eventually(t, pageTime, func() error {
		if !eval[bool](b, t, "!!cut.events && !!cut.socket") {
			return fmt.Errorf("still connected: %v", eval[map[string]any](b, t, "cut"))
		}
		return nil
	})
	at := time.UnixMilli(int64(eval[float64](b, t, "Math.max(cut.events, cut.socket, last)")))
	took := at.Sub(begin)
	if took > revocationTime {
		t.Logf("cut after %v, longer than the %v that are promised on a machine at rest", took, revocationTime)
	}
	if took > revocationTime+revocationSlack {
		t.Errorf("cut after %v, want %v", took, revocationTime)
	}
	return took
}

// TestLoginRevocation takes rights away while a page with open connections uses them.
func TestLoginRevocation(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": membersOnly})
	chrome := newBrowser(t, e.caFile())
	go e.apps["acme"].keepTelling(t.Context())
	for _, test := range []struct {
		name   string
		revoke func(login string)
		words  string // where they end up
	}{
		{"grant", func(login string) { e.mustAdmin("DELETE", "/users/"+login+"/grants/acme", nil, nil) }, ""},
		{"account", func(login string) { e.mustAdmin("POST", "/users/"+login+"/disable", nil, nil) }, "Sign in"},
		{"person", func(login string) { e.mustAdmin("DELETE", "/users/"+login, nil, nil) }, "Sign in"},
		{"service", func(string) {
			e.says("acme", fmt.Sprintf("services:\n  - title: Books\n    upstream: %s\n    access: groups\n    groups: [board]\n", e.apps["acme"].url))
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			login := "user-" + test.name
			link := e.invite(login, login)
			e.grant(login, "acme", postern.GrantRequest{})
			p := chrome.person(t)
			p.open(t, link)
			p.fill(t, "#password", annPassword)
			p.click(t, "#accept > button")
			p.arrives(t, e.portal("/"), "Acme Joinery")
			p.open(t, e.url("acme", "/"))
			p.arrives(t, e.url("acme", "/"), "acme")
			p.stayConnected(t)
			begin := time.Now()
			test.revoke(login)
			noteFigure(t, "login", "connections cut after the "+test.name+" was revoked", p.isCut(t, begin).Seconds(), "s")
			// And nothing new.
			if status := eval[int](p, t, "fetch('/seen').then(r => r.status)"); status != 401 && status != 403 {
				t.Errorf("a request afterwards: status %d", status)
			}
			if page := p.open(t, e.url("acme", "/")); test.words == "" && page.Status != 403 {
				t.Errorf("the page afterwards: status %d", page.Status)
			}
			if test.words != "" {
				p.arrives(t, e.portal("/sign-in"), test.words)
			}
		})
	}
}

// I12: of a node, a user or a tenant that was revoked, not a byte comes after two
// seconds.
func TestIsolationI12Revoked(t *testing.T) {
	e, ann, bob := newSignIns(t)
	go e.apps["acme"].keepTelling(t.Context())
	go e.apps["globex"].keepTelling(t.Context())
	eve := e.member(t, "eve", "acme", postern.GrantRequest{})
	tries := 0
	for _, test := range []struct {
		name   string
		who    *visitor
		tenant string
		revoke func()
	}{
		{"user", eve, "acme", func() { e.mustAdmin("DELETE", "/users/eve/grants/acme", nil, nil) }},
		{"node", ann, "acme", func() { e.do("nodes", "remove", "acme/acme-office") }},
		{"tenant", bob, "globex", func() { e.do("tenants", "remove", "globex", "--yes") }},
	} {
		tries++
		test.who.enters(e.url(test.tenant, "/"))
		last := test.who.stream(e.url(test.tenant, "/events?n=1000000"))
		begin := time.Now()
		test.revoke()
		at, ok := <-last
		if !ok {
			t.Fatalf("%s: the stream never began", test.name)
		}
		took := at.Sub(begin)
		noteFigure(t, "isolation", "last byte after the "+test.name+" was revoked", took.Seconds(), "s")
		if took > revocationTime { // no browser takes its time here
			t.Errorf("%s: the last byte came after %v, want %v", test.name, took, revocationTime)
		}
	}
	passed(t, "I12 revoked while bytes come", tries)
}
