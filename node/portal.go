package node

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern"
)

// A portal is where people sign in, as the map says: an OpenID Provider. It does not
// change.
type portal struct {
	issuer string
	keys   oidc.StaticKeySet
}

// tokenLeeway is how far the node's clock and the portal's may be apart before a
// token is refused that is not good yet, or no longer.
const tokenLeeway = time.Minute

// newPortal returns the portal of p, nil if p is nil. Keys of other kinds than ES256
// are overlooked.
func newPortal(p *postern.Portal) (*portal, error) {
	if p == nil {
		return nil, nil
	}
	u, err := url.Parse(p.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || p.Issuer != "https://"+u.Host {
		return nil, fmt.Errorf("issuer %q is no https origin", p.Issuer)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(p.Keys, &set); err != nil {
		return nil, fmt.Errorf("keys of issuer %q: %w", p.Issuer, err)
	}
	out := &portal{issuer: p.Issuer}
	for _, k := range set.Keys {
		public, ok := k.Public().Key.(*ecdsa.PublicKey)
		if ok && public.Curve == elliptic.P256() && (k.Use == "" || k.Use == "sig") {
			out.keys.PublicKeys = append(out.keys.PublicKeys, crypto.PublicKey(public))
		}
	}
	if len(out.keys.PublicKeys) == 0 {
		return nil, fmt.Errorf("issuer %q has no ES256 key", p.Issuer)
	}
	return out, nil
}

// name returns the portal's host, for people.
func (p *portal) name() string { return strings.TrimPrefix(p.issuer, "https://") }

// A skewError says that a token is refused because of the clocks.
type skewError struct{ ahead time.Duration } // the node's, of the portal's; negative: behind

func (e *skewError) Error() string {
	if e.ahead < 0 {
		return fmt.Sprintf("the clock of this machine is %v behind the portal's", -e.ahead)
	}
	return fmt.Sprintf("the clock of this machine is %v ahead of the portal's", e.ahead)
}

// vouched is what one of the portal's tokens says.
type vouched struct {
	person  string // id
	sid     string
	since   time.Time
	methods []string
	issued  time.Time
}

// sessionClaims are those of the portal's tokens that the standards leave open.
type sessionClaims struct {
	SID      string           `json:"sid"`       // OpenID Connect Front-Channel Logout 1.0, section 3
	AuthTime *jwt.NumericDate `json:"auth_time"` // OpenID Connect Core 1.0, section 2
	AMR      []string         `json:"amr"`       // RFC 8176
	Tenant   string           `json:"tenant"`
}

// vouch returns what c says of the person with that id, if it is whole and of tenant.
func (c sessionClaims) vouch(person, tenant string) (vouched, error) {
	switch {
	case person == "" || c.SID == "" || c.AuthTime == nil:
		return vouched{}, errors.New("it says not who signed in, when and in which session")
	case c.Tenant != "" && c.Tenant != tenant:
		return vouched{}, fmt.Errorf("it is for tenant %q", c.Tenant)
	}
	return vouched{person: person, sid: c.SID, since: c.AuthTime.Time(), methods: c.AMR}, nil
}

// An expected is what an ID token has to be for.
type expected struct {
	host   string // its audience
	nonce  string
	tenant string
	access string // the access token that came with it, which it may bind
}

// idToken verifies raw as an ID token (OpenID Connect Core 1.0, section 3.1.3.7). It
// came from the portal just now, so that one which has expired shows that the clocks
// differ: a *skewError.
func (p *portal) idToken(ctx context.Context, raw string, want expected, now time.Time) (vouched, error) {
	// An access token is none, though the same key signs it (RFC 8725, section 3.11).
	switch typ, err := tokenType(raw); {
	case err != nil:
		return vouched{}, fmt.Errorf("ID token: %w", err)
	case typ != "" && typ != "jwt":
		return vouched{}, fmt.Errorf("ID token: it is of type %q", typ)
	}
	verifier := oidc.NewVerifier(p.issuer, &p.keys, &oidc.Config{
		ClientID: want.host, SupportedSigningAlgs: []string{oidc.ES256}, SkipExpiryCheck: true,
	})
	t, err := verifier.Verify(ctx, raw)
	if err != nil {
		return vouched{}, fmt.Errorf("ID token: %w", err)
	}
	var claims sessionClaims
	if err := t.Claims(&claims); err != nil {
		return vouched{}, fmt.Errorf("ID token: %w", err)
	}
	v, err := claims.vouch(t.Subject, want.tenant)
	switch {
	case len(t.Audience) != 1:
		return vouched{}, fmt.Errorf("ID token: audience is %q, want %q alone", t.Audience, want.host)
	case t.Nonce != want.nonce:
		return vouched{}, errors.New("ID token: it has another nonce")
	case err != nil:
		return vouched{}, fmt.Errorf("ID token: %w", err)
	case now.After(t.Expiry.Add(tokenLeeway)):
		return vouched{}, fmt.Errorf("ID token: %w", &skewError{now.Sub(t.IssuedAt).Round(time.Second)})
	}
	if t.AccessTokenHash != "" {
		if err := t.VerifyAccessToken(want.access); err != nil {
			return vouched{}, fmt.Errorf("ID token: %w", err)
		}
	}
	v.issued = t.IssuedAt
	return v, nil
}

// accessTokenType is the media type of access tokens in their header (RFC 9068,
// section 2.1), without application/.
const accessTokenType = "at+jwt"

// tokenType returns what the header of raw, a JWT that ES256 signed, says that it is.
func tokenType(raw string) (string, error) {
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", err
	}
	typ, _ := t.Headers[0].ExtraHeaders[jose.HeaderType].(string)
	return strings.TrimPrefix(strings.ToLower(typ), "application/"), nil
}

// accessToken verifies raw as an access token for audience (RFC 9068, section 4).
func (p *portal) accessToken(ctx context.Context, raw, audience, tenant string, now time.Time) (vouched, error) {
	switch typ, err := tokenType(raw); {
	case err != nil:
		return vouched{}, fmt.Errorf("access token: %w", err)
	case typ != accessTokenType:
		return vouched{}, fmt.Errorf("access token: it is of type %q", typ)
	}
	payload, err := p.keys.VerifySignature(ctx, raw)
	if err != nil {
		return vouched{}, fmt.Errorf("access token: %w", err)
	}
	var claims struct {
		jwt.Claims
		sessionClaims
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return vouched{}, fmt.Errorf("access token: %w", err)
	}
	v, err := claims.vouch(claims.Subject, tenant)
	switch {
	case claims.Issuer != p.issuer:
		return vouched{}, fmt.Errorf("access token: issuer is %q", claims.Issuer)
	case len(claims.Audience) != 1 || claims.Audience[0] != audience:
		return vouched{}, fmt.Errorf("access token: audience is %q, want %q alone", claims.Audience, audience)
	case err != nil:
		return vouched{}, fmt.Errorf("access token: %w", err)
	case claims.Expiry == nil || claims.IssuedAt == nil:
		return vouched{}, errors.New("access token: it does not say from and until when it is good")
	case now.After(claims.Expiry.Time().Add(tokenLeeway)):
		return vouched{}, fmt.Errorf("access token: it expired at %v", claims.Expiry.Time().UTC().Format(time.RFC3339))
	}
	from := claims.IssuedAt.Time()
	if claims.NotBefore != nil && claims.NotBefore.Time().After(from) {
		from = claims.NotBefore.Time()
	}
	if early := from.Sub(now); early > tokenLeeway {
		return vouched{}, fmt.Errorf("access token: %w", &skewError{-early.Round(time.Second)})
	}
	v.issued = claims.IssuedAt.Time()
	return v, nil
}
