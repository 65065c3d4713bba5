package node

import (
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
)

// submit posts body to url as a page of the same origin does, of the type that is
// given, with header as name, value, name, value.
func submit(t *testing.T, c *http.Client, url, kind, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	accept := acceptBrowser
	if kind == typeJSON {
		accept = "application/json"
	}
	for i, all := 0, append([]string{"Content-Type", kind, "Accept", accept, "Sec-Fetch-Site", "same-origin"}, header...); i < len(all); i += 2 {
		req.Header.Set(all[i], all[i+1])
	}
	return do(t, c, req)
}

const (
	typeForm = "application/x-www-form-urlencoded"
	typeJSON = "application/json"
)

func tokenForm(name, scope, days string) string {
	return url.Values{"name": {name}, "scope": {scope}, "days": {days}}.Encode()
}

var (
	aToken   = regexp.MustCompile(`pst_pat_[A-Za-z0-9_-]{43}_[0-9a-f]{8}`)
	aTokenID = regexp.MustCompile(`name="id" value="([a-z2-7]{16})"`)
)

// makeToken makes a token on c's page at host.
func makeToken(t *testing.T, c *http.Client, host, scope string) string {
	t.Helper()
	resp, body := submit(t, c, "https://"+host+pathTokens, typeForm, tokenForm("backup", scope, "7"))
	secret := aToken.FindString(body)
	if resp.StatusCode != http.StatusCreated || secret == "" {
		t.Fatalf("make a token: %d %s", resp.StatusCode, body)
	}
	return secret
}

// call does a request as a program does, with a bearer token.
func (o *office) call(method, url, token string, header ...string) (*http.Response, string) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, url, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	for i, all := 0, append([]string{"Accept", "application/json", "Authorization", "Bearer " + token}, header...); i < len(all); i += 2 {
		req.Header.Set(all[i], all[i+1])
	}
	return do(o.t, o.client(o.t, 2), req)
}

