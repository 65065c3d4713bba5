// Package portal is the coordinator's browser pages and its OpenID Provider:
// where people sign in, see what they may open, and are handed over to the node
// that has it. What it knows, it asks the coordinator; it keeps nothing itself but
// sign-ins that are under way.
package portal

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"postern"
	"postern/coordinator"
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
	cfg Config
	c   *coordinator.Coordinator
	log *slog.Logger
	mux *http.ServeMux
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
	p := &Portal{cfg: cfg, c: cfg.Coordinator, log: cfg.Logger, mux: http.NewServeMux()}
	return p, nil
}

// ServeHTTP answers a browser.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// sessionCookie holds the secret of a coordinator.Session.
const sessionCookie = "__Host-postern_portal"

// session returns who is signed in; ok is false if nobody is.
func (p *Portal) session(r *http.Request) (s coordinator.Session, u coordinator.User, ok bool) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return s, u, false
	}
	s, u, err = p.c.Session(r.Context(), c.Value)
	if err != nil && !errors.Is(err, coordinator.ErrNotFound) {
		p.log.Error("look a session up", "err", err)
	}
	return s, u, err == nil
}

// signIn sends the browser to the sign-in page, which brings it back to next, a
// path of the portal with its query.
func (p *Portal) signIn(w http.ResponseWriter, r *http.Request, next string) { panic("stub") }

// render answers with the page called name, made from data.
func (p *Portal) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	panic("stub")
}

// refuse answers with a page that says what is wrong and what to do, or, where
// JSON is asked for, with problem itself.
func (p *Portal) refuse(w http.ResponseWriter, r *http.Request, problem *postern.Problem) {
	panic("stub")
}
