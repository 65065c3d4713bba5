// Package portal is the coordinator's browser pages and its OpenID Provider:
// where people sign in, see what they may open, and are handed over to the node
// that has it. What it knows, it asks the coordinator; it keeps nothing itself but
// sign-ins that are under way.
package portal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"postern"
	"postern/coordinator"
	"postern/internal/accept"
)

// A Config is what a Portal is made from. Coordinator is required.
type Config struct {
	Coordinator *coordinator.Coordinator
	Name        string           // of the deployment, for people. If empty, "Postern".
	Logo        []byte           // SVG or PNG. If empty, Postern's own.
	Client      *http.Client     // to reach external issuers. If nil, one with short timeouts.
	Now         func() time.Time // If nil, time.Now.
	Logger      *slog.Logger     // If nil, logs are discarded.
}

// A Portal answers at the coordinator's portal name. Its methods are safe for
// concurrent use.
type Portal struct {
	cfg      Config
	c        *coordinator.Coordinator
	log      *slog.Logger
	handler  http.Handler
	logo     file
	pages    pages
	passkeys passkeys
	external *external
	streams  *streams
	provider *provider
	floods   *rates              // of what the audit log has of sources that ask too much
	sure     *underWay[struct{}] // sessions whose users confirmed that it is them, by id
}

// New returns a portal. It starts nothing.
func New(cfg Config) (*Portal, error) {
	if cfg.Name == "" {
		cfg.Name = "Postern"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Portal{cfg: cfg, c: cfg.Coordinator, log: cfg.Logger, streams: newStreams(), floods: newRates(time.Minute, 1), sure: newUnderWay[struct{}](cfg.Now)}
	var err error
	if p.logo, err = logoFile(cfg.Logo); err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	if p.pages, err = parsePages(); err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	if p.passkeys, err = newPasskeys(cfg); err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	p.external = newExternal(cfg)
	p.provider = newProvider(p)
	mux := http.NewServeMux()
	p.routes(mux)
	p.handler = p.guard(mux)
	return p, nil
}

// ServeHTTP answers a browser.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// EndStreams ends the live updates of all pages, so that a server can stop.
// Browsers come back for more.
func (p *Portal) EndStreams() { p.streams.end() }

func (p *Portal) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /static/{version}/{name}", p.static)
	mux.HandleFunc("GET /logo", p.serveLogo)
	mux.HandleFunc("GET /health", p.health)
	mux.HandleFunc("/", p.nothingHere)

	mux.HandleFunc("GET /sign-in", p.signInPage)
	mux.HandleFunc("POST /sign-in", p.signInPassword)
	mux.HandleFunc("POST /sign-in/passkey", p.signInPasskey)
	mux.HandleFunc("POST /sign-in/passkey/finish", p.signInPasskeyFinish)
	mux.HandleFunc("GET /sign-in/with/{issuer}", p.signInExternal)
	mux.HandleFunc("GET /sign-in/callback/{issuer}", p.signInCallback)
	mux.HandleFunc("POST /sign-out", p.signOut)
	mux.HandleFunc("GET /invite/{secret}", p.invitePage)
	mux.HandleFunc("POST /invite/{secret}", p.invitePassword)
	mux.HandleFunc("POST /invite/{secret}/passkey", p.invitePasskey)
	mux.HandleFunc("POST /invite/{secret}/passkey/finish", p.invitePasskeyFinish)

	mux.HandleFunc("GET /{$}", p.signedIn(p.cataloguePage))
	mux.HandleFunc("POST /favourites", p.signedIn(p.setFavourite))
	mux.HandleFunc("GET /open/{tenant}/{service}", p.signedIn(p.open))
	mux.HandleFunc("GET /events", p.signedIn(p.events))

	mux.HandleFunc("GET /account", p.signedIn(p.accountPage))
	mux.HandleFunc("POST /account/name", p.signedIn(p.setName))
	mux.HandleFunc("POST /account/password", p.signedIn(p.setPassword))
	mux.HandleFunc("POST /account/confirm", p.signedIn(p.confirmPassword))
	mux.HandleFunc("POST /account/confirm/passkey", p.signedIn(p.confirmPasskey))
	mux.HandleFunc("POST /account/confirm/passkey/finish", p.signedIn(p.confirmPasskeyFinish))
	mux.HandleFunc("POST /account/passkeys", p.signedIn(p.addPasskey))
	mux.HandleFunc("POST /account/passkeys/finish", p.signedIn(p.addPasskeyFinish))
	mux.HandleFunc("POST /account/passkeys/{id}/remove", p.signedIn(p.removePasskey))
	mux.HandleFunc("POST /account/sessions/{id}/end", p.signedIn(p.endSession))
	mux.HandleFunc("POST /account/sign-out-everywhere", p.signedIn(p.signOutEverywhere))

	p.operatorRoutes(mux)
	p.provider.routes(mux)
}

