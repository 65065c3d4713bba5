package coordinator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"postern"
)

// SignInKey returns the key that the portal signs its tokens with, ES256.
// Whoever has it can sign in as anybody at each service that asks for no more
// than the portal's word.
func (a *Authority) SignInKey() *ecdsa.PrivateKey { return a.signIn.Key.(*ecdsa.PrivateKey) }

// openSignIn reads signin.key, and makes it if it is missing: a key that was
// taken away is replaced at the next start, and nodes learn of the new one then.
func (a *Authority) openSignIn() error {
	key, err := a.readKey("signin")
	if err == nil && key == nil {
		key, err = a.makeKey("signin", newP256)
	}
	if err != nil {
		return err
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return errors.New("signin.key is not ECDSA P-256: bring it back from the backup, or move it away to have a new one made")
	}
	a.signIn = jose.JSONWebKey{Key: private, Algorithm: string(jose.ES256), Use: "sig"}
	print, err := a.signIn.Thumbprint(crypto.SHA256) // RFC 7638
	a.signIn.KeyID = base64.RawURLEncoding.EncodeToString(print)
	return err
}

// SignInKey returns the key that the portal signs its tokens with, with the id
// by which nodes know it. Its Public half is all that may be shown.
func (c *Coordinator) SignInKey() jose.JSONWebKey { return c.cfg.Authority.signIn }

// PortalHost returns the host name at which people sign in.
func (c *Coordinator) PortalHost() string { return c.cfg.PortalHost }

// PortalURL returns the portal's URL, without a slash at its end: the issuer of
// its tokens.
func (c *Coordinator) PortalURL() string { return c.HostURL(c.cfg.PortalHost) }

// HostURL returns the URL of host's root, at the port where browsers reach gateways.
func (c *Coordinator) HostURL(host string) string { return httpsURL(host, c.cfg.Port) }

// portal is what nodes are told of it.
func (cfg *Config) portal() *postern.Portal {
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{cfg.Authority.signIn.Public()}})
	if err != nil {
		panic("coordinator: the sign-in key has no JSON: " + err.Error())
	}
	return &postern.Portal{Issuer: httpsURL(cfg.PortalHost, cfg.Port), Keys: keys}
}

// CallbackPath is where a node takes the codes that it redeems.
const CallbackPath = "/.well-known/postern/callback"

// Client returns the origin of the OpenID client whose id is host: a routed host
// name at which something asks the portal who people are. Its one redirect URI is
// CallbackPath there.
func (c *Coordinator) Client(host string) (origin string, ok bool) {
	t, r := c.snapshot.Load().route(host)
	if t == nil || !t.offers()[r.Service].asks() {
		return "", false
	}
	return c.HostURL(host), true
}

// TenantAt returns the tenant that host is routed to, "" if it is to none.
func (c *Coordinator) TenantAt(host string) string {
	t, _ := c.snapshot.Load().route(host)
	if t == nil {
		return ""
	}
	return t.Name
}

// asks reports whether one of o asks the portal who anybody is.
func (o offer) asks() bool {
	return slices.ContainsFunc(o, func(s offered) bool {
		return s.Require != postern.RequireIssuer && !open(s.Service)
	})
}

// open reports whether all of service is for everybody.
func open(service postern.Service) bool {
	return service.Public() && !slices.ContainsFunc(service.Exceptions, func(e postern.Exception) bool { return !e.Public() })
}
