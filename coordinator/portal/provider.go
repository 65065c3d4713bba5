package portal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"postern/coordinator"
)

// The portal is an OpenID Provider (OpenID Connect Core 1.0), in a narrow profile
// (RFC 9700). A sign-in at a host's node, which is a client, goes
//
//	authorize      GET /authorize: what the node asks for is checked
//	signIn         somebody signs in, if nobody is, and comes back by /continue
//	hand           this user may open this host: a code, back to the node
//	ServeToken     the node redeems it over its control channel: an ID token
//
// and a program of a user's
//
//	DeviceAuthorization  POST /oauth/device: a code for the program, one for the user
//	devicePage           GET /device: the user sees what is asked, and allows it
//	DeviceToken          POST /oauth/token: an access token for one host
//	RefreshToken         and another, for as long as the session goes on
//
// What the browser is sent to talks to people, so it is a page of the portal; what
// programs talk to is op's server, which parses requests and writes answers. Of its
// methods only those are here that the profile has: all others are not there.
type provider struct {
	op.UnimplementedServer
	p        *Portal
	issuer   string
	key      jose.JSONWebKey
	requests *underWay[authRequest] // whose users sign in
	codes    *codes
	devices  *devices
	guesses  *rates       // at user codes, by user
	server   http.Handler // op's
}

// Paths of the provider; all but the first are in its discovery document.
const (
	pathDiscovery = oidc.DiscoveryEndpoint
	pathAuthorize = "/authorize"
	pathContinue  = "/continue"
	pathToken     = "/oauth/token"
	pathDevice    = "/oauth/device"
	pathKeys      = "/keys"
	pathUserInfo  = "/userinfo"
	pathRevoke    = "/revoke"
	pathUserCode  = "/device"
)

func newProvider(p *Portal) *provider {
	v := &provider{
		p: p, issuer: p.c.PortalURL(), key: p.c.SignInKey(), requests: newUnderWay[authRequest](p.cfg.Now),
		codes: newCodes(p.cfg.Now), devices: newDevices(p.cfg.Now),
		guesses: newRates(6*time.Second, 12),
	}
	v.server = op.RegisterServer(v, op.Endpoints{
		Token:               op.NewEndpoint(pathToken),
		Userinfo:            op.NewEndpoint(pathUserInfo),
		Revocation:          op.NewEndpoint(pathRevoke),
		JwksURI:             op.NewEndpoint(pathKeys),
		DeviceAuthorization: op.NewEndpoint(pathDevice),
	}, op.WithServerCORSOptions(nil)) // no page of another origin reads its answers
	return v
}

func (v *provider) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pathAuthorize, v.authorize)
	mux.HandleFunc("GET "+pathContinue, v.goOn)
	mux.HandleFunc("GET "+pathUserCode, v.p.signedIn(v.devicePage))
	mux.HandleFunc("POST "+pathUserCode, v.p.signedIn(v.answerDevice))
	mux.Handle("GET "+pathDiscovery, v.server)
	mux.Handle("GET "+pathKeys, v.server)
	mux.HandleFunc("GET "+pathUserInfo, func(w http.ResponseWriter, r *http.Request) {
		v.server.ServeHTTP(&replies{ResponseWriter: w, challenge: `Bearer error="invalid_token"`}, r) // RFC 6750, section 3
	})
	for _, path := range []string{pathToken, pathDevice, pathRevoke} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { v.program(w, r, nil, false) })
	}
}

// ServeToken implements coordinator.Site.
func (p *Portal) ServeToken(w http.ResponseWriter, r *http.Request, hosts []string) {
	r = r.Clone(r.Context())
	r.URL.Path = pathToken
	p.provider.program(w, r, hosts, true)
}

// An asker is the program that asks op's server, which passes on no connection.
type asker struct {
	node   bool     // it is one, on its control channel
	hosts  []string // that it serves then
	actor  string
	remote netip.Addr
	noted  *bool // that it was refused
}

