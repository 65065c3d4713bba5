package node

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern"
	"postern/internal/accept"
)

// Signing in with OpenID Connect (Core 1.0, section 3.1), in order:
//
//	gate.login       the portal starts it (section 4), or
//	gate.turnAway    a browser asks for a service and nobody is signed in
//	gate.beginSignIn 303 to a provider: S256 challenge, nonce, sealed state
//	gate.callback    303 from there: the code, which the provider's finish redeems
//	gate.start       a session, 303 to where it began
//
// Next to nothing of it is kept here meanwhile: the state carries all, sealed, and a cookie
// binds it to the browser. So there is no limit to how many are under way, and each
// tab of a browser has its own.
const (
	pathLogin    = ownPath + "login"
	pathCallback = ownPath + "callback"
	pathLogout   = ownPath + "logout"
	pathTokens   = ownPath + "tokens"
)

const (
	stateLife = 5 * time.Minute
	stateKept = time.Hour // by the browser: who comes late is told from who never began
	maxStates = 32        // cookies of sign-ins under way that a browser is left with

	maxRounds  = 2                // sign-ins in a row that lead nowhere
	roundsLife = 30 * time.Second // how close those that succeed are then
)

// A provider is who says who somebody is: the portal, or the pinned issuer. Each has a
// callback and a purpose of its own, so that an answer of one is never taken for the
// other's (RFC 9700, section 4.4.2).
type provider struct {
	issuer   string
	callback string // path
	purpose  string // that states are sealed for

	// authorize returns where to send the browser for a.
	authorize func(ctx context.Context, a attempt) (string, error)

	// finish returns who somebody is, as a session that lacks the host, by query, which
	// their browser brought back. It fails with errJunkCode, among others.
	finish func(ctx context.Context, a attempt, query url.Values) (session, error)

	// failed answers whoever was to come to target, which came to nothing with err.
	failed func(w http.ResponseWriter, r *http.Request, target string, err error)
}

// errJunkCode says that what was brought back is of no sign-in of this browser's.
var errJunkCode = errors.New("the code is made up, used, too old or another's")

// An attempt is a sign-in at a provider. Redirect is where the answer comes to.
type attempt struct {
	Host     string
	Redirect string
	State    string // to begin it
	Nonce    string
	Verifier string // RFC 7636, section 4.1
}

// A signInState is a sign-in under way, as it travels through the provider.
type signInState struct {
	ID       string    `json:"id"`      // names the cookie
	Browser  string    `json:"browser"` // hash of the cookie's value
	Host     string    `json:"host"`
	Issuer   string    `json:"issuer"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"` // RFC 7636, section 4.1
	Target   string    `json:"target"`
	Round    int       `json:"round"` // how many took too long before it
	Expires  time.Time `json:"expires"`
}

// login answers the portal's, or anybody's, wish that somebody sign in here (OpenID
// Connect Core 1.0, section 4). It does so anew for who is signed in: they may be
// somebody else at the portal by now.
func (g *gate) login(w http.ResponseWriter, r *http.Request) {
	t, host, q := g.table(), requestHost(r), r.URL.Query()
	target := q.Get("target")
	if target == "" {
		target = "/"
	}
	err, svc := checkTarget(target), t.hosts[host]
	switch pinned := svc != nil && svc.Require == postern.RequireIssuer; {
	case pinned && err == nil: // whoever sent the browser here: it has no say in where that is
		g.ways.prove(w, r, svc.Require, target)
	case t.portal == nil:
		writePage(w, r, noPortal)
	case q.Get("iss") != t.portal.issuer:
		g.refuse(w, r, badIssuer.withPortal(t.portal), fmt.Errorf("issuer is %.100q", q.Get("iss")))
	case err != nil:
		g.refuse(w, r, badTarget.withPortal(t.portal), err)
	default:
		g.beginSignIn(w, r, g.atPortal(t), target, 0)
	}
}

