package node

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"postern"
)

// What can go wrong between the node and a pinned issuer. Each is wrapped with more,
// for the log.
var (
	errIssuerDown    = errors.New("the issuer does not answer")
	errIssuerSecret  = errors.New("the issuer does not take this node for its client")
	errIssuerCode    = errors.New("the issuer refuses the code")
	errIssuerAnswer  = errors.New("the issuer's answer cannot be used")
	errIssuerClock   = errors.New("the issuer's clock and this machine's differ too much")
	errIssuerStrange = errors.New("the issuer's person may not come in")
)

const (
	issuerTimeout = 10 * time.Second // of each question to the issuer
	issuerFresh   = time.Second      // how long what was discovered, or was not, counts
	issuerSkew    = 2 * time.Minute  // by which clocks may differ
	issuerMaxBody = 1 << 20          // bytes of an answer
)

// A pinned is the client of a PinnedIssuer (OpenID Connect Core 1.0, section 3.1, with
// RFC 7636). It keeps no secret of a sign-in. Its methods are safe for concurrent use.
type pinned struct {
	given  PinnedIssuer // cfg without its defaults
	cfg    PinnedIssuer
	mark   proof
	client *http.Client
	now    func() time.Time

	found atomic.Pointer[foundIssuer] // nil: nothing yet

	asking chan struct{} // holds a token while somebody has what follows, and asks
	tried  time.Time     // when it was asked last
	err    error         // of that time
}

// foundIssuer is what an issuer says of itself (OpenID Connect Discovery 1.0).
type foundIssuer struct {
	provider *oidc.Provider
	endpoint oauth2.Endpoint
	names    bool // itself in its answers (RFC 9207)
	document []byte
}

// newPinned checks what is given and what that names on disk. It asks the issuer nothing.
func newPinned(given PinnedIssuer, now func() time.Time) (*pinned, error) {
	cfg := given
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	roots, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	tr := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: 30 * time.Second,
		TLSHandshakeTimeout: issuerTimeout, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	return &pinned{
		given: given, cfg: cfg, mark: proof{Issuer: cfg.URL, Rules: cfg.rules()}, now: now, asking: make(chan struct{}, 1),
		client: &http.Client{
			Transport: bounded{tr}, Timeout: issuerTimeout,
			// It would carry secrets to where nobody said.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// close drops the idle connections to the issuer.
func (p *pinned) close() { p.client.CloseIdleConnections() }

// bounded keeps an issuer from filling the memory.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusInternalServerError { // as good as no answer
		resp.Body.Close()
		return nil, errors.New("status " + resp.Status)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, issuerMaxBody), resp.Body}
	return resp, nil
}

// discover returns what the issuer says of itself now. So whoever would be sent there
// is told here that it is away. It fails with errIssuerDown or errIssuerAnswer.
func (p *pinned) discover(ctx context.Context) (*foundIssuer, error) {
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errIssuerDown, ctx.Err())
	}
	held := p.found.Load()
	if p.now().Sub(p.tried).Abs() < issuerFresh {
		return held, p.err
	}
	// Others wait for the answer, whoever asked first. It is fresh from when it came.
	found, err := p.ask(context.WithoutCancel(ctx))
	p.tried, p.err = p.now(), err
	// A provider keeps the keys that it fetched.
	if err == nil && (held == nil || !bytes.Equal(found.document, held.document)) {
		p.found.Store(found)
	}
	return p.found.Load(), p.err
}

// discovered is discover for a sign-in that is under way: what the issuer said when it
// began is good.
func (p *pinned) discovered(ctx context.Context) (*foundIssuer, error) {
	if found := p.found.Load(); found != nil {
		return found, nil
	}
	return p.discover(ctx)
}

func (p *pinned) ask(ctx context.Context) (*foundIssuer, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.cfg.URL)
	if err != nil {
		return nil, issuerError(err)
	}
	var doc struct {
		JWKS    string   `json:"jwks_uri"`
		Methods []string `json:"token_endpoint_auth_methods_supported"`
		Names   bool     `json:"authorization_response_iss_parameter_supported"`
	}
	var document json.RawMessage
	if err := errors.Join(provider.Claims(&doc), provider.Claims(&document)); err != nil {
		return nil, fmt.Errorf("%w: %w", errIssuerAnswer, err)
	}
	found := &foundIssuer{provider: provider, endpoint: provider.Endpoint(), names: doc.Names, document: document}
	for _, at := range []string{found.endpoint.AuthURL, found.endpoint.TokenURL, doc.JWKS} {
		if u, err := url.Parse(at); err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("%w: its document has the endpoint %q", errIssuerAnswer, at)
		}
	}
	// Trying one and then the other would use the code up.
	found.endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if len(doc.Methods) > 0 && !slices.Contains(doc.Methods, "client_secret_basic") {
		found.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return found, nil
}

// issuerError says of an error whether the issuer did not answer, or not in a way that
// is of use.
func issuerError(err error) error {
	var transport *url.Error
	if errors.As(err, &transport) {
		return fmt.Errorf("%w: %w", errIssuerDown, err)
	}
	return fmt.Errorf("%w: %.500s", errIssuerAnswer, err)
}

// config returns the OAuth client for one attempt.
func (p *pinned) config(found *foundIssuer, redirect, secret string) *oauth2.Config {
	endpoint := found.endpoint
	if secret == "" {
		endpoint.AuthStyle = oauth2.AuthStyleInParams // RFC 6749, section 4.1.3: client_id in the body
	}
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: secret, Endpoint: endpoint, RedirectURL: redirect,
		Scopes: append([]string{oidc.ScopeOpenID}, p.cfg.Scopes...),
	}
}

