package node

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
)

// step posts v to a step of the passkey pages at host, and returns the answer.
func step(t *testing.T, c *http.Client, host, path string, v any) (*http.Response, string) {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return submit(t, c, "https://"+host+path, typeJSON, string(body))
}

// must fails the test unless the step succeeded.
func must(t *testing.T) func(resp *http.Response, body string) string {
	t.Helper()
	return func(resp *http.Response, body string) string {
		t.Helper()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", resp.Request.URL, resp.StatusCode, body)
		}
		return body
	}
}

// enrolled gives who a passkey at host, by the link that the node's machine makes.
func (o *office) enrolled(host string, who postern.Person) *authenticator {
	o.t.Helper()
	codes, _, err := o.proofs.passkeys.invite([]passkeyOwner{ownerAt(host, who)}, o.clock.time())
	if err != nil {
		o.t.Fatal(err)
	}
	code := codes[0]
	a := newAuthenticator(o.t, "https://"+host+":8443")
	c := o.browser(2)
	options := must(o.t)(step(o.t, c, host, pathEnrol+"/options", map[string]string{"code": code}))
	must(o.t)(step(o.t, c, host, pathEnrol+"/finish", map[string]any{"code": code, "credential": json.RawMessage(a.create(options))}))
	return a
}

// usePasskey completes the sign-in of c at host, and returns where that led to.
func (o *office) usePasskey(c *http.Client, host string, a *authenticator) (*http.Response, string) {
	o.t.Helper()
	options := must(o.t)(step(o.t, c, host, pathPasskey+"/options", map[string]string{}))
	return step(o.t, c, host, pathPasskey+"/finish", map[string]any{"target": "/deep?x=1", "credential": json.RawMessage(a.get(options))})
}

func passkeyOffice(t *testing.T) *office {
	return newOffice(t, map[string]Service{
		"a.test": {Title: "Books", Upstream: application(t, echo), Require: postern.RequirePasskey, Exceptions: []Exception{{Path: "/hooks/", Access: postern.AccessPublic}}},
		"b.test": {Upstream: application(t, echo), Require: postern.RequirePasskey},
		"c.test": {Upstream: application(t, echo)},
	})
}

