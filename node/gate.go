package node

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"postern"
	"postern/internal/datadir"
)

// A gate decides who gets through to a service, on each request, by the newest map,
// and ends what is under way once it may not go on. Its methods are safe for
// concurrent use.
//
// A request's path, in order:
//
//	gate.present  what it shows: a session's cookie, or a bearer token of ours
//	gate.enter    the newest table: is that still worth anything, and is it enough here
//	gate.turnAway what comes of it if it is not: a redirect to sign in, a page, a problem
//	gate.announce what the application learns of who it is
type gate struct {
	gateConfig
	sessions *sessions
	sealer   *sealer
	signer   *signer
	ways     ways
	spent    spent
	codes    guesses // that providers did not know
	refusals guesses // that were logged

	mu     sync.Mutex
	passes map[*pass]struct{} // under way
}

// gateConfig is what a gate is made from.
type gateConfig struct {
	table  func() *table // the newest
	redeem redeemFunc
	now    func() time.Time // nil: time.Now
	log    *slog.Logger

	grantWait time.Duration // for the map to bring somebody whom the portal knows; zero: 3 s
}

// newGate returns a gate that keeps its keys and sessions in dir; nil: nowhere.
func newGate(cfg gateConfig, dir *datadir.Dir) (*gate, error) {
	if cfg.now == nil {
		cfg.now = time.Now
	}
	cfg.grantWait = cmp.Or(cfg.grantWait, defaultGrantWait)
	g := &gate{gateConfig: cfg, sessions: openSessions(dir, cfg.log), passes: map[*pass]struct{}{}}
	var err error
	if g.sealer, err = openSealer(dir); err != nil {
		return nil, err
	}
	if g.signer, err = openSigner(dir); err != nil {
		return nil, err
	}
	return g, nil
}

// ways are the ways to show who one is besides the portal's. A nil one is none.
type ways struct {
	// token returns what a personal access token is worth to r at host, or fails
	// with a *bearerError.
	token func(r *http.Request, host, token string) (*credential, error)

	// trusts reports whether what by says that a pinned issuer said still counts.
	trusts func(by proof) bool

	// holds reports whether p has the passkey of that id at host.
	holds func(host string, p *postern.Person, passkey string) bool

	// prove begins what a service requires besides, or in place of, the portal's
	// word, for a browser that is to come back to target.
	prove func(w http.ResponseWriter, r *http.Request, require, target string)
}

// A pass is a request that was let through and is under way.
type pass struct {
	host   string
	path   string // as it was judged
	cred   *credential
	cancel context.CancelFunc

	// Guarded by the gate's mu.
	svc  *service         // by which it was judged last
	must []postern.Access // what has to allow it, by svc
	cut  bool             // it may not go on
}

// A verdict is what a gate thinks of a request.
type verdict int

const (
	passed    verdict = iota
	nobody            // nobody is signed in
	forbidden         // who is signed in may not
	unproven          // who is signed in may, and has not proven it as the service requires
)

// A presented is what a request shows of who sent it.
type presented struct {
	cred  *credential // nil: nothing
	err   error       // a *bearerError; cred is nil then
	token bool        // whether there is a bearer token of ours
}

type presentedKey struct{}

// presentedOf returns what the gate saw in r.
func presentedOf(r *http.Request) presented {
	p, _ := r.Context().Value(presentedKey{}).(presented)
	return p
}

// present returns what r shows at host. A bearer token counts before a cookie:
// whoever sends one means it.
func (g *gate) present(r *http.Request, host string) presented {
	t := g.table()
	token, err := g.ourBearer(t, r)
	if token != "" {
		p := presented{token: true, err: err}
		if err == nil {
			p.cred, p.err = g.bearer(t, r, host, token)
		}
		return p
	}
	if s, ok := g.session(r, host); ok {
		return presented{cred: s.credential()}
	}
	return presented{}
}

