package portal_test

import (
	"net/http"
	"testing"
	"time"

	"postern"
)

func TestAccount(t *testing.T) {
	d := deploy(t, nil)
	u := d.user("ada")
	b := d.signedIn("ada")
	b.get("/account").want(200, "ada", "Chrome on Linux", "this one", "from 127.0.0.1", "by password")
	b.post("/account/name", "name", "Ada Lovelace").wantTo("/account?done=name")
	b.get("/account?done=name").want(200, "Your name was changed", "Ada Lovelace")
	d.wantLog("user.name", "user:"+u.ID)
	b.post("/account/name", "name", "a\nb").want(422, "Your account", "not one line")
	b.get("/account?done=made-up").want(200)
	d.browser().post("/account/name", "name", "x").want(401, "Please sign in")
}

func TestPassword(t *testing.T) {
	d := deploy(t, nil)
	d.typist("ada")
	b, other := d.signedIn("ada"), d.signedIn("ada")
	const better = "a few random words"
	b.post("/account/password", "current", "wrong", "password", better).want(422, "The current password is wrong", "Nothing was changed")
	b.post("/account/password", "current", password, "password", "short").want(422, "10")
	other.get("/account").want(200)
	b.post("/account/password", "current", password, "password", better).wantTo("/account?done=password")
	b.get("/account?done=password").want(200, "Your password was set")
	other.get("/account").want(http.StatusSeeOther)
	d.wantLog("user.password", "ada")
	d.clock.advance(time.Minute) // attempts are limited
	d.browser().post("/sign-in", "login", "ada", "password", better).wantTo("/")
}

func TestSessions(t *testing.T) {
	d := deploy(t, nil)
	d.user("ada")
	d.user("bob")
	here, there, bobs := d.signedIn("ada"), d.signedIn("ada"), d.signedIn("bob")
	id := func(b *browser) string {
		s, _, err := d.Session(t.Context(), b.cookie("__Host-postern_portal"))
		must(t, err)
		return s.ID
	}
	bobs.post("/account/sessions/" + id(there) + "/end").want(404)
	there.get("/account").want(200)
	here.post("/account/sessions/" + id(there) + "/end").wantTo("/account?done=session")
	there.get("/account").want(http.StatusSeeOther)
	here.post("/account/sessions/" + id(here) + "/end").wantTo("/sign-in?done=out")
	here.get("/account").want(http.StatusSeeOther)

	here, there = d.signedIn("ada"), d.signedIn("ada")
	here.post("/account/sign-out-everywhere").wantTo("/sign-in?done=everywhere")
	here.get("/account").want(http.StatusSeeOther)
	there.get("/account").want(http.StatusSeeOther)
	bobs.get("/account").want(200, "bob")

	d.clock.advance(31 * time.Minute)
	bobs.get("/account").want(http.StatusSeeOther)
}

// TestJSON: what asks for JSON gets Problems, and is not led around.
func TestJSON(t *testing.T) {
	d := deploy(t, nil)
	b := d.browser()
	b.header.Set("Accept", "application/json")
	b.get("/account").wantProblem(401, postern.CodeUnauthorized)
	b.get("/nowhere").wantProblem(404, postern.CodeNotFound)
	b.header.Set("Accept", "*/*")
	b.post("/account/sign-out-everywhere").wantProblem(401, postern.CodeUnauthorized)
	b.post("/sign-in", "login", "nobody", "password", "x").wantProblem(401, postern.CodeUnauthorized)
}