type askerKey struct{}

func askerOf(ctx context.Context) asker {
	a, _ := ctx.Value(askerKey{}).(asker)
	return a
}

// program lets op's server answer a form that a program sent.
func (v *provider) program(w http.ResponseWriter, r *http.Request, hosts []string, node bool) {
	a := asker{node: node, hosts: hosts, actor: coordinator.Asker(r.Context()), remote: remoteOf(r), noted: new(bool)}
	// RFC 6749, section 5.1: MUST, for what has a token in it.
	w.Header().Set("Cache-Control", "no-store")
	if err := checkForm(r); err != nil {
		v.note(r.Context(), a, "token.refused", "", r.PostForm.Get("client_id"), err.Error())
		op.WriteError(w, r, oidc.ErrInvalidRequest().WithDescription("%s", err), nil)
		return
	}
	reply := &replies{ResponseWriter: w, challenge: "Bearer"}
	if _, _, ok := r.BasicAuth(); ok {
		reply.challenge = `Basic realm="postern"` // RFC 6749, section 5.2: a MUST
	}
	v.server.ServeHTTP(reply, r.WithContext(context.WithValue(r.Context(), askerKey{}, a)))
	if why := reply.refusal(); why != "" && !*a.noted {
		v.note(r.Context(), a, "token.refused", "", r.PostForm.Get("client_id"), why)
	}
}

// replies passes on what op's server answers, which tells nobody of the requests that
// it refuses itself.
type replies struct {
	http.ResponseWriter
	challenge string // of who is not known
	status    int
	body      bytes.Buffer // of a refusal
}

func (w *replies) WriteHeader(status int) {
	w.status = status
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", w.challenge) // RFC 9110, section 11.6.1: a MUST
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *replies) Write(b []byte) (int, error) {
	if w.status >= http.StatusBadRequest {
		w.body.Write(b)
	}
	return w.ResponseWriter.Write(b)
}

// refusal says why a program was refused, "" if it was not, or shall only ask again.
func (w *replies) refusal() string {
	var e oidc.Error
	if w.status < http.StatusBadRequest || w.status >= http.StatusInternalServerError || json.Unmarshal(w.body.Bytes(), &e) != nil {
		return ""
	}
	if e.ErrorType == oidc.AuthorizationPending || e.ErrorType == oidc.SlowDown {
		return "" // RFC 8628, section 3.5
	}
	return fmt.Sprintf("%s: %s", e.ErrorType, e.Description)
}

// checkForm parses r's body, and reports what is not as it is to be (RFC 6749,
// section 3.2): parameters stand in the body alone, and once each. op reads those
// of the URL, too, and of several the first.
func checkForm(r *http.Request) error {
	if r.URL.RawQuery != "" {
		return fmt.Errorf("parameters belong in the body")
	}
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("the body is no form")
	}
	return checkOnce(r.PostForm)
}

// checkOnce reports a parameter that q has more than once (RFC 6749, section 3.1).
func checkOnce(q url.Values) error {
	for name, values := range q {
		if len(values) > 1 {
			return fmt.Errorf("parameter %.40q is there %d times", name, len(values))
		}
	}
	return nil
}

// note records what became of what a program asked for.
func (v *provider) note(ctx context.Context, a asker, action, tenant, target, why string) {
	if a.noted != nil {
		*a.noted = true
	}
	v.p.c.Note(context.WithoutCancel(ctx), a.actor, action, tenant, target, fmt.Sprintf("%v: %s", a.remote, why))
}

// discovery is a discovery document (OpenID Connect Discovery 1.0, section 3).
type discovery struct {
	*oidc.DiscoveryConfiguration
	IssuerInResponse bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207
	Prompts          []string `json:"prompt_values_supported"`
}

