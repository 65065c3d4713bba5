package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// A fakeIssuer is an OpenID provider that signs its one person in without asking, and
// says what the test wants it to. What stands in its fields may be changed before a
// sign-in.
type fakeIssuer struct {
	t   testing.TB
	srv *httptest.Server
	key *ecdsa.PrivateKey
	ca  string // file

	mu       sync.Mutex
	secret   string           // of its client; empty: a public one
	claims   map[string]any   // of the person, beside those of every ID token
	userinfo map[string]any   // nil: there is no such endpoint
	document map[string]any   // in place of what its document says; nil values are left out
	codes    map[string]grant // that were given out
	asked    []string         // paths, in order
	instead  http.HandlerFunc // answers all, if not nil
	sign     *ecdsa.PrivateKey
}

type grant struct{ challenge, nonce, redirect string }

const fakeClient = "postern-at-acme"

func newFakeIssuer(t testing.TB) *fakeIssuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeIssuer{
		t: t, key: key, sign: key, secret: "s3cret", codes: map[string]grant{}, document: map[string]any{},
		claims: map[string]any{
			"sub": "248289761001", "preferred_username": "jane", "name": "Jane Doe", "email": "jane@acme.example", "email_verified": true,
			"groups": []string{"book-keepers", "everybody"}, "auth_time": time.Now().Unix(), "amr": []string{"pwd", "otp"},
		},
	}
	f.srv = httptest.NewUnstartedServer(f)
	f.srv.Config.ErrorLog = slog.NewLogLogger(discard.Handler(), slog.LevelDebug)
	f.srv.StartTLS()
	t.Cleanup(f.srv.Close)
	f.ca = filepath.Join(t.TempDir(), "ca.pem")
	write(t, f.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.srv.Certificate().Raw}))
	return f
}

// config returns what pins f.
func (f *fakeIssuer) config() PinnedIssuer {
	return PinnedIssuer{
		URL: f.srv.URL, ClientID: fakeClient, ClientSecret: f.secret, CAFile: f.ca, Title: "Acme login",
		Groups: map[string][]string{"accounting": {"book-keepers"}},
	}
}

func (f *fakeIssuer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// requests returns the paths that were asked for.
func (f *fakeIssuer) requests() (paths []string) {
	f.set(func() { paths = slices.Clone(f.asked) })
	return paths
}

func (f *fakeIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.URL.Path)
	if f.instead != nil {
		f.instead(w, r)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		doc := map[string]any{
			"issuer": f.srv.URL, "authorization_endpoint": f.srv.URL + "/authorize", "token_endpoint": f.srv.URL + "/token",
			"jwks_uri": f.srv.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"},
		}
		if f.userinfo != nil {
			doc["userinfo_endpoint"] = f.srv.URL + "/userinfo"
		}
		maps.Copy(doc, f.document)
		maps.DeleteFunc(doc, func(_ string, v any) bool { return v == nil })
		writeJSON(w, http.StatusOK, doc)
	case "/keys":
		writeJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: f.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	case "/authorize":
		f.authorize(w, r)
	case "/token":
		f.token(w, r)
	case "/userinfo":
		writeJSON(w, http.StatusOK, f.userinfo)
	default:
		http.NotFound(w, r)
	}
}

func (f *fakeIssuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != fakeClient || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" {
		f.t.Errorf("the node asks with %v", q)
	}
	code := rand.Text()
	f.codes[code] = grant{q.Get("code_challenge"), q.Get("nonce"), q.Get("redirect_uri")}
	back := url.Values{"code": {code}, "state": {q.Get("state")}}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (f *fakeIssuer) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(code string) { writeJSON(w, http.StatusBadRequest, map[string]string{"error": code}) }
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != fakeClient || secret != f.secret {
		refuse("invalid_client")
		return
	}
	g, ok := f.codes[r.PostFormValue("code")]
	delete(f.codes, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || g.redirect != r.PostFormValue("redirect_uri") || g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		refuse("invalid_grant")
		return
	}
	now := time.Now()
	claims := map[string]any{
		"iss": f.srv.URL, "aud": fakeClient, "nonce": g.nonce, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(claims, f.claims)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	writeJSON(w, http.StatusOK, map[string]any{"access_token": "at", "token_type": "Bearer", "id_token": signJWT(f.t, f.sign, "k1", claims)})
}

// signJWT returns claims as a JWT of key.
func signJWT(t testing.TB, key *ecdsa.PrivateKey, id string, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// visit lets a browser go to u, one of f's, and returns where f sends it.
func (f *fakeIssuer) visit(u string) *url.URL {
	f.t.Helper()
	c := f.srv.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := c.Get(u)
	if err != nil {
		f.t.Fatal(err)
	}
	resp.Body.Close()
	c.CloseIdleConnections()
	at, err := resp.Location()
	if err != nil || !strings.HasPrefix(u, f.srv.URL) {
		f.t.Fatalf("at %s: %s, %v", u, resp.Status, err)
	}
	return at
}