func TestTokenPage(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Title: "Books", Upstream: application(t, echo)}, "b.test": {Upstream: application(t, echo)}})
	c := o.signedIn("a.test", ann)
	resp, body := get(t, c, "https://a.test"+pathTokens, navigation...)
	checkHTML2(t, resp, body)
	if resp.StatusCode != 200 || !strings.Contains(body, "You have none.") || !strings.Contains(body, "Ann Müller (ann@acme.test)") || !strings.Contains(body, "Books") {
		t.Fatalf("the page is %d %s", resp.StatusCode, body)
	}
	if got := resp.Header.Get("Content-Security-Policy"); !strings.HasSuffix(got, "form-action 'self'") {
		t.Errorf("Content-Security-Policy is %q", got)
	}
	resp, body = submit(t, c, "https://a.test"+pathTokens, typeForm, tokenForm(`<b>"back'up"`, "write", "90"))
	secret := aToken.FindString(body)
	if resp.StatusCode != 201 || secret == "" || strings.Contains(body, "<b>") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("making one: %d %v %s", resp.StatusCode, resp.Header, body)
	}
	o.clock.advance(time.Minute)
	resp, body = o.call("DELETE", "https://a.test/x?y", secret)
	if h := hear(t, body); resp.StatusCode != 200 || h.Header[headerUser] != ann.Login || h.Header["Authorization"] != "" || h.Method != "DELETE" || h.URI != "/x?y" {
		t.Errorf("the application heard %+v", h)
	}
	resp, body = get(t, c, "https://a.test"+pathTokens, navigation...)
	if strings.Contains(body, secret) || !strings.Contains(body, "&lt;b&gt;") || !strings.Contains(body, "May read and change") || strings.Contains(body, "never used") {
		t.Errorf("the page is %d %s", resp.StatusCode, body)
	}
	id := aTokenID.FindStringSubmatch(body)
	if id == nil {
		t.Fatalf("no id in %s", body)
	}
	// Nobody but its owner sees or ends it.
	other := o.signedIn("a.test", bob)
	if _, body := get(t, other, "https://a.test"+pathTokens, navigation...); strings.Contains(body, id[1]) {
		t.Error("somebody else sees it")
	}
	submit(t, other, "https://a.test"+pathTokens+"/revoke", typeForm, "id="+id[1])
	if resp, _ := o.call("GET", "https://a.test/", secret); resp.StatusCode != 200 {
		t.Errorf("after somebody else revoked it: %d", resp.StatusCode)
	}
	elsewhere := o.signedIn("b.test", ann)
	submit(t, elsewhere, "https://b.test"+pathTokens+"/revoke", typeForm, "id="+id[1])
	if resp, _ := o.call("GET", "https://a.test/", secret); resp.StatusCode != 200 {
		t.Errorf("after it was revoked at another host: %d", resp.StatusCode)
	}
	resp, _ = submit(t, c, "https://a.test"+pathTokens+"/revoke", typeForm, "id="+id[1])
	if resp.StatusCode != 303 || resp.Header.Get("Location") != pathTokens {
		t.Errorf("revoke leads to %d %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	resp, body = o.call("GET", "https://a.test/", secret)
	checkProblem(t, resp, body, 401, postern.CodeUnauthorized)
}

func TestTokenPageRefuses(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a"), "gone.test": {}})
	c := o.signedIn("a.test", ann)
	secret := makeToken(t, c, "a.test", patWrite)
	at, revoke := "https://a.test"+pathTokens, "https://a.test"+pathTokens+"/revoke"
	good := tokenForm("x", "read", "7")
	tests := []struct {
		name   string
		try    func() (*http.Response, string)
		status int
	}{
		{"nobody, by link", func() (*http.Response, string) { return get(t, o.browser(2), at, navigation...) }, 303},
		{"nobody, by form", func() (*http.Response, string) { return submit(t, o.browser(2), at, typeForm, good) }, 401},
		{"a token", func() (*http.Response, string) { return o.call("GET", at, secret) }, 401},
		{"a token beside a session", func() (*http.Response, string) {
			return submit(t, c, at, typeForm, good, "Authorization", "Bearer "+secret)
		}, 401},
		{"a sibling's form", func() (*http.Response, string) {
			return submit(t, c, at, typeForm, good, "Sec-Fetch-Site", "same-site")
		}, 403},
		{"a stranger's form", func() (*http.Response, string) {
			return submit(t, c, at, typeForm, good, "Sec-Fetch-Site", "", "Origin", "https://evil.test")
		}, 403},
		{"a stranger's revocation", func() (*http.Response, string) {
			return submit(t, c, revoke, typeForm, "id=x", "Sec-Fetch-Site", "cross-site")
		}, 403},
		{"no name", func() (*http.Response, string) { return submit(t, c, at, typeForm, tokenForm("", "read", "7")) }, 422},
		{"no scope", func() (*http.Response, string) { return submit(t, c, at, typeForm, tokenForm("x", "", "7")) }, 422},
		{"for ever", func() (*http.Response, string) { return submit(t, c, at, typeForm, tokenForm("x", "read", "100000")) }, 422},
		{"days that are none", func() (*http.Response, string) { return submit(t, c, at, typeForm, tokenForm("x", "read", "7; DROP")) }, 422},
		{"in the query", func() (*http.Response, string) { return submit(t, c, at+"?"+good, typeForm, "") }, 422},
		{"another type", func() (*http.Response, string) { return submit(t, c, at, "text/plain", good) }, 422},
		{"too much", func() (*http.Response, string) {
			return submit(t, c, at, typeForm, "name="+strings.Repeat("x", maxForm))
		}, 413},
		{"an escape that is none", func() (*http.Response, string) { return submit(t, c, at, typeForm, "name=%zz") }, 400},
		{"an unknown id", func() (*http.Response, string) { return submit(t, c, revoke, typeForm, "id=nope") }, 303},
		{"nothing published", func() (*http.Response, string) {
			return get(t, o.browser(2), "https://gone.test"+pathTokens, navigation...)
		}, 404},
		{"PUT", func() (*http.Response, string) { return o.call("PUT", at, secret) }, 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if resp, body := tt.try(); resp.StatusCode != tt.status || aToken.MatchString(body) {
				t.Errorf("got %d %s, want %d", resp.StatusCode, body, tt.status)
			}
		})
	}
	if got := o.proofs.tokens.list("a.test", "", ann.ID, o.clock.time()); len(got) != 1 {
		t.Errorf("%d tokens are there, want 1", len(got))
	}
	for len(o.proofs.tokens.list("a.test", "", ann.ID, o.clock.time())) < maxOwnPATs {
		makeToken(t, c, "a.test", patRead)
	}
	if resp, body := submit(t, c, at, typeForm, good); resp.StatusCode != 409 || !strings.Contains(body, "too many tokens") {
		t.Errorf("one too many: %d %s", resp.StatusCode, body)
	}
}

