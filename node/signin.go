package node

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern"
	"postern/internal/member"
)

// Signing in at the portal, as its relying party (OpenID Connect Core 1.0, section
// 3.1), in order:
//
//	gate.login       the portal starts it (section 4), or
//	gate.turnAway    a browser asks for a service and nobody is signed in
//	gate.beginSignIn 303 to the portal: S256 challenge, nonce, sealed state
//	gate.callback    303 from the portal: the code, which redeem changes for an ID token
//	gate.finish      the person is of this tenant: a session, 303 to where it began
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

	grantWait = 3 * time.Second // for the map to bring somebody whom the portal knows
)

// statePurpose is what a state is sealed for.
const statePurpose = "postern sign-in at the portal v1"

// A signInState is a sign-in under way, as it travels through the portal.
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

// redeemFunc changes a code for tokens (RFC 6749, section 4.1.3).
type redeemFunc func(ctx context.Context, form url.Values) (member.Tokens, error)

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
		g.beginSignIn(w, r, t, host, target, 0)
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

// refuse answers with p, and says why in the log.
func (g *gate) refuse(w http.ResponseWriter, r *http.Request, p page, why error) {
	g.log.Warn("sign-in refused", "server_name", requestHost(r), "remote", r.RemoteAddr, "id", r.Header.Get(headerRequestID), "err", why)
	writePage(w, r, p)
}