// checkTarget reports why a sign-in must not come back to s: it is elsewhere, or begins
// another sign-in.
func checkTarget(s string) error {
	if err := postern.CheckPath(s); err != nil {
		return err
	}
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if isOwn(u.Path) && u.Path != pathTokens {
		return fmt.Errorf("path %.100q is the node's own", s)
	}
	return nil
}

// refuse answers with p, and says why in the log, where no stranger fills the pages.
func (g *gate) refuse(w http.ResponseWriter, r *http.Request, p page, why error) {
	g.log.Log(r.Context(), g.refusal(r, slog.LevelWarn), "sign-in refused", "server_name", requestHost(r), "remote", r.RemoteAddr,
		"id", r.Header.Get(headerRequestID), "err", why)
	writePage(w, r, p)
}

// refusal returns the level at which to log that r was refused: level, for the first
// few of a source in a minute.
func (g *gate) refusal(r *http.Request, level slog.Level) slog.Level {
	if g.refusals.another(sourceOf(r), g.now()) {
		return level
	}
	return slog.LevelDebug
}

// beginSignIn sends the browser to p. It comes back to target, a path of this origin,
// after round sign-ins that took too long.
func (g *gate) beginSignIn(w http.ResponseWriter, r *http.Request, p provider, target string, round int) {
	browser := newSecret()
	st := signInState{
		ID: newSecret()[:11], Browser: secretHash(browser), Host: requestHost(r), Issuer: p.issuer,
		Nonce: newSecret(), Verifier: newSecret(), Target: target, Round: round, Expires: g.now().Add(stateLife),
	}
	a := g.attempt(p, st)
	a.State = g.sealer.seal(p.purpose, st)
	at, err := p.authorize(r.Context(), a)
	if err != nil {
		p.failed(w, r, target, err)
		return
	}
	forgetStates(w, r)
	setCookie(w, cookieState+st.ID, browser, stateKept)
	redirect(w, at)
}

func (g *gate) attempt(p provider, st signInState) attempt {
	return attempt{Host: st.Host, Redirect: g.table().origin(st.Host) + p.callback, Nonce: st.Nonce, Verifier: st.Verifier}
}

// forgetStates has a browser that began many sign-ins and finished none forget them.
func forgetStates(w http.ResponseWriter, r *http.Request) {
	var names []string
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, cookieState) && !slices.Contains(names, c.Name) {
			names = append(names, c.Name)
		}
	}
	if len(names) < maxStates {
		return
	}
	for _, name := range names {
		setCookie(w, name, "", -1)
	}
}

// redirect sends the browser on with GET. Where it comes from is nobody's business
// there; it may have been a code.
func redirect(w http.ResponseWriter, location string) {
	h := w.Header()
	h.Set("Location", ascii(location))
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusSeeOther)
}