func TestPasskeyRequired(t *testing.T) {
	o := passkeyOffice(t)
	a := o.enrolled("a.test", ann)
	c := o.browser(2)
	resp, _ := get(t, c, "https://a.test/deep?x=1", navigation...)
	resp, _ = get(t, c, o.back(resp, o.user(ann)), navigation...)
	before := cookies(c, "a.test")[cookieSession]

	// Signed in at the portal, and that is not enough for anything.
	resp, _ = get(t, c, "https://a.test"+resp.Header.Get("Location"), navigation...)
	at := resp.Header.Get("Location")
	if resp.StatusCode != 303 || at != pathPasskey+"?target=%2Fdeep%3Fx%3D1" {
		t.Fatalf("it leads to %d %q", resp.StatusCode, at)
	}
	resp, body := get(t, c, "https://a.test/deep", program...)
	checkProblem(t, resp, body, 403, postern.CodeForbidden)
	if _, body := get(t, c, "https://a.test"+ownPath+"whoami"); strings.Contains(body, "u-ann") {
		t.Errorf("whoami is %s", body)
	}
	if _, body := get(t, c, "https://a.test/hooks/x", program...); hear(t, body).Header[headerUser] != "" {
		t.Errorf("where everybody may come, the application heard %s", body)
	}
	resp, _ = get(t, c, "https://a.test"+pathTokens, navigation...)
	if resp.StatusCode != 303 || resp.Header.Get("Location") != pathPasskey+"?target="+url.QueryEscape(pathTokens) {
		t.Errorf("the tokens lead to %d %q", resp.StatusCode, resp.Header.Get("Location"))
	}

	resp, body = get(t, c, "https://a.test"+at, navigation...)
	if resp.StatusCode != 200 || !strings.Contains(body, ann.Login) || !strings.Contains(body, `data-target="/deep?x=1"`) ||
		!strings.Contains(resp.Header.Get("Content-Security-Policy"), "; form-action 'none'; script-src 'self'; connect-src 'self'") {
		t.Errorf("the page is %d %v %s", resp.StatusCode, resp.Header, body)
	}
	o.clock.advance(time.Minute)
	resp, body = o.usePasskey(c, "a.test", a)
	if resp.StatusCode != 200 || strings.TrimSpace(body) != `{"next":"/deep?x=1"}` || len(sessionCookies(resp)) != 1 {
		t.Fatalf("the passkey leads to %d %v %s", resp.StatusCode, resp.Header, body)
	}
	resp, body = get(t, c, "https://a.test/deep?x=1", navigation...)
	if h := hear(t, body); resp.StatusCode != 200 || h.Header[headerUser] != ann.Login || h.Header[headerUserID] != ann.ID {
		t.Errorf("the application heard %+v", h)
	}
	// The secret from before is nobody's.
	if before == cookies(c, "a.test")[cookieSession] {
		t.Error("the session kept its secret")
	}
	if resp, _ := get(t, o.client(t, 2), "https://a.test/", append(slices.Clone(program), "Cookie", cookieSession+"="+before)...); resp.StatusCode != 401 {
		t.Errorf("with the secret from before: %d", resp.StatusCode)
	}
	if got := o.methods(t, "a.test"); !slices.Equal(got, []string{"pwd", "hwk"}) {
		t.Errorf("the session's methods are %v", got)
	}
	// It is asked for once, and its page leads on.
	if resp, _ := get(t, c, "https://a.test"+at, navigation...); resp.StatusCode != 303 || resp.Header.Get("Location") != "/deep?x=1" {
		t.Errorf("the page leads on to %d %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	if resp, _ := step(t, c, "a.test", pathPasskey+"/options", map[string]string{}); resp.StatusCode != 409 {
		t.Errorf("options for nothing: %d", resp.StatusCode)
	}
	// The limit of the whole session is that of its beginning.
	o.clock.advance(defaultIdle - time.Minute)
	for range 30 {
		if resp, _ = get(t, c, "https://a.test/", program...); resp.StatusCode != 200 {
			break
		}
		o.clock.advance(defaultIdle - time.Minute)
	}
	if got := o.clock.time().Sub(o.began(t)); resp.StatusCode != 401 || got > defaultMax+defaultIdle {
		t.Errorf("it lasted for %v", got)
	}
}

// methods returns how the one session at host was proven.
func (o *office) methods(t *testing.T, host string) []string {
	t.Helper()
	o.gate.sessions.mu.Lock()
	defer o.gate.sessions.mu.Unlock()
	for _, s := range o.gate.sessions.byHash {
		if s.Host == host {
			return s.Methods
		}
	}
	return nil
}

// began returns when the one session began.
func (o *office) began(t *testing.T) time.Time {
	t.Helper()
	o.gate.sessions.mu.Lock()
	defer o.gate.sessions.mu.Unlock()
	for _, s := range o.gate.sessions.byHash {
		return s.Created
	}
	t.Fatal("no session")
	return time.Time{}
}

// A session is as good as what it was proven with.
func TestPasskeySessionEnds(t *testing.T) {
	renamed, other := ann, ann
	renamed.Login, other.ID = "boss@acme.test", "u-boss"
	tests := []struct {
		name string
		end  func(o *office)
		want int
	}{
		{"nothing", func(*office) {}, 200},
		{"the passkey is removed", func(o *office) {
			if _, err := o.proofs.passkeys.remove(o.proofs.passkeys.of(ownerAt("a.test", ann))[0].ID); err != nil {
				o.t.Fatal(err)
			}
			o.gate.recheck()
		}, 403},
		{"the login is another's", func(o *office) { o.change(func(t *table) { t.people = people(renamed) }) }, 403},
		{"signed out at the portal", func(o *office) {
			o.change(func(t *table) { t.ended = map[string]bool{"sid-u-ann": true} })
		}, 401},
		{"revoked", func(o *office) { o.change(func(t *table) { t.people = people(bob) }) }, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := passkeyOffice(t)
			a := o.enrolled("a.test", ann)
			c := o.signedIn("a.test", ann)
			must(t)(o.usePasskey(c, "a.test", a))
			secret := makeToken(t, c, "a.test", patRead)
			tt.end(o)
			if resp, body := get(t, c, "https://a.test/", program...); resp.StatusCode != tt.want {
				t.Errorf("the session gets %d %s, want %d", resp.StatusCode, body, tt.want)
			}
			// So are its tokens, but for signing out.
			want := tt.want
			if tt.name == "signed out at the portal" {
				want = 200
			}
			if resp, body := o.call("GET", "https://a.test/", secret); resp.StatusCode != want {
				t.Errorf("its token gets %d %s, want %d", resp.StatusCode, body, want)
			}
		})
	}
}