// beginSignIn sends the browser to the portal. It comes back to target, a path of
// this origin, after round sign-ins that took too long.
func (g *gate) beginSignIn(w http.ResponseWriter, r *http.Request, t *table, host, target string, round int) {
	browser := newSecret()
	st := signInState{
		ID: newSecret()[:11], Browser: secretHash(browser), Host: host, Issuer: t.portal.issuer,
		Nonce: newSecret(), Verifier: newSecret(), Target: target, Round: round, Expires: g.now().Add(stateLife),
	}
	challenge := sha256.Sum256([]byte(st.Verifier))
	query := url.Values{
		"response_type": {"code"}, "scope": {"openid profile"}, "client_id": {host},
		"redirect_uri": {t.origin(host) + pathCallback}, "nonce": {st.Nonce},
		"state":                 {g.sealer.seal(statePurpose, st)},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}
	forgetStates(w, r)
	setCookie(w, cookieState+st.ID, browser, stateKept)
	redirect(w, t.portal.issuer+"/authorize?"+query.Encode())
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

// callback answers the browser that comes back from the portal.
func (g *gate) callback(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // a code is not to be used up by looking ahead
		writePage(w, r, page{status: http.StatusMethodNotAllowed, code: postern.CodeInvalid, title: "This can only be opened"})
		return
	}
	t, host, q := g.table(), requestHost(r), r.URL.Query()
	if svc := t.hosts[host]; svc != nil && svc.Require == postern.RequireIssuer {
		g.refuse(w, r, issuerOnly.begin("/"), errors.New("the service asks another issuer than the portal"))
		return
	}
	if t.portal == nil {
		writePage(w, r, noPortal)
		return
	}
	var st signInState
	err := g.sealer.open(statePurpose, q.Get("state"), &st)
	switch {
	case err != nil:
		g.refuse(w, r, badSignIn.begin("/"), fmt.Errorf("state: %w", err))
		return
	case st.Host != host || st.Issuer != t.portal.issuer || q.Has("iss") && q.Get("iss") != st.Issuer:
		g.refuse(w, r, badSignIn.begin("/"), fmt.Errorf("state is of issuer %q at %q", st.Issuer, st.Host))
		return
	}
	setCookie(w, cookieState+st.ID, "", -1)
	switch {
	case !fromBrowser(r, st):
		g.refuse(w, r, badSignIn.begin(st.Target), errors.New("state is another browser's, or was used"))
	case g.now().After(st.Expires):
		g.again(w, r, t, st)
	case q.Has("error"):
		g.refused(w, r, t, st, q.Get("error"))
	case !g.spent.first(st, g.now()):
		g.refuse(w, r, badSignIn.begin(st.Target), errors.New("state was used"))
	default:
		g.finish(w, r, t, st, q.Get("code"))
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
func (g *gate) again(w http.ResponseWriter, r *http.Request, t *table, st signInState) {
	if st.Round+1 >= maxRounds {
		g.refuse(w, r, lateSignIn.begin(st.Target), errors.New("state has expired"))
		return
	}
	g.log.Debug("sign-in begins again: it took too long", "server_name", st.Host)
	g.beginSignIn(w, r, t, st.Host, st.Target, st.Round+1)
}

// refused answers what the portal refused with code (RFC 6749, section 4.1.2.1).
func (g *gate) refused(w http.ResponseWriter, r *http.Request, t *table, st signInState, code string) {
	why := fmt.Errorf("the portal says %.100q: %.200q", code, r.URL.Query().Get("error_description"))
	switch code {
	case "access_denied":
		g.refuse(w, r, portalRefused.withPortal(t.portal), why)
	case "server_error", "temporarily_unavailable":
		g.refuse(w, r, portalFails.begin(st.Target), why)
	default:
		g.refuse(w, r, portalNonsense.begin(st.Target), why)
	}
}

// finish redeems code and starts the session.
func (g *gate) finish(w http.ResponseWriter, r *http.Request, t *table, st signInState, code string) {
	tokens, err := g.redeem(r.Context(), url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "client_id": {st.Host},
		"redirect_uri": {t.origin(st.Host) + pathCallback}, "code_verifier": {st.Verifier},
	})
	var refused *member.TokenError
	switch {
	case errors.As(err, &refused) && refused.Code == "invalid_grant": // used, too old, or another's
		g.refuse(w, r, badSignIn.begin(st.Target), err)
		return
	case errors.As(err, &refused):
		g.refuse(w, r, portalNonsense.begin(st.Target), err)
		return
	case err != nil:
		g.refuse(w, r, portalFails.begin(st.Target), err)
		return
	}
	v, err := t.portal.idToken(r.Context(), tokens.IDToken, expected{
		host: st.Host, nonce: st.Nonce, tenant: t.tenant, access: tokens.AccessToken,
	}, g.now())
	var skew *skewError
	switch {
	case errors.As(err, &skew):
		p := clocksDiffer
		p.text = fmt.Sprintf("The clock of the machine that answers here is %v ahead of the portal's. Until that is put right, nobody can sign in.", skew.ahead)
		g.refuse(w, r, p, err)
		return
	case err != nil:
		g.refuse(w, r, portalNonsense.begin(st.Target), err)
		return
	}
	if early := v.issued.Sub(g.now()); early.Abs() > tokenLeeway {
		g.log.Warn("the clocks of this machine and of the portal differ", "ahead", -early.Round(time.Second))
	}
	in := session{Host: st.Host, Person: v.person, SID: v.sid, Since: v.since, Methods: v.methods}
	if !g.awaitPerson(r.Context(), in.credential()) {
		g.refuse(w, r, notOfTenant.withPortal(t.portal), fmt.Errorf("user %q is not among the tenant's people, or was signed out", v.person))
		return
	}
	g.start(w, r, in, st.Target)
}

// awaitPerson reports whether c is worth something, now or within grantWait: the map
// may be on its way with somebody who was granted the tenant a moment ago.
func (g *gate) awaitPerson(ctx context.Context, c *credential) bool {
	ctx, cancel := context.WithTimeout(ctx, grantWait)
	defer cancel()
	for {
		t := g.table()
		if g.person(t, c) != nil {
			return true
		}
		select {
		case <-t.replaced:
		case <-ctx.Done():
			return false
		}
	}
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
	if !wantsHTML(r) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	writePage(w, r, signedOut.begin("/").withPortal(g.table().portal))
}
