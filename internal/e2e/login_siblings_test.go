//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"postern"
)

// A window is a tab of either browser.
type window struct {
	name string
	open func(url string) error
	eval func(expression string) (string, error)
}

// windows returns a tab of Chromium, and one of Firefox, that are nobody's.
func (d *deployment) windows(t *testing.T) []window {
	t.Helper()
	b, f := newBrowser(t, d.caFile()), newFirefox(t, d.caFile())
	return []window{
		{
			name: "Chromium",
			open: func(url string) error { return chromedp.Do(b.within(t), chromedp.Navigate(url)) },
			eval: func(expression string) (string, error) { return evaluate[string](b.within(t), expression) },
		},
		{name: "Firefox", open: f.open, eval: f.eval},
	}
}

// signIn has somebody at the window take an invitation.
func (w window) signIn(t *testing.T, e *estate, login, tenant string) {
	t.Helper()
	link := e.invite(login, login)
	e.grant(login, tenant, postern.GrantRequest{})
	w.mustOpen(t, link)
	w.mustEval(t, fmt.Sprintf("document.querySelector('#password').value = %q; document.querySelector('#accept').submit(); ''", annPassword))
	eventually(t, pageTime, func() error {
		at, err := w.eval("location.pathname + document.readyState")
		if err == nil && at != "/complete" {
			err = fmt.Errorf("the invitation led to %s", at)
		}
		return err
	})
}

func (w window) mustOpen(t *testing.T, url string) {
	t.Helper()
	if err := w.open(url); err != nil {
		t.Fatalf("%s: open %s: %v", w.name, url, err)
	}
}

func (w window) mustEval(t *testing.T, expression string) string {
	t.Helper()
	value, err := w.eval(expression)
	if err != nil {
		t.Fatalf("%s: %.200s: %v", w.name, expression, err)
	}
	return value
}

// tossed are cookies that a sibling tenant would like the neighbours' browsers to
// have.
func tossed() []string {
	var set []string
	for _, name := range []string{nodeCookie, stateCookie, portalCookie} {
		set = append(set,
			name+"=evil; Domain="+base+"; Path=/; Secure",
			name+"=evil; Domain="+base+"; Path=/seen; Secure",
			strings.ToLower(name)+"=evil; Domain="+base+"; Path=/; Secure",
			"="+name+"=evil; Domain="+base+"; Path=/; Secure",
			name+"=evil; Domain=acme."+base+"; Path=/; Secure",
			name+"=evil; Domain=localhost; Path=/; Secure",
		)
	}
	return set
}

// I10, in browsers: what a sibling tenant's page tosses at the neighbours' has no
// effect on who somebody is there.
func TestLoginTossedCookies(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": strings.Replace(membersOnly, "members", "public", 1)})
	for _, w := range e.windows(t) {
		t.Run(w.name, func(t *testing.T) {
			toss := func() {
				w.mustOpen(t, e.url("globex", "/toss?"+url.Values{"set": tossed()}.Encode()))
				for _, cookie := range tossed() {
					w.mustEval(t, fmt.Sprintf("document.cookie = %q; ''", cookie))
				}
			}
			// Before anybody is signed in: nobody is, afterwards.
			toss()
			w.mustOpen(t, e.url("acme", "/seen"))
			if at := w.mustEval(t, "location.href"); !strings.HasPrefix(at, e.portal("/sign-in")) {
				t.Fatalf("with tossed cookies acme leads to %s", at)
			}
			login := "ann-" + strings.ToLower(w.name)
			w.signIn(t, e, login, "acme")
			asSelf := func() {
				t.Helper()
				w.mustOpen(t, e.url("acme", "/seen"))
				var got seen
				if text := w.mustEval(t, "document.body.innerText"); json.Unmarshal([]byte(text), &got) != nil {
					t.Fatalf("acme shows %s", text)
				}
				if user := got.Header.Get("Postern-User"); user != login {
					t.Errorf("acme is told of %q, want %q", user, login)
				}
				if cookies := got.Header.Get("Cookie"); strings.Contains(strings.ToLower(cookies), "postern") {
					t.Errorf("the application got the cookies %q", cookies)
				}
			}
			asSelf()
			toss()
			asSelf()
			w.mustOpen(t, e.portal("/account"))
			if page := w.mustEval(t, "document.body.innerText + location.href"); !strings.Contains(page, "/account") {
				t.Errorf("at the portal: %s", page)
			}
		})
	}
	noteFigure(t, "login", "cookies tossed from a sibling, in two browsers", float64(2*2*2*len(tossed())), "cookies")
}

// I11, in browsers: no connection to one name is used for another, though all lead to
// one address.
func TestLoginCoalescing(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": strings.Replace(membersOnly, "members", "public", 1)})
	b := newBrowser(t, e.caFile())
	conns := map[float64]string{}
	for range 2 {
		for host, at := range map[string]string{
			"portal": e.portal("/sign-in"), "acme": e.url("acme", "/.well-known/postern/health"), "globex": e.url("globex", "/"),
		} {
			resp, err := chromedp.Run(b.within(t), chromedp.NavigateResponse(at))
			if err != nil || resp.Status != http.StatusOK || resp.Protocol != "h2" {
				t.Fatalf("%s: %+v %v", at, resp, err)
			}
			if other, ok := conns[resp.ConnectionID]; ok && other != host {
				t.Errorf("the connection of %s was used for %s", other, host)
			}
			conns[resp.ConnectionID] = host
		}
	}
	if len(conns) < 3 {
		t.Errorf("there were %d connections for three hosts", len(conns))
	}
}

// What browsers do when they are told that there is no such name: say so, and not
// try it over and over.
func TestLoginAlerts(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": membersOnly})
	relay := newRelay(t, loopback(e.https))
	unknown := "https://nobody." + base + ":" + relay.port() + "/"
	for _, w := range e.windows(t) {
		before := relay.accepted.Load()
		want, most := "ERR_SSL_UNRECOGNIZED_NAME_ALERT", int64(6)
		if w.name == "Firefox" {
			want, most = "SSL_ERROR_UNRECOGNIZED_NAME_ALERT", 3
		}
		if err := w.open(unknown); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", w.name, err, want)
		}
		n := relay.accepted.Load() - before
		noteFigure(t, "login", "connections of "+w.name+" to an unknown name", float64(n), "connections")
		if n == 0 || n > most {
			t.Errorf("%s made %d connections, want 1 to %d", w.name, n, most)
		}
	}
}

// A relay passes connections on and counts them.
type relay struct {
	ln       net.Listener
	accepted atomic.Int64
}

func newRelay(t testing.TB, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln}
	t.Cleanup(func() { ln.Close() })
	go r.serve(to)
	return r
}

func (r *relay) port() string {
	_, port, _ := net.SplitHostPort(r.ln.Addr().String())
	return port
}

func (r *relay) serve(to string) {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.accepted.Add(1)
		go pass(c, to)
	}
}

// pass copies both ways until either end is done.
func pass(c net.Conn, to string) {
	defer c.Close()
	far, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		io.Copy(far, c)
		far.Close()
	}()
	io.Copy(c, far)
}
