package portal_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

func TestFirstSignIn(t *testing.T) {
	d := deploy(t, nil)
	secret, ok, err := d.FirstInvitation(t.Context())
	must(t, err)
	if !ok {
		t.Fatal("no first invitation")
	}
	b := d.browser()
	b.get("/").wantTo("/sign-in")
	b.get("/invite/"+secret).want(http.StatusOK, "Welcome to Postern", "Create a passkey", "At least 10 characters")
	b.post("/invite/"+secret, "name", "Ada", "password", "short").want(http.StatusUnprocessableEntity, "Welcome to Postern", "10")
	b.post("/invite/"+secret, "name", "Ada", "password", password).wantTo("/")
	d.wantLog("signin.invitation", "operator")
	b.get("/").want(http.StatusOK, "Nothing is published yet", "Ada", "Make a join token")
	d.browser().get("/invite/"+secret).want(http.StatusGone, "This link is no longer good", "Ask whoever invited you")
	d.browser().post("/invite/"+secret, "password", password).want(http.StatusGone, "This link is no longer good")
	d.wantLog("signin.refused", "used already")
	d.browser().get("/invite/xxxx").want(http.StatusGone, "This link is no longer good", "mistyped, used already or too old")
}

func TestExpiredInvitation(t *testing.T) {
	d := deploy(t, nil)
	u, err := d.Local().AddUser(t.Context(), postern.UserRequest{Login: "ada"})
	must(t, err)
	secret := d.invitation(u.ID)
	d.clock.advance(73 * time.Hour)
	d.browser().get("/invite/"+secret).want(http.StatusGone, "This link has expired", "Ask whoever invited you")
	d.browser().post("/invite/"+secret, "password", password).want(http.StatusGone, "This link has expired")
	d.wantLog("signin.refused", u.ID, "expired")
}

func TestSignIn(t *testing.T) {
	d := deploy(t, nil)
	u := d.typist("ada")
	tests := []struct {
		name, login, password string
		prepare               func()
		status                int
		says                  []string
	}{
		{name: "wrong password", login: "ada", password: "wrong", status: 401, says: []string{"Login or password is wrong", "Try again"}},
		{name: "unknown login", login: "nobody", password: password, status: 401, says: []string{"Login or password is wrong"}},
		{name: "right", login: "ADA", password: password, status: 303},
		{name: "disabled", login: "ada", password: password, status: 401, says: []string{"This account cannot sign in", "Ask whoever invited you"}, prepare: func() {
			_, err := d.Local().DisableUser(t.Context(), u.ID)
			must(t, err)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.prepare != nil {
				tt.prepare()
			}
			d.clock.advance(time.Minute)
			b := d.browser()
			a := b.post("/sign-in", "login", tt.login, "password", tt.password).want(tt.status, tt.says...)
			if got, want := b.cookie("__Host-postern_portal") != "", tt.status == 303; got != want {
				t.Errorf("got a session: %v, want %v", got, want)
			}
			if tt.status == 401 && a.find(`name="login" value="([^"]*)"`) != tt.login {
				t.Error("the login has to be typed again")
			}
		})
	}
	d.wantLog("signin.refused", u.ID, "wrong password")
	d.wantLog("signin.password", u.ID)
}

func TestSessionCookie(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	b := d.browser()
	a := b.post("/sign-in", "login", "ada", "password", password).wantTo("/")
	cookie := a.header.Get("Set-Cookie")
	for _, want := range []string{"__Host-postern_portal=", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("no %q in %q", want, cookie)
		}
	}
	if strings.Contains(cookie, "Domain") {
		t.Errorf("other hosts get the cookie: %q", cookie)
	}
}

// TestFixation: whoever knew a browser's session before knows nothing after somebody
// signed in there.
func TestFixation(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	d.user("mallory")
	b := d.signedIn("mallory")
	before := b.cookie("__Host-postern_portal")
	b.post("/sign-in", "login", "ada", "password", password).wantTo("/")
	after := b.cookie("__Host-postern_portal")
	if before == after {
		t.Fatal("the session's secret is the one from before")
	}
	b.get("/account").want(200, "ada").wantNot("mallory")
	other := d.browser()
	other.keep("__Host-postern_portal", before)
	other.get("/account").want(http.StatusSeeOther)
	b.get("/sign-in").wantTo("/")
}

func TestNext(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	refused := []string{
		"//evil.example", "https://evil.example/", `/\evil.example`, "/\t/evil.example", "/\n/evil.example",
		"javascript:alert(1)", "evil", `\\evil.example`, "/ok\r\nSet-Cookie: a=b", "%2f%2fevil.example",
	}
	for _, next := range refused {
		t.Run(next, func(t *testing.T) {
			d.browser().get("/sign-in?next="+url.QueryEscape(next)).want(http.StatusBadRequest, "leads to another site")
			b := d.browser()
			b.post("/sign-in", "login", "ada", "password", password, "next", next).want(http.StatusBadRequest, "leads to another site")
			if b.cookie("__Host-postern_portal") != "" {
				t.Error("signed in on the way to another site")
			}
		})
	}
	d.wantLog("signin.refused", "evil.example")
	b := d.browser()
	b.get("/account?x=1").wantTo("/sign-in?next=%2Faccount%3Fx%3D1")
	a := b.get("/sign-in?next=%2Faccount%3Fx%3D1").want(200)
	if got := a.find(`name="next" value="([^"]*)"`); got != "/account?x=1" {
		t.Errorf("the form goes on to %q", got)
	}
	if a.find(`<input type="hidden" id="([^"]*)" name="next"`) != a.find(`data-finish="/sign-in/passkey/finish" data-with="([^"]*)"`) {
		t.Error("a passkey does not go on to the same")
	}
	b.post("/sign-in", "login", "ada", "password", password, "next", "/account?x=1").wantTo("/account?x=1")
}