// Discovery implements op.Server.
func (v *provider) Discovery(context.Context, *op.Request[struct{}]) (*op.Response, error) {
	return op.NewResponse(discovery{
		DiscoveryConfiguration: &oidc.DiscoveryConfiguration{
			Issuer:                            v.issuer,
			AuthorizationEndpoint:             v.issuer + pathAuthorize,
			TokenEndpoint:                     v.issuer + pathToken,
			UserinfoEndpoint:                  v.issuer + pathUserInfo,
			RevocationEndpoint:                v.issuer + pathRevoke,
			DeviceAuthorizationEndpoint:       v.issuer + pathDevice,
			JwksURI:                           v.issuer + pathKeys,
			ScopesSupported:                   []string{oidc.ScopeOpenID, oidc.ScopeProfile},
			ResponseTypesSupported:            []string{string(oidc.ResponseTypeCode)},
			ResponseModesSupported:            []string{string(oidc.ResponseModeQuery)},
			GrantTypesSupported:               append([]oidc.GrantType{oidc.GrantTypeCode}, deviceGrants...),
			SubjectTypesSupported:             []string{"public"},
			IDTokenSigningAlgValuesSupported:  []string{string(jose.ES256)},
			TokenEndpointAuthMethodsSupported: []oidc.AuthMethod{oidc.AuthMethodNone},
			RevocationEndpointAuthMethodsSupported: []oidc.AuthMethod{
				oidc.AuthMethodNone,
			},
			ClaimsSupported: []string{
				"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "sid", "amr",
				"name", "preferred_username", "tenant", "roles", "groups",
			},
			CodeChallengeMethodsSupported: []oidc.CodeChallengeMethod{oidc.CodeChallengeMethodS256},
		},
		IssuerInResponse: true,
		Prompts:          []string{oidc.PromptNone, oidc.PromptLogin, oidc.PromptSelectAccount},
	}), nil
}

// Keys implements op.Server.
func (v *provider) Keys(context.Context, *op.Request[struct{}]) (*op.Response, error) {
	return op.NewResponse(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{v.key.Public()}}), nil
}

// A client is who asks the token endpoint. None has a secret: a node is proven by
// its certificate, and a program by what it was given before.
type client struct {
	op.Client // nil: op's server asks a client for no more than what follows
	id        string
	grants    []oidc.GrantType
}

func (c client) GetID() string                { return c.id }
func (c client) AuthMethod() oidc.AuthMethod  { return oidc.AuthMethodNone }
func (c client) GrantTypes() []oidc.GrantType { return c.grants }

// VerifyClient implements op.Server: nodes redeem the codes of their own hosts, on
// their control channel, and programs what users gave them, anywhere else.
func (v *provider) VerifyClient(ctx context.Context, r *op.Request[op.ClientCredentials]) (op.Client, error) {
	a, c := askerOf(ctx), client{id: r.Data.ClientID}
	var why string
	switch {
	case r.Data.ClientSecret != "" || r.Data.ClientAssertion != "":
		why = "clients have no secrets here"
	case a.node && slices.Contains(a.hosts, c.id):
		if _, ok := v.p.c.Client(c.id); ok {
			c.grants = []oidc.GrantType{oidc.GrantTypeCode}
			return c, nil
		}
		why = "nobody signs in at that host"
	case a.node:
		why = "that host does not lead to this node"
	case c.id == ProgramClient:
		c.grants = deviceGrants
		return c, nil
	default:
		why = "there is no such client at this endpoint"
	}
	v.note(ctx, a, "token.refused", "", c.id, why)
	return nil, op.NewStatusError(oidc.ErrInvalidClient().WithDescription("%s", why), http.StatusUnauthorized)
}

// hostIn returns the host of origin, as Client has it.
func hostIn(origin string) string {
	u, err := url.Parse(strings.TrimSuffix(origin, "/"))
	if err != nil {
		return ""
	}
	return u.Hostname()
}

var _ coordinator.Site = (*Portal)(nil)