func TestPasskeyPagesRefuse(t *testing.T) {
	o := passkeyOffice(t)
	anns, bobs := o.enrolled("a.test", ann), o.enrolled("a.test", bob)
	elsewhere := o.enrolled("b.test", ann)
	finish := func(c *http.Client, target string, a *authenticator) (*http.Response, string) {
		options := must(t)(step(t, c, "a.test", pathPasskey+"/options", map[string]string{}))
		return step(t, c, "a.test", pathPasskey+"/finish", map[string]any{"target": target, "credential": json.RawMessage(a.get(options))})
	}
	tests := []struct {
		name   string
		try    func(c *http.Client) (*http.Response, string) // c's: Ann's, signed in at the portal
		status int
	}{
		{"page, nobody", func(*http.Client) (*http.Response, string) {
			return get(t, o.browser(2), "https://a.test"+pathPasskey+"?target=/", navigation...)
		}, 303},
		{"options, nobody", func(*http.Client) (*http.Response, string) {
			return step(t, o.browser(2), "a.test", pathPasskey+"/options", struct{}{})
		}, 401},
		{"finish, nobody", func(*http.Client) (*http.Response, string) {
			return step(t, o.browser(2), "a.test", pathPasskey+"/finish", struct{}{})
		}, 401},
		{"page to elsewhere", func(c *http.Client) (*http.Response, string) {
			return get(t, c, "https://a.test"+pathPasskey+"?target=https://evil.test/", navigation...)
		}, 400},
		{"page to a host behind two slashes", func(c *http.Client) (*http.Response, string) {
			return get(t, c, "https://a.test"+pathPasskey+"?target=//evil.test/", navigation...)
		}, 400},
		{"page to itself", func(c *http.Client) (*http.Response, string) {
			return get(t, c, "https://a.test"+pathPasskey+"?target="+pathPasskey, navigation...)
		}, 400},
		{"page to nowhere", func(c *http.Client) (*http.Response, string) {
			return get(t, c, "https://a.test"+pathPasskey, navigation...)
		}, 400},
		{"finish to elsewhere", func(c *http.Client) (*http.Response, string) { return finish(c, "https://evil.test/", anns) }, 400},
		{"finish to a script", func(c *http.Client) (*http.Response, string) { return finish(c, "javascript:alert(1)", anns) }, 400},
		{"somebody else's passkey", func(c *http.Client) (*http.Response, string) { return finish(c, "/", bobs) }, 403},
		{"another host's passkey", func(c *http.Client) (*http.Response, string) { return finish(c, "/", elsewhere) }, 403},
		{"a copy", func(c *http.Client) (*http.Response, string) {
			copied := *anns
			copied.counter = 0
			return finish(c, "/", &copied)
		}, 403},
		{"finish without options", func(c *http.Client) (*http.Response, string) {
			return step(t, c, "a.test", pathPasskey+"/finish", map[string]any{"target": "/", "credential": map[string]string{}})
		}, 403},
		{"nothing", func(c *http.Client) (*http.Response, string) {
			return submit(t, c, "https://a.test"+pathPasskey+"/finish", typeJSON, "")
		}, 400},
		{"no object", func(c *http.Client) (*http.Response, string) {
			return submit(t, c, "https://a.test"+pathPasskey+"/finish", typeJSON, `"x"`)
		}, 400},
		{"an unknown field", func(c *http.Client) (*http.Response, string) {
			return submit(t, c, "https://a.test"+pathPasskey+"/finish", typeJSON, `{"target":"/","user":"u-bob"}`)
		}, 400},
		{"two objects", func(c *http.Client) (*http.Response, string) {
			return submit(t, c, "https://a.test"+pathPasskey+"/finish", typeJSON, `{"target":"/"}{}`)
		}, 400},
		{"too much", func(c *http.Client) (*http.Response, string) {
			return submit(t, c, "https://a.test"+pathPasskey+"/finish", typeJSON, `{"target":"`+strings.Repeat("/", maxForm)+`"}`)
		}, 413},
		{"a sibling's request", func(c *http.Client) (*http.Response, string) {
			return submit(t, c, "https://a.test"+pathPasskey+"/options", typeJSON, "{}", "Sec-Fetch-Site", "same-site")
		}, 403},
		{"options where no passkey is required", func(*http.Client) (*http.Response, string) {
			return step(t, o.signedIn("c.test", ann), "c.test", pathPasskey+"/options", struct{}{})
		}, 409},
		{"page where no passkey is required", func(*http.Client) (*http.Response, string) {
			return get(t, o.signedIn("c.test", ann), "https://c.test"+pathPasskey+"?target=/x", navigation...)
		}, 303},
		{"page for who has none", func(*http.Client) (*http.Response, string) {
			return get(t, o.signedIn("b.test", bob), "https://b.test"+pathPasskey+"?target=/", navigation...)
		}, 403},
		{"options for who has none", func(*http.Client) (*http.Response, string) {
			return step(t, o.signedIn("b.test", bob), "b.test", pathPasskey+"/options", struct{}{})
		}, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := o.signedIn("a.test", ann)
			resp, body := tt.try(c)
			if resp.StatusCode != tt.status {
				t.Errorf("got %d %s, want %d", resp.StatusCode, body, tt.status)
			}
			if at := resp.Header.Get("Location"); strings.Contains(at, "evil") || strings.Contains(body, `"next"`) {
				t.Errorf("it leads to %q, %s", at, body)
			}
			if resp, _ := get(t, c, "https://a.test/", program...); resp.StatusCode != 403 {
				t.Errorf("after it Ann gets %d", resp.StatusCode)
			}
		})
	}
}