// ascii returns a URL with what is not ASCII percent-encoded.
func ascii(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		if b >= 0x80 {
			fmt.Fprintf(&out, "%%%02X", b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// callback answers the browser that comes back from p.
func (g *gate) callback(w http.ResponseWriter, r *http.Request, p provider) {
	host, q, now := requestHost(r), r.URL.Query(), g.now()
	switch {
	case r.Method != http.MethodGet: // a code is not to be used up by looking ahead
		writePage(w, r, readOnly)
		return
	case g.table().hosts[host] == nil:
		writePage(w, r, notPublished)
		return
	}
	var st signInState
	err := g.sealer.open(p.purpose, q.Get("state"), &st)
	if err == nil && (st.Host != host || st.Issuer != p.issuer) {
		err = fmt.Errorf("it is of issuer %q at %q", st.Issuer, st.Host)
	}
	if err != nil {
		g.refuse(w, r, badSignIn.begin("/"), fmt.Errorf("state: %w", err))
		return
	}
	setCookie(w, cookieState+st.ID, "", -1)
	switch {
	case !fromBrowser(r, st):
		g.refuse(w, r, badSignIn.begin(st.Target), errors.New("state is another browser's, or was used"))
	case now.After(st.Expires):
		g.again(w, r, p, st)
	case q.Has("error"):
		g.finish(w, r, p, st)
	case !g.spent.first(st, now):
		g.refuse(w, r, badSignIn.begin(st.Target), errors.New("state was used"))
	case !g.codes.another(sourceOf(r), now): // the provider answers so many questions, and others have some
		g.refuse(w, r, tooManyGuesses.begin(st.Target), errors.New("too many codes of this source were junk"))
	default:
		if !errors.Is(g.finish(w, r, p, st), errJunkCode) {
			g.codes.right(sourceOf(r))
		}
	}
}

// fromBrowser reports whether st was begun in the browser that sent r.
func fromBrowser(r *http.Request, st signInState) bool {
	for _, c := range r.CookiesNamed(cookieState + st.ID) {
		if subtle.ConstantTimeCompare([]byte(secretHash(c.Value)), []byte(st.Browser)) == 1 {
			return true
		}
	}
	return false
}

// again begins anew a sign-in that took too long, unless that has happened too often.
func (g *gate) again(w http.ResponseWriter, r *http.Request, p provider, st signInState) {
	if st.Round+1 >= maxRounds {
		g.refuse(w, r, lateSignIn.begin(st.Target), errors.New("state has expired"))
		return
	}
	g.log.Debug("sign-in begins again: it took too long", "server_name", st.Host)
	g.beginSignIn(w, r, p, st.Target, st.Round+1)
}

// finish starts the session of whom p tells of, or answers with the error that it
// returns.
func (g *gate) finish(w http.ResponseWriter, r *http.Request, p provider, st signInState) error {
	in, err := p.finish(r.Context(), g.attempt(p, st), r.URL.Query())
	if err != nil {
		p.failed(w, r, st.Target, err)
		return err
	}
	in.Host = st.Host
	g.start(w, r, in, st.Target)
	return nil
}

// start begins in, which Host, Person and what proves them are filled in of, in place
// of the session that the browser had, and sends it to target. A session that says the
// same goes on, with what is under way in other tabs and the passkey that was used.
func (g *gate) start(w http.ResponseWriter, r *http.Request, in session, target string) {
	setCookie(w, cookieRounds, strconv.Itoa(rounds(r)+1), roundsLife)
	old, ok := g.session(r, in.Host)
	if ok && old.sameSignIn(in) {
		redirect(w, target)
		return
	}
	if ok {
		g.endSession(old)
	}
	setCookie(w, cookieSession, g.sessions.start(in, g.now()), 0)
	g.log.Info("signed in", "server_name", in.Host, "user", in.Person, "remote", r.RemoteAddr, "id", r.Header.Get(headerRequestID))
	redirect(w, target)
}

// rounds returns how many sign-ins succeeded in this browser a moment ago. With the
// session that they began, nobody asks.
func rounds(r *http.Request) int {
	c, err := r.Cookie(cookieRounds)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(c.Value)
	if err != nil || n < 0 || n > maxRounds {
		return maxRounds
	}
	return n
}

// endSession ends s and cuts off its requests.
func (g *gate) endSession(s session) {
	if err := g.sessions.end(s.Hash); err != nil {
		g.log.Error("end a session on disk; a restart of the node brings it back", "err", err)
	}
	g.recheck()
}

// logout ends the session of who asks. The portal's goes on.
func (g *gate) logout(w http.ResponseWriter, r *http.Request) {
	if s, ok := g.session(r, requestHost(r)); ok {
		g.endSession(s)
		g.log.Info("signed out", "server_name", s.Host, "user", s.Person)
	}
	setCookie(w, cookieSession, "", -1)
	setCookie(w, cookieRounds, "", -1)
	if !accept.HTML(r) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	writePage(w, r, signedOut.begin("/").withPortal(g.table().portal))
}
