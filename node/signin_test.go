package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern"
)

func TestSignIn(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Upstream: application(t, echo)}})
	c := o.browser(2)

	// A deep link leads to the portal, and nothing of it to the application.
	resp, _ := get(t, c, "https://a.test/y/2026?open=1&q=%C3%BC", navigation...)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Referrer-Policy") != "no-referrer" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("a stranger's link leads to %d %v", resp.StatusCode, resp.Header)
	}
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "a.test", "redirect_uri": "https://a.test:8443" + pathCallback,
		"code_challenge_method": "S256", "scope": "openid profile",
	} {
		if got := q.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(q.Get(name)) < 43 {
			t.Errorf("%s is %q, want 256 bits", name, q.Get(name))
		}
	}
	if strings.Contains(u.String(), "2026") {
		t.Errorf("the portal can read the link: %s", u)
	}
	set := resp.Cookies()
	if len(set) != 1 || !strings.HasPrefix(set[0].Name, cookieState) || set[0].MaxAge != 300 {
		t.Errorf("cookies of a sign-in under way: %v", set)
	}
	checkCookies(t, set)

	// The portal sends the browser back, with the code and the state.
	back := o.back(resp, o.user(ann))
	resp, body := get(t, c, back, navigation...)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/y/2026?open=1&q=%C3%BC" {
		t.Fatalf("the sign-in ends with %d %v %s", resp.StatusCode, resp.Header, body)
	}
	if resp.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Error("the code can be seen in the Referer")
	}
	checkCookies(t, resp.Cookies())
	held := cookies(c, "a.test")
	if len(held[cookieSession]) != 43 || len(held) != 2 || held[cookieRounds] != "1" {
		t.Errorf("cookies after the sign-in: %v", held)
	}
	for _, s := range o.gate.sessions.byHash {
		if strings.Contains(s.Hash, held[cookieSession]) || s.Hash != secretHash(held[cookieSession]) {
			t.Errorf("what is kept of secret %q is %q", held[cookieSession], s.Hash)
		}
	}

	// The application hears who it is, and nothing of ours.
	_, body = get(t, c, "https://a.test/y/2026?open=1", "Cookie", "theirs=1; also=2")
	got := hear(t, body)
	if got.URI != "/y/2026?open=1" {
		t.Errorf("the application was asked for %q", got.URI)
	}
	want := map[string]string{
		headerUser: "ann@acme.test", headerUserID: "u-ann", headerName: "Ann M%C3%BCller", headerRole: "member", "Cookie": "theirs=1; also=2",
	}
	for name, value := range want {
		if got.Header[name] != value {
			t.Errorf("%s is %q, want %q", name, got.Header[name], value)
		}
	}
	if got.Header[headerIdentity] == "" || got.Header[headerGroups] != "" {
		t.Errorf("header is %v", got.Header)
	}

	// The callback is of no use a second time, to this browser or another.
	if resp, _ := get(t, c, back, navigation...); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/y/2026?open=1&q=%C3%BC" {
		t.Errorf("loading the callback again: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := get(t, o.browser(2), back, navigation...); len(sessionCookies(resp)) > 0 || !strings.HasPrefix(resp.Header.Get("Location"), testIssuer) {
		t.Errorf("the callback in another browser: %d %v", resp.StatusCode, resp.Header)
	}
}

// sessionCookies returns the sessions that resp begins.
func sessionCookies(resp *http.Response) (list []*http.Cookie) {
	for _, c := range resp.Cookies() {
		if c.Name == cookieSession && c.MaxAge >= 0 {
			list = append(list, c)
		}
	}
	return list
}

func checkCookies(t *testing.T, list []*http.Cookie) {
	t.Helper()
	for _, c := range list {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
			t.Errorf("cookie %v", c)
		}
	}
}

