package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"postern"
)

// Signing in at the pinned issuer, with which neither portal nor coordinator has to
// do, as at the portal:
//
//	proofs.askIssuer       somebody is to sign in at a service that requires it
//	proofs.issuerCallback  their browser comes back
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

// atIssuer returns issuer, of which the node is a client.
func (p *proofs) atIssuer(issuer *pinned) provider {
	return provider{
		issuer: issuer.cfg.URL, callback: pathIssuerCallback, purpose: issuerStatePurpose, authorize: issuer.start,
		finish: func(ctx context.Context, a attempt, query url.Values) (session, error) {
			return p.fromIssuer(ctx, issuer, a, query)
		},
		failed: func(w http.ResponseWriter, r *http.Request, target string, err error) {
			p.issuerFailed(w, r, issuer, target, err)
		},
	}
}

// askIssuer sends the browser to the pinned issuer. It comes back to target, a path of
// this origin.
func (p *proofs) askIssuer(w http.ResponseWriter, r *http.Request, target string) {
	issuer := p.pinned.Load()
	if issuer == nil {
		writePage(w, r, noIssuer)
		return
	}
	p.gate.beginSignIn(w, r, p.atIssuer(issuer), target, 0)
}

// issuerCallback answers the browser that comes back from the pinned issuer.
func (p *proofs) issuerCallback(w http.ResponseWriter, r *http.Request) {
	issuer := p.pinned.Load()
	switch svc := p.gate.table().hosts[requestHost(r)]; {
	case svc != nil && svc.Require != postern.RequireIssuer:
		p.gate.refuse(w, r, badSignIn.begin("/"), errors.New("the service asks the portal"))
	case issuer == nil:
		writePage(w, r, noIssuer)
	default:
		p.gate.callback(w, r, p.atIssuer(issuer))
	}
}

// fromIssuer returns whom issuer tells of.
func (p *proofs) fromIssuer(ctx context.Context, issuer *pinned, a attempt, query url.Values) (in session, err error) {
	v, err := issuer.finish(ctx, a, query)
	if errors.Is(err, errIssuerStrange) {
		p.disown(issuer, v.Person.ID)
	}
	if err != nil {
		return in, err
	}
	now := p.gate.now()
	if v.SignedIn.IsZero() || v.SignedIn.After(now) {
		v.SignedIn = now
	}
	p.tokens.vouch(issuer.mark, v.Person, now)
	return session{Person: v.Person.ID, Pinned: &v.Person, Proof: issuer.mark, Since: v.SignedIn, Methods: v.Methods}, nil
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
	answer := pageFor(err, issuerNonsense, []outcome{
		{errIssuerDown, issuerDown}, {errIssuerSecret, issuerMismatch}, {errIssuerCode, issuerRefused},
		{errIssuerStrange, issuerStranger}, {errIssuerClock, issuerClock},
	})
	p.gate.refuse(w, r, issuer.naming(answer).begin(target), err)
}
