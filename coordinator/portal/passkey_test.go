package portal_test

import (
	"net/http"
	"testing"
	"time"

	"postern"
)

// begin returns the options that path gives b.
func (b *browser) begin(path string) options {
	b.t.Helper()
	var o options
	b.ask(path, nil, &o).want(http.StatusOK)
	return o
}

// addPasskey gives the user of b, who is signed in and sure, a passkey.
func (b *browser) addPasskey() *authenticator {
	b.t.Helper()
	a := newAuthenticator(b.t, b.d)
	b.ask("/account/passkeys/finish?title=my+laptop", a.create(b.begin("/account/passkeys")), nil).want(200, `/account?done=passkey`)
	return a
}

// holder returns a browser in which a new user is signed in, and their passkey.
func (d *deployment) holder(login string) (*browser, *authenticator) {
	d.t.Helper()
	b, a := d.browser(), newAuthenticator(d.t, d)
	at := "/invite/" + d.invitation(d.user(login).ID) + "/passkey"
	b.ask(at+"/finish", a.create(b.begin(at)), nil).want(200)
	return b, a
}

func TestInviteWithPasskey(t *testing.T) {
	d := deploy(t, nil)
	u, err := d.Local().AddUser(t.Context(), postern.UserRequest{Login: "ada"})
	must(t, err)
	secret := d.invitation(u.ID)
	b := d.browser()
	a := newAuthenticator(t, d)
	o := b.begin("/invite/" + secret + "/passkey")
	if o.RP.ID != "portal."+base || o.AuthenticatorSelection.ResidentKey != "required" || o.AuthenticatorSelection.UserVerification != "required" {
		t.Errorf("options are %+v", o)
	}
	var next struct{ Next string }
	b.ask("/invite/"+secret+"/passkey/finish?name=Ada", a.create(o), &next).want(200)
	if next.Next != "/" {
		t.Errorf("goes on to %q", next.Next)
	}
	d.wantLog("signin.invitation", u.ID, "passkey")
	b.get("/account").want(200, "Ada", "Chrome on Linux", "by passkey")

	other := d.browser()
	other.ask("/sign-in/passkey/finish?next=%2Faccount", a.get(other.begin("/sign-in/passkey")), &next).want(200)
	if next.Next != "/account" {
		t.Errorf("goes on to %q", next.Next)
	}
	s, _, err := d.Session(t.Context(), other.cookie("__Host-postern_portal"))
	must(t, err)
	if len(s.Methods) != 2 || s.Methods[0] != "hwk" || s.Methods[1] != "user" {
		t.Errorf("methods are %v", s.Methods)
	}
	d.wantLog("signin.passkey", u.ID)

	third := d.browser()
	third.ask("/sign-in/passkey/finish?next=%2F%2Fevil.example", a.get(third.begin("/sign-in/passkey")), nil).wantProblem(400, postern.CodeInvalid)
}

func TestPasskeyRefusals(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(d *deployment, a *authenticator)
		status int
		logged string
	}{
		{"another site's origin", func(_ *deployment, a *authenticator) { a.origin = "https://portal.evil.example" }, 401, "passkey:"},
		{"a sibling's origin", func(_ *deployment, a *authenticator) { a.origin = "https://acme." + base + ":8443" }, 401, "passkey:"},
		{"another relying party", func(_ *deployment, a *authenticator) { a.host = "acme." + base }, 401, "passkey:"},
		{"user not verified", func(_ *deployment, a *authenticator) { a.flags = userPresent }, 401, "passkey:"},
		{"user not present", func(_ *deployment, a *authenticator) { a.flags = userVerified }, 401, "passkey:"},
		{"a copy with an older counter", func(_ *deployment, a *authenticator) { a.counter = 0 }, 401, "there may be a copy"},
		{"another key", func(d *deployment, a *authenticator) { a.key = newAuthenticator(d.t, d).key }, 401, "passkey:"},
		{"unknown credential", func(_ *deployment, a *authenticator) { a.id = []byte("somebody else's.") }, 401, "not found"},
		{"another user's handle", func(_ *deployment, a *authenticator) { a.user = []byte("uaaaaaaaaaaaaaaaa") }, 401, "passkey:"},
		{"too late", func(d *deployment, _ *authenticator) { d.clock.advance(6 * time.Minute) }, 400, "too long ago"},
		{"disabled user", func(d *deployment, a *authenticator) {
			_, err := d.Local().DisableUser(d.t.Context(), "ada")
			must(d.t, err)
		}, 401, "not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := deploy(t, nil)
			_, a := d.holder("ada")
			first := d.browser()
			first.ask("/sign-in/passkey/finish", a.get(first.begin("/sign-in/passkey")), nil).want(200)
			first.ask("/sign-in/passkey/finish", a.get(first.begin("/sign-in/passkey")), nil).want(200)
			b := d.browser()
			o := b.begin("/sign-in/passkey")
			tt.spoil(d, a)
			p := b.ask("/sign-in/passkey/finish", a.get(o), nil).wantProblem(tt.status, map[int]string{400: postern.CodeInvalid, 401: postern.CodeUnauthorized}[tt.status])
			if p.Hint == "" {
				t.Error("nothing says what to do")
			}
			if b.cookie("__Host-postern_portal") != "" {
				t.Error("signed in")
			}
			d.wantLog("signin.refused", tt.logged)
		})
	}
}

