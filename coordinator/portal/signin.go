package portal

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"postern"
	"postern/coordinator"
	"postern/internal/accept"
)

// Ways to prove who one is (RFC 8176), as sessions and ID tokens say them.
var (
	byPassword = []string{coordinator.MethodPassword}
	byPasskey  = []string{coordinator.MethodPasskey, "user"}
	byIssuer   = []string{coordinator.MethodExternal}
)

// A signInForm is what the sign-in page is made from.
type signInForm struct {
	Login   string
	Next    string // a path of the portal
	Issuers []coordinator.Issuer
	Problem *postern.Problem
}

func signInURL(next string) string {
	if next == "" || next == "/" {
		return "/sign-in"
	}
	return "/sign-in?next=" + url.QueryEscape(next)
}

// checkNext returns where to go on after signing in: a path of the portal, "/" for
// the empty one. Anything else is refused, as it would make the portal's good name
// a step on the way to a bad place.
func checkNext(next string) (string, *postern.Problem) {
	if next == "" {
		return "/", nil
	}
	if err := postern.CheckPath(next); err != nil {
		return "", postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid,
			"the link that brought you here leads to another site after signing in",
			"do not follow it; open this site's own address instead")
	}
	return next, nil
}

// nextOf is checkNext for r's parameter; it answers r if that is refused.
func (p *Portal) nextOf(w http.ResponseWriter, r *http.Request) (next string, ok bool) {
	next, problem := checkNext(r.FormValue("next"))
	if problem != nil {
		p.noteStranger(r, "signin.refused", "", fmt.Sprintf("next is %q", r.FormValue("next")))
		p.refuse(w, r, problem)
		return "", false
	}
	return next, true
}

func (p *Portal) signInPage(w http.ResponseWriter, r *http.Request) {
	next, ok := p.nextOf(w, r)
	if !ok {
		return
	}
	// Who is signed in has no business here, but to prove it again.
	if _, _, ok := p.session(r); ok && r.FormValue("again") == "" {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	p.showSignIn(w, r, http.StatusOK, signInForm{Next: next})
}

func (p *Portal) showSignIn(w http.ResponseWriter, r *http.Request, status int, f signInForm) {
	issuers, err := p.c.Issuers(r.Context())
	if err != nil {
		p.fail(w, r, err)
		return
	}
	f.Issuers = issuers
	p.render(w, r, status, "sign-in", f)
}

func (p *Portal) signInPassword(w http.ResponseWriter, r *http.Request) {
	next, ok := p.nextOf(w, r)
	if !ok {
		return
	}
	login := r.PostFormValue("login")
	u, err := p.c.CheckPassword(r.Context(), login, r.PostFormValue("password"), remoteOf(r))
	if err == nil {
		err = p.startSession(w, r, u.ID, byPassword)
	}
	problem := problemIn(err)
	switch {
	case err == nil:
		p.goOn(w, r, next)
	case problem != nil && accept.HTML(r):
		if problem.Status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "60")
		}
		challenge(w, problem.Status)
		p.showSignIn(w, r, problem.Status, signInForm{Login: login, Next: next, Problem: problem})
	default:
		p.fail(w, r, err)
	}
}

func tooManySignIns() *postern.Problem {
	return postern.NewProblem(http.StatusTooManyRequests, postern.CodeTooMany,
		"too many sign-ins were begun from your address in a short time", "wait a minute and try again")
}

// admitTimeout is how long somebody waits for the gateways to let them through.
const admitTimeout = time.Second

// startSession signs in the user with id, who proved who they are, by a secret
// that nobody had before. What this browser was signed in with before, ends.
func (p *Portal) startSession(w http.ResponseWriter, r *http.Request, id string, methods []string) error {
	secret, s, err := p.c.StartSession(r.Context(), coordinator.SignIn{
		User: id, Methods: methods, Agent: r.UserAgent(), Remote: remoteOf(r),
	})
	if err != nil {
		return err
	}
	if old, u, ok := p.session(r); ok {
		if err := p.c.EndSession(r.Context(), coordinator.ActorUser(u.ID), u.ID, old.ID); err != nil {
			p.log.Warn("earlier session not ended", "err", err)
		}
	}
	http.SetCookie(w, hostCookie(sessionCookie, secret, 0))
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		v.looked, v.ok, v.session = true, false, s // the page that follows is nobody's yet
	}
	p.admit(r, id)
	return nil
}

