package portal

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"postern"
	"postern/coordinator"
)

// external is the portal as a relying party of customers' OpenID issuers: code,
// PKCE with S256, nonce, state, and a callback for each issuer, so that none can
// pass its answers off as another's (RFC 9700, section 4.4).
type external struct {
	client *http.Client
	now    func() time.Time
	begun  *underWay[journey] // by state

	mu    sync.Mutex
	known map[string]*discovered // by URL
}

// A journey is somebody who is at an issuer.
type journey struct {
	issuer, verifier, nonce, next string
}

// A discovered is what an issuer says of itself, or why that is not known.
type discovered struct {
	done chan struct{} // closed once that is settled; the rest is for who saw it

	provider *oidc.Provider
	err      error
	until    time.Time
}

// How long it counts what an issuer says of itself, and that it says nothing.
const (
	discoveryLife = time.Hour
	discoveryRest = 10 * time.Second
	maxDiscovered = 256
)

// Limits of what an issuer may cost.
const (
	issuerTimeout = 8 * time.Second // of one request
	maxIssuerBody = 1 << 20         // bytes of an answer
)

// clockSkew is how far an issuer's clock may be behind.
const clockSkew = time.Minute

func newExternal(cfg Config) *external {
	client := &http.Client{Timeout: issuerTimeout, CheckRedirect: noRedirects}
	if cfg.Client != nil {
		client = new(*cfg.Client)
	}
	client.Transport = boundedTransport{client.Transport}
	return &external{client: client, now: cfg.Now, begun: newUnderWay[journey](cfg.Now), known: make(map[string]*discovered)}
}

// noRedirects: an issuer answers at the addresses that it gave.
func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// A boundedTransport ends answers that are longer than any issuer's need be.
type boundedTransport struct{ http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.RoundTripper
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxIssuerBody), resp.Body}
	}
	return resp, err
}

// provider returns what the issuer at url says of itself, from at most an hour ago.
// One caller asks the issuer, for all who want to know at that time, whether or not its
// own browser goes away.
func (x *external) provider(ctx context.Context, url string) (*oidc.Provider, error) {
	held, mine := x.look(url)
	if mine {
		x.discover(ctx, url, held)
	}
	select {
	case <-held.done:
		return held.provider, held.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// look returns what is known of the issuer at url, or will be; mine says that the
// caller is to find it out.
func (x *external) look(url string) (held *discovered, mine bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if held = x.known[url]; held != nil {
		select {
		case <-held.done:
			if x.now().Before(held.until) {
				return held, false
			}
		default:
			return held, false
		}
	}
	if len(x.known) >= maxDiscovered {
		clear(x.known)
	}
	held = &discovered{done: make(chan struct{})}
	x.known[url] = held
	return held, true
}

// discover asks the issuer at url what it says of itself.
func (x *external) discover(ctx context.Context, url string, held *discovered) {
	defer close(held.done)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issuerTimeout)
	defer cancel()
	life := discoveryLife
	held.provider, held.err = oidc.NewProvider(oidc.ClientContext(ctx, x.client), url)
	if held.err == nil {
		held.err = checkEndpoints(held.provider.Endpoint())
	}
	if held.err != nil {
		life = discoveryRest
	}
	held.until = x.now().Add(life)
}

// checkEndpoints reports whether people and secrets would be sent over plain HTTP.
func checkEndpoints(e oauth2.Endpoint) error {
	for _, url := range []string{e.AuthURL, e.TokenURL} {
		if !strings.HasPrefix(url, "https://") {
			return fmt.Errorf("the issuer's endpoint %q is not https", url)
		}
	}
	return nil
}

// issuer returns the issuer that r's path names; it answers r if there is none.
func (p *Portal) issuer(w http.ResponseWriter, r *http.Request) (coordinator.Issuer, bool) {
	all, err := p.c.Issuers(r.Context())
	if err != nil {
		p.fail(w, r, err)
		return coordinator.Issuer{}, false
	}
	i := slices.IndexFunc(all, func(i coordinator.Issuer) bool { return i.Name == r.PathValue("issuer") })
	if i < 0 {
		p.refuse(w, r, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
			"there is no such way to sign in any more", "choose another one on the sign-in page"))
		return coordinator.Issuer{}, false
	}
	return all[i], true
}