// start returns where to send the browser.
func (p *pinned) start(ctx context.Context, a attempt) (string, error) {
	found, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	return p.config(found, a.Redirect, "").AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), nil
}

// A pinnedPerson is somebody who signed in, as a pinned issuer tells of them.
type pinnedPerson struct {
	Person   postern.Person
	SignedIn time.Time // zero: it did not say
	Methods  []string  // RFC 8176
}

// finish takes what the browser brought back, query, to attempt a, whose state it has.
// It fails with errIssuerStrange and v.Person.ID for somebody who may not come in.
func (p *pinned) finish(ctx context.Context, a attempt, query url.Values) (v pinnedPerson, err error) {
	found, err := p.discovered(ctx)
	if err != nil {
		return v, err
	}
	// Somebody else's answer (RFC 9207, section 2.4; RFC 9700, section 4.4.2).
	if iss := query.Get("iss"); iss != p.cfg.URL && (iss != "" || found.names) {
		return v, fmt.Errorf("%w: it came from %.200q", errIssuerAnswer, iss)
	}
	if refused := query.Get("error"); refused != "" {
		return v, fmt.Errorf("%w: %.100q %.200q", errIssuerCode, refused, query.Get("error_description"))
	}
	secret, err := p.cfg.secret()
	if err != nil {
		return v, fmt.Errorf("%w: %w", errIssuerSecret, err)
	}
	ctx = oidc.ClientContext(ctx, p.client)
	token, err := p.config(found, a.Redirect, secret).Exchange(ctx, query.Get("code"), oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return v, exchangeError(err)
	}
	claims, err := p.verify(ctx, found, token, a.Nonce)
	if err != nil {
		return v, err
	}
	return p.admit(claims)
}

func exchangeError(err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case !errors.As(err, &refused):
		return issuerError(err)
	case refused.ErrorCode == "invalid_grant":
		return fmt.Errorf("%w: %w: %.200q", errIssuerCode, errJunkCode, refused.ErrorDescription)
	case refused.ErrorCode == "invalid_client" || refused.ErrorCode == "unauthorized_client":
		return fmt.Errorf("%w: %.100q %.200q", errIssuerSecret, refused.ErrorCode, refused.ErrorDescription)
	case refused.ErrorCode != "":
		return fmt.Errorf("%w: %.100q %.200q", errIssuerCode, refused.ErrorCode, refused.ErrorDescription)
	}
	return fmt.Errorf("%w: status %d", errIssuerAnswer, refused.Response.StatusCode)
}

// verify checks the ID token (OpenID Connect Core 1.0, section 3.1.3.7), and returns
// its claims, with those of the userinfo endpoint that it lacks and that are wanted.
func (p *pinned) verify(ctx context.Context, found *foundIssuer, token *oauth2.Token, nonce string) (issuerClaims, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, fmt.Errorf("%w: it has no ID token", errIssuerAnswer)
	}
	id, err := found.provider.Verifier(&oidc.Config{ClientID: p.cfg.ClientID, SkipExpiryCheck: true}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %.500s", errIssuerAnswer, err)
	}
	var claims issuerClaims
	if err := id.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %.500s", errIssuerAnswer, err)
	}
	now := p.now()
	switch azp := claims.text("azp"); {
	case subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) != 1:
		return nil, fmt.Errorf("%w: the nonce is another", errIssuerAnswer)
	case azp != "" && azp != p.cfg.ClientID, azp == "" && len(id.Audience) > 1:
		return nil, fmt.Errorf("%w: the ID token is for %.200q", errIssuerAnswer, azp)
	case !now.Before(id.Expiry.Add(issuerSkew)):
		return nil, fmt.Errorf("%w: the ID token expired at %v", errIssuerClock, id.Expiry)
	case id.IssuedAt.After(now.Add(issuerSkew)), claims.time("nbf").After(now.Add(issuerSkew)):
		return nil, fmt.Errorf("%w: the ID token is from %v", errIssuerClock, id.IssuedAt)
	}
	return claims, p.complete(ctx, found, token, claims)
}

// complete fills in what claims lacks and is wanted, from the userinfo endpoint
// (OpenID Connect Core 1.0, section 5.3).
func (p *pinned) complete(ctx context.Context, found *foundIssuer, token *oauth2.Token, claims issuerClaims) error {
	wanted := []string{"preferred_username", "email"}
	if len(p.cfg.Groups) > 0 {
		wanted = append(wanted, p.cfg.GroupsClaim)
	}
	missing := slices.ContainsFunc(wanted, func(name string) bool { return claims[name] == nil })
	if !missing || found.provider.UserInfoEndpoint() == "" || !strings.HasPrefix(found.provider.UserInfoEndpoint(), "https://") {
		return nil
	}
	info, err := found.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return issuerError(fmt.Errorf("ask for more about the person: %w", err))
	}
	if info.Subject != claims.text("sub") {
		return fmt.Errorf("%w: it tells more about somebody else", errIssuerAnswer)
	}
	var more issuerClaims
	if err := info.Claims(&more); err != nil {
		return fmt.Errorf("%w: %.500s", errIssuerAnswer, err)
	}
	// An address counts together with who verified it.
	if claims["email"] == nil {
		claims["email"], claims["email_verified"] = more["email"], more["email_verified"]
	}
	for _, name := range append(wanted, "name") {
		if claims[name] == nil && name != "email" {
			claims[name] = more[name]
		}
	}
	return nil
}