// TestPasskeyReplay: an answer counts once, and in the browser that was asked.
func TestPasskeyReplay(t *testing.T) {
	d := deploy(t, nil)
	_, a := d.holder("ada")
	b := d.browser()
	answer := a.get(b.begin("/sign-in/passkey"))
	other := d.browser()
	other.begin("/sign-in/passkey")
	other.ask("/sign-in/passkey/finish", answer, nil).wantProblem(400, postern.CodeInvalid)
	b.ask("/sign-in/passkey/finish", answer, nil).want(200)
	b.ask("/sign-in/passkey/finish", answer, nil).wantProblem(400, postern.CodeInvalid)
	// Two pages at a time are both good.
	first, second := b.begin("/sign-in/passkey"), b.begin("/sign-in/passkey")
	b.ask("/sign-in/passkey/finish", a.get(first), nil).want(200)
	b.ask("/sign-in/passkey/finish", a.get(second), nil).want(200)
	for _, body := range []any{nil, "x", map[string]any{"id": "x"}, []int{1}} {
		b.ask("/sign-in/passkey/finish", body, nil).wantProblem(401, postern.CodeUnauthorized)
	}
}

// TestPasskeyPurpose: what was begun for one thing is good for no other.
func TestPasskeyPurpose(t *testing.T) {
	d := deploy(t, nil)
	d.typist("bob")
	u, err := d.Local().AddUser(t.Context(), postern.UserRequest{Login: "eve"})
	must(t, err)
	secret := d.invitation(u.ID)
	b, held := d.holder("ada")
	a := newAuthenticator(t, d)
	b.ask("/account/confirm/passkey/finish", held.get(b.begin("/sign-in/passkey")), nil).wantProblem(400, postern.CodeInvalid)
	b.ask("/sign-in/passkey/finish", held.get(b.begin("/account/confirm/passkey")), nil).wantProblem(400, postern.CodeInvalid)
	b.ask("/account/passkeys/finish", a.create(b.begin("/account/confirm/passkey")), nil).wantProblem(400, postern.CodeInvalid)
	b.ask("/account/confirm/passkey/finish", held.get(b.begin("/account/confirm/passkey")), nil).want(200)
	b.ask("/account/passkeys/finish", a.create(b.begin("/sign-in/passkey")), nil).wantProblem(400, postern.CodeInvalid)
	b.ask("/invite/"+secret+"/passkey/finish", a.create(b.begin("/account/passkeys")), nil).wantProblem(400, postern.CodeInvalid)
	b.ask("/account/passkeys/finish", a.create(b.begin("/invite/"+secret+"/passkey")), nil).wantProblem(400, postern.CodeInvalid)
	o := b.begin("/account/passkeys")
	b.post("/sign-in", "login", "bob", "password", password).wantTo("/")
	b.ask("/account/passkeys/finish", a.create(o), nil).wantProblem(400, postern.CodeInvalid)
	d.browser().ask("/account/passkeys", nil, nil).wantProblem(401, postern.CodeUnauthorized)
}