// Each of the portal's answers that is not as it should be signs nobody in.
func TestCallbackRefuses(t *testing.T) {
	type claims = map[string]any
	type header = map[jose.HeaderKey]any
	with := func(name string, value any) func(*testing.T, *office) {
		return func(_ *testing.T, o *office) { o.portal.forge = func(_ header, c claims) { c[name] = value } }
	}
	without := func(name string) func(*testing.T, *office) {
		return func(_ *testing.T, o *office) { o.portal.forge = func(_ header, c claims) { delete(c, name) } }
	}
	signed := func(alg jose.SignatureAlgorithm, key func(o *office) any) func(*testing.T, *office) {
		return func(t *testing.T, o *office) {
			o.portal.sign = func(h header, c claims) string { return signToken(t, alg, key(o), h, c) }
		}
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T, o *office)
		status  int
		says    string
	}{
		{"another nonce", with("nonce", "x"), 502, "cannot be verified"},
		{"no nonce", without("nonce"), 502, "cannot be verified"},
		{"another audience", with("aud", "b.test"), 502, "cannot be verified"},
		{"another audience too", with("aud", []string{"a.test", "b.test"}), 502, "cannot be verified"},
		{"the audience of access tokens", with("aud", "https://a.test:8443"), 502, "cannot be verified"},
		{"another issuer", with("iss", "https://evil.test"), 502, "cannot be verified"},
		{"another tenant", with("tenant", "globex"), 502, "cannot be verified"},
		{"nobody", with("sub", ""), 502, "cannot be verified"},
		{"no session", without("sid"), 502, "cannot be verified"},
		{"no time", without("auth_time"), 502, "cannot be verified"},
		{"another access token", with("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), 502, "cannot be verified"},
		{"an access token", func(_ *testing.T, o *office) {
			o.portal.forge = func(h header, _ claims) { h["typ"] = "at+jwt" }
		}, 502, "cannot be verified"},
		{"another's key", signed(jose.ES256, func(*office) any { return stranger }), 502, "cannot be verified"},
		{"HMAC with the public key", signed(jose.HS256, func(o *office) any {
			der, err := o.portal.key.PublicKey.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			return der
		}), 502, "cannot be verified"},
		{"no signature", func(t *testing.T, o *office) {
			o.portal.sign = func(_ header, c claims) string {
				text, err := json.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				enc := base64.RawURLEncoding.EncodeToString
				return enc([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + enc(text) + "."
			}
		}, 502, "cannot be verified"},
		{"nonsense", func(_ *testing.T, o *office) {
			o.portal.sign = func(header, claims) string { return "nonsense" }
		}, 502, "cannot be verified"},
		{"a clock that is ahead", func(_ *testing.T, o *office) {
			o.portal.now = func() time.Time { return o.clock.time().Add(-20 * time.Minute) }
		}, 503, "20m0s ahead"},
		{"the coordinator is away", func(_ *testing.T, o *office) { o.portal.away = errors.New("no route") }, 503, "cannot be asked"},
		{"the coordinator refuses the node", func(_ *testing.T, o *office) {
			o.portal.away = postern.NewProblem(403, postern.CodeForbidden, "a.test is not yours", "")
		}, 503, "cannot be asked"},
		{"signed out everywhere since", func(_ *testing.T, o *office) {
			o.change(func(t *table) {
				p := ann
				p.NotBefore = o.clock.time().Add(time.Hour).Unix()
				t.people = people(p)
			})
		}, 403, "has been opened to you"},
		{"session ended since", func(_ *testing.T, o *office) {
			o.change(func(t *table) { t.ended = map[string]bool{"sid-u-ann": true} })
		}, 403, "has been opened to you"},
		{"of no tenant here", func(_ *testing.T, o *office) {
			o.change(func(t *table) { t.people = people(bob) })
		}, 403, "has been opened to you"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // who is waited for in vain is so for some seconds
			o := newOffice(t, map[string]Service{"a.test": hello("a")})
			tt.prepare(t, o)
			c := o.browser(2)
			resp, _ := get(t, c, "https://a.test/x", navigation...)
			resp, body := get(t, c, o.back(resp, o.user(ann)), navigation...)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) {
				t.Errorf("got %d %s, want %d and %q", resp.StatusCode, body, tt.status, tt.says)
			}
			if len(sessionCookies(resp)) > 0 || o.gate.sessions.count() > 0 {
				t.Error("somebody is signed in")
			}
			if resp, _ := get(t, c, "https://a.test/x"); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("the application is asked: %d", resp.StatusCode)
			}
		})
	}
}

