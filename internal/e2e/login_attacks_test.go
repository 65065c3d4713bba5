//go:build e2e

package e2e

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postern"
)

// TestLoginAttacks tries the attacks of RFC 9700 that apply, each at the parts that
// have to withstand it.
func TestLoginAttacks(t *testing.T) {
	e, ann, _ := newSignIns(t)
	mallory := e.member(t, "mallory", "acme", postern.GrantRequest{})
	host := "acme." + base
	for _, attack := range []struct {
		section, name string
		try           func(*testing.T, *estate, *visitor, *visitor, string)
	}{
		{"2.1.2", "implicit and hybrid flows", attackResponseType},
		{"2.4", "password grant", attackGrantType},
		{"4.1", "redirect URIs that are nearly right", attackRedirectURI},
		{"4.2", "leaks by Referer and history", attackReferer},
		{"4.4", "mix-up", attackMixUp},
		{"4.5", "code injection", attackInjection},
		{"4.7", "login CSRF", attackCSRF},
		{"4.8", "PKCE downgrade", attackDowngrade},
		{"4.10", "replay of a code", attackReplay},
		{"4.11", "open redirectors", attackOpenRedirect},
		{"4.12", "307 with a password", attack307},
		{"4.16", "clickjacking", attackClickjacking},
	} {
		for _, v := range []*visitor{ann, mallory} { // at the portal they stay signed in
			v.ask("POST", e.url("acme", "/.well-known/postern/logout"), nil, nil)
		}
		t.Run(attack.section+" "+attack.name, func(t *testing.T) { attack.try(t, e, ann, mallory, host) })
	}
	if refused := e.audited("authorize.refused"); len(refused) == 0 {
		t.Error("the audit log has no refused authorization")
	}
	noteFigure(t, "login", "attacks of RFC 9700 withstood", 12, "attacks")
}

