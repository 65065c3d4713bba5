package portal

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"postern/coordinator"
)

// Lifetimes of tokens.
const (
	idTokenLife = 5 * time.Minute
	infoLife    = 5 * time.Minute  // of an access token for the user info endpoint
	accessLife  = 10 * time.Minute // of one for a host
)

// Media types of tokens in their header, without application/ (RFC 8725, section
// 3.11): none is taken for another.
const (
	typeID      = "JWT"
	typeAccess  = "at+jwt" // RFC 9068, section 2.1
	typeRefresh = "rt+jwt"
)

// claims are what the portal's tokens say. Each has those that are its own.
type claims struct {
	Issuer   string           `json:"iss"`
	Subject  string           `json:"sub"`
	Audience string           `json:"aud"`
	Expires  *jwt.NumericDate `json:"exp,omitempty"`
	Issued   *jwt.NumericDate `json:"iat"`
	ID       string           `json:"jti,omitempty"`
	ClientID string           `json:"client_id,omitempty"`
	Scope    string           `json:"scope,omitempty"`
	Nonce    string           `json:"nonce,omitempty"`
	SID      string           `json:"sid"`
	AuthTime *jwt.NumericDate `json:"auth_time,omitempty"`
	AMR      []string         `json:"amr,omitempty"`

	Name   string   `json:"name,omitempty"`
	Login  string   `json:"preferred_username,omitempty"`
	Tenant string   `json:"tenant,omitempty"`
	Roles  []string `json:"roles,omitempty"`
	Groups []string `json:"groups,omitempty"`

	Host   string `json:"host,omitempty"`   // refresh tokens: what its access tokens are for
	Secret string `json:"secret,omitempty"` // refresh tokens: of the session
}

// sign returns c as a token of type typ, good for life from now.
func (v *provider) sign(typ string, c claims, life time.Duration) (string, error) {
	now := v.p.cfg.Now()
	c.Issuer, c.Issued, c.Expires = v.issuer, jwt.NewNumericDate(now), jwt.NewNumericDate(now.Add(life))
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: v.key}, new(jose.SignerOptions).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// verify returns what raw says, a token of type typ for the portal itself that has
// not expired.
func (v *provider) verify(typ, raw string) (claims, error) {
	var c claims
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return c, err
	}
	if err := t.Claims(v.key.Public().Key, &c); err != nil {
		return c, err
	}
	got, _ := t.Headers[0].ExtraHeaders[jose.HeaderType].(string)
	switch {
	case got != typ:
		return c, errors.New("it is a token of another kind")
	case c.Issuer != v.issuer || c.Audience != v.issuer:
		return c, errors.New("it is for somebody else")
	case c.Expires == nil || !v.p.cfg.Now().Before(c.Expires.Time()):
		return c, errors.New("it has expired")
	}
	return c, nil
}

// A standing is who somebody is at one host, at this moment.
type standing struct {
	session coordinator.Session
	user    coordinator.User
	grant   coordinator.Grant
}

// stand returns what the user whose session has the id sid is at host. It fails
// for a session that has ended, also with its user's account, and for a host that
// they may not open.
func (v *provider) stand(ctx context.Context, sid, host string) (standing, error) {
	s, u, err := v.p.c.SessionByID(ctx, sid)
	if err != nil {
		return standing{}, err
	}
	tile, err := v.p.c.MayOpen(ctx, u.ID, host)
	if err != nil {
		return standing{}, err
	}
	grants, err := v.p.c.Grants(ctx, u.ID)
	if err != nil {
		return standing{}, err
	}
	i := slices.IndexFunc(grants, func(g coordinator.Grant) bool { return g.Tenant == tile.Tenant })
	if i < 0 {
		return standing{}, coordinator.ErrNotFound // taken away just now
	}
	return standing{s, u, grants[i]}, nil
}

// claims are what tokens say of a standing: of one tenant, nothing of others.
func (s standing) claims(audience string) claims {
	return claims{
		Subject: s.user.ID, Audience: audience, SID: s.session.ID,
		AuthTime: jwt.NewNumericDate(s.session.Signed), AMR: s.session.Methods,
		Name: s.user.Name, Login: s.user.Login,
		Tenant: s.grant.Tenant, Roles: []string{s.grant.Role}, Groups: s.grant.Groups,
	}
}