// Clocks are never quite the same.
func TestSmallSkewIsNone(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, -5 * time.Minute, 5 * time.Minute} {
		o := newOffice(t, map[string]Service{"a.test": hello("a")})
		o.portal.now = func() time.Time { return o.clock.time().Add(-ahead) }
		o.signIn(o.browser(2), "a.test", o.user(ann))
	}
}

// What comes to the callback and is no sign-in of this browser's, at this host.
func TestStates(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a"), "b.test": hello("b")})
	begin := func(c *http.Client, host string) (*url.URL, string) {
		resp, _ := get(t, c, "https://"+host+"/x", navigation...)
		u, err := url.Parse(o.back(resp, o.user(ann)))
		if err != nil {
			t.Fatal(err)
		}
		return u, u.Query().Get("state")
	}
	change := func(u *url.URL, name, value string) string {
		q := u.Query()
		q.Set(name, value)
		u.RawQuery = q.Encode()
		return u.String()
	}
	flip := func(s string) string {
		b := []byte(s)
		b[len(b)/2] ^= 1
		return string(b)
	}
	tests := []struct {
		name   string
		url    func(mine, others *http.Client) string // by the one, in the other's hands
		again  bool                                   // whether a sign-in begins anew
		status int
	}{
		{"tampered", func(c, _ *http.Client) string { u, s := begin(c, "a.test"); return change(u, "state", flip(s)) }, false, 400},
		{"cut short", func(c, _ *http.Client) string { u, s := begin(c, "a.test"); return change(u, "state", s[:20]) }, false, 400},
		{"none", func(c, _ *http.Client) string { u, _ := begin(c, "a.test"); return change(u, "state", "") }, false, 400},
		{"of another host", func(c, _ *http.Client) string {
			u, _ := begin(c, "b.test")
			return strings.Replace(u.String(), "b.test", "a.test", 1)
		}, false, 400},
		{"another issuer", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			return change(u, "iss", "https://evil.test")
		}, false, 400},
		{"the portal refuses", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			return change(u, "error", "access_denied")
		}, false, 403},
		{"the portal is in trouble", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			return change(u, "error", "server_error")
		}, false, 503},
		{"the portal says what it never does", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			return change(u, "error", "invalid_scope")
		}, false, 502},

		// An attacker's own, in the victim's browser: the attacker is not signed in there.
		{"of another browser", func(_, other *http.Client) string { u, _ := begin(other, "a.test"); return u.String() }, true, 303},
		{"a code of another sign-in", func(c, other *http.Client) string {
			theirs, _ := begin(other, "a.test")
			mine, _ := begin(c, "a.test")
			return change(mine, "code", theirs.Query().Get("code"))
		}, true, 303},
		{"a code that was used", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			o.portal.mu.Lock()
			delete(o.portal.codes, u.Query().Get("code"))
			o.portal.mu.Unlock()
			return u.String()
		}, true, 303},
		{"no code", func(c, _ *http.Client) string { u, _ := begin(c, "a.test"); return change(u, "code", "") }, true, 303},
		{"expired", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			o.clock.advance(stateLife + time.Second)
			return u.String()
		}, true, 303},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mine, others := o.browser(2), o.browser(2)
			resp, body := get(t, mine, tt.url(mine, others), navigation...)
			if resp.StatusCode != tt.status || strings.HasPrefix(resp.Header.Get("Location"), testIssuer) != tt.again {
				t.Fatalf("got %d %v %s, want %d", resp.StatusCode, resp.Header, body, tt.status)
			}
			if len(sessionCookies(resp)) > 0 {
				t.Error("somebody is signed in")
			}
			if !tt.again {
				checkHTML2(t, resp, body)
				return
			}
			// The second round leads to where the first was to, and a third there is not.
			u, err := url.Parse(o.back(resp, o.user(ann)))
			if err != nil {
				t.Fatal(err)
			}
			bad := *u
			if resp, body := get(t, mine, change(&bad, "code", "x"), navigation...); resp.StatusCode != 400 {
				t.Errorf("the second failure: %d %s", resp.StatusCode, body)
			}
		})
	}
	if n := o.gate.sessions.count(); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// checkHTML2 is checkHTML for pages that have links.