// admit lets r's source through to what the user may open. Where that fails, or
// takes too long, gateways may refuse a connection; the visit is held then, see open,
// and the log says why.
func (p *Portal) admit(r *http.Request, user string) {
	ctx, cancel := context.WithTimeout(r.Context(), admitTimeout)
	defer cancel()
	if err := p.c.Admit(ctx, user, remoteOf(r)); err != nil && r.Context().Err() == nil {
		p.log.Warn("source not admitted in time", "err", err)
		if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
			v.held = true
		}
	}
}

// isHeld reports whether gateways may refuse who sent r.
func isHeld(r *http.Request) bool {
	v, ok := r.Context().Value(visitKey{}).(*visit)
	return ok && v.held
}

// An admission is until when a page's reader is let through, where that is asked for.
type admission struct {
	Needed bool
	Until  time.Time // zero: they are not
}

func (p *Portal) admission(r *http.Request, user string) admission {
	until, needed := p.c.Admitted(r.Context(), user, remoteOf(r))
	return admission{needed, until}
}

// hostCookie returns a cookie that no other host can set or read (RFC 6265bis,
// section 4.1.3.2). Without maxAge it ends with the browser.
func hostCookie(name, value string, maxAge time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(maxAge / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

func (p *Portal) forget(w http.ResponseWriter) {
	c := hostCookie(sessionCookie, "", 0)
	c.MaxAge = -1
	http.SetCookie(w, c)
}

func (p *Portal) signOut(w http.ResponseWriter, r *http.Request) {
	if s, u, ok := p.session(r); ok {
		if err := p.c.EndSession(r.Context(), coordinator.ActorUser(u.ID), u.ID, s.ID); err != nil {
			p.fail(w, r, err)
			return
		}
	}
	p.forget(w)
	p.done(w, r, "/sign-in", "out")
}

// An inviteForm is what the invitation's page is made from.
type inviteForm struct {
	Secret  string
	Login   string
	Name    string
	Expires time.Time
	Problem *postern.Problem
}

// invitation returns the form for r's invitation; it answers r if that is good no
// more.
func (p *Portal) invitation(w http.ResponseWriter, r *http.Request) (f inviteForm, u coordinator.User, ok bool) {
	secret := r.PathValue("secret")
	i, u, err := p.c.Invitation(r.Context(), secret)
	if err != nil {
		p.fail(w, r, err)
		return f, u, false
	}
	return inviteForm{Secret: secret, Login: u.Login, Name: u.Name, Expires: i.Expires}, u, true
}

func (p *Portal) invitePage(w http.ResponseWriter, r *http.Request) {
	if f, _, ok := p.invitation(w, r); ok {
		p.render(w, r, http.StatusOK, "invite", f)
	}
}

func (p *Portal) invitePassword(w http.ResponseWriter, r *http.Request) {
	f, _, ok := p.invitation(w, r)
	if !ok {
		return
	}
	name := r.PostFormValue("name")
	u, err := p.c.Accept(r.Context(), f.Secret, name, r.PostFormValue("password"), nil)
	if err == nil {
		err = p.startSession(w, r, u.ID, byPassword)
	}
	switch problem := problemIn(err); {
	case err == nil:
		http.Redirect(w, r, "/", http.StatusSeeOther)
	case problem != nil && problem.Code == postern.CodeInvalid:
		f.Name, f.Problem = cmp.Or(name, f.Name), problem
		p.render(w, r, problem.Status, "invite", f)
	default:
		p.fail(w, r, err)
	}
}
