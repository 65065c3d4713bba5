package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"postern"
	"postern/internal/member"
)

// What can go wrong between the node and the portal, besides errJunkCode and a
// *skewError. Of any other error the portal's answer is no good.
var (
	errPortalAway    = errors.New("the portal cannot be asked")
	errPortalRefused = errors.New("the portal refuses the person")
	errNotOfTenant   = errors.New("the person is not of the tenant")
)

// defaultGrantWait is a gateConfig's grantWait.
const defaultGrantWait = 3 * time.Second

// statePurpose is what states are sealed for that travel through the portal.
const statePurpose = "postern sign-in at the portal v1"

// redeemFunc changes a code for tokens (RFC 6749, section 4.1.3).
type redeemFunc func(ctx context.Context, form url.Values) (member.Tokens, error)

// atPortal returns t's portal, of which the node is a relying party. There is one.
func (g *gate) atPortal(t *table) provider {
	return provider{
		issuer: t.portal.issuer, callback: pathCallback, purpose: statePurpose,
		authorize: func(_ context.Context, a attempt) (string, error) { return t.portal.authorize(a), nil },
		finish: func(ctx context.Context, a attempt, query url.Values) (session, error) {
			return g.fromPortal(ctx, t, a, query)
		},
		failed: func(w http.ResponseWriter, r *http.Request, target string, err error) {
			g.portalFailed(w, r, t.portal, target, err)
		},
	}
}

// authorize returns where to send the browser for a.
func (p *portal) authorize(a attempt) string {
	return p.issuer + "/authorize?" + url.Values{
		"response_type": {"code"}, "scope": {"openid profile"}, "client_id": {a.Host}, "redirect_uri": {a.Redirect},
		"nonce": {a.Nonce}, "state": {a.State},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(a.Verifier)}, "code_challenge_method": {"S256"},
	}.Encode()
}

// portalCallback answers the browser that comes back from the portal.
func (g *gate) portalCallback(w http.ResponseWriter, r *http.Request) {
	t := g.table()
	switch svc := t.hosts[requestHost(r)]; {
	case svc != nil && svc.Require == postern.RequireIssuer:
		g.refuse(w, r, issuerOnly.begin("/"), errors.New("the service asks another issuer than the portal"))
	case t.portal == nil:
		writePage(w, r, noPortal)
	default:
		g.callback(w, r, g.atPortal(t))
	}
}

// fromPortal returns whom the portal of t tells of.
func (g *gate) fromPortal(ctx context.Context, t *table, a attempt, query url.Values) (in session, err error) {
	switch iss := query.Get("iss"); {
	case query.Has("iss") && iss != t.portal.issuer: // RFC 9207, section 2.4
		return in, fmt.Errorf("%w: it came from %.200q", errJunkCode, iss)
	case query.Has("error"):
		return in, portalError(query.Get("error"), query.Get("error_description"))
	}
	tokens, err := g.redeem(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {query.Get("code")}, "client_id": {a.Host},
		"redirect_uri": {a.Redirect}, "code_verifier": {a.Verifier},
	})
	var refused *member.TokenError
	switch {
	case errors.As(err, &refused) && refused.Code == "invalid_grant":
		return in, fmt.Errorf("%w: %w", errJunkCode, err)
	case errors.As(err, &refused):
		return in, err
	case err != nil:
		return in, fmt.Errorf("%w: %w", errPortalAway, err)
	}
	v, err := t.portal.idToken(ctx, tokens.IDToken, expected{
		host: a.Host, nonce: a.Nonce, tenant: t.tenant, access: tokens.AccessToken,
	}, g.now())
	if err != nil {
		return in, err
	}
	if early := v.issued.Sub(g.now()); early.Abs() > tokenLeeway {
		g.log.Warn("the clocks of this machine and of the portal differ", "ahead", -early.Round(time.Second))
	}
	in = session{Person: v.person, SID: v.sid, Since: v.since, Methods: v.methods}
	if !g.awaitPerson(ctx, in.credential()) {
		return in, fmt.Errorf("%w, or was signed out: user %q", errNotOfTenant, v.person)
	}
	return in, nil
}

// portalError returns what the portal refused with code (RFC 6749, section 4.1.2.1).
func portalError(code, description string) error {
	err := fmt.Errorf("the portal says %.100q: %.200q", code, description)
	switch code {
	case "access_denied":
		return fmt.Errorf("%w: %w", errPortalRefused, err)
	case "server_error", "temporarily_unavailable":
		return fmt.Errorf("%w: %w", errPortalAway, err)
	}
	return err
}

// portalFailed answers a sign-in at p that was to lead to target and that err was the
// end of.
func (g *gate) portalFailed(w http.ResponseWriter, r *http.Request, p *portal, target string, err error) {
	answer := pageFor(err, portalNonsense.begin(target), []outcome{
		{errJunkCode, badSignIn.begin(target)}, {errPortalAway, portalFails.begin(target)},
		{errPortalRefused, portalRefused.withPortal(p)}, {errNotOfTenant, notOfTenant.withPortal(p)},
	})
	var skew *skewError
	if errors.As(err, &skew) {
		answer = clocksDiffer
		answer.text = fmt.Sprintf("The clock of the machine that answers here is %v ahead of the portal's. Until that is put right, nobody can sign in.", skew.ahead)
	}
	g.refuse(w, r, answer, err)
}

// awaitPerson reports whether c is worth something, now or within grantWait: the map
// may be on its way with somebody who was granted the tenant a moment ago.
func (g *gate) awaitPerson(ctx context.Context, c *credential) bool {
	ctx, cancel := context.WithTimeout(ctx, g.grantWait)
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