// client returns the portal as a client of i; it answers r if i cannot be used.
func (p *Portal) client(w http.ResponseWriter, r *http.Request, i coordinator.Issuer) (*oauth2.Config, *oidc.Provider, bool) {
	provider, err := p.external.provider(r.Context(), i.URL)
	if err != nil {
		p.refuseIssuer(w, r, i, fmt.Errorf("discovery: %w", err), postern.NewProblem(http.StatusBadGateway, postern.CodeUnavailable,
			i.Title+" cannot be reached, or does not answer as it should",
			"try again in a minute; if it goes on, tell whoever operates "+i.Title))
		return nil, nil, false
	}
	secret, err := p.c.ClientSecret(i)
	if err != nil {
		p.fail(w, r, err)
		return nil, nil, false
	}
	endpoint := provider.Endpoint()
	if secret == "" {
		endpoint.AuthStyle = oauth2.AuthStyleInParams // a public client has nothing to put in a header
	}
	return &oauth2.Config{
		ClientID: i.ClientID, ClientSecret: secret, Endpoint: endpoint,
		RedirectURL: p.c.PortalURL() + "/sign-in/callback/" + i.Name,
		Scopes:      []string{oidc.ScopeOpenID, "profile", "email"},
	}, provider, true
}

// refuseIssuer answers r, for whom i did not vouch because of err.
func (p *Portal) refuseIssuer(w http.ResponseWriter, r *http.Request, i coordinator.Issuer, err error, problem *postern.Problem) {
	p.c.Note(context.WithoutCancel(r.Context()), coordinator.ActorStranger, "signin.refused", i.Tenant, i.Name,
		fmt.Sprintf("%v: %v", remoteOf(r), err))
	p.log.Warn("sign-in with an external issuer failed", "issuer", i.Name, "err", err)
	p.refuse(w, r, problem)
}

func (p *Portal) signInExternal(w http.ResponseWriter, r *http.Request) {
	next, ok := p.nextOf(w, r)
	if !ok {
		return
	}
	i, ok := p.issuer(w, r)
	if !ok {
		return
	}
	if !p.c.AllowPost(remoteOf(r)) { // each fills a place, and may ask the issuer
		p.noteStranger(r, "signin.refused", i.Name, "too many sign-ins were begun")
		p.refuse(w, r, tooManySignIns())
		return
	}
	client, _, ok := p.client(w, r, i)
	if !ok {
		return
	}
	j := journey{issuer: i.Name, verifier: oauth2.GenerateVerifier(), nonce: rand.Text(), next: next}
	state := rand.Text()
	p.external.begun.put(state, knowBrowser(w, r), remoteOf(r), j)
	http.Redirect(w, r, client.AuthCodeURL(state, oidc.Nonce(j.nonce), oauth2.S256ChallengeOption(j.verifier)), http.StatusSeeOther)
}

