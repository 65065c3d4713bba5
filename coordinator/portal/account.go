package portal

import (
	"net/http"
	"slices"

	"postern"
	"postern/coordinator"
	"postern/internal/accept"
)

// An account is what its page is made from.
type account struct {
	User      coordinator.User
	External  string // title of the issuer that decides about the account; empty: none
	Passkeys  []coordinator.Passkey
	Sessions  []accountSession
	Admission admission
	Sure      bool // the user confirmed that it is them
	Problem   *postern.Problem
	Field     string // "name", "password", "passkeys" or "confirm": where Problem belongs
}

type accountSession struct {
	coordinator.Session
	Here bool // it is the one of who looks
}

// methodWords say how somebody signed in.
var methodWords = map[string]string{
	coordinator.MethodPassword: "password", coordinator.MethodPasskey: "passkey", coordinator.MethodExternal: "another issuer",
}

// How says how s was begun.
func (s accountSession) How() string {
	for _, m := range s.Methods {
		if word := methodWords[m]; word != "" {
			return word
		}
	}
	return "unknown"
}

func (p *Portal) accountPage(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	p.showAccount(w, r, s, u, "", nil)
}

// showAccount answers with u's account, and problem at field if not nil.
func (p *Portal) showAccount(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User, field string, problem *postern.Problem) {
	a := account{User: u, Admission: p.admission(r, u.ID), Sure: p.isSure(r, s), Problem: problem, Field: field}
	var err error
	if a.Passkeys, err = p.c.Passkeys(r.Context(), u.ID); err != nil {
		p.fail(w, r, err)
		return
	}
	slices.SortFunc(a.Passkeys, func(a, b coordinator.Passkey) int { return a.Created.Compare(b.Created) })
	if a.External, err = p.decider(r, u); err != nil {
		p.fail(w, r, err)
		return
	}
	sessions, err := p.c.Sessions(r.Context(), u.ID)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	for _, other := range sessions {
		a.Sessions = append(a.Sessions, accountSession{other, other.ID == s.ID})
	}
	status := http.StatusOK
	if problem != nil {
		status = problem.Status
	}
	p.render(w, r, status, "account", a)
}

// decider returns the title of the external issuer that decides what u may open,
// "" if none does: such accounts have no passwords and passkeys here.
func (p *Portal) decider(r *http.Request, u coordinator.User) (string, error) {
	grants, err := p.c.Grants(r.Context(), u.ID)
	if err != nil {
		return "", err
	}
	issuers, err := p.c.Issuers(r.Context())
	if err != nil {
		return "", err
	}
	for _, g := range grants {
		for _, i := range issuers {
			if g.Issuer == i.Name {
				return i.Title, nil
			}
		}
	}
	return "", nil
}

// decides reports whether u's password and passkeys are this portal's to keep; it
// answers r if not.
func (p *Portal) decides(w http.ResponseWriter, r *http.Request, u coordinator.User) bool {
	external, err := p.decider(r, u)
	switch {
	case err != nil:
		p.fail(w, r, err)
	case external != "":
		p.refuse(w, r, postern.NewProblem(http.StatusForbidden, postern.CodeForbidden,
			external+" decides about this account", "change how you sign in there"))
	default:
		return true
	}
	return false
}

// settle goes on after a change of s's account, or shows what was wrong at field.
func (p *Portal) settle(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User, field, what string, err error) {
	switch problem := problemIn(err); {
	case err == nil:
		p.done(w, r, "/account", what)
	case problem != nil && accept.HTML(r):
		p.showAccount(w, r, s, u, field, problem)
	default:
		p.fail(w, r, err)
	}
}

func (p *Portal) setName(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	err := p.c.SetName(r.Context(), coordinator.ActorUser(u.ID), u.ID, r.PostFormValue("name"))
	p.settle(w, r, s, u, "name", "name", err)
}

// Confirming keeps who finds a browser open from keeping the account: to set a first
// password or to add a passkey one proves once more who one is, with the password or
// a passkey. It is good for one such change by that session, for underWayLife.

// isSure reports whether the user of s, in r's browser, confirmed that it is them.
func (p *Portal) isSure(r *http.Request, s coordinator.Session) bool {
	browser, _ := browserOf(r)
	return p.sure.has(s.ID, browser)
}

// useUp ends what isSure says of s, and reports what it said.
func (p *Portal) useUp(r *http.Request, s coordinator.Session) bool {
	browser, _ := browserOf(r)
	_, ok := p.sure.take(s.ID, browser)
	return ok
}

func unsure() *postern.Problem {
	return postern.NewProblem(http.StatusForbidden, postern.CodeForbidden,
		"this takes that you confirm that it is you", "do so on your account page, under Passkeys; it is good for five minutes")
}

func (p *Portal) confirmPassword(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	err := p.checkCurrent(r, u)
	if err == nil {
		p.sure.put(s.ID, knowBrowser(w, r), remoteOf(r), struct{}{})
	}
	p.settle(w, r, s, u, "confirm", "sure", err)
}

func (p *Portal) confirmPasskey(w http.ResponseWriter, r *http.Request, _ coordinator.Session, u coordinator.User) {
	p.askPasskey(w, r, confirming+u.ID)
}

func (p *Portal) confirmPasskeyFinish(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	if _, ok := p.usedPasskey(w, r, confirming+u.ID); ok {
		p.sure.put(s.ID, knowBrowser(w, r), remoteOf(r), struct{}{})
		writeJSON(w, onward{"/account?done=sure"})
	}
}

// checkCurrent fails if r's form has not the password that u has.
func (p *Portal) checkCurrent(r *http.Request, u coordinator.User) error {
	_, err := p.c.CheckPassword(r.Context(), u.Login, r.PostFormValue("current"), remoteOf(r))
	if problem := problemIn(err); problem != nil && problem.Code == postern.CodeUnauthorized {
		return postern.NewProblem(http.StatusUnprocessableEntity, postern.CodeInvalid, "the current password is wrong", "nothing was changed")
	}
	return err
}

// setPassword sets a password, for who gives the one they have, or confirmed that it
// is them.
func (p *Portal) setPassword(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	if !p.decides(w, r, u) {
		return
	}
	var err error
	switch {
	case u.Password != "":
		err = p.checkCurrent(r, u)
	case !p.isSure(r, s):
		err = unsure()
	}
	if err == nil {
		err = p.c.SetPassword(r.Context(), coordinator.ActorUser(u.ID), u.ID, r.PostFormValue("password"), s.ID)
	}
	if err == nil {
		p.useUp(r, s)
	}
	p.settle(w, r, s, u, "password", "password", err)
}

func (p *Portal) removePasskey(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	err := p.c.RemovePasskey(r.Context(), coordinator.ActorUser(u.ID), u.ID, r.PathValue("id"))
	p.settle(w, r, s, u, "passkeys", "unkeyed", err)
}

func (p *Portal) endSession(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	id := r.PathValue("id")
	if err := p.c.EndSession(r.Context(), coordinator.ActorUser(u.ID), u.ID, id); err != nil {
		p.fail(w, r, err)
		return
	}
	if id == s.ID {
		p.forget(w)
		p.done(w, r, "/sign-in", "out")
		return
	}
	p.done(w, r, "/account", "session")
}

func (p *Portal) signOutEverywhere(w http.ResponseWriter, r *http.Request, _ coordinator.Session, u coordinator.User) {
	if err := p.c.EndSessions(r.Context(), coordinator.ActorUser(u.ID), u.ID); err != nil {
		p.fail(w, r, err)
		return
	}
	p.forget(w)
	p.done(w, r, "/sign-in", "everywhere")
}
