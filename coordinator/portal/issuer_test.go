package portal_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern"
	"postern/coordinator/portal"
)

// An issuer is a customer's OpenID Provider, which can be made to say what an honest
// one would not.
type issuer struct {
	*httptest.Server
	t   *testing.T
	key *ecdsa.PrivateKey

	mu      sync.Mutex
	asked   url.Values     // of the last authorization request
	claims  map[string]any // over the honest ones; nil takes one away
	signer  *ecdsa.PrivateKey
	answers map[string]http.HandlerFunc // in place of the honest ones, by path
	found   int                         // times that it was discovered
}

const clientSecret = "the portal's own"

func newIssuer(t *testing.T) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	i := &issuer{t: t, key: key, signer: key, claims: map[string]any{}, answers: map[string]http.HandlerFunc{}}
	i.Server = httptest.NewTLSServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if h := i.answers[r.URL.Path]; h != nil {
		h(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		i.found++
		json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
			"jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"},
		})
	case "/keys":
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	case "/token":
		i.redeem(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (i *issuer) redeem(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	verifier := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch {
	case id != "postern" || secret != url.QueryEscape(clientSecret):
		http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
	case r.PostFormValue("code") != "the-code" || b64(verifier[:]) != i.asked.Get("code_challenge") || i.asked.Get("code_challenge_method") != "S256",
		r.PostFormValue("redirect_uri") != i.asked.Get("redirect_uri"):
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
	default:
		json.NewEncoder(w).Encode(map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": i.token()})
	}
}

func (i *issuer) token() string {
	now := time.Now()
	claims := map[string]any{
		"iss": i.URL, "sub": "4711", "aud": "postern", "nonce": i.asked.Get("nonce"), "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"email": "ada@acme.example", "email_verified": true, "name": "Ada Lovelace", "groups": []string{"book-keepers"},
	}
	for name, value := range i.claims {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.signer, KeyID: "1"}}, nil)
	must(i.t, err)
	data, err := json.Marshal(claims)
	must(i.t, err)
	jws, err := signer.Sign(data)
	must(i.t, err)
	token, err := jws.CompactSerialize()
	must(i.t, err)
	return token
}

// set changes i while it serves.
func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

// withIssuer makes a deployment with a tenant whose people i signs in.
func withIssuer(t *testing.T, i *issuer) *deployment {
	t.Helper()
	d := deploy(t, func(cfg *portal.Config) { cfg.Client = i.Client() })
	d.tenant("acme", "Acme")
	_, err := d.Local().PutIssuer(t.Context(), "acme", postern.IssuerRequest{
		Title: "Acme login", URL: i.URL, ClientID: "postern", ClientSecret: clientSecret, Tenant: "acme",
		Roles: map[string]postern.IssuerRole{"book-keepers": {Role: postern.TenantMember, Groups: []string{"accounting"}}},
	})
	must(t, err)
	return d
}

// leave begins to sign in with the issuer called name, and returns the state that
// went along.
func (b *browser) leave(i *issuer, name, next string) string {
	b.t.Helper()
	a := b.get("/sign-in/with/" + name + "?next=" + url.QueryEscape(next)).want(http.StatusSeeOther)
	at, err := url.Parse(a.header.Get("Location"))
	must(b.t, err)
	i.set(func() { i.asked = at.Query() })
	if !strings.HasPrefix(at.String(), i.URL+"/authorize?") {
		b.t.Fatalf("leads to %s", at)
	}
	return at.Query().Get("state")
}

func (b *browser) comeBack(name, state string) *answer {
	b.t.Helper()
	return b.get("/sign-in/callback/" + name + "?code=the-code&state=" + state)
}