// session returns the session whose cookie r has. With cookies of several sessions
// somebody else's hand may be in it, so that none counts.
func (g *gate) session(r *http.Request, host string) (found session, ok bool) {
	for _, c := range r.CookiesNamed(cookieSession) {
		s, good := g.sessions.find(host, c.Value, g.now())
		switch {
		case !good:
		case ok && s.Hash != found.Hash:
			return session{}, false
		default:
			found, ok = s, true
		}
	}
	return found, ok
}

// conceal takes out of r's header what is between the browser and the node.
func conceal(r *http.Request, p presented) {
	takeCookies(r.Header)
	if p.token {
		delete(r.Header, "Authorization")
	}
}

// person returns who shows c, by t, and nil if it is worth nothing (any more).
func (g *gate) person(t *table, c *credential) *postern.Person {
	switch {
	case c == nil:
		return nil
	case c.good != nil && !c.good(g.now()):
		return nil
	case c.pinned != nil:
		if g.ways.trusts == nil || !g.ways.trusts(c.proof) {
			return nil
		}
		return c.pinned
	}
	p := t.people[c.person]
	// The map's times are in whole seconds, and so are those of tokens.
	if p == nil || !c.lasting && c.since.Unix() < p.NotBefore || t.ended[c.sid] {
		return nil
	}
	return p
}

// proven reports whether p showed c in the way that require asks for at host.
func (g *gate) proven(require, host string, p *postern.Person, c *credential) bool {
	switch require {
	case "":
		return true
	case postern.RequireIssuer:
		return c.pinned != nil // person has seen to the rest
	case postern.RequirePasskey:
		return c.proof.Passkey != "" && g.ways.holds != nil && g.ways.holds(host, p, c.proof.Passkey)
	}
	return false
}

// who returns who shows c to svc at host, by t, and whether they have proven it as the
// service requires. Nil is nobody. What the portal says is nothing to a service that
// requires a pinned issuer, and the issuer's people are nobody to the others.
func (g *gate) who(t *table, svc *service, host string, c *credential) (p *postern.Person, proven bool) {
	p = g.person(t, c)
	if p == nil || (c.pinned != nil) != (svc.Require == postern.RequireIssuer) {
		return nil, false
	}
	return p, g.proven(svc.Require, host, p, c)
}

// judge says what becomes of a request to svc, at host, with c, which all of must have
// to allow. Person is who the application is told that it is; nil: nobody.
func (g *gate) judge(t *table, svc *service, host string, must []postern.Access, c *credential) (v verdict, person *postern.Person) {
	p, proven := g.who(t, svc, host, c)
	if proven {
		person = p
	}
	for _, a := range must {
		switch {
		case a.Public():
		case p == nil:
			return nobody, nil
		case !a.Allows(p, svc.Name):
			return forbidden, p
		case !proven:
			v = unproven
		}
	}
	return v, person
}

// policyPath returns the path of r for Service.AccessAt. Of an encoded slash
// applications make a slash, or not, so that all rules hold there, as for a path
// that is none.
func policyPath(r *http.Request) string {
	if strings.Contains(strings.ToLower(r.URL.EscapedPath()), "%2f") {
		return ""
	}
	return r.URL.Path
}

// enter judges r, for a service at host, and registers it as under way if it passes;
// the caller calls leave then.
func (g *gate) enter(r *http.Request, host string, c *credential, cancel context.CancelFunc) (v verdict, svc *service, person *postern.Person, p *pass) {
	path := policyPath(r)
	var must []postern.Access
	seen := g.table().hosts[host]
	if seen != nil {
		must = seen.policy.AccessAt(path) // which takes its time, so not under the lock
	}
	// One lock for both, so that recheck misses none.
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.table()
	if svc = t.hosts[host]; svc == nil {
		return passed, nil, nil, nil
	}
	if svc != seen {
		must = svc.policy.AccessAt(path)
	}
	if c != nil && c.session != "" && !g.sessions.alive(c.session, g.now()) {
		c = nil // it ended since the request showed it
	}
	v, person = g.judge(t, svc, host, must, c)
	if v != passed {
		return v, svc, person, nil
	}
	if person == nil {
		c = nil
	}
	p = &pass{host: host, path: path, cred: c, cancel: cancel, svc: svc, must: must}
	g.passes[p] = struct{}{}
	if c != nil && c.session != "" {
		g.sessions.enter(c.session, g.now())
	}
	return v, svc, person, p
}

