package node

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
	if len(set) != 1 || !strings.HasPrefix(set[0].Name, cookieState) || set[0].MaxAge != 3600 {
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
	for name, c := range map[string]*http.Client{"again": c, "in another browser": o.browser(2)} {
		if resp, body := get(t, c, back, navigation...); resp.StatusCode != 400 || len(sessionCookies(resp)) > 0 || !strings.Contains(body, `href="/y/2026`) {
			t.Errorf("the callback %s: %d %v %s", name, resp.StatusCode, resp.Header, body)
		}
	}
	if _, body := get(t, c, "https://a.test/"); hear(t, body).Header[headerUserID] != "u-ann" {
		t.Error("the callback signed somebody out")
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

// A sign-in that took too long begins once more, and leads to where the first was to.
func TestSecondRound(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	c := o.browser(2)
	resp, _ := get(t, c, "https://a.test/deep?x=1", navigation...)
	late := o.back(resp, o.user(ann))
	o.clock.advance(stateLife + time.Second)
	resp, _ = get(t, c, late, navigation...)
	again := o.back(resp, o.user(ann))
	resp, body := get(t, c, again, navigation...)
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/deep?x=1" || len(sessionCookies(resp)) != 1 {
		t.Errorf("the second round ends with %d %v %s", resp.StatusCode, resp.Header, body)
	}

	// There is no third.
	c = o.browser(2)
	resp, _ = get(t, c, "https://a.test/deep?x=1", navigation...)
	for range maxRounds - 1 {
		late = o.back(resp, o.user(ann))
		o.clock.advance(stateLife + time.Second)
		resp, _ = get(t, c, late, navigation...)
	}
	late = o.back(resp, o.user(ann))
	o.clock.advance(stateLife + time.Second)
	if resp, body := get(t, c, late, navigation...); resp.StatusCode != 400 || !strings.Contains(body, "took too long") {
		t.Errorf("the third round: %d %s", resp.StatusCode, body)
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
	o := newOfficeWith(t, map[string]Service{"a.test": hello("a")}, serverConfig{grantWait: 20 * time.Second})
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

// Whoever looks after the machine finds in the log who forges forms.
func TestForgedFormsAreLogged(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	var log strings.Builder
	o.gate.log = slog.New(slog.NewTextHandler(&log, nil))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.test"+pathLogout, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://evil.test")
	resp, _ := do(t, o.client(t, 2), req)
	if resp.StatusCode != 403 || !strings.Contains(log.String(), "evil.test") || !strings.Contains(log.String(), pathLogout) {
		t.Errorf("got %d, and the log is %q", resp.StatusCode, log.String())
	}
}

// FuzzState asserts that what a node did not seal for this opens nothing.
func FuzzState(f *testing.F) {
	s, err := newSealer(make([]byte, sealKeySize))
	if err != nil {
		f.Fatal(err)
	}
	want := signInState{Host: "a.test", Target: "/"}
	good := s.seal(statePurpose, want)
	other := s.seal("another purpose", signInState{Host: "b.test", Target: "/"})
	for _, seed := range []string{good, other, "", good[1:], good + "A", good + "=", good + "\n", strings.ToUpper(good), "AAAA", "%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var st signInState
		switch err := s.open(statePurpose, text, &st); {
		case err == nil && st != want: // another process of the fuzzer's sealed its own
			t.Errorf("open(%q): %+v", text, st)
		case err != nil && (!errors.Is(err, errSealed) || st != signInState{}):
			t.Errorf("open(%q): %v, %+v", text, err, st)
		}
		if again := (signInState{}); text == good && s.open(statePurpose, text, &again) != nil {
			t.Error("what was sealed does not open")
		}
	})
}