func checkHTML2(t *testing.T, resp *http.Response, body string) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("Content-Type is %q", got)
	}
	if got := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; ") || !strings.Contains(got, "frame-ancestors 'none'") {
		t.Errorf("Content-Security-Policy is %q", got)
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "javascript:") || !strings.Contains(body, "f00dfeed-") {
		t.Errorf("the page is %s", body)
	}
}

// A sign-in that failed begins once more, and leads to where the first was to.
func TestSecondRound(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	c := o.browser(2)
	resp, _ := get(t, c, "https://a.test/deep?x=1", navigation...)
	late := o.back(resp, o.user(ann))
	o.clock.advance(time.Hour)
	resp, _ = get(t, c, late, navigation...)
	resp, body := get(t, c, o.back(resp, o.user(ann)), navigation...)
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/deep?x=1" || len(sessionCookies(resp)) != 1 {
		t.Errorf("the second round ends with %d %v %s", resp.StatusCode, resp.Header, body)
	}
}

// Many tabs at once each come to where they were to, and leave nothing behind.
func TestManyTabs(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	c := o.browser(2)
	backs := map[string]string{}
	for _, path := range []string{"/1", "/2", "/3", "/4", "/5"} {
		resp, _ := get(t, c, "https://a.test"+path, navigation...)
		backs[path] = o.back(resp, o.user(ann))
	}
	for path, back := range backs {
		if resp, _ := get(t, c, back, navigation...); resp.Header.Get("Location") != path {
			t.Errorf("tab %s came to %q", path, resp.Header.Get("Location"))
		}
	}
	if got := slices.Sorted(maps.Keys(cookies(c, "a.test"))); !slices.Equal(got, []string{cookieSession, cookieRounds}) {
		t.Errorf("cookies left: %q", got)
	}
	if n := o.gate.sessions.count(); n != 1 {
		t.Errorf("%d sessions of one browser", n)
	}
}

// Sign-ins that nobody finishes do not fill the browser's cookies.
func TestStateCookiesAreBounded(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	c := o.browser(2)
	most := 0
	for range 50 {
		get(t, c, "https://a.test/", navigation...)
		most = max(most, len(cookies(c, "a.test")))
	}
	if most > maxStates {
		t.Errorf("a browser has %d cookies of sign-ins, want %d at most", most, maxStates)
	}
}