// CodeExchange implements op.Server. The client is the node's own.
func (v *provider) CodeExchange(ctx context.Context, r *op.ClientRequest[oidc.AccessTokenRequest]) (*op.Response, error) {
	a := askerOf(ctx)
	c, fresh, again := v.codes.use(r.Data.Code)
	if again {
		// RFC 6749, section 4.1.2: who has it twice may have stolen it, and what the
		// first got is taken back with the session that it came of.
		if err := v.p.c.EndSession(ctx, a.actor, c.user, c.sid); err != nil && problemIn(err) == nil {
			return nil, v.fail(ctx, err)
		}
	}
	refuse := func(why string) error {
		tenant := ""
		if c != nil {
			tenant = c.tenant
		}
		v.note(ctx, a, "token.refused", tenant, r.Client.GetID(), why)
		return oidc.ErrInvalidGrant().WithDescription("%s", why)
	}
	switch {
	case c == nil:
		return nil, refuse("there is no such code")
	case again:
		return nil, refuse("the code was used before; the session that it came of has ended")
	case !fresh:
		return nil, refuse("the code has expired, or was used before")
	case c.request.Client != r.Client.GetID():
		return nil, refuse("the code is for another host")
	case c.request.Redirect != r.Data.RedirectURI:
		return nil, refuse("the redirect_uri is another than the code's")
	case !proves(r.Data.CodeVerifier, c.request.Challenge):
		return nil, refuse("the code_verifier is not the code's")
	}
	s, err := v.stand(ctx, c.sid, c.request.Client)
	if refused := gone(err); refused != "" {
		return nil, refuse(refused)
	}
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	if !v.codes.redeem(c) {
		return nil, refuse("the code was used twice at the same time")
	}
	say := s.claims(c.request.Client)
	say.Nonce = c.request.Nonce
	id, err := v.sign(typeID, say, idTokenLife)
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	info := s.claims(v.issuer)
	info.ClientID, info.Scope = c.request.Client, oidc.ScopeOpenID
	access, err := v.sign(typeAccess, info.bare(), infoLife)
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	return op.NewResponse(&oidc.AccessTokenResponse{
		AccessToken: access, TokenType: oidc.BearerToken, ExpiresIn: uint64(infoLife / time.Second),
		IDToken: id, Scope: oidc.SpaceDelimitedArray{oidc.ScopeOpenID},
	}), nil
}

// bare is c without what says more of somebody than who they are.
func (c claims) bare() claims {
	c.Name, c.Login, c.Roles, c.Groups, c.AMR = "", "", nil, nil, nil
	return c
}

// proves reports whether verifier is what challenge was made from (RFC 7636,
// section 4.6).
func proves(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}

// gone says in words why err, of stand, means that somebody has no standing; "" if
// it is of another kind.
func gone(err error) string {
	switch problem := problemIn(err); {
	case problem != nil:
		return problem.Detail
	case errors.Is(err, coordinator.ErrNotFound):
		return "the session has ended, or what was granted was taken away"
	}
	return ""
}

// fail makes of err, which is a mistake of ours or the disk's, what a program may
// read of it.
func (v *provider) fail(ctx context.Context, err error) error {
	problem := v.p.c.Problem(ctx, err)
	return op.NewStatusError(oidc.ErrServerError().WithDescription("%s", problem.Detail), problem.Status)
}

// UserInfo implements op.Server (OpenID Connect Core 1.0, section 5.3): it says once
// more what the ID token said, as it is now.
func (v *provider) UserInfo(ctx context.Context, r *op.Request[oidc.UserInfoRequest]) (*op.Response, error) {
	refused := op.NewStatusError(&oidc.Error{ErrorType: "invalid_token", Description: "the access token is not good"}, http.StatusUnauthorized)
	c, err := v.verify(typeAccess, r.Data.AccessToken)
	if err != nil {
		return nil, refused
	}
	s, err := v.stand(ctx, c.SID, c.ClientID)
	if gone(err) != "" {
		return nil, refused
	}
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	return op.NewResponse(struct {
		Subject string   `json:"sub"`
		Name    string   `json:"name,omitempty"`
		Login   string   `json:"preferred_username"`
		Tenant  string   `json:"tenant"`
		Roles   []string `json:"roles"`
		Groups  []string `json:"groups,omitempty"`
	}{s.user.ID, s.user.Name, s.user.Login, s.grant.Tenant, []string{s.grant.Role}, s.grant.Groups}), nil
}