func TestExternalSignIn(t *testing.T) {
	i := newIssuer(t)
	d := withIssuer(t, i)
	b := d.browser()
	b.get("/sign-in").want(200, "Acme login")
	state := b.leave(i, "acme", "/account")
	i.set(func() {
		for name, want := range map[string]string{"response_type": "code", "client_id": "postern", "redirect_uri": d.PortalURL() + "/sign-in/callback/acme", "scope": "openid profile email"} {
			if got := i.asked.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if len(i.asked.Get("nonce")) < 26 || len(state) < 26 {
			t.Error("nonce or state can be guessed")
		}
	})
	b.comeBack("acme", state).wantTo("/account")
	b.get("/account").want(200, "Ada Lovelace", "acme/ada@acme.example", "Acme login decides about your account", "by another issuer")
	d.wantLog("signin.external", "ada@acme.example")
	u, err := d.Local().User(t.Context(), "acme/ada@acme.example")
	must(t, err)
	if len(u.Grants) != 1 || u.Grants[0].Tenant != "acme" || u.Grants[0].Issuer != "acme" || u.Grants[0].Groups[0] != "accounting" {
		t.Errorf("granted %+v", u.Grants)
	}
	// People see whose grant it is, and cannot make it theirs by the way.
	d.operator("root")
	page := d.signedIn("root").get("/admin/people/"+u.ID).want(200, "from Acme login", "Acme login decides about this", "comes back at their next sign-in", "Take away")
	if strings.Contains(page.body, `value="acme"`) {
		t.Error("the grant can be saved as a person's")
	}
	b.post("/account/password", "password", password).want(http.StatusForbidden, "Acme login decides about this account")
	b.ask("/account/passkeys", nil, nil).wantProblem(http.StatusForbidden, postern.CodeForbidden)
	if b.leave(i, "acme", "/"); i.found != 1 {
		t.Errorf("discovered %d times", i.found)
	}
}

func TestExternalRefusals(t *testing.T) {
	const unverified = "could not be verified"
	plain := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	claim := func(name string, value any) func(*issuer) {
		return func(i *issuer) { i.claims[name] = value }
	}
	tests := []struct {
		name   string
		spoil  func(*issuer)
		status int
		says   string
		logged string
	}{
		{"another nonce", claim("nonce", "x"), 502, unverified, "nonce"},
		{"no nonce", claim("nonce", nil), 502, unverified, "nonce"},
		{"another audience", claim("aud", "somebody-else"), 502, unverified, "audience"},
		{"several audiences", claim("aud", []string{"postern", "somebody-else"}), 502, unverified, "made for"},
		{"another party", claim("azp", "somebody-else"), 502, unverified, "made for"},
		{"another issuer", claim("iss", "https://evil.example"), 502, unverified, "different provider"},
		{"expired, or clocks that disagree", claim("exp", time.Now().Add(-2*time.Minute).Unix()), 502, "its clock and this portal's do not agree", "expired"},
		{"not good yet", claim("nbf", time.Now().Add(time.Hour).Unix()), 502, unverified, "nbf"},
		{"no subject", claim("sub", ""), 422, "no usable subject", ""},
		{"no group that may come in", claim("groups", []string{"guests"}), 403, "None of your groups", "none of your groups"},
		{"another key", func(i *issuer) {
			i.signer, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}, 502, unverified, "signature"},
		{"not signed", func(i *issuer) {
			i.answers["/token"] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				payload := b64([]byte(fmt.Sprintf(`{"iss":%q,"sub":"4711","aud":"postern","nonce":%q,"exp":9999999999}`, i.URL, i.asked.Get("nonce"))))
				fmt.Fprintf(w, `{"access_token":"x","token_type":"Bearer","id_token":"%s.%s."}`, b64([]byte(`{"alg":"none"}`)), payload)
			}
		}, 502, unverified, "malformed"},
		{"no ID token", func(i *issuer) { i.answers["/token"] = plain(200, `{"access_token":"x","token_type":"Bearer"}`) }, 502, unverified, "no ID token"},
		{"foreign or replayed code", func(i *issuer) { i.answers["/token"] = plain(400, `{"error":"invalid_grant"}`) }, 502, unverified, "invalid_grant"},
		{"nonsense for a token", func(i *issuer) { i.answers["/token"] = plain(200, `<html>`) }, 502, unverified, "redeem the code"},
		{"no keys", func(i *issuer) { i.answers["/keys"] = plain(500, `no`) }, 502, unverified, "signature"},
		{"token endpoint without end", func(i *issuer) { i.answers["/token"] = plain(200, strings.Repeat(" ", 2<<20)+`{}`) }, 502, unverified, "redeem the code"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := newIssuer(t)
			d := withIssuer(t, i)
			b := d.browser()
			state := b.leave(i, "acme", "/")
			i.set(func() { tt.spoil(i) })
			b.comeBack("acme", state).want(tt.status, tt.says)
			if b.cookie("__Host-postern_portal") != "" {
				t.Error("signed in")
			}
			if tt.logged != "" {
				d.wantLog("signin.refused", tt.logged)
			}
		})
	}
}

// TestExternalDiscovery: an issuer that is down, or talks nonsense, is somebody
// else's trouble, and is asked again soon.
func TestExternalDiscovery(t *testing.T) {
	const at = "/.well-known/openid-configuration"
	tests := []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }},
		{"nonsense", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }},
		{"another issuer's", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"issuer":"https://evil.example"}`) }},
		{"plain HTTP", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"issuer":"https://%[1]s","authorization_endpoint":"http://%[1]s/authorize","token_endpoint":"http://%[1]s/token"}`, r.Host)
		}},
		{"without end", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", 2<<20)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := newIssuer(t)
			d := withIssuer(t, i)
			i.set(func() { i.answers[at] = tt.answer })
			b := d.browser()
			b.get("/sign-in/with/acme").want(http.StatusBadGateway, "Not possible right now", "Acme login cannot be reached", "Try again in a minute")
			d.wantLog("signin.refused", "acme", "discovery")
			i.set(func() { delete(i.answers, at) })
			d.clock.advance(11 * time.Second)
			b.leave(i, "acme", "/")
		})
	}
	t.Run("down", func(t *testing.T) {
		i := newIssuer(t)
		d := withIssuer(t, i)
		i.Close()
		d.browser().get("/sign-in/with/acme").want(http.StatusBadGateway, "Acme login cannot be reached")
	})
	t.Run("unknown", func(t *testing.T) {
		d := deploy(t, nil)
		d.browser().get("/sign-in/with/nobody").want(http.StatusNotFound, "no such way to sign in")
		d.browser().get("/sign-in/callback/nobody?code=x&state=y").want(http.StatusNotFound)
	})
}