func TestLogin(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	iss := "iss=" + url.QueryEscape(testIssuer)
	tests := []struct {
		name, query string
		target      string // empty: refused
		says        string
	}{
		{"no target", iss, "/", ""},
		{"a path", iss + "&target=/y/2026%3Fq%3D1%23top", "/y/2026?q=1#top", ""},
		{"beyond ASCII", iss + "&target=/b%C3%BCcher", "/b%C3%BCcher", ""},
		{"the tokens' page", iss + "&target=" + pathTokens, pathTokens, ""},

		{"no issuer", "target=/", "", "does not know"},
		{"another issuer", "iss=https://evil.test&target=/", "", "does not know"},
		{"an issuer with a slash", iss + "/&target=/", "", "does not know"},
		{"another site", iss + "&target=https://evil.test/", "", "another place"},
		{"a host", iss + "&target=//evil.test/", "", "another place"},
		{"a host for browsers", iss + "&target=/%5Cevil.test/", "", "another place"},
		{"a host behind a tab", iss + "&target=/%09/evil.test/", "", "another place"},
		{"a script", iss + "&target=javascript:alert(1)", "", "another place"},
		{"a header", iss + "&target=/%0d%0aSet-Cookie:x=1", "", "another place"},
		{"itself", iss + "&target=" + url.QueryEscape(pathLogin+"?"+iss), "", "another place"},
		{"the callback", iss + "&target=" + pathCallback, "", "another place"},
		{"itself, encoded", iss + "&target=/.well-known/postern%252Flogin", "", "another place"},
		{"too long", iss + "&target=/" + strings.Repeat("x", postern.MaxPath), "", "another place"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := o.browser(2)
			resp, body := get(t, c, "https://a.test"+pathLogin+"?"+tt.query, navigation...)
			if tt.target == "" {
				if resp.StatusCode != 400 || !strings.Contains(body, tt.says) || len(resp.Cookies()) > 0 {
					t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
				}
				checkHTML2(t, resp, body)
				return
			}
			if resp.StatusCode != 303 {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			resp, body = get(t, c, o.back(resp, o.user(ann)), navigation...)
			if got := resp.Header.Get("Location"); got != tt.target {
				t.Errorf("the sign-in leads to %q %s, want %q", got, body, tt.target)
			}
		})
	}
	// Who is somebody else at the portal by now is so here.
	c := o.signedIn("a.test", ann)
	o.signIn(c, "a.test", o.user(bob))
	if _, body := get(t, c, "https://a.test"+ownPath+"whoami"); !strings.Contains(body, `"login":"bob"`) {
		t.Errorf("whoami: %s", body)
	}
	if n := o.gate.sessions.count(); n == 0 || n > 5 {
		t.Errorf("%d sessions", n)
	}
}

// Where a link would lead to another site, the sign-in leads to the first page.
func TestDeepLinks(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	for path, want := range map[string]string{
		"/a//b?c=d":                            "/a//b?c=d",
		"//evil.test/x":                        "/",
		"///evil.test":                         "/",
		"/%5Cevil.test":                        "/%5Cevil.test",
		"/x?" + strings.Repeat("q", 1100):      "/x",
		"/" + strings.Repeat("x", 1100) + "?q": "/",
		"/%C3%BC?x=\\y":                        "/%C3%BC",
	} {
		c := o.browser(1)
		resp, _ := get(t, c, "https://a.test"+path, navigation...)
		resp, body := get(t, c, o.back(resp, o.user(ann)), navigation...)
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("%.50s leads back to %q %s, want %q", path, got, body, want)
		}
	}
}