// A token is worth what the newest map makes of its owner.
func TestTokenIsItsOwners(t *testing.T) {
	limited := ann
	limited.Services = []string{"other"}
	later := ann
	later.NotBefore = time.Now().Add(time.Hour).Unix()
	promoted := bob
	promoted.ID = ann.ID
	tests := []struct {
		name   string
		change func(o *office)
		status int
		code   string // in WWW-Authenticate
	}{
		{"nothing", func(*office) {}, 200, ""},
		{"revoked", func(o *office) { o.change(func(t *table) { t.people = people(bob) }) }, 401, bearerToken},
		{"granted other services only", func(o *office) { o.change(func(t *table) { t.people = people(limited) }) }, 403, bearerScope},
		{"in another group", func(o *office) { o.change(func(t *table) { t.people = people(promoted) }) }, 200, ""},
		{"signed out everywhere", func(o *office) { o.change(func(t *table) { t.people = people(later) }) }, 200, ""},
		{"session at the portal ended", func(o *office) {
			o.change(func(t *table) { t.ended = map[string]bool{"sid-u-ann": true} })
		}, 200, ""},
		{"on its last day", func(o *office) { o.clock.advance(7*24*time.Hour - time.Second) }, 200, ""},
		{"expired", func(o *office) { o.clock.advance(7 * 24 * time.Hour) }, 401, bearerToken},
		{"the service requires a passkey now", func(o *office) { o.require("a.test", postern.RequirePasskey) }, 403, bearerScope},
		{"the service requires an issuer now", func(o *office) { o.require("a.test", postern.RequireIssuer) }, 401, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t, map[string]Service{"a.test": {Upstream: application(t, echo)}})
			secret := makeToken(t, o.signedIn("a.test", ann), "a.test", patRead)
			tt.change(o)
			resp, body := o.call("GET", "https://a.test/", secret)
			if resp.StatusCode != tt.status || tt.status == 200 && hear(t, body).Header[headerUserID] != ann.ID {
				t.Errorf("got %d %s, want %d", resp.StatusCode, body, tt.status)
			}
			if got := resp.Header.Get("WWW-Authenticate"); tt.code != "" && !strings.Contains(got, `error="`+tt.code+`"`) {
				t.Errorf("WWW-Authenticate is %q, want %q", got, tt.code)
			}
		})
	}
}

// require has the service at host ask for more from now on.
func (o *office) require(host, what string) {
	o.change(func(t *table) {
		hosts := map[string]*service{}
		for h, svc := range t.hosts {
			hosts[h] = svc
		}
		s := hosts[host].Service
		s.Require = what
		hosts[host] = hosts[host].relabel(s)
		t.hosts = hosts
	})
}

