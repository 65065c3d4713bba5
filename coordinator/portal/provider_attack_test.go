package portal_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// What nobody but the right host asks for in the right way gets no code (RFC 9700,
// and the profile).
func TestAuthorizeAttacks(t *testing.T) {
	d := newSignIns(t)
	d.globex.publish(ledger, postern.Service{Name: "site", Access: postern.Access{Who: postern.AccessPublic}})
	ann := d.signedIn("ann")
	right := callback(acmeHost)
	const page = "" // no error at the client, but a page at the portal
	set := func(params ...string) func(url.Values) {
		return func(q url.Values) {
			for i := 0; i < len(params); i += 2 {
				q.Set(params[i], params[i+1])
				if params[i+1] == "" {
					q.Del(params[i])
				}
			}
		}
	}
	tests := []struct {
		name   string
		change func(url.Values)
		status int    // of the page
		code   string // at the client, if not page
	}{
		{"foreign redirect", set("redirect_uri", "https://evil.example/.well-known/postern/callback"), 400, page},
		{"another tenant's redirect", set("redirect_uri", callback(globexHost)), 400, page},
		{"slash behind", set("redirect_uri", right+"/"), 400, page},
		{"path behind", set("redirect_uri", right+"/x"), 400, page},
		{"query", set("redirect_uri", right+"?a=b"), 400, page},
		{"empty query", set("redirect_uri", right+"?"), 400, page},
		{"fragment", set("redirect_uri", right+"#a"), 400, page},
		{"http", set("redirect_uri", strings.Replace(right, "https:", "http:", 1)), 400, page},
		{"user info", set("redirect_uri", strings.Replace(right, "//", "//evil@", 1)), 400, page},
		{"host with a tail", set("redirect_uri", strings.Replace(right, acmeHost, acmeHost+".evil.example", 1)), 400, page},
		{"host with a head", set("redirect_uri", strings.Replace(right, acmeHost, "evil."+acmeHost, 1)), 400, page},
		{"dots", set("redirect_uri", origin(acmeHost)+"/.well-known/postern/../postern/callback"), 400, page},
		{"escaped", set("redirect_uri", strings.Replace(right, "callback", "%63allback", 1)), 400, page},
		{"another port", set("redirect_uri", strings.Replace(right, ":8443", ":1", 1)), 400, page},
		{"no port", set("redirect_uri", strings.Replace(right, ":8443", "", 1)), 400, page},
		{"upper case", set("redirect_uri", strings.ToUpper(right)), 400, page},
		{"upper-case host", set("redirect_uri", strings.Replace(right, acmeHost, strings.ToUpper(acmeHost), 1)), 400, page},
		{"script", set("redirect_uri", "javascript:alert(1)"), 400, page},
		{"no scheme", set("redirect_uri", "//evil.example"), 400, page},
		{"prefix", set("redirect_uri", origin(acmeHost)+"/.well-known/postern/"), 400, page},
		{"no redirect", set("redirect_uri", ""), 400, page},
		{"unknown client", set("client_id", "nobody."+base, "redirect_uri", callback("nobody."+base)), 400, page},
		{"client in upper case", set("client_id", strings.ToUpper(acmeHost)), 400, page},
		{"the program as client", set("client_id", "postern-cli"), 400, page},
		{"host for everybody", set("client_id", "site."+globexHost, "redirect_uri", callback("site."+globexHost)), 400, page},
		{"no client", set("client_id", ""), 400, page},
		{"mix-up of client and redirect", set("client_id", globexHost), 400, page},
		{"client twice", func(q url.Values) { q.Add("client_id", globexHost) }, 400, page},
		{"redirect twice", func(q url.Values) { q.Add("redirect_uri", "https://evil.example/") }, 400, page},
		{"state twice", func(q url.Values) { q.Add("state", "x") }, 400, page},
		{"tenant that is not theirs", set("client_id", globexHost, "redirect_uri", callback(globexHost)), 403, page},
		{"implicit", set("response_type", "id_token"), 0, "unsupported_response_type"},
		{"hybrid", set("response_type", "code id_token"), 0, "unsupported_response_type"},
		{"token", set("response_type", "token"), 0, "unsupported_response_type"},
		{"no type", set("response_type", ""), 0, "unsupported_response_type"},
		{"fragment mode", set("response_mode", "fragment"), 0, "invalid_request"},
		{"form mode", set("response_mode", "form_post"), 0, "invalid_request"},
		{"request object", set("request", "e30.e30."), 0, "request_not_supported"},
		{"request object elsewhere", set("request_uri", "https://evil.example/"), 0, "request_uri_not_supported"},
		{"registration", set("registration", "{}"), 0, "registration_not_supported"},
		{"not OpenID", set("scope", "profile"), 0, "invalid_scope"},
		{"no challenge", set("code_challenge", "", "code_challenge_method", ""), 0, "invalid_request"},
		{"plain challenge", set("code_challenge_method", "plain"), 0, "invalid_request"},
		{"challenge without method", set("code_challenge_method", ""), 0, "invalid_request"},
		{"another method", set("code_challenge_method", "s256"), 0, "invalid_request"},
		{"challenge with a line break", set("code_challenge", strings.Repeat("A", 20)+"\r"+strings.Repeat("A", 23)), 0, "invalid_request"},
		{"challenge cut short", set("code_challenge", "AAAA"), 0, "invalid_request"},
		{"no nonce", set("nonce", ""), 0, "invalid_request"},
		{"endless nonce", set("nonce", strings.Repeat("x", 257)), 0, "invalid_request"},
		{"unknown prompt", set("prompt", "create"), 0, "invalid_request"},
		{"prompts that exclude each other", set("prompt", "none login"), 0, "invalid_request"},
		{"max_age below zero", set("max_age", "-1"), 0, "invalid_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWish(acmeHost)
			tt.change(w.query)
			a := ann.get(w.path())
			a.t = t
			if tt.code != page {
				back := a.back(acmeHost)
				if back.Get("error") != tt.code || back.Get("error_description") == "" || back.Get("state") != w.query.Get("state") || back.Has("code") || back.Get("iss") != d.PortalURL() {
					t.Errorf("came back with %v, want %s", back, tt.code)
				}
				return
			}
			if strings.Contains(a.text(), "evil.example") {
				t.Errorf("the page says a stranger's words: %s", a.text())
			}
			if a.status != tt.status || a.header.Get("Location") != "" || !strings.Contains(a.header.Get("Content-Type"), "text/html") {
				t.Errorf("got status %d to %q, want a page with %d", a.status, a.header.Get("Location"), tt.status)
			}
		})
	}
	t.Run("no state", func(t *testing.T) {
		w := newWish(acmeHost)
		w.query.Del("state")
		if back := ann.get(w.path()).back(acmeHost); back.Get("error") != "invalid_request" || back.Has("state") {
			t.Errorf("came back with %v", back)
		}
	})
	t.Run("by POST", func(t *testing.T) {
		if a := ann.post(newWish(acmeHost).path()); a.status != http.StatusNotFound {
			t.Errorf("got status %d", a.status)
		}
	})
	d.wantLog("authorize.refused", "user:"+d.ann.ID, "acme", acmeHost, "evil.example")
	d.wantLog("authorize.refused", "user:"+d.ann.ID, "globex", globexHost, "may not open")
	d.wantLog("authorize.refused", "user:"+d.ann.ID, "acme", "PKCE")
}