// TestPasskeyConfirmedOnce: one confirmation is good for one passkey, however many were
// begun while it was.
func TestPasskeyConfirmedOnce(t *testing.T) {
	d := deploy(t, nil)
	b, held := d.holder("ada")
	confirm := func() {
		b.ask("/account/confirm/passkey/finish", held.get(b.begin("/account/confirm/passkey")), nil).want(200)
	}
	confirm()
	one, two := newAuthenticator(t, d), newAuthenticator(t, d)
	first, second := b.begin("/account/passkeys"), b.begin("/account/passkeys")
	b.ask("/account/passkeys/finish", one.create(first), nil).want(200)
	b.ask("/account/passkeys/finish", two.create(second), nil).wantProblem(403, postern.CodeForbidden)
	confirm()
	third := b.begin("/account/passkeys")
	d.clock.advance(4 * time.Minute)
	fourth := b.begin("/account/passkeys")
	d.clock.advance(2 * time.Minute)
	b.ask("/account/passkeys/finish", two.create(third), nil).wantProblem(400, postern.CodeInvalid)
	b.ask("/account/passkeys/finish", two.create(fourth), nil).wantProblem(403, postern.CodeForbidden)
}

func TestAccountPasskeys(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	d.user("bob")
	b := d.signedIn("ada")
	b.post("/account/confirm", "current", password).wantTo("/account?done=sure")
	b.get("/account?done=sure").want(200, "You confirmed that it is you", "Add a passkey")
	a := b.addPasskey()
	b.get("/account").want(200, "my laptop", "Remove")
	b.ask("/account/confirm/passkey/finish", a.get(b.begin("/account/confirm/passkey")), nil).want(200, "/account?done=sure")
	if o := b.begin("/account/passkeys"); len(o.ExcludeCredentials) != 1 || o.ExcludeCredentials[0].ID != b64(a.id) {
		t.Errorf("the passkey that is there could be made again: %+v", o.ExcludeCredentials)
	}
	d.signedIn("bob").post("/account/passkeys/" + b64(a.id) + "/remove").want(http.StatusNotFound)
	b.post("/account/passkeys/" + b64(a.id) + "/remove").wantTo("/account?done=unkeyed")
	b.get("/account?done=unkeyed").want(200, "The passkey was removed", "You have none yet")
	d.wantLog("passkey.add", "my laptop")
	d.wantLog("passkey.remove", "my laptop")
	other := d.browser()
	other.ask("/sign-in/passkey/finish", a.get(other.begin("/sign-in/passkey")), nil).wantProblem(401, postern.CodeUnauthorized)
}

// TestUnsure: who finds a browser open cannot keep the account.
func TestUnsure(t *testing.T) {
	d := deploy(t, nil)
	b, a := d.holder("ada")
	eve, hers := d.holder("eve")
	b.get("/account").want(200, "Confirm that it is you", "You have none").wantNot("Add a passkey", "New password")
	refused := func(b *browser) {
		t.Helper()
		b.ask("/account/passkeys", nil, nil).wantProblem(403, postern.CodeForbidden)
		b.post("/account/password", "password", password).want(403, "This takes that you confirm that it is you")
	}
	refused(b)
	b.post("/account/confirm", "current", "").want(422, "The current password is wrong")
	b.ask("/account/confirm/passkey/finish", hers.get(b.begin("/account/confirm/passkey")), nil).wantProblem(401, postern.CodeUnauthorized)
	d.wantLog("signin.refused", "another's than who is signed in")
	refused(b)
	confirm := func() {
		t.Helper()
		b.ask("/account/confirm/passkey/finish", a.get(b.begin("/account/confirm/passkey")), nil).want(200, "/account?done=sure")
	}
	confirm()
	refused(eve)
	other := d.signedIn("ada")
	refused(other) // by the same user, but in another session
	d.clock.advance(6 * time.Minute)
	refused(b)
	confirm()
	b.addPasskey()
	refused(b) // once
	confirm()
	b.post("/account/password", "password", password).wantTo("/account?done=password")
	b.ask("/account/passkeys", nil, nil).wantProblem(403, postern.CodeForbidden)
	b.get("/account").want(200, "Change the password", "Confirm with the password", "Confirm with a passkey")
	d.user("carl")
	d.signedIn("carl").get("/account").want(200, "Ask whoever manages your account for a new invitation link")
}

// TestLastPasskey: nobody locks themselves out.
func TestLastPasskey(t *testing.T) {
	d := deploy(t, nil)
	u, err := d.Local().AddUser(t.Context(), postern.UserRequest{Login: "ada"})
	must(t, err)
	secret := d.invitation(u.ID)
	b := d.browser()
	a := newAuthenticator(t, d)
	b.ask("/invite/"+secret+"/passkey/finish", a.create(b.begin("/invite/"+secret+"/passkey")), nil).want(200)
	b.post("/account/passkeys/"+b64(a.id)+"/remove").want(http.StatusConflict, "the only way to sign in", "Set a password or add another passkey first")
}
