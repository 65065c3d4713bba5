//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// An issuer is the customer's own OpenID Provider (OpenID Connect Core 1.0), in this
// process: authorization code with PKCE, ID tokens with a groups claim. Who comes
// to it is signed in as whom the test says, without being asked.
type issuer struct {
	url    string
	client string // id
	secret string // of the client

	server *httptest.Server
	key    *ecdsa.PrivateKey

	mu     sync.Mutex
	mood   mood
	who    map[string]any // claims of who signs in next
	codes  map[string]signIn
	asked  int // times that somebody was sent here
	redeem int // codes that were redeemed
}

// A mood is how an issuer fails.
type mood string

const (
	well         mood = ""
	down         mood = "answers 503 to everything"
	nonsense     mood = "answers with what is no JSON"
	foreignKey   mood = "signs with a key that is not its own"
	foreignNonce mood = "vouches for another sign-in"
	foreignAud   mood = "vouches to another client"
	stale        mood = "vouches with a token that expired"
	refuses      mood = "sends everybody back with access_denied"
)

// A signIn is what was asked of an issuer, until its code is redeemed.
type signIn struct {
	claims                     map[string]any
	redirect, challenge, nonce string
}

// newIssuer starts an issuer at https://localhost:PORT under ca's trust.
func newIssuer(t testing.TB, ca *testCA) *issuer {
	t.Helper()
	i := &issuer{client: "postern", secret: rand.Text(), key: newKey(t), codes: map[string]signIn{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.discovery)
	mux.HandleFunc("GET /keys", i.keys)
	mux.HandleFunc("GET /authorize", i.authorize)
	mux.HandleFunc("POST /token", i.token)
	i.server = httptest.NewUnstartedServer(i.moody(mux))
	i.server.TLS = ca.serverConfig(t, "localhost")
	i.server.StartTLS()
	t.Cleanup(i.server.Close)
	at, err := url.Parse(i.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	i.url = "https://localhost:" + at.Port()
	return i
}

// becomes changes how the issuer does.
func (i *issuer) becomes(m mood) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mood = m
}

// greets says who signs in next.
func (i *issuer) greets(subject, email, name string, groups ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.who = map[string]any{"sub": subject, "email": email, "email_verified": true, "preferred_username": email, "name": name, "groups": groups}
}

// counts returns how often somebody was sent here, and came back with a code that
// was then redeemed.
func (i *issuer) counts() (asked, redeemed int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked, i.redeem
}

// moody serves next unless the issuer is down or talks nonsense to programs: what it
// shows to browsers is not ours.
func (i *issuer) moody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		m := i.mood
		i.mu.Unlock()
		if r.URL.Path == "/authorize" {
			m = well
		}
		switch m {
		case down:
			http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
		case nonsense:
			w.Write([]byte("<html>This is not what you asked for"))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (i *issuer) discovery(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(map[string]any{
		"issuer": i.url, "authorization_endpoint": i.url + "/authorize", "token_endpoint": i.url + "/token", "jwks_uri": i.url + "/keys",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"}, "code_challenge_methods_supported": []string{"S256"},
		"scopes_supported": []string{"openid", "profile", "email", "groups"},
	})
}

func (i *issuer) keys(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
}

func (i *issuer) authorize(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked++
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") != i.client || q.Get("response_type") != "code" || q.Get("state") == "" || q.Get("nonce") == "" ||
		q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || i.who == nil {
		http.Error(w, "this is no proper request: "+r.URL.RawQuery, http.StatusBadRequest)
		return
	}
	answer := url.Values{"state": {q.Get("state")}}
	if i.mood == refuses {
		answer.Set("error", "access_denied")
	} else {
		code := rand.Text()
		i.codes[code] = signIn{claims: i.who, redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), nonce: q.Get("nonce")}
		answer.Set("code", code)
	}
	back.RawQuery = answer.Encode()
	http.Redirect(w, r, back.String(), http.StatusSeeOther)
}

func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	client, secret, basic := r.BasicAuth()
	if !basic {
		client, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	code := r.PostFormValue("code")
	in, ok := i.codes[code]
	delete(i.codes, code)
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || client != i.client || subtle.ConstantTimeCompare([]byte(secret), []byte(i.secret)) == 0 ||
		r.PostFormValue("redirect_uri") != in.redirect || base64.RawURLEncoding.EncodeToString(sum[:]) != in.challenge {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant"})
		return
	}
	token, err := i.idToken(in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	i.redeem++
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 300, "id_token": token})
}

// idToken vouches for who signed in, or does it wrong, as the mood is. i.mu is held.
func (i *issuer) idToken(in signIn) (string, error) {
	now := time.Now()
	claims := maps.Clone(in.claims)
	maps.Copy(claims, map[string]any{
		"iss": i.url, "aud": i.client, "nonce": in.nonce, "iat": now.Unix(), "auth_time": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	})
	key := i.key
	switch i.mood {
	case foreignKey:
		var err error
		if key, err = ecdsa.GenerateKey(i.key.Curve, rand.Reader); err != nil {
			return "", err
		}
	case foreignNonce:
		claims["nonce"] = rand.Text()
	case foreignAud:
		claims["aud"] = "another"
	case stale:
		claims["iat"], claims["exp"] = now.Add(-2*time.Hour).Unix(), now.Add(-time.Hour).Unix()
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}
