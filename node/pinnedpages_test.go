package node

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
)

// issuerOffice is an office of which a.test asks the issuer.
func issuerOffice(t *testing.T) (*office, *fakeIssuer) {
	t.Helper()
	f := newFakeIssuer(t)
	o := newOffice(t, map[string]Service{
		"a.test": {Name: "books", Title: "Books", Upstream: application(t, longApplication().ServeHTTP), Require: postern.RequireIssuer, Exceptions: []Exception{
			{Path: "/hooks/", Access: postern.AccessPublic},
			{Path: "/ledger/", Access: postern.AccessGroups, Groups: []string{"accounting"}},
			{Path: "/boss/", Access: postern.AccessGroups, Groups: []string{"bosses"}},
		}},
		"b.test": {Upstream: application(t, echo)},
	})
	o.pin(f.config())
	return o, f
}

// pin makes cfg the pinned issuer, as a node whose file changed does.
func (o *office) pin(cfg PinnedIssuer) {
	o.t.Helper()
	if err := o.proofs.setPinned(&cfg); err != nil {
		o.t.Fatal(err)
	}
	o.gate.recheck()
	o.t.Cleanup(o.proofs.pinned.Load().close)
}

// atIssuer goes where resp, an answer of the node, sends c, signs in there, and returns
// the URL that f sends it back to. The port is left out, as office.back does.
func atIssuer(t *testing.T, f *fakeIssuer, resp *http.Response) string {
	t.Helper()
	at := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(at, f.srv.URL+"/authorize?") {
		t.Fatalf("the browser is sent to %d %q", resp.StatusCode, at)
	}
	return strings.Replace(f.visit(at).String(), ":8443/", "/", 1)
}

// throughIssuer signs f's person in at a.test.
func (o *office) throughIssuer(f *fakeIssuer) *http.Client {
	o.t.Helper()
	c := o.browser(2)
	resp, _ := get(o.t, c, "https://a.test/deep?x=1", navigation...)
	resp, body := get(o.t, c, atIssuer(o.t, f, resp), navigation...)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/deep?x=1" {
		o.t.Fatalf("the sign-in ends with %d %q %s", resp.StatusCode, resp.Header.Get("Location"), body)
	}
	return c
}