// I9: for a service whose groups somebody is not in there is no code, and there is
// one as soon as they are.
func TestAuthorizeByGroup(t *testing.T) {
	d := newSignIns(t)
	d.member("carl", "acme", postern.TenantMember)
	carl, erp := d.signedIn("carl"), newWish("erp."+acmeHost)
	carl.get(erp.path()).want(http.StatusForbidden, "may not open")
	_, err := d.Local().Grant(t.Context(), "carl", "acme", postern.GrantRequest{Groups: []string{"accounting"}})
	must(t, err)
	erp.code(carl)
}

// What was begun in one browser is not finished in another, nor twice, nor late.
func TestContinueAttacks(t *testing.T) {
	d := typing(t)
	begin := func(b *browser) string {
		t.Helper()
		u, err := url.Parse(b.get(newWish(acmeHost).path()).want(http.StatusSeeOther).header.Get("Location"))
		must(t, err)
		return u.Query().Get("next")
	}
	mallory, ann := d.browser(), d.signedIn("ann")
	theirs := begin(mallory)
	ann.get(theirs).want(http.StatusBadRequest, "not begun in this browser")
	other := d.browser()
	begin(other)
	other.post("/sign-in", "login", "ann", "password", password).want(http.StatusSeeOther)
	other.get(theirs).want(http.StatusBadRequest, "not begun in this browser")
	for _, id := range []string{"", "?id=", "?id=x", "?id=" + strings.Repeat("A", 26), "?id=../x"} {
		ann.get("/continue"+id).want(http.StatusBadRequest, "not begun in this browser")
	}
	own := begin(mallory)
	mallory.get(own[:len(own)-1] + "0").want(http.StatusBadRequest) // no letter of rand.Text
	mallory.post("/sign-in", "login", "ann", "password", password).want(http.StatusSeeOther)
	mallory.get(own).back(acmeHost)
	mallory.get(own).want(http.StatusBadRequest)
	late := d.browser()
	at := begin(late)
	late.post("/sign-in", "login", "ann", "password", password).want(http.StatusSeeOther)
	d.clock.advance(6 * time.Minute)
	late.get(at).want(http.StatusBadRequest, "took too long")
	// Who may not open it learns so after signing in, too.
	bob := d.browser()
	at = begin(bob)
	bob.post("/sign-in", "login", "bob", "password", password).want(http.StatusSeeOther)
	bob.get(at).want(http.StatusForbidden, "may not open")
	d.wantLog("authorize.refused", "stranger", "no such sign-in")
	d.wantLog("authorize.refused", "user:"+d.bob.ID, "acme", acmeHost)
}