// changed returns a URL with other parameters; an empty value removes one.
func changed(address string, params ...string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	q := u.Query()
	for i := 0; i < len(params); i += 2 {
		q.Del(params[i])
		if params[i+1] != "" {
			q.Set(params[i], params[i+1])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// noCode asks the provider for what it must not give: no code may come of it, and
// nobody may be sent to a host but allowed.
func (v *visitor) noCode(t *testing.T, address, allowed string) {
	t.Helper()
	portal, _ := url.Parse(address)
	for range maxSteps {
		a := v.ask("GET", address, nil, nil)
		if a.status/100 != 3 {
			if a.status/100 != 4 {
				t.Errorf("%s: status %d, want a refusal", address, a.status)
			}
			return
		}
		next := a.location(t)
		if next.Query().Has("code") || strings.Contains(next.Fragment, "code=") || strings.Contains(next.Fragment, "id_token=") || strings.Contains(next.Fragment, "access_token=") {
			t.Errorf("%s gave something: %s", address, next)
			return
		}
		if next.Host != portal.Host {
			if next.Host != allowed {
				t.Errorf("%s sent the browser to %s", address, next)
			}
			return // an error, back where it was asked for
		}
		address = next.String()
	}
	t.Errorf("more than %d redirects, the last to %s", maxSteps, address)
}

func attackResponseType(t *testing.T, e *estate, ann, _ *visitor, host string) {
	for _, kind := range []string{"token", "id_token", "id_token token", "code token", "code id_token", "none"} {
		ann.noCode(t, changed(e.codeFor(host).url, "response_type", kind), fmt.Sprintf("%s:%d", host, e.https))
	}
}

func attackGrantType(t *testing.T, e *estate, ann, _ *visitor, host string) {
	code := ann.until(e.codeFor(host).url, isCallback).Query().Get("code")
	for _, form := range []url.Values{
		{"grant_type": {"password"}, "username": {"ann"}, "password": {"x"}, "client_id": {host}},
		{"grant_type": {"client_credentials"}, "client_id": {host}},
		{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {host}},
		// A node's code is for the control channel alone, whoever has it.
		{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {host}, "redirect_uri": {e.callback(host)}, "code_verifier": {rand.Text()}},
	} {
		a := e.visitor(t).ask("POST", e.portal("/oauth/token"), form, nil)
		if a.status/100 != 4 || strings.Contains(a.body, "_token\"") {
			t.Errorf("%v: status %d %s", form, a.status, a.body)
		}
	}
}

func attackRedirectURI(t *testing.T, e *estate, ann, _ *visitor, host string) {
	right := e.callback(host)
	for _, uri := range []string{
		"https://evil.example/.well-known/postern/callback", e.callback("globex." + base), right + "/", right + "/x", right + "?a=b", right + "#a",
		strings.Replace(right, "https:", "http:", 1), strings.Replace(right, "//", "//evil@", 1), strings.Replace(right, host, host+".evil.example", 1),
		strings.Replace(right, host, "evil."+host, 1), strings.Replace(right, "callback", "../../", 1), strings.Replace(right, fmt.Sprint(e.https), "1", 1),
		strings.ToUpper(right), e.url("acme", "/"), "javascript:alert(1)", "//evil.example", "",
	} {
		ann.noCode(t, changed(e.codeFor(host).url, "redirect_uri", uri), "nowhere")
	}
	// And the right one for another client.
	ann.noCode(t, changed(e.codeFor(host).url, "client_id", "globex."+base), "nowhere")
	ann.noCode(t, changed(e.codeFor(host).url, "client_id", "nobody."+base), "nowhere")
}

func attackReferer(t *testing.T, e *estate, ann, _ *visitor, host string) {
	back := ann.until(e.url("acme", "/seen"), isCallback)
	a := ann.ask("GET", back.String(), nil, nil)
	if got := a.header.Get("Referrer-Policy"); got != "no-referrer" {
		t.Errorf("the callback's Referrer-Policy is %q", got)
	}
	if next := a.location(t); next.String() != e.url("acme", "/seen") {
		t.Errorf("the callback leads to %s, want the page that was asked for", next)
	}
	if got := a.header.Get("Cache-Control"); !strings.Contains(got, "no-store") {
		t.Errorf("the callback's Cache-Control is %q", got)
	}
	if got := e.visitor(t).ask("GET", e.portal("/sign-in"), nil, nil).header.Get("Referrer-Policy"); got != "no-referrer" && got != "same-origin" {
		t.Errorf("the sign-in page's Referrer-Policy is %q", got)
	}
}

func attackMixUp(t *testing.T, e *estate, ann, _ *visitor, host string) {
	for _, iss := range []string{"https://evil.example", e.url("globex", ""), e.portal("/x"), strings.Replace(e.portal(""), "https", "http", 1)} {
		a := ann.ask("GET", e.url("acme", "/.well-known/postern/login?"+url.Values{"iss": {iss}, "target": {"/"}}.Encode()), nil, nil)
		if a.status/100 != 4 {
			t.Errorf("login by %s: status %d to %q", iss, a.status, a.header.Get("Location"))
		}
	}
	back := ann.until(e.url("acme", "/seen"), isCallback)
	if a := ann.ask("GET", changed(back.String(), "iss", "https://evil.example"), nil, nil); a.status/100 != 4 {
		t.Errorf("a callback of another issuer: status %d", a.status)
	}
}

// attackInjection puts ann's code where mallory has a sign-in of her own under way.
func attackInjection(t *testing.T, e *estate, ann, mallory *visitor, host string) {
	stolen := ann.until(e.url("acme", "/seen"), isCallback).Query().Get("code")
	mine := mallory.until(e.url("acme", "/seen"), isCallback)
	if a := mallory.ask("GET", changed(mine.String(), "code", stolen), nil, nil); a.status/100 != 4 {
		t.Errorf("another's code: status %d to %q", a.status, a.header.Get("Location"))
	}
	if c := mallory.cookie(e.url("acme", "/"), nodeCookie); c != "" {
		a := mallory.ask("GET", e.url("acme", "/seen"), nil, nil)
		if strings.Contains(a.body, `"ann"`) {
			t.Errorf("mallory is ann: %s", a.body)
		}
	}
}

// attackCSRF has ann's browser go where mallory's sign-in would have ended.
func attackCSRF(t *testing.T, e *estate, _, mallory *visitor, host string) {
	back := mallory.until(e.url("acme", "/"), isCallback).String()
	victim := e.visitor(t)
	if a := victim.ask("GET", back, nil, nil); a.status/100 != 4 || victim.cookie(e.url("acme", "/"), nodeCookie) != "" {
		t.Errorf("without a state cookie: status %d, session %q", a.status, victim.cookie(e.url("acme", "/"), nodeCookie))
	}
	// With a sign-in of the victim's own under way, too.
	victim.until(e.url("acme", "/"), isAuthorize)
	back = mallory.until(e.url("acme", "/x"), isCallback).String()
	if a := victim.ask("GET", back, nil, nil); a.status/100 != 4 || victim.cookie(e.url("acme", "/"), nodeCookie) != "" {
		t.Errorf("with another's state: status %d, session %q", a.status, victim.cookie(e.url("acme", "/"), nodeCookie))
	}
	// And forms of other sites change nothing, at either place.
	for _, at := range []string{e.portal("/sign-in"), e.portal("/sign-out"), e.url("acme", "/.well-known/postern/logout"), e.url("acme", "/.well-known/postern/tokens")} {
		for _, site := range []string{"cross-site", "same-site"} {
			header := http.Header{"Sec-Fetch-Site": {site}, "Origin": {e.url("globex", "")}}
			if a := mallory.ask("POST", at, url.Values{"name": {"x"}, "scope": {"write"}, "days": {"7"}, "login": {"x"}, "password": {"x"}}, header); a.status != http.StatusForbidden {
				t.Errorf("%s from %s: status %d", at, site, a.status)
			}
		}
	}
}

func attackDowngrade(t *testing.T, e *estate, ann, _ *visitor, host string) {
	own := fmt.Sprintf("%s:%d", host, e.https)
	r := e.codeFor(host)
	ann.noCode(t, changed(r.url, "code_challenge", "", "code_challenge_method", ""), own)
	ann.noCode(t, changed(r.url, "code_challenge_method", "plain"), own)
	ann.noCode(t, changed(r.url, "code_challenge_method", ""), own)
	node := e.publishes("acme", "downgrade")
	for _, verifier := range []string{"", rand.Text() + rand.Text()} {
		r := e.codeFor("downgrade.acme." + base)
		code := ann.until(r.url, isCallback).Query().Get("code")
		r.verifier = verifier
		if problem, claims := node.redeem(r, code); claims != nil || problem.Status/100 != 4 {
			t.Errorf("verifier %q: %+v %v", verifier, problem, claims)
		}
	}
}

func attackReplay(t *testing.T, e *estate, ann, _ *visitor, host string) {
	back := ann.until(e.url("acme", "/seen"), isCallback).String()
	state := ann.cookie(e.url("acme", "/"), stateCookie)
	if a := ann.ask("GET", back, nil, nil); a.status != http.StatusSeeOther {
		t.Fatalf("the first time: status %d %s", a.status, a.body)
	}
	if a := ann.ask("GET", back, nil, nil); a.status/100 != 4 {
		t.Errorf("the second time: status %d to %q", a.status, a.header.Get("Location"))
	}
	thief := e.visitor(t)
	thief.setCookie(e.url("acme", "/"), stateCookie, state)
	if a := thief.ask("GET", back, nil, nil); a.status/100 != 4 || thief.cookie(e.url("acme", "/"), nodeCookie) != "" {
		t.Errorf("with a stolen state cookie: status %d", a.status)
	}
	node := e.publishes("acme", "replay")
	r := e.codeFor("replay.acme." + base)
	code := ann.until(r.url, isCallback).Query().Get("code")
	if problem, claims := node.redeem(r, code); claims == nil {
		t.Fatalf("the first time: %+v", problem)
	}
	if problem, claims := node.redeem(r, code); claims != nil || problem.Status/100 != 4 {
		t.Errorf("the second time: %+v %v", problem, claims)
	}
}

func attackOpenRedirect(t *testing.T, e *estate, ann, _ *visitor, host string) {
	for _, target := range []string{
		"https://evil.example/", "//evil.example/", `/\evil.example/`, `\\evil.example`, "/%0d%0aLocation:x", "evil", "javascript:alert(1)",
		"/\t/evil.example", "https:/evil.example", "http://" + host + "/", "/../..//evil.example", " /x",
	} {
		// Where a place is refused there is a page that says so; where it is taken it
		// is a path of the same host.
		for _, at := range []string{
			e.url("acme", "/.well-known/postern/login?"+url.Values{"iss": {e.portal("")}, "target": {target}}.Encode()),
			e.portal("/sign-in?" + url.Values{"next": {target}}.Encode()),
			e.portal("/end_session?" + url.Values{"post_logout_redirect_uri": {target}, "client_id": {host}}.Encode()),
		} {
			mine, _ := url.Parse(at)
			v := e.visitor(t)
			v.hc.Jar = ann.hc.Jar
			if strings.Contains(at, "end_session") {
				v = e.visitor(t) // who is nobody loses nothing
			}
			if a := v.ask("GET", at, nil, nil); a.status/100 == 3 {
				if next := a.location(t); next.Host != mine.Host && !isAuthorize(next) {
					t.Errorf("%s leads to %s", at, next)
				}
			} else if a.status/100 != 4 && a.status != 200 {
				t.Errorf("%s: status %d", at, a.status)
			}
		}
	}
}

func attack307(t *testing.T, e *estate, _, _ *visitor, _ string) {
	v := e.visitor(t)
	password := rand.Text()
	a := v.ask("POST", e.invite("pat", "Pat"), url.Values{"name": {"Pat"}, "password": {password}}, nil)
	if a.status != http.StatusSeeOther && a.status != http.StatusFound {
		t.Errorf("the invitation: status %d", a.status)
	}
	a = e.visitor(t).ask("POST", e.portal("/sign-in"), url.Values{"login": {"pat"}, "password": {password}}, nil)
	if a.status != http.StatusSeeOther && a.status != http.StatusFound {
		t.Errorf("signing in: status %d %.300s", a.status, a.body)
	}
}

func attackClickjacking(t *testing.T, e *estate, ann, _ *visitor, _ string) {
	for _, at := range []string{e.portal("/"), e.portal("/sign-in?again=1"), e.portal("/account"), e.portal("/device"), e.url("acme", "/.well-known/postern/tokens")} {
		a := ann.walk("GET", at, nil)
		if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: status %d, policy %q", a.url, a.status, csp)
		}
	}
}