func (p *Portal) signInCallback(w http.ResponseWriter, r *http.Request) {
	i, ok := p.issuer(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	browser, _ := browserOf(r)
	j, ok := p.external.begun.take(q.Get("state"), browser)
	if !ok || j.issuer != i.Name {
		p.refuseIssuer(w, r, i, errors.New("an answer to a question that was not asked, or in another browser, or too long ago"),
			postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid,
				"this sign-in was not begun in this browser, took too long, or was finished already", "begin again on the sign-in page"))
		return
	}
	if iss := q.Get("iss"); iss != "" && iss != i.URL { // RFC 9207, section 2.4
		p.refuseIssuer(w, r, i, fmt.Errorf("the answer is from issuer %q", iss), badAnswer(i))
		return
	}
	if code := q.Get("error"); code != "" { // RFC 6749, section 4.1.2.1
		p.refuseIssuer(w, r, i, fmt.Errorf("the issuer says %q: %q", code, q.Get("error_description")),
			postern.NewProblem(http.StatusForbidden, postern.CodeForbidden, i.Title+" did not sign you in", "try again, or sign in another way"))
		return
	}
	client, provider, ok := p.client(w, r, i)
	if !ok {
		return
	}
	e, err := p.external.redeem(r.Context(), client, provider, i, j, q.Get("code"))
	if err != nil {
		p.refuseIssuer(w, r, i, err, answerProblem(i, err))
		return
	}
	e.Remote = remoteOf(r)
	u, err := p.c.SignInExternal(r.Context(), e)
	if err == nil {
		err = p.startSession(w, r, u.ID, byIssuer)
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	http.Redirect(w, r, j.next, http.StatusSeeOther)
}

// badAnswer is what people are told whom i vouches for in a way that cannot be
// verified.
func badAnswer(i coordinator.Issuer) *postern.Problem {
	return postern.NewProblem(http.StatusBadGateway, postern.CodeUnavailable,
		"the answer of "+i.Title+" could not be verified", "try again; if it goes on, tell whoever operates "+i.Title)
}

func answerProblem(i coordinator.Issuer, err error) *postern.Problem {
	var expired *oidc.TokenExpiredError
	if errors.As(err, &expired) {
		return postern.NewProblem(http.StatusBadGateway, postern.CodeUnavailable,
			"the answer of "+i.Title+" was too old when it came",
			"try again; if it goes on, its clock and this portal's do not agree: tell whoever operates them")
	}
	return badAnswer(i)
}

// redeem trades code for an ID token and returns whom that is about.
func (x *external) redeem(ctx context.Context, client *oauth2.Config, provider *oidc.Provider, i coordinator.Issuer, j journey, code string) (e coordinator.External, err error) {
	ctx = oidc.ClientContext(ctx, x.client)
	token, err := client.Exchange(ctx, code, oauth2.VerifierOption(j.verifier))
	if err != nil {
		return e, fmt.Errorf("redeem the code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return e, errors.New("redeem the code: no ID token came")
	}
	id, err := provider.VerifierContext(ctx, &oidc.Config{
		ClientID: client.ClientID, Now: func() time.Time { return x.now().Add(-clockSkew) },
	}).Verify(ctx, raw)
	if err != nil {
		return e, fmt.Errorf("ID token: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(j.nonce)) != 1 {
		return e, errors.New("ID token: its nonce is not the one that was sent")
	}
	var claims map[string]json.RawMessage
	if err := id.Claims(&claims); err != nil {
		return e, fmt.Errorf("ID token: %w", err)
	}
	// OpenID Connect Core 1.0, section 3.1.3.7, items 4 and 5.
	if azp := text(claims["azp"]); azp != "" && azp != client.ClientID || azp == "" && len(id.Audience) > 1 {
		return e, fmt.Errorf("ID token: it was made for %q", azp)
	}
	return externalOf(i, id.Subject, claims), nil
}

// externalOf returns whom claims are about. An e-mail address counts only if the
// issuer verified it: anybody can say that one is theirs.
func externalOf(i coordinator.Issuer, subject string, claims map[string]json.RawMessage) coordinator.External {
	e := coordinator.External{Issuer: i.Name, Subject: subject, Name: text(claims["name"])}
	if verified := string(claims["email_verified"]); verified == `true` || verified == `"true"` {
		e.Login = text(claims["email"])
	}
	if user := text(claims["preferred_username"]); e.Login == "" && !strings.Contains(user, "@") {
		e.Login = user
	}
	claim := i.GroupsClaim
	if claim == "" {
		claim = "groups"
	}
	if json.Unmarshal(claims[claim], &e.Groups) != nil {
		e.Groups = nil // not a list of texts; one text is a list of one
		if one := text(claims[claim]); one != "" {
			e.Groups = []string{one}
		}
	}
	return e
}

// text returns the JSON string raw, "" if it is something else.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