// A code buys an ID token once, at once, by the right node with the right proof,
// and only while everything holds that held when it was given.
func TestRedeemAttacks(t *testing.T) {
	change := func(params ...string) func(*signIns, *wish) {
		return func(_ *signIns, w *wish) {
			for i := 0; i < len(params); i += 2 {
				w.form.Set(params[i], params[i+1])
			}
		}
	}
	tests := []struct {
		name    string
		between func(d *signIns, w *wish) // after the code was given
		node    string                    // that redeems; "": acme's
		status  int
		code    string
		log     string
	}{
		{"another verifier", change("code_verifier", strings.Repeat("A", 52)), "", 400, "invalid_grant", "code_verifier"},
		{"no verifier", change("code_verifier", ""), "", 400, "invalid_grant", "code_verifier"},
		{"the challenge as verifier", func(_ *signIns, w *wish) { w.form.Set("code_verifier", w.query.Get("code_challenge")) }, "", 400, "invalid_grant", "code_verifier"},
		{"another redirect", change("redirect_uri", callback(globexHost)), "", 400, "invalid_grant", "redirect_uri"},
		{"http redirect", change("redirect_uri", "http://"+acmeHost+":8443/.well-known/postern/callback"), "", 400, "invalid_grant", "redirect_uri"},
		{"another host of the tenant", change("client_id", "erp."+acmeHost), "", 400, "invalid_grant", "another host"},
		{"another tenant's node", func(*signIns, *wish) {}, "globex", 401, "invalid_client", "does not lead to this node"},
		{"another tenant's node for itself", change("client_id", globexHost, "redirect_uri", callback(globexHost)), "globex", 400, "invalid_grant", "another host"},
		{"expired", func(d *signIns, _ *wish) { d.clock.advance(time.Minute) }, "", 400, "invalid_grant", "expired"},
		{"grant revoked", func(d *signIns, _ *wish) { _, err := d.Local().Revoke(d.t.Context(), "ann", "acme"); must(d.t, err) }, "", 400, "invalid_grant", "may not open"},
		{"user disabled", func(d *signIns, _ *wish) { _, err := d.Local().DisableUser(d.t.Context(), "ann"); must(d.t, err) }, "", 400, "invalid_grant", "has ended"},
		{"signed out everywhere", func(d *signIns, _ *wish) {
			must(d.t, d.EndSessions(d.t.Context(), coordinator.ActorUser(d.ann.ID), d.ann.ID))
		}, "", 400, "invalid_grant", "has ended"},
		{"session ended", func(d *signIns, _ *wish) {
			all, err := d.Sessions(d.t.Context(), d.ann.ID)
			must(d.t, err)
			must(d.t, d.EndSession(d.t.Context(), coordinator.ActorUser(d.ann.ID), d.ann.ID, all[0].ID))
		}, "", 400, "invalid_grant", "has ended"},
		{"service published no longer", func(d *signIns, _ *wish) { d.acme.publish(postern.Service{Name: "erp"}) }, "", 401, "invalid_client", "does not lead to this node"},
		{"service for everybody now", func(d *signIns, _ *wish) {
			d.acme.publish(postern.Service{Name: postern.DefaultService, Access: postern.Access{Who: postern.AccessPublic}})
		}, "", 401, "invalid_client", "nobody signs in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newSignIns(t)
			w := newWish(acmeHost)
			code := w.code(d.signedIn("ann"))
			node := d.acme
			if tt.node != "" {
				node = d.globex
			}
			tried := w
			tried.form = url.Values{}
			for k, v := range w.form {
				tried.form[k] = v
			}
			tt.between(d, &tried)
			node.redeem(tried, code).wantError(tt.status, tt.code)
			d.wantLog("token.refused", "node:"+node.ID, tt.log)
			if tt.code == "invalid_grant" {
				// What was tried in vain is used up.
				d.acme.redeem(w, code).wantError(400, "invalid_grant")
			}
		})
	}
}