// TestOnward: a form leads to no other site, not even by two redirects, as browsers
// hold those to form-action.
func TestOnward(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	for _, next := range []string{"/continue?id=1&x=2", "/open/acme/default?entry=a", "/authorize/callback?id=x"} {
		a := d.browser().post("/sign-in", "login", "ada", "password", password, "next", next).want(http.StatusOK, "One moment")
		if a.header.Get("Location") != "" {
			t.Errorf("%s: redirected", next)
		}
		if got := a.find(`http-equiv="refresh" content="0; url=([^"]*)"`); got != next {
			t.Errorf("goes on to %q, want %q", got, next)
		}
		if got := a.find(`<a class="button main" href="([^"]*)"`); got != next {
			t.Errorf("the link goes on to %q, want %q", got, next)
		}
	}
}

func TestSignOut(t *testing.T) {
	d := deploy(t, nil)
	u := d.typist("ada")
	b := d.signedIn("ada")
	secret := b.cookie("__Host-postern_portal")
	b.post("/sign-out").wantTo("/sign-in?done=out")
	b.get("/sign-in?done=out").want(200, "You are signed out")
	if b.cookie("__Host-postern_portal") != "" {
		t.Error("the cookie is still there")
	}
	if _, _, err := d.Session(t.Context(), secret); err == nil {
		t.Error("the session goes on")
	}
	d.wantLog("session.end", u.ID)
	b.post("/sign-out").wantTo("/sign-in?done=out")
}

func TestBruteForce(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	b := d.browser()
	for range 5 {
		b.post("/sign-in", "login", "ada", "password", "wrong").want(http.StatusUnauthorized)
	}
	a := b.post("/sign-in", "login", "ada", "password", password).want(http.StatusTooManyRequests, "Too many attempts", "Wait a minute")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	d.wantLog("signin.refused", "too many attempts for one login")
	d.clock.advance(time.Minute)
	b.post("/sign-in", "login", "ada", "password", password).wantTo("/")
}

// TestForeignForms: what pages of other sites send changes nothing, siblings' below
// the same domain included.
func TestForeignForms(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	for _, site := range []string{"cross-site", "same-site"} {
		t.Run(site, func(t *testing.T) {
			b := d.browser()
			b.header.Set("Sec-Fetch-Site", site)
			b.header.Set("Origin", "https://acme."+base)
			b.post("/sign-in", "login", "ada", "password", password).want(http.StatusForbidden, "a page of another site", "nothing was done")
			if b.cookie("__Host-postern_portal") != "" {
				t.Error("signed in by another site's form")
			}
			in := d.signedIn("ada")
			in.header.Set("Sec-Fetch-Site", site)
			in.post("/sign-out").want(http.StatusForbidden)
			in.header.Set("Sec-Fetch-Site", "none")
			in.get("/account").want(http.StatusOK, "ada")
		})
	}
	d.wantLog("request.refused", "https://acme."+base)
}

// An invitation is still good when what it was sent with is refused: nothing that is
// written of that has its secret.
func TestRefusedInvitationIsNotWritten(t *testing.T) {
	d := deploy(t, nil)
	u, err := d.Local().AddUser(t.Context(), postern.UserRequest{Login: "eve"})
	must(t, err)
	secret := d.invitation(u.ID)
	b := d.browser()
	b.header.Set("Sec-Fetch-Site", "cross-site")
	b.post("/invite/"+secret, "password", password).want(http.StatusForbidden)
	b = d.browser()
	for range 120 {
		b.post("/sign-out")
	}
	b.post("/invite/"+secret, "password", password).want(http.StatusTooManyRequests)
	entries, err := d.Local().Audit(t.Context(), coordinator.AuditQuery{Action: "request.refused", Limit: 10})
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("the audit log has %+v", entries)
	}
	for _, e := range entries {
		if e.Target != "/invite/…" || strings.Contains(e.Detail, secret) {
			t.Errorf("the audit log has %+v", e)
		}
	}
	d.browser().get("/invite/"+secret).want(http.StatusOK, "good until")
}

func TestPostLimit(t *testing.T) {
	d := deploy(t, nil)
	b := d.browser()
	for range 120 {
		b.post("/sign-out").want(http.StatusSeeOther)
	}
	for range 3 {
		b.post("/sign-out").want(http.StatusTooManyRequests, "Please wait a moment", "Wait a minute")
	}
	entries, err := d.Local().Audit(t.Context(), coordinator.AuditQuery{Action: "request.refused", Limit: 10})
	must(t, err)
	if len(entries) != 1 || !strings.Contains(entries[0].Detail, "127.0.0.1: too much was asked") {
		t.Errorf("the audit log has %+v", entries)
	}
	b.get("/sign-in").want(http.StatusOK)
	d.clock.advance(time.Second)
	b.post("/sign-out").want(http.StatusSeeOther)
}

func TestLongBody(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	b := d.browser()
	b.post("/sign-in", "login", "ada", "password", password, "x", strings.Repeat("x", 1<<20)).want(http.StatusRequestEntityTooLarge, "more than 65536 bytes")
	if b.cookie("__Host-postern_portal") != "" {
		t.Error("a body without end was read")
	}
	b.get("/sign-in?next=%zz").want(http.StatusBadRequest, "not well-formed")
}