// Somebody who was granted the tenant a moment ago comes before the map does.
func TestGrantOnItsWay(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	dave := postern.Person{ID: "u-dave", Login: "dave", Role: postern.TenantMember}
	c := o.browser(2)
	resp, _ := get(t, c, "https://a.test/", navigation...)
	back := o.back(resp, o.user(dave))
	answered := make(chan *http.Response, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		resp, _ := get(t, c, back, navigation...)
		answered <- resp
	})
	await(t, "the code to be redeemed", func() bool {
		o.portal.mu.Lock()
		defer o.portal.mu.Unlock()
		return len(o.portal.codes) == 0
	})
	o.change(func(t *table) { t.people = people(ann) }) // news of somebody else
	o.change(func(t *table) { t.people = people(ann, dave) })
	if resp := <-answered; resp.StatusCode != 303 || len(sessionCookies(resp)) != 1 {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

// A browser that does not keep the session is not sent round and round.
func TestNoEndlessRounds(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	c := o.browser(2)
	for round := range 10 {
		resp, body := get(t, c, "https://a.test/x", navigation...)
		if resp.StatusCode == http.StatusForbidden {
			if round != maxRounds || !strings.Contains(body, "does not last") {
				t.Errorf("after %d rounds: %s", round, body)
			}
			checkHTML2(t, resp, body)
			// By hand it can be tried again.
			if resp, _ := get(t, c, "https://a.test/x", navigation...); resp.StatusCode != 303 {
				t.Errorf("trying again: %d", resp.StatusCode)
			}
			return
		}
		get(t, c, o.back(resp, o.user(ann)), navigation...)
		for hash := range o.gate.sessions.byHash { // it is lost
			o.gate.sessions.end(hash)
		}
	}
	t.Error("the browser is sent round and round")
}

// A code is not used up by who only looks ahead.
func TestCallbackByHead(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	c := o.browser(2)
	resp, _ := get(t, c, "https://a.test/", navigation...)
	back := o.back(resp, o.user(ann))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, back, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, _ := do(t, c, req); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
	if resp, _ := get(t, c, back, navigation...); resp.StatusCode != 303 || len(sessionCookies(resp)) != 1 {
		t.Errorf("GET after HEAD: %d", resp.StatusCode)
	}
}

func TestLogout(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a"), "b.test": hello("b")})
	c := o.signedIn("a.test", ann)
	o.signIn(c, "b.test", o.user(ann))
	post := func(header ...string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.test"+pathLogout, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", acceptBrowser)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		return do(t, c, req)
	}
	// A sibling's page, which SameSite takes for one of ours.
	for _, header := range [][]string{{"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://b.test"}, {"Origin", "null"}} {
		if resp, body := post(header...); resp.StatusCode != http.StatusForbidden || o.gate.sessions.count() != 2 {
			t.Errorf("%q: %d %s", header, resp.StatusCode, body)
		}
	}
	if resp, _ := get(t, c, "https://a.test"+pathLogout); resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET signs out: %d", resp.StatusCode)
	}
	old := cookies(c, "a.test")[cookieSession]
	resp, body := post("Sec-Fetch-Site", "same-origin")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "You are signed out") || !strings.Contains(body, `href="`+testIssuer+`/"`) {
		t.Errorf("sign out: %d %s", resp.StatusCode, body)
	}
	if got := cookies(c, "a.test"); len(got) > 0 {
		t.Errorf("cookies left: %v", got)
	}
	if resp, _ := get(t, o.client(t, 1), "https://a.test/", "Cookie", cookieSession+"="+old); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the cookie of before: %d", resp.StatusCode)
	}
	if resp, body := get(t, c, "https://b.test/"); body != "b" {
		t.Errorf("the other service: %d %s", resp.StatusCode, body)
	}
	if resp, _ := post("Accept", "*/*"); resp.StatusCode != http.StatusNoContent {
		t.Errorf("signing out twice, by a program: %d", resp.StatusCode)
	}
}

// FuzzState asserts that what a node did not seal for this opens nothing.
func FuzzState(f *testing.F) {
	s, err := newSealer(make([]byte, sealKeySize))
	if err != nil {
		f.Fatal(err)
	}
	good := s.seal(statePurpose, signInState{Host: "a.test", Target: "/"})
	other := s.seal("another purpose", signInState{Host: "a.test", Target: "/"})
	for _, seed := range []string{good, other, "", good[1:], good + "A", good + "=", good + "\n", strings.ToUpper(good), "AAAA", "%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var st signInState
		if err := s.open(statePurpose, text, &st); (err == nil) != (text == good) {
			t.Errorf("open(%q): %v", text, err)
		} else if err != nil && (!errors.Is(err, errSealed) || st != signInState{}) {
			t.Errorf("open(%q): %v, %+v", text, err, st)
		}
	})
}