func TestEnrolPages(t *testing.T) {
	o := passkeyOffice(t)
	invite := func(host string, who postern.Person) string {
		codes, _, err := o.proofs.passkeys.invite([]passkeyOwner{ownerAt(host, who)}, o.clock.time())
		if err != nil {
			t.Fatal(err)
		}
		return codes[0]
	}
	code := invite("a.test", ann)
	link := "https://a.test" + pathEnrol + "?code=" + code
	for range 3 { // who only looks uses nothing up
		resp, body := get(t, o.browser(2), link, navigation...)
		if resp.StatusCode != 200 || !strings.Contains(body, ann.Login) || !strings.Contains(body, `data-code="`+code+`"`) ||
			resp.Header.Get("Referrer-Policy") != "no-referrer" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("the page is %d %v %s", resp.StatusCode, resp.Header, body)
		}
	}
	resp, body := get(t, o.browser(2), "https://a.test"+pathPasskeyJS)
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/javascript") || !strings.Contains(body, "navigator.credentials.create") {
		t.Errorf("the script is %d %v", resp.StatusCode, resp.Header)
	}
	bad := func(name, host, code string) {
		t.Helper()
		c := o.browser(2)
		resp, body := get(t, c, "https://"+host+pathEnrol+"?code="+url.QueryEscape(code), navigation...)
		checkHTML2(t, resp, body)
		if resp.StatusCode != 404 {
			t.Errorf("%s: the page is %d", name, resp.StatusCode)
		}
		resp, body = step(t, c, host, pathEnrol+"/options", map[string]string{"code": code})
		checkProblem(t, resp, body, 404, postern.CodeNotFound)
		resp, body = step(t, c, host, pathEnrol+"/finish", map[string]any{"code": code, "credential": struct{}{}})
		checkProblem(t, resp, body, 404, postern.CodeNotFound)
	}
	bad("tampered with", "a.test", code[:len(code)-1]+"_")
	bad("empty", "a.test", "")
	bad("another host's", "b.test", code)
	c := o.browser(2)
	a := newAuthenticator(t, aOrigin)
	options := must(t)(step(t, c, "a.test", pathEnrol+"/options", map[string]string{"code": code}))
	response := json.RawMessage(a.create(options))
	// The same browser's other code does not make it somebody else's.
	other := invite("a.test", bob)
	must(t)(step(t, c, "a.test", pathEnrol+"/options", map[string]string{"code": other}))
	if resp, _ := step(t, c, "a.test", pathEnrol+"/finish", map[string]any{"code": other, "credential": response}); resp.StatusCode != 403 {
		t.Errorf("another code's answer: %d", resp.StatusCode)
	}
	if body := must(t)(step(t, c, "a.test", pathEnrol+"/finish", map[string]any{"code": code, "credential": response})); strings.TrimSpace(body) != `{"next":"/"}` {
		t.Errorf("it leads to %s", body)
	}
	bad("used", "a.test", code)
	o.clock.advance(enrolLife)
	bad("expired", "a.test", other)
	if got := o.proofs.passkeys.of(ownerAt("a.test", bob)); len(got) != 0 {
		t.Errorf("Bob has %+v", got)
	}
}