func TestIssuerRequired(t *testing.T) {
	o, f := issuerOffice(t)
	portal := o.on.portal
	o.change(func(t *table) { t.people, t.portal = map[string]*postern.Person{}, nil }) // no coordinator has a say
	c := o.throughIssuer(f)
	resp, body := get(t, c, "https://a.test/x", program...)
	h := hear(t, body)
	if resp.StatusCode != 200 || h.Header[headerUserID] != "248289761001" || h.Header[headerUser] != "jane" || h.Header[headerRole] != postern.TenantMember || h.Header[headerGroups] != "accounting" {
		t.Errorf("the application heard %+v", h)
	}
	for path, want := range map[string]int{"/ledger/x": 200, "/boss/x": 403} {
		if resp, body := get(t, c, "https://a.test"+path, program...); resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
	if resp, _ := get(t, o.browser(2), "https://a.test/hooks/x", program...); resp.StatusCode != 200 {
		t.Errorf("where everybody may come: %d", resp.StatusCode)
	}
	if _, body := get(t, c, "https://a.test"+ownPath+"whoami"); !strings.Contains(body, `"id":"248289761001"`) {
		t.Errorf("whoami is %s", body)
	}
	o.change(func(t *table) { t.portal = portal })
	// At other hosts, and where it was wanted no more, it is nobody.
	if resp, _ := get(t, o.client(t, 2), "https://b.test/", append(program, "Cookie", cookieSession+"="+cookies(c, "a.test")[cookieSession])...); resp.StatusCode != 401 {
		t.Errorf("at another host: %d", resp.StatusCode)
	}
	o.require("a.test", "")
	if resp, _ := get(t, c, "https://a.test/", program...); resp.StatusCode != 401 {
		t.Errorf("where the portal is asked: %d", resp.StatusCode)
	}
}

// The portal's tile, or anybody's link, begins the same sign-in.
func TestLoginByIssuer(t *testing.T) {
	o, f := issuerOffice(t)
	for _, iss := range []string{testIssuer, f.srv.URL, "https://evil.test", ""} {
		c := o.browser(2)
		resp, _ := get(t, c, "https://a.test"+pathLogin+"?target=/y/2026&iss="+url.QueryEscape(iss), navigation...)
		resp, _ = get(t, c, atIssuer(t, f, resp), navigation...)
		if resp.Header.Get("Location") != "/y/2026" {
			t.Errorf("begun by %q it leads to %d %q", iss, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
	for _, target := range []string{"https://evil.test/", "//evil.test", "/\\evil.test", pathLogin} {
		resp, _ := get(t, o.browser(2), "https://a.test"+pathLogin+"?iss="+testIssuer+"&target="+url.QueryEscape(target), navigation...)
		if resp.StatusCode != 400 {
			t.Errorf("target %q: %d %q", target, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
}

func TestIssuerCallbackRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(o *office, f *fakeIssuer, c *http.Client, back *url.URL)
		status int
	}{
		{"good", func(*office, *fakeIssuer, *http.Client, *url.URL) {}, 303},
		{"another browser", func(o *office, _ *fakeIssuer, c *http.Client, _ *url.URL) { c.Jar = o.browser(2).Jar }, 400},
		{"state tampered with", func(_ *office, _ *fakeIssuer, _ *http.Client, back *url.URL) { setQuery(back, "state", "x") }, 400},
		{"another host's state", func(o *office, _ *fakeIssuer, _ *http.Client, back *url.URL) {
			o.change(func(t *table) {
				t.hosts = map[string]*service{"a.test": t.hosts["a.test"], "b.test": t.hosts["a.test"]}
			})
			back.Host = "b.test"
		}, 400},
		{"the portal's state", func(o *office, _ *fakeIssuer, _ *http.Client, back *url.URL) {
			resp, _ := get(o.t, o.browser(2), "https://b.test/", navigation...)
			at, err := url.Parse(resp.Header.Get("Location"))
			if err != nil {
				o.t.Fatal(err)
			}
			setQuery(back, "state", at.Query().Get("state"))
		}, 400},
		{"the portal's name", func(_ *office, _ *fakeIssuer, _ *http.Client, back *url.URL) { setQuery(back, "iss", testIssuer) }, 502},
		{"code made up", func(_ *office, _ *fakeIssuer, _ *http.Client, back *url.URL) { setQuery(back, "code", "x") }, 403},
		{"declined", func(_ *office, _ *fakeIssuer, _ *http.Client, back *url.URL) {
			setQuery(back, "error", "access_denied")
		}, 403},
		{"in no group", func(_ *office, f *fakeIssuer, _ *http.Client, _ *url.URL) { f.set(func() { f.claims["groups"] = nil }) }, 403},
		{"clock is wrong", func(o *office, f *fakeIssuer, _ *http.Client, _ *url.URL) {
			f.set(func() { f.claims["exp"] = o.clock.time().Add(-time.Hour).Unix() })
		}, 503},
		{"secret has changed", func(_ *office, f *fakeIssuer, _ *http.Client, _ *url.URL) { f.set(func() { f.secret = "new" }) }, 502},
		{"issuer is away", func(_ *office, f *fakeIssuer, _ *http.Client, _ *url.URL) {
			f.set(func() { f.instead = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) } })
		}, 503},
		{"issuer talks nonsense", func(_ *office, f *fakeIssuer, _ *http.Client, _ *url.URL) {
			f.set(func() { f.instead = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") } })
		}, 502},
		{"issuer is pinned no more", func(o *office, _ *fakeIssuer, _ *http.Client, _ *url.URL) { o.proofs.setPinned(nil) }, 503},
		{"issuer is required no more", func(o *office, _ *fakeIssuer, _ *http.Client, _ *url.URL) { o.require("a.test", "") }, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, f := issuerOffice(t)
			c := o.browser(2)
			resp, _ := get(t, c, "https://a.test/deep", navigation...)
			back, err := url.Parse(atIssuer(t, f, resp))
			if err != nil {
				t.Fatal(err)
			}
			o.proofs.pinned.Load().now = o.clock.time
			tt.change(o, f, c, back)
			resp, body := get(t, c, back.String(), navigation...)
			if resp.StatusCode != tt.status {
				t.Fatalf("got %d %q %s, want %d", resp.StatusCode, resp.Header.Get("Location"), body, tt.status)
			}
			if tt.status == 303 {
				return
			}
			checkHTML2(t, resp, body)
			if len(sessionCookies(resp)) > 0 {
				t.Errorf("it starts a session: %v", resp.Header)
			}
			if strings.Contains(body, "%!") || strings.Contains(body, "%s") {
				t.Errorf("the page is %s", body)
			}
		})
	}
}

func setQuery(u *url.URL, name, value string) {
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
}

func TestIssuerAwayAtTheBeginning(t *testing.T) {
	o, f := issuerOffice(t)
	f.set(func() { f.instead = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) } })
	resp, body := get(t, o.browser(2), "https://a.test/deep", navigation...)
	checkHTML2(t, resp, body)
	if resp.StatusCode != 503 || !strings.Contains(body, "Acme login cannot be reached") || !strings.Contains(body, `href="/deep"`) || len(resp.Cookies()) > 0 {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
	}
	o.proofs.setPinned(nil)
	if resp, body := get(t, o.browser(2), "https://a.test/deep", navigation...); resp.StatusCode != 503 || !strings.Contains(body, "has not been told which") {
		t.Errorf("without issuer: %d %s", resp.StatusCode, body)
	}
}

// Each way in which a session by the issuer ends, ends what is under way, and its tokens.
func TestIssuerSessionsEnd(t *testing.T) {
	tests := []struct {
		name string
		end  func(o *office, f *fakeIssuer)
		ends bool
	}{
		{"nothing", func(*office, *fakeIssuer) {}, false},
		{"the map has other people", func(o *office, _ *fakeIssuer) { o.change(func(t *table) { t.people = people(bob) }) }, false},
		{"the title changes", func(o *office, f *fakeIssuer) { cfg := f.config(); cfg.Title = "Acme"; o.pin(cfg) }, false},
		{"the groups change", func(o *office, f *fakeIssuer) {
			cfg := f.config()
			cfg.Groups = map[string][]string{"accounting": {"others"}}
			o.pin(cfg)
		}, true},
		{"another issuer is pinned", func(o *office, f *fakeIssuer) { o.pin(newFakeIssuer(o.t).config()) }, true},
		{"the issuer refuses the person", func(o *office, f *fakeIssuer) {
			f.set(func() { f.claims["groups"] = []string{"former"} })
			c := o.browser(2)
			resp, _ := get(o.t, c, "https://a.test/", navigation...)
			if resp, _ := get(o.t, c, atIssuer(o.t, f, resp), navigation...); resp.StatusCode != 403 {
				o.t.Errorf("it let them in: %d", resp.StatusCode)
			}
		}, true},
		{"the issuer refuses somebody else", func(o *office, f *fakeIssuer) {
			f.set(func() { f.claims["groups"], f.claims["sub"] = []string{"former"}, "another" })
			c := o.browser(2)
			resp, _ := get(o.t, c, "https://a.test/", navigation...)
			get(o.t, c, atIssuer(o.t, f, resp), navigation...)
		}, false},
		{"time", func(o *office, _ *fakeIssuer) { o.clock.advance(defaultMax + time.Second); o.gate.recheck() }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, f := issuerOffice(t)
			c := o.throughIssuer(f)
			secret := makeToken(t, c, "a.test", patRead)
			if resp, body := o.call("GET", "https://a.test/ledger/x", secret); resp.StatusCode != 200 {
				t.Fatalf("the token gets %d %s", resp.StatusCode, body)
			}
			resp, err := c.Get("https://a.test/drip")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			tt.end(o, f)
			want := 200
			if tt.ends {
				want = 401
				await(t, "the end of what is under way", func() bool { return o.passes() == 0 })
			} else if o.passes() != 1 {
				t.Errorf("%d requests are under way, want 1", o.passes())
			}
			if resp, body := get(t, c, "https://a.test/", program...); resp.StatusCode != want {
				t.Errorf("the session gets %d %s, want %d", resp.StatusCode, body, want)
			}
			if tt.name == "time" {
				want = 200 // tokens have their own
			}
			if resp, body := o.call("GET", "https://a.test/", secret); resp.StatusCode != want {
				t.Errorf("the token gets %d %s, want %d", resp.StatusCode, body, want)
			}
		})
	}
}

// Whoever signs in again under other rules has their tokens back.
func TestIssuerVouchesAgain(t *testing.T) {
	o, f := issuerOffice(t)
	secret := makeToken(t, o.throughIssuer(f), "a.test", patRead)
	cfg := f.config()
	cfg.Groups = map[string][]string{"bosses": {"book-keepers"}}
	o.pin(cfg)
	if resp, _ := o.call("GET", "https://a.test/", secret); resp.StatusCode != 401 {
		t.Errorf("under other rules: %d", resp.StatusCode)
	}
	c := o.throughIssuer(f)
	if resp, body := o.call("GET", "https://a.test/boss/x", secret); resp.StatusCode != 200 {
		t.Errorf("after signing in again: %d %s", resp.StatusCode, body)
	}
	if _, body := get(t, c, "https://a.test"+pathTokens, navigation...); !strings.Contains(body, "backup") || !strings.Contains(body, "30 days after you signed in") {
		t.Errorf("the page is %s", body)
	}
}

// What was begun at the portal before the issuer was required ends there.
func TestPortalWhereAnIssuerIsRequired(t *testing.T) {
	o, _ := issuerOffice(t)
	o.require("a.test", "")
	c := o.browser(2)
	resp, _ := get(t, c, "https://a.test/deep", navigation...)
	back := o.back(resp, o.user(ann))
	o.require("a.test", postern.RequireIssuer)
	resp, body := get(t, c, back, navigation...)
	checkHTML2(t, resp, body)
	if resp.StatusCode != 403 || len(sessionCookies(resp)) > 0 || !strings.Contains(body, "does not count here") {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
	}
	if got := o.gate.sessions.count(); got != 0 {
		t.Errorf("there are %d sessions", got)
	}
}

// Whoever comes late begins once more, as at the portal.
func TestSecondRoundAtTheIssuer(t *testing.T) {
	o, f := issuerOffice(t)
	c := o.browser(2)
	resp, _ := get(t, c, "https://a.test/deep?x=1", navigation...)
	late := func() (*http.Response, string) {
		back := atIssuer(t, f, resp)
		o.clock.advance(stateLife + time.Second)
		return get(t, c, back, navigation...)
	}
	resp, _ = late()
	if resp, body := get(t, c, atIssuer(t, f, resp), navigation...); resp.StatusCode != 303 || resp.Header.Get("Location") != "/deep?x=1" {
		t.Errorf("the second round ends with %d %s", resp.StatusCode, body)
	}
	c = o.browser(2)
	resp, _ = get(t, c, "https://a.test/deep?x=1", navigation...)
	resp, _ = late()
	if resp, body := late(); resp.StatusCode != 400 || !strings.Contains(body, "took too long") || len(sessionCookies(resp)) > 0 {
		t.Errorf("the third round: %d %s", resp.StatusCode, body)
	}
}

// A request that a browser repeats, cookies and all, has its code redeemed once.
func TestIssuerCodeIsRedeemedOnce(t *testing.T) {
	o, f := issuerOffice(t)
	resp, _ := get(t, o.browser(2), "https://a.test/deep", navigation...)
	back, state := atIssuer(t, f, resp), resp.Cookies()[0]
	for _, want := range []int{303, 400} {
		resp, body := get(t, o.client(t, 1), back, append([]string{"Cookie", state.Name + "=" + state.Value}, navigation...)...)
		if resp.StatusCode != want || len(sessionCookies(resp)) > 0 != (want == 303) {
			t.Errorf("got %d %s, want %d", resp.StatusCode, body, want)
		}
	}
	asked := slices.DeleteFunc(f.requests(), func(path string) bool { return path != "/token" })
	if len(asked) != 1 {
		t.Errorf("the code was redeemed %d times", len(asked))
	}
}

// Junk codes are kept from the issuer too.
func TestJunkCodesAtTheIssuer(t *testing.T) {
	o, f := issuerOffice(t)
	last := 0
	for range maxGuesses + 1 {
		c := o.browser(2)
		resp, _ := get(t, c, "https://a.test/deep", navigation...)
		back, err := url.Parse(atIssuer(t, f, resp))
		if err != nil {
			t.Fatal(err)
		}
		setQuery(back, "code", "x")
		resp, _ = get(t, c, back.String(), navigation...)
		last = resp.StatusCode
	}
	asked := slices.DeleteFunc(f.requests(), func(path string) bool { return path != "/token" })
	if last != 429 || len(asked) != maxGuesses {
		t.Errorf("the last got %d, and the issuer was asked %d times", last, len(asked))
	}
}