// A code that comes back takes back what it bought (RFC 6749, section 4.1.2).
func TestRedeemTwice(t *testing.T) {
	d := newSignIns(t)
	ann, w := d.signedIn("ann"), newWish(acmeHost)
	code := w.code(ann)
	d.acme.redeem(w, code).want(http.StatusOK, "id_token")
	ann.get("/account").want(http.StatusOK)
	d.clock.advance(5 * time.Minute) // it is known as long as that matters
	d.acme.redeem(w, code).wantError(400, "invalid_grant")
	if a := ann.get("/account"); a.status != http.StatusSeeOther {
		t.Errorf("the session that it came of goes on: status %d", a.status)
	}
	d.wantLog("token.refused", "node:"+d.acme.ID, "acme", acmeHost, "used before")
	d.wantLog("session.end", "node:"+d.acme.ID)
	d.acme.redeem(w, "nonsense").wantError(400, "invalid_grant")
	d.acme.redeem(w, "").wantError(400, "invalid_request")
}

// Of many who redeem one code at the same time at most one gets something, and if
// so it is worth nothing.
func TestRedeemRace(t *testing.T) {
	d := newSignIns(t)
	ann, w := d.signedIn("ann"), newWish(acmeHost)
	code := w.code(ann)
	var wg sync.WaitGroup
	var given atomic.Int32
	for range 16 {
		wg.Go(func() {
			if d.acme.redeem(w, code).status == http.StatusOK {
				given.Add(1)
			}
		})
	}
	wg.Wait()
	if given.Load() > 1 {
		t.Errorf("%d of 16 got a token", given.Load())
	}
	if given.Load() == 1 && ann.get("/account").status == http.StatusOK {
		t.Error("and the session goes on")
	}
}

// Nobody asks for codes without end.
func TestCodesBounded(t *testing.T) {
	d := newSignIns(t)
	ann := d.signedIn("ann")
	for range 60 {
		newWish(acmeHost).code(ann)
	}
	ann.get(newWish(acmeHost).path()).want(http.StatusTooManyRequests)
	newWish(globexHost).code(d.signedIn("bob"))
	d.clock.advance(time.Minute)
	newWish(acmeHost).code(ann)
}