func TestGuessingLinks(t *testing.T) {
	o := passkeyOffice(t)
	c := o.browser(2)
	last := 0
	for range maxGuesses + 1 {
		resp, _ := step(t, c, "a.test", pathEnrol+"/options", map[string]string{"code": newSecret()})
		last = resp.StatusCode
	}
	if last != 429 {
		t.Errorf("the last guess got %d", last)
	}
	o.enrolled("a.test", ann) // who has the right one is not kept waiting
}

// A tile at the portal is opened by who is signed in here already: nothing of theirs is
// cut off, and nothing is asked for twice. Whoever proved it anew begins anew.
func TestSignInAgain(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Upstream: application(t, longApplication().ServeHTTP), Require: postern.RequirePasskey}})
	a := o.enrolled("a.test", ann)
	c := o.signedIn("a.test", ann)
	get(t, c, "https://a.test"+pathPasskey+"?target=/", navigation...)
	if resp, body := o.usePasskey(c, "a.test", a); resp.StatusCode != 200 {
		t.Fatalf("the passkey leads to %d %s", resp.StatusCode, body)
	}
	end := readOn(t, o, c, "https://a.test/drip")
	held := cookies(c, "a.test")[cookieSession]
	user := o.user(ann)
	o.clock.advance(time.Minute)
	o.signIn(c, "a.test", user)
	if now := cookies(c, "a.test")[cookieSession]; now != held || o.gate.sessions.count() != 1 {
		t.Errorf("the session is another: %d are kept", o.gate.sessions.count())
	}
	if resp, body := get(t, c, "https://a.test/", program...); resp.StatusCode != 200 {
		t.Errorf("the passkey is wanted again: %d %s", resp.StatusCode, body)
	}
	if o.passes() != 1 {
		t.Error("the other tab was cut off")
	}
	user.since = o.clock.time() // a password was asked for
	o.signIn(c, "a.test", user)
	end()
	if now := cookies(c, "a.test")[cookieSession]; now == held || o.gate.sessions.count() != 1 {
		t.Errorf("the session is the same, or one of %d", o.gate.sessions.count())
	}
}
