//go:build e2e

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"postern"
)

// TestLoginAttacks tries the attacks that apply, each at the parts that have to
// withstand it, and on people of its own, who are signed in at the portal.
func TestLoginAttacks(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": membersOnly})
	host := "acme." + base
	attacks := []struct {
		section string // of RFC 9700; empty: of none
		name    string
		try     func(t *testing.T, e *estate, ann, mallory *visitor, host string)
	}{
		{"2.1.2", "implicit and hybrid flows", attackResponseType},
		{"2.4", "password grant", attackGrantType},
		{"4.1", "redirect URIs that are nearly right", attackRedirectURI},
		{"4.2", "leaks by Referer and history", attackReferer},
		{"4.4", "mix-up", attackMixUp},
		{"4.5", "code injection", attackInjection},
		{"4.7", "login CSRF", attackCSRF},
		{"4.8", "PKCE downgrade", attackDowngrade},
		{"4.10", "misuse of stolen access tokens", attackStolenToken},
		{"4.11", "open redirectors", attackOpenRedirect},
		{"4.12", "307 with a password", attack307},
		{"4.13", "headers set past the end of TLS", attackHeaders},
		{"4.14", "replay of refresh tokens", attackRefreshReplay},
		{"4.16", "clickjacking", attackClickjacking},
		{"", "replay of a code", attackReplay}, // RFC 6749, section 10.5
	}
	for i, attack := range attacks {
		t.Run(strings.TrimSpace(attack.section+" "+attack.name), func(t *testing.T) {
			ann := e.member(t, fmt.Sprintf("ann-%d", i), "acme", postern.GrantRequest{Groups: []string{"accounting"}})
			mallory := e.member(t, fmt.Sprintf("mallory-%d", i), "acme", postern.GrantRequest{})
			attack.try(t, e, ann, mallory, host)
		})
	}
	if refused := e.audited("authorize.refused"); len(refused) == 0 {
		t.Error("the audit log has no refused authorization")
	}
	noteFigure(t, "login", "attacks on signing in withstood", float64(len(attacks)), "attacks")
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
	r := e.codeFor(host)
	code := ann.until(r.url, isCallback).Query().Get("code")
	for _, form := range []url.Values{
		{"grant_type": {"password"}, "username": {"ann"}, "password": {"x"}, "client_id": {host}},
		{"grant_type": {"client_credentials"}, "client_id": {host}},
		{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {host}},
		// A node's code is for the control channel alone, whoever has it, and proves it.
		{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {host}, "redirect_uri": {e.callback(host)}, "code_verifier": {r.verifier}},
		{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {"postern-cli"}, "redirect_uri": {e.callback(host)}, "code_verifier": {r.verifier}},
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
	if c := mallory.cookie(e.url("acme", "/"), nodeCookie); c != nil {
		t.Errorf("mallory is signed in: %v", c)
	}
}

// attackCSRF has ann's browser go where mallory's sign-in would have ended.
func attackCSRF(t *testing.T, e *estate, _, mallory *visitor, host string) {
	back := mallory.until(e.url("acme", "/"), isCallback).String()
	victim := e.visitor(t)
	if a := victim.ask("GET", back, nil, nil); a.status/100 != 4 || victim.cookie(e.url("acme", "/"), nodeCookie) != nil {
		t.Errorf("without a state cookie: status %d, session %v", a.status, victim.cookie(e.url("acme", "/"), nodeCookie))
	}
	// With a sign-in of the victim's own under way, too.
	victim.until(e.url("acme", "/"), isAuthorize)
	back = mallory.until(e.url("acme", "/x"), isCallback).String()
	if a := victim.ask("GET", back, nil, nil); a.status/100 != 4 || victim.cookie(e.url("acme", "/"), nodeCookie) != nil {
		t.Errorf("with another's state: status %d, session %v", a.status, victim.cookie(e.url("acme", "/"), nodeCookie))
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
	if state == nil {
		t.Fatal("the node binds a sign-in to no browser")
	}
	if a := ann.ask("GET", back, nil, nil); a.status != http.StatusSeeOther {
		t.Fatalf("the first time: status %d %s", a.status, a.body)
	}
	if a := ann.ask("GET", back, nil, nil); a.status/100 != 4 {
		t.Errorf("the second time: status %d to %q", a.status, a.header.Get("Location"))
	}
	thief := e.visitor(t)
	thief.setCookie(e.url("acme", "/"), state.Name, state.Value)
	if a := thief.ask("GET", back, nil, nil); a.status/100 != 4 || thief.cookie(e.url("acme", "/"), nodeCookie) != nil {
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
	// Whoever used it first is signed out, in case that was the thief.
	if a := ann.ask("GET", e.portal("/account"), nil, nil); a.status != http.StatusSeeOther || a.location(t).Path != "/sign-in" {
		t.Errorf("at the portal afterwards: status %d to %q", a.status, a.header.Get("Location"))
	}
}

// A programToken is what a program was given that somebody let in.
type programToken struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Error   string `json:"error"`
}

// asksToken sends a form of a program's to the portal, and decodes the answer into out.
func (e *estate) asksToken(t *testing.T, path string, form url.Values, out any) {
	t.Helper()
	form.Set("client_id", "postern-cli")
	a := e.visitor(t).ask("POST", e.portal(path), form, asProgram(""))
	if err := json.Unmarshal([]byte(a.body), out); err != nil {
		t.Fatalf("%s: status %d: %v in %.500s", path, a.status, err, a.body)
	}
}

// letsIn has a program ask to speak to acme in v's name, and v allow it.
func (v *visitor) letsIn(t *testing.T, e *estate) programToken {
	t.Helper()
	var begun struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
	}
	e.asksToken(t, "/oauth/device", url.Values{"resource": {e.url("acme", "")}}, &begun)
	if a := v.ask("POST", e.portal("/device"), url.Values{"user_code": {begun.UserCode}, "answer": {"allow"}}, nil); a.status != http.StatusOK {
		t.Fatalf("allowing it: status %d: %.800s", a.status, a.body)
	}
	var token programToken
	e.asksToken(t, "/oauth/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {begun.DeviceCode}}, &token)
	if token.Access == "" || token.Refresh == "" {
		t.Fatalf("the program got %+v", token)
	}
	return token
}

func attackStolenToken(t *testing.T, e *estate, ann, _ *visitor, host string) {
	e.grant(ann.login, "globex", postern.GrantRequest{})
	ann.enters(e.url("globex", "/seen")) // she may, and her token for acme may not
	token := ann.letsIn(t, e)
	thief := e.visitor(t)
	if a := thief.ask("GET", e.url("acme", "/seen"), nil, asProgram("Bearer "+token.Access)); a.status != http.StatusOK {
		t.Fatalf("where it is for: status %d %s", a.status, a.body)
	}
	for name, a := range map[string]answer{
		"at another tenant":        thief.ask("GET", e.url("globex", "/seen"), nil, asProgram("Bearer "+token.Access)),
		"at the portal":            thief.ask("GET", e.portal("/userinfo"), nil, asProgram("Bearer "+token.Access)),
		"in a URL":                 thief.ask("GET", e.url("acme", "/seen?access_token="+token.Access), nil, asProgram("")),
		"a refresh token in place": thief.ask("GET", e.url("acme", "/seen"), nil, asProgram("Bearer "+token.Refresh)),
	} {
		if a.status != http.StatusUnauthorized {
			t.Errorf("%s: status %d %s", name, a.status, a.body)
		}
	}
	thief.setCookie(e.url("acme", "/"), nodeCookie, token.Access)
	thief.setCookie(e.portal("/"), portalCookie, token.Access)
	if a := thief.ask("GET", e.url("acme", "/seen"), nil, asProgram("")); a.status != http.StatusUnauthorized {
		t.Errorf("as a cookie: status %d %s", a.status, a.body)
	}
	if a := thief.ask("GET", e.portal("/account"), nil, nil); a.status != http.StatusSeeOther || a.location(t).Path != "/sign-in" {
		t.Errorf("as a cookie at the portal: status %d to %q", a.status, a.header.Get("Location"))
	}
}

func attackRefreshReplay(t *testing.T, e *estate, ann, _ *visitor, host string) {
	first := ann.letsIn(t, e)
	refresh := func(token string) (next programToken) {
		e.asksToken(t, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, &next)
		return next
	}
	second := refresh(first.Refresh)
	if second.Access == "" || second.Refresh == "" || second.Refresh == first.Refresh {
		t.Fatalf("the first time: %+v", second)
	}
	if again := refresh(first.Refresh); again.Access != "" || again.Error != "invalid_grant" {
		t.Errorf("the second time: %+v", again)
	}
	// One of the two is a thief, so that neither goes on.
	if next := refresh(second.Refresh); next.Access != "" || next.Error != "invalid_grant" {
		t.Errorf("what came of the first time is good for %+v", next)
	}
	eventually(t, revocationTime+revocationSlack, func() error {
		if a := e.visitor(t).ask("GET", e.url("acme", "/seen"), nil, asProgram("Bearer "+second.Access)); a.status != http.StatusUnauthorized {
			return fmt.Errorf("the access token that came of it: status %d %s", a.status, a.body)
		}
		return nil
	})
}

// attackHeaders claims to be who only the end of TLS can tell of: the node, and at the
// portal the gateway.
func attackHeaders(t *testing.T, e *estate, ann, _ *visitor, host string) {
	const evil = "203.0.113.66"
	claims := http.Header{}
	for _, name := range []string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-User", "X-Real-Ip", "X-Request-Id", "X_forwarded_for",
		"Postern-User", "Postern-User-Id", "Postern-Name", "Postern-Role", "Postern-Groups", "Postern-Identity", "Postern-Else", "Postern_user", "postern-user",
	} {
		claims[name] = []string{evil}
	}
	ann.enters(e.url("acme", "/seen"))
	var got seen
	if a := ann.ask("GET", e.url("acme", "/seen"), nil, claims); json.Unmarshal([]byte(a.body), &got) != nil {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	if user := got.Header.Get("Postern-User"); user != ann.login {
		t.Errorf("the application is told of %q, want %q", user, ann.login)
	}
	for name, values := range got.Header {
		if slices.Contains(values, evil) {
			t.Errorf("the application got %s: %q", name, values)
		}
	}
	if a := e.visitor(t).ask("GET", e.url("acme", "/seen"), nil, claims); a.status/100 != 3 || !isLogin(a.location(t)) {
		t.Errorf("nobody, who claims to be somebody: status %d %s", a.status, a.body)
	}
	// Where an attempt came from is what the audit log and the limits go by.
	if a := e.visitor(t).ask("POST", e.portal("/sign-in"), url.Values{"login": {ann.login}, "password": {"not this one"}}, claims); strings.Contains(a.body+a.header.Get("Location"), evil) {
		t.Errorf("the portal repeats what was claimed: status %d %s", a.status, a.body)
	}
	refused := e.audited("signin.refused")
	if last := len(refused) - 1; last < 0 || !strings.Contains(fmt.Sprint(refused[last]), "127.0.0.1") || strings.Contains(fmt.Sprint(refused), evil) {
		t.Errorf("the audit log has %v", refused)
	}
}

func attackOpenRedirect(t *testing.T, e *estate, ann, _ *visitor, host string) {
	places := func(target string) []string {
		return []string{
			e.url("acme", "/.well-known/postern/login?"+url.Values{"iss": {e.portal("")}, "target": {target}}.Encode()),
			e.portal("/sign-in?" + url.Values{"next": {target}}.Encode()),
		}
	}
	for _, target := range []string{
		"https://evil.example/", "//evil.example/", `/\evil.example/`, `\\evil.example`, "evil", "javascript:alert(1)",
		"/\t/evil.example", "https:/evil.example", "http://" + host + "/", " /x",
	} {
		for _, at := range places(target) {
			if a := ann.ask("GET", at, nil, nil); a.status != http.StatusBadRequest {
				t.Errorf("%s: status %d to %q, want a page that says no", at, a.status, a.header.Get("Location"))
			}
		}
	}
	// These are paths, though they do not look it: they lead on at the same host.
	for _, target := range []string{"/%0d%0aLocation:x", "/../..//evil.example", "/%2f%2fevil.example", "/x#@evil.example"} {
		for _, at := range places(target) {
			own, _ := url.Parse(at)
			a := ann.walk("GET", at, nil)
			for _, step := range a.trail {
				if step.Host != own.Host && step.Host != fmt.Sprintf("portal.%s:%d", base, e.https) {
					t.Errorf("%s leads to %s", at, step)
				}
			}
			if a.url.Host != own.Host || a.url.Path == own.Path {
				t.Errorf("%s ends at %s with status %d", at, a.url, a.status)
			}
		}
	}
	// There is no way out that leads on to elsewhere (OpenID Connect RP-Initiated Logout 1.0).
	if a := ann.ask("GET", e.portal("/end_session?"+url.Values{"post_logout_redirect_uri": {"https://evil.example/"}, "client_id": {host}}.Encode()), nil, nil); a.status != http.StatusNotFound {
		t.Errorf("signing out with a place to go: status %d to %q", a.status, a.header.Get("Location"))
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
		a := ann.enters(at)
		if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: status %d, policy %q", a.url, a.status, csp)
		}
	}
}