// TestExternalState: an answer counts once, in time, in the browser that left, and
// for the issuer that it left to (RFC 9700, sections 4.4 and 4.7).
func TestExternalState(t *testing.T) {
	const stray = "was not begun in this browser"
	i, other := newIssuer(t), newIssuer(t)
	d := withIssuer(t, i)
	d.tenant("globex", "Globex")
	_, err := d.Local().PutIssuer(t.Context(), "globex", postern.IssuerRequest{
		URL: other.URL, ClientID: "postern", ClientSecret: clientSecret, Tenant: "globex", Roles: map[string]postern.IssuerRole{"*": {}},
	})
	must(t, err)
	t.Run("made up", func(t *testing.T) {
		d.browser().comeBack("acme", "AAAAAAAAAAAAAAAAAAAAAAAAAA").want(400, stray)
		d.browser().get("/sign-in/callback/acme").want(400, stray)
		d.wantLog("signin.refused", "acme", "not asked")
	})
	t.Run("another browser", func(t *testing.T) {
		victim := d.browser()
		victim.leave(i, "acme", "/")
		state := d.browser().leave(i, "acme", "/")
		victim.comeBack("acme", state).want(400, stray)
		if victim.cookie("__Host-postern_portal") != "" {
			t.Error("signed in as somebody else")
		}
	})
	t.Run("twice", func(t *testing.T) {
		b := d.browser()
		state := b.leave(i, "acme", "/")
		b.comeBack("acme", state).wantTo("/")
		b.comeBack("acme", state).want(400, stray)
	})
	t.Run("too late", func(t *testing.T) {
		b := d.browser()
		state := b.leave(i, "acme", "/")
		d.clock.advance(6 * time.Minute)
		b.comeBack("acme", state).want(400, "took too long")
		d.clock.advance(-6 * time.Minute)
	})
	t.Run("another issuer's callback", func(t *testing.T) {
		b := d.browser()
		state := b.leave(i, "acme", "/")
		b.comeBack("globex", state).want(400, stray)
	})
	t.Run("says that it is another", func(t *testing.T) {
		b := d.browser()
		state := b.leave(i, "acme", "/")
		b.get("/sign-in/callback/acme?code=the-code&state="+state+"&iss="+url.QueryEscape(other.URL)).want(502, "could not be verified")
	})
	t.Run("says no", func(t *testing.T) {
		b := d.browser()
		state := b.leave(i, "acme", "/")
		b.get("/sign-in/callback/acme?error=access_denied&error_description=%3Cscript%3E&state="+state).want(403, "Acme login did not sign you in").wantNot("script")
		d.wantLog("signin.refused", "access_denied")
	})
	t.Run("open redirect", func(t *testing.T) {
		d.browser().get("/sign-in/with/acme?next=//evil.example").want(400, "leads to another site")
	})
}

// TestExternalLimit: who begins to sign in with an issuer again and again is stopped.
func TestExternalLimit(t *testing.T) {
	i := newIssuer(t)
	d := withIssuer(t, i)
	b := d.browser()
	for range 120 {
		b.get("/sign-in/with/acme").want(http.StatusSeeOther)
	}
	b.get("/sign-in/with/acme").want(http.StatusTooManyRequests, "Too many sign-ins were begun")
	d.wantLog("signin.refused", "acme", "too many sign-ins")
	d.clock.advance(time.Second)
	b.leave(i, "acme", "/")
}

func TestExternalClaims(t *testing.T) {
	tests := []struct {
		name   string
		claims map[string]any
		login  string
	}{
		{"verified address", nil, "acme/ada@acme.example"},
		{"verified in words", map[string]any{"email_verified": "true"}, "acme/ada@acme.example"},
		{"not verified", map[string]any{"email_verified": false, "preferred_username": "ada"}, "acme/ada"},
		{"nothing said of it", map[string]any{"email_verified": nil, "preferred_username": "ada"}, "acme/ada"},
		{"a user name that looks like an address", map[string]any{"email_verified": false, "preferred_username": "boss@acme.example"}, "acme/somebody"},
		{"one group, not a list", map[string]any{"groups": "book-keepers"}, "acme/ada@acme.example"},
	}
	i := newIssuer(t)
	d := withIssuer(t, i)
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i.set(func() {
				i.claims = map[string]any{"sub": fmt.Sprint(n), "email": "ada@acme.example"}
				for name, value := range tt.claims {
					i.claims[name] = value
				}
			})
			b := d.browser()
			b.comeBack("acme", b.leave(i, "acme", "/")).wantTo("/")
			_, u, err := d.Session(t.Context(), b.cookie("__Host-postern_portal"))
			must(t, err)
			if u.Login != tt.login && !strings.HasPrefix(u.Login, tt.login+"-") {
				t.Errorf("login is %q, want %q", u.Login, tt.login)
			}
		})
	}
}
