package node

import (
	"errors"
	"fmt"
	"net/http"

	"postern"
)

// Signing in at the pinned issuer, with which neither portal nor coordinator has to
// do, in order:
//
//	gate.login, gate.turnAway  somebody is to sign in at a service that requires it
//	proofs.askIssuer           303 to the issuer: S256 challenge, nonce, sealed state
//	proofs.issuerCallback      303 from the issuer: the code, which pinned.finish redeems
//	gate.start                 a session, 303 to where it began
//
// Its callback is another than the portal's, and so is the state's purpose: an answer
// of one is never taken for the other's (RFC 9700, section 4.4.2).
const pathIssuerCallback = pathCallback + "/issuer"

const issuerStatePurpose = "postern sign-in at the pinned issuer v1"

var (
	noIssuer = page{
		status: http.StatusServiceUnavailable, code: postern.CodeUnavailable, retryAfter: 60,
		title: "Nobody can sign in here yet",
		text:  "This address wants people to sign in at their company's own service, and has not been told which that is.",
		link:  linkWorks,
	}
	issuerDown = page{
		status: http.StatusServiceUnavailable, code: postern.CodeUnavailable, retryAfter: 10,
		title: "Signing in does not work right now",
		text:  "%s cannot be reached from here, so that nobody can sign in. Whoever is signed in already is not affected.",
		link:  linkWorks,
	}
	issuerNonsense = page{
		status: http.StatusBadGateway, code: postern.CodeUnauthorized,
		title: "An answer that cannot be used",
		text:  "%s gave an answer that cannot be verified, so nobody has been signed in. Whoever looks after this machine finds more in its log.",
	}
	issuerMismatch = page{
		status: http.StatusBadGateway, code: postern.CodeUnavailable,
		title: "This address is not known there",
		text:  "%s does not take this address for one of its own. Whoever looks after this machine has to renew what it is known by there.",
	}
	issuerRefused = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "You were not signed in",
		text:  "%s did not sign you in, or you have declined.",
	}
	issuerStranger = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "Not for you",
		text:  "%s knows you, and what it says of you does not open this address. Whoever manages its groups can change that.",
	}
	issuerClock = page{
		status: http.StatusServiceUnavailable, code: postern.CodeUnavailable,
		title: "A clock is wrong",
		text:  "The clock of the machine that answers here and that of %s differ by minutes. Until that is put right, nobody can sign in.",
	}
	issuerOnly = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "Not by the portal",
		text:  "This address wants people to sign in at their company's own service. What the portal says of them does not count here.",
	}
)

// naming returns page p about the pinned issuer.
func (i *pinned) naming(p page) page {
	p.text = fmt.Sprintf(p.text, i.cfg.Title)
	return p
}

// askIssuer sends the browser to the pinned issuer. It comes back to target, a path of
// this origin.
func (p *proofs) askIssuer(w http.ResponseWriter, r *http.Request, target string) {
	issuer := p.pinned.Load()
	if issuer == nil {
		writePage(w, r, noIssuer)
		return
	}
	g, t, host := p.gate, p.gate.table(), requestHost(r)
	browser := newSecret()
	st := signInState{
		ID: newSecret()[:11], Browser: secretHash(browser), Host: host, Issuer: issuer.cfg.URL,
		Nonce: newSecret(), Verifier: newSecret(), Target: target, Expires: g.now().Add(stateLife),
	}
	at, err := issuer.start(r.Context(), attempt{
		Redirect: t.origin(host) + pathIssuerCallback, State: g.sealer.seal(issuerStatePurpose, st), Nonce: st.Nonce, Verifier: st.Verifier,
	})
	if err != nil {
		p.issuerFailed(w, r, issuer, target, err)
		return
	}
	forgetStates(w, r)
	setCookie(w, cookieState+st.ID, browser, stateLife)
	redirect(w, at)
}

// issuerCallback answers the browser that comes back from the pinned issuer.
func (p *proofs) issuerCallback(w http.ResponseWriter, r *http.Request) {
	g, t, host, q := p.gate, p.gate.table(), requestHost(r), r.URL.Query()
	issuer, svc := p.pinned.Load(), t.hosts[host]
	switch {
	case r.Method != http.MethodGet: // a code is not to be used up by looking ahead
		writePage(w, r, readOnly)
		return
	case issuer == nil:
		writePage(w, r, noIssuer)
		return
	case svc == nil:
		writePage(w, r, notPublished)
		return
	}
	var st signInState
	err := g.sealer.open(issuerStatePurpose, q.Get("state"), &st)
	if err == nil && (st.Host != host || st.Issuer != issuer.cfg.URL || svc.Require != postern.RequireIssuer) {
		err = fmt.Errorf("state is of issuer %q at %q", st.Issuer, st.Host)
	}
	if err != nil {
		g.refuse(w, r, badSignIn.begin("/"), fmt.Errorf("state: %w", err))
		return
	}
	setCookie(w, cookieState+st.ID, "", -1)
	if !fromBrowser(r, st) || g.now().After(st.Expires) {
		// As at the portal's callback: a link to the target would do the same.
		if _, ok := g.session(r, host); ok {
			redirect(w, st.Target)
			return
		}
		g.refuse(w, r, badSignIn.begin(st.Target), errors.New("state has expired, or is another browser's"))
		return
	}
	v, err := issuer.finish(r.Context(), attempt{Redirect: t.origin(host) + pathIssuerCallback, Nonce: st.Nonce, Verifier: st.Verifier}, q)
	if errors.Is(err, errIssuerStrange) {
		p.disown(issuer, v.Person.ID)
	}
	if err != nil {
		p.issuerFailed(w, r, issuer, st.Target, err)
		return
	}
	now := g.now()
	if v.SignedIn.IsZero() || v.SignedIn.After(now) {
		v.SignedIn = now
	}
	p.tokens.vouch(issuer.mark, v.Person, now)
	g.start(w, r, session{
		Host: host, Person: v.Person.ID, Pinned: &v.Person, Proof: issuer.mark, Since: v.SignedIn, Methods: v.Methods,
	}, st.Target)
}

// disown ends what somebody has here of whom issuer says that they may not come in any
// more.
func (p *proofs) disown(issuer *pinned, id string) {
	p.tokens.disown(issuer.cfg.URL, id)
	p.gate.sessions.prune(func(s session) bool { return s.Person != id || s.Proof.Issuer != issuer.cfg.URL }, p.gate.now())
	p.gate.recheck()
}

// issuerFailed answers a sign-in that was to lead to target and that err was the end of.
func (p *proofs) issuerFailed(w http.ResponseWriter, r *http.Request, issuer *pinned, target string, err error) {
	answer := issuerNonsense
	for _, known := range []struct {
		err  error
		page page
	}{
		{errIssuerDown, issuerDown}, {errIssuerSecret, issuerMismatch}, {errIssuerCode, issuerRefused},
		{errIssuerStrange, issuerStranger}, {errIssuerClock, issuerClock},
	} {
		if errors.Is(err, known.err) {
			answer = known.page
		}
	}
	p.gate.refuse(w, r, issuer.naming(answer).begin(target), err)
}