func (g *gate) leave(p *pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.passes, p)
	if p.cred != nil && p.cred.session != "" {
		g.sessions.leave(p.cred.session, g.now())
	}
}

// recheck ends the sessions that are over or worth nothing by the newest table, and
// cuts off the requests under way that would not get through any more. TLS sessions
// go on: a ticket resumes a connection and proves nobody's identity, since cookies
// and tokens are looked at on each request.
func (g *gate) recheck() {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, now := g.table(), g.now()
	ended := g.sessions.prune(func(s session) bool {
		return t.tenant == "" || g.person(t, s.credential()) != nil // no map says anything yet
	}, now)
	cut := 0
	for p := range g.passes {
		if !p.cut && !g.goesOn(t, p, now) {
			p.cut = true
			p.cancel()
			cut++
		}
	}
	if len(ended) > 0 || cut > 0 {
		g.log.Info("sign-ins ended", "sessions", len(ended), "requests", cut)
	}
}

// goesOn reports whether p would get through now. The caller has the lock.
func (g *gate) goesOn(t *table, p *pass, now time.Time) bool {
	svc := t.hosts[p.host]
	if svc == nil || svc.Name != p.svc.Name {
		return p.cred == nil // the service itself ends the others, when it does
	}
	if svc != p.svc { // a stranger may have chosen a path that takes long to look at
		p.svc, p.must = svc, svc.policy.AccessAt(p.path)
	}
	if p.cred != nil && p.cred.session != "" && !g.sessions.alive(p.cred.session, now) {
		return false
	}
	v, person := g.judge(t, svc, p.host, p.must, p.cred)
	return v == passed && (p.cred == nil || person != nil)
}

// recheckInterval is how often limits of time are looked at.
const recheckInterval = 10 * time.Second

// run ends what is over by the clock until ctx is done.
func (g *gate) run(ctx context.Context) error {
	tick := time.NewTicker(recheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.recheck()
		}
	}
}

// serve lets r through to what answers for host, or turns it away.
func (g *gate) serve(w http.ResponseWriter, r *http.Request, host string, answer func(*service, http.ResponseWriter, *http.Request)) {
	shown := presentedOf(r)
	var refused *bearerError
	if errors.As(shown.err, &refused) {
		g.refuseBearer(w, r, host, refused)
		return
	}
	// A connection that a handler takes over outlives the handler, and so the
	// request's context.
	life, end := context.WithCancel(context.WithoutCancel(r.Context()))
	v, svc, person, p := g.enter(r, host, shown.cred, end)
	if v != passed || svc == nil {
		end()
		g.turnAway(w, r, host, svc, v, person)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	stop := context.AfterFunc(life, func() { cancel(errCutOff) })
	defer stop()
	over := func() { stop(); g.leave(p); end() } // to end is not to be cut off
	if _, err := r.Cookie(cookieRounds); err == nil && p.cred != nil {
		setCookie(w, cookieRounds, "", -1) // the session lasts
	}
	conceal(r, shown)
	if a := accessOf(ctx); a != nil {
		a.Service = svc.Name
		if person != nil {
			a.User = person.ID
		}
	}
	if person != nil {
		ctx = withUser(ctx, userOf(person))
		g.announce(r, host, person, p.cred)
	}
	r = r.WithContext(ctx)
	if svc.transport != nil { // the proxy looks at ctx
		defer over()
		answer(svc, w, r)
		return
	}
	h := &held{ResponseWriter: w, life: life, over: over}
	defer h.done()
	answer(svc, h, r)
	if life.Err() != nil && !h.hijacked {
		panic(http.ErrAbortHandler) // what was cut off is not to look whole
	}
}