// sessionCookie holds the secret of a coordinator.Session.
const sessionCookie = "__Host-postern_portal"

// A visit is what one request's handlers found out about who asks.
type visit struct {
	looked  bool
	session coordinator.Session
	user    coordinator.User
	ok      bool
	held    bool // where they are was not let through in time
}

type visitKey struct{}

// session returns who is signed in; ok is false if nobody is.
func (p *Portal) session(r *http.Request) (s coordinator.Session, u coordinator.User, ok bool) {
	v, _ := r.Context().Value(visitKey{}).(*visit)
	if v == nil {
		v = new(visit)
	}
	if !v.looked {
		v.looked = true
		v.session, v.user, v.ok = p.lookUp(r)
	}
	return v.session, v.user, v.ok
}

func (p *Portal) lookUp(r *http.Request) (s coordinator.Session, u coordinator.User, ok bool) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return s, u, false
	}
	s, u, err = p.c.Session(r.Context(), c.Value)
	if err != nil {
		if !errors.Is(err, coordinator.ErrNotFound) && r.Context().Err() == nil {
			p.log.Error("look a session up", "err", err)
		}
		return coordinator.Session{}, coordinator.User{}, false
	}
	if s.Device {
		// What a program was given is for its own requests, and for no browser.
		return coordinator.Session{}, coordinator.User{}, false
	}
	coordinator.Recognize(r, u.ID)
	return s, u, true
}

// A signedInHandler answers who is signed in.
type signedInHandler func(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User)

// signedIn lets only those who are signed in get to next. Where they are is let
// through to what they may open.
func (p *Portal) signedIn(next signedInHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s, u, ok := p.session(r)
		switch {
		case ok:
			p.admit(r, u.ID)
			next(w, r, s, u)
		case r.Method == http.MethodGet && accept.HTML(r) && !fromScript(r):
			p.signIn(w, r, r.URL.RequestURI())
		case fromScript(r):
			w.Header().Set("HX-Redirect", "/sign-in")
			p.refuse(w, r, notSignedIn())
		default:
			p.refuse(w, r, notSignedIn())
		}
	}
}

func notSignedIn() *postern.Problem {
	return postern.NewProblem(http.StatusUnauthorized, postern.CodeUnauthorized,
		"you are not signed in, or your session has ended", "sign in and try again")
}

// signIn sends the browser to the sign-in page, which brings it back to next, a
// path of the portal with its query.
func (p *Portal) signIn(w http.ResponseWriter, r *http.Request, next string) {
	http.Redirect(w, r, signInURL(next), http.StatusSeeOther)
}

// nothingHere answers what nobody else does.
func (p *Portal) nothingHere(w http.ResponseWriter, r *http.Request) {
	p.refuse(w, r, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
		"there is no such page", "the address may be mistyped, or the page may have moved"))
}

func (p *Portal) health(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

// note records what became of an attempt of somebody unknown, unless a
// coordinator's method did already.
func (p *Portal) noteStranger(r *http.Request, action, target, detail string) {
	p.c.Note(context.WithoutCancel(r.Context()), coordinator.ActorStranger, action, "", target, fmt.Sprintf("%v: %s", remoteOf(r), detail))
}