func TestTokensWhereTheyAreNone(t *testing.T) {
	o := newOffice(t, map[string]Service{
		"a.test": {Upstream: application(t, echo)}, "b.test": {Upstream: application(t, echo)},
		"public.test": {Upstream: application(t, echo), Access: postern.AccessPublic},
	})
	secret := makeToken(t, o.signedIn("a.test", ann), "a.test", patRead)
	plain := func(header ...string) func() (*http.Response, string) {
		return func() (*http.Response, string) {
			return get(t, o.client(t, 2), "https://a.test/", append([]string{"Accept", "application/json"}, header...)...)
		}
	}
	bearer := func(url, token string, header ...string) func() (*http.Response, string) {
		return func() (*http.Response, string) { return o.call("GET", url, token, header...) }
	}
	tests := []struct {
		name   string
		try    func() (*http.Response, string)
		status int
		want   string // in WWW-Authenticate
	}{
		{"in a cookie", plain("Cookie", cookieSession+"="+secret), 401, `Bearer realm="a.test"`},
		{"in the query", func() (*http.Response, string) {
			return get(t, o.client(t, 2), "https://a.test/?access_token="+secret, program...)
		}, 401, `Bearer realm="a.test"`},
		{"in another header", plain("X-Api-Key", secret), 401, `Bearer realm="a.test"`},
		{"as Basic", plain("Authorization", "Basic "+secret), 401, `Bearer realm="a.test"`},
		{"at another host", bearer("https://b.test/", secret), 401, bearerToken},
		{"another's, who is nobody", bearer("https://a.test/", newPATSecret().text()), 401, bearerToken},
		{"mistyped", bearer("https://a.test/", secret[:len(secret)-1]+"x"), 401, bearerToken},
		{"where nobody needs one", bearer("https://public.test/", secret), 401, bearerToken},
		{"a WebSocket for reading", bearer("https://a.test/", secret, "Connection", "Upgrade", "Upgrade", "websocket"), 403, bearerScope},
		{"another method in a header", bearer("https://a.test/", secret, "X-HTTP-Method-Override", "DELETE"), 403, bearerScope},
		{"POST", func() (*http.Response, string) { return o.call("POST", "https://a.test/", secret) }, 403, bearerScope},
		{"HEAD", func() (*http.Response, string) { return o.call("HEAD", "https://a.test/", secret) }, 200, ""},
		{"GET", bearer("https://a.test/", secret), 200, ""},
		{"small letters", plain("Authorization", "bearer "+secret), 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := tt.try()
			got := resp.Header.Get("WWW-Authenticate")
			if resp.StatusCode != tt.status || !strings.Contains(got, tt.want) {
				t.Errorf("got %d, %q, %s, want %d, %q", resp.StatusCode, got, body, tt.status, tt.want)
			}
			if strings.Contains(body, secret) && tt.status != 200 {
				t.Error("the answer has the token")
			}
		})
	}
}

func TestGuessingTokens(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	secret := makeToken(t, o.signedIn("a.test", ann), "a.test", patRead)
	var codes []int
	for range maxGuesses + 2 {
		resp, _ := o.call("GET", "https://a.test/", newPATSecret().text())
		codes = append(codes, resp.StatusCode)
	}
	if want := slices.Concat(slices.Repeat([]int{401}, maxGuesses), []int{429, 429}); !slices.Equal(codes, want) {
		t.Errorf("guesses got %v", codes)
	}
	if resp, _ := o.call("GET", "https://a.test/", secret); resp.StatusCode != 200 {
		t.Errorf("the right one got %d meanwhile", resp.StatusCode)
	}
	o.clock.advance(time.Minute)
	if resp, _ := o.call("GET", "https://a.test/", newPATSecret().text()); resp.StatusCode != 401 {
		t.Errorf("a minute later a wrong one got %d", resp.StatusCode)
	}
}

// What a token has under way ends with it.
func TestTokenUnderWay(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Upstream: application(t, longApplication().ServeHTTP)}})
	c := o.signedIn("a.test", ann)
	for _, end := range []func(id string){
		func(id string) { submit(t, c, "https://a.test"+pathTokens+"/revoke", typeForm, "id="+id) },
		func(string) { o.clock.advance(8 * 24 * time.Hour); o.gate.recheck() },
	} {
		secret := makeToken(t, c, "a.test", patRead)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.test/drip", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		resp, err := o.client(t, 2).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		await(t, "the request", func() bool { return o.passes() == 1 })
		end(o.proofs.tokens.list("a.test", "", ann.ID, o.clock.time())[0].ID)
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("it went on to its end")
		}
		await(t, "its end", func() bool { return o.passes() == 0 })
	}
}
