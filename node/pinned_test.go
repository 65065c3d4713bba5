package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"postern"
)

func pin(t testing.TB, cfg PinnedIssuer) *pinned {
	t.Helper()
	p, err := newPinned(cfg, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

func newAttempt() attempt {
	return attempt{
		Redirect: "https://a.test:8443" + ownPath + "callback/issuer",
		State:    rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(),
	}
}

// signIn does a whole sign-in of p at f, with query changed on the way.
func signIn(t testing.TB, f *fakeIssuer, p *pinned, change func(*attempt, url.Values)) (pinnedPerson, error) {
	t.Helper()
	a := newAttempt()
	at, err := p.start(t.Context(), a)
	if err != nil {
		return pinnedPerson{}, err
	}
	back := f.visit(at).Query()
	if back.Get("state") != a.State {
		t.Errorf("the state came back as %q", back.Get("state"))
	}
	if change != nil {
		change(&a, back)
	}
	return p.finish(t.Context(), a, back)
}

func TestPinnedIssuer(t *testing.T) {
	f := newFakeIssuer(t)
	clock := time.Now()
	p, err := newPinned(f.config(), func() time.Time { return clock })
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for range 2 {
		v, err := signIn(t, f, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := postern.Person{ID: "248289761001", Login: "jane", Name: "Jane Doe", Role: postern.TenantMember, Groups: []string{"accounting"}}
		if !reflect.DeepEqual(v.Person, want) {
			t.Errorf("it vouches for %+v, want %+v", v.Person, want)
		}
		if !slices.Equal(v.Methods, []string{"pwd", "otp"}) || time.Since(v.SignedIn) > time.Minute {
			t.Errorf("it says %v at %v", v.Methods, v.SignedIn)
		}
	}
	clock = clock.Add(issuerFresh)
	if _, err := signIn(t, f, p, nil); err != nil {
		t.Fatal(err)
	}
	asked := map[string]int{}
	for _, path := range f.requests() {
		asked[path]++
	}
	if asked["/.well-known/openid-configuration"] != 2 || asked["/keys"] != 1 || asked["/token"] != 3 {
		t.Errorf("three sign-ins, the last a while later, asked for %v", asked)
	}
}

func TestPinnedIssuersClients(t *testing.T) {
	t.Run("secret in the body", func(t *testing.T) {
		f := newFakeIssuer(t)
		f.document["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
		if _, err := signIn(t, f, pin(t, f.config()), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("public", func(t *testing.T) {
		f := newFakeIssuer(t)
		f.secret = ""
		if _, err := signIn(t, f, pin(t, f.config()), nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("secret in a file that changes", func(t *testing.T) {
		f := newFakeIssuer(t)
		cfg := f.config()
		cfg.ClientSecret, cfg.ClientSecretFile = "", filepath.Join(t.TempDir(), "secret")
		write(t, cfg.ClientSecretFile, []byte("wrong\n"))
		p := pin(t, cfg)
		if _, err := signIn(t, f, p, nil); !errors.Is(err, errIssuerSecret) {
			t.Errorf("a wrong secret: %v, want %v", err, errIssuerSecret)
		}
		write(t, cfg.ClientSecretFile, []byte("s3cret\n"))
		if _, err := signIn(t, f, p, nil); err != nil {
			t.Errorf("after the file changed: %v", err)
		}
		write(t, cfg.ClientSecretFile, []byte("\n"))
		if _, err := signIn(t, f, p, nil); !errors.Is(err, errIssuerSecret) {
			t.Errorf("an empty file: %v, want %v", err, errIssuerSecret)
		}
	})
}

func TestPinnedIssuersUserinfo(t *testing.T) {
	f := newFakeIssuer(t)
	for _, name := range []string{"groups", "preferred_username", "email", "email_verified", "name"} {
		f.claims[name] = nil
	}
	f.userinfo = map[string]any{"sub": "248289761001", "groups": "book-keepers", "email": "jane@ACME.example", "email_verified": "true", "name": "Jane"}
	cfg := f.config()
	cfg.Domains = []string{"acme.example"}
	p := pin(t, cfg)
	v, err := signIn(t, f, p, nil)
	want := postern.Person{ID: "248289761001", Login: "jane@acme.example", Name: "Jane", Role: postern.TenantMember, Groups: []string{"accounting"}}
	if err != nil || !reflect.DeepEqual(v.Person, want) {
		t.Errorf("it vouches for %+v, %v, want %+v", v.Person, err, want)
	}
	f.set(func() { f.userinfo["sub"] = "another" })
	if _, err := signIn(t, f, p, nil); !errors.Is(err, errIssuerAnswer) {
		t.Errorf("userinfo of somebody else: %v, want %v", err, errIssuerAnswer)
	}
	// What the ID token says counts, and an address with its own verification only.
	f.set(func() {
		f.userinfo = map[string]any{"sub": "248289761001", "email": "boss@acme.example", "email_verified": true, "groups": "book-keepers"}
		f.claims["email"] = "jane@evil.example"
	})
	if _, err := signIn(t, f, p, nil); !errors.Is(err, errIssuerStrange) {
		t.Errorf("an address that was not verified: %v, want %v", err, errIssuerStrange)
	}
}

func TestWhoMayComeInFromAPinnedIssuer(t *testing.T) {
	tests := []struct {
		name   string
		cfg    func(*PinnedIssuer)
		claims map[string]any
		ok     bool
	}{
		{"in a group", nil, nil, true},
		{"in no group", nil, map[string]any{"groups": []string{"sales"}}, false},
		{"without the claim", nil, map[string]any{"groups": nil}, false},
		{"with nonsense for the claim", nil, map[string]any{"groups": map[string]any{"book-keepers": true}}, false},
		{"groups of another claim", func(i *PinnedIssuer) { i.GroupsClaim = "roles" }, nil, false},
		{"another claim", func(i *PinnedIssuer) { i.GroupsClaim = "roles" }, map[string]any{"roles": "book-keepers"}, true},
		{"everybody", func(i *PinnedIssuer) { i.Allow = AllowEverybody }, map[string]any{"groups": nil}, true},
		{"the domain", func(i *PinnedIssuer) { i.Domains = []string{"acme.example"} }, nil, true},
		{"another domain", func(i *PinnedIssuer) { i.Domains = []string{"globex.example"} }, nil, false},
		{"below the domain", func(i *PinnedIssuer) { i.Domains = []string{"acme.example"} }, map[string]any{"email": "jane@x.acme.example"}, false},
		{"two domains", func(i *PinnedIssuer) { i.Domains = []string{"acme.example"} }, map[string]any{"email": "jane@evil.example@acme.example"}, false},
		{"domain not verified", func(i *PinnedIssuer) { i.Domains = []string{"acme.example"} }, map[string]any{"email_verified": false}, false},
		{"domain but no group", func(i *PinnedIssuer) { i.Domains = []string{"acme.example"} }, map[string]any{"groups": nil}, false},
		{"domain alone", func(i *PinnedIssuer) { i.Domains, i.Groups = []string{"acme.example"}, nil }, map[string]any{"groups": nil}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeIssuer(t)
			for name, value := range tt.claims {
				f.claims[name] = value
			}
			cfg := f.config()
			if tt.cfg != nil {
				tt.cfg(&cfg)
			}
			v, err := signIn(t, f, pin(t, cfg), nil)
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, errIssuerStrange) {
				t.Errorf("it ends in %v", err)
			}
			if v.Person.ID != "248289761001" {
				t.Errorf("it is about %q", v.Person.ID)
			}
		})
	}
}

func TestPinnedIssuersNames(t *testing.T) {
	tests := []struct {
		name   string
		claims map[string]any
		login  string // empty: refused
	}{
		{"user name", nil, "jane"},
		{"verified address", map[string]any{"preferred_username": nil}, "jane@acme.example"},
		{"address that is not verified", map[string]any{"preferred_username": nil, "email_verified": nil}, "248289761001"},
		{"a user name that fits into no header", map[string]any{"preferred_username": "jane\r\nPostern-Role: owner"}, "jane@acme.example"},
		{"a user name that reads as two", map[string]any{"preferred_username": "jane,boss"}, "jane@acme.example"},
		{"the verified address for a user name", map[string]any{"preferred_username": "jane@acme.example"}, "jane@acme.example"},
		{"another's address for a user name", map[string]any{"preferred_username": "boss@acme.example"}, "jane@acme.example"},
		{"another's address, with none verified", map[string]any{"preferred_username": "boss@acme.example", "email_verified": nil}, "248289761001"},
		{"letters beyond ASCII", map[string]any{"preferred_username": "jäne", "email": nil}, "248289761001"},
		{"a subject with a bar", map[string]any{"sub": "auth0|1"}, "jane"},
		{"no subject", map[string]any{"sub": nil}, ""},
		{"an empty subject", map[string]any{"sub": ""}, ""},
		{"a subject with a line break", map[string]any{"sub": "a\nb"}, ""},
		{"too long a subject", map[string]any{"sub": strings.Repeat("x", 256)}, ""},
		{"a number for a subject", map[string]any{"sub": 7}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeIssuer(t)
			for name, value := range tt.claims {
				f.claims[name] = value
			}
			v, err := signIn(t, f, pin(t, f.config()), nil)
			if tt.login == "" {
				if !errors.Is(err, errIssuerAnswer) {
					t.Errorf("%+v, %v, want %v", v.Person, err, errIssuerAnswer)
				}
			} else if err != nil || v.Person.Login != tt.login {
				t.Errorf("login %q, %v, want %q", v.Person.Login, err, tt.login)
			}
		})
	}
}

func TestBadAnswersOfAPinnedIssuer(t *testing.T) {
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	claim := func(name string, value any) func(*fakeIssuer) {
		return func(f *fakeIssuer) { f.claims[name] = value }
	}
	says := func(name string, value any) func(*fakeIssuer) {
		return func(f *fakeIssuer) { f.document[name] = value }
	}
	tests := []struct {
		name   string
		issuer func(*fakeIssuer)
		change func(*attempt, url.Values)
		want   error // nil: none
	}{
		{"signed by a stranger", func(f *fakeIssuer) { f.sign = stranger }, nil, errIssuerAnswer},
		{"for another client", claim("aud", "another"), nil, errIssuerAnswer},
		{"for others too", claim("aud", []string{fakeClient, "another"}), nil, errIssuerAnswer},
		{"for others too, to us", func(f *fakeIssuer) {
			f.claims["aud"], f.claims["azp"] = []string{fakeClient, "another"}, fakeClient
		}, nil, nil},
		{"to another client", claim("azp", "another"), nil, errIssuerAnswer},
		{"of another issuer", claim("iss", "https://evil.example"), nil, errIssuerAnswer},
		{"of another sign-in", claim("nonce", "another"), nil, errIssuerAnswer},
		{"without nonce", claim("nonce", nil), nil, errIssuerAnswer},
		{"expired a moment ago", claim("exp", at(-issuerSkew+10*time.Second)), nil, nil},
		{"expired", claim("exp", at(-issuerSkew-time.Second)), nil, errIssuerClock},
		{"without expiry", claim("exp", nil), nil, errIssuerClock},
		{"from the near future", claim("iat", at(issuerSkew-10*time.Second)), nil, nil},
		{"from the future", claim("iat", at(issuerSkew+time.Minute)), nil, errIssuerClock},
		{"not good yet", claim("nbf", at(issuerSkew+time.Minute)), nil, errIssuerClock},
		{"expiry is nonsense", claim("exp", "tomorrow"), nil, errIssuerAnswer},
		{"code replayed", nil, func(a *attempt, q url.Values) { q.Set("code", "another") }, errIssuerCode},
		{"another's verifier", nil, func(a *attempt, _ url.Values) { a.Verifier = oauth2.GenerateVerifier() }, errIssuerCode},
		{"another's redirect", nil, func(a *attempt, _ url.Values) { a.Redirect += "/x" }, errIssuerCode},
		{"another's nonce", nil, func(a *attempt, _ url.Values) { a.Nonce = "x" }, errIssuerAnswer},
		{"refused by the person", nil, func(_ *attempt, q url.Values) { q.Set("error", "access_denied") }, errIssuerCode},
		{"answer of another issuer", nil, func(_ *attempt, q url.Values) { q.Set("iss", "https://portal.test") }, errIssuerAnswer},
		{"answer without its name", says("authorization_response_iss_parameter_supported", true), nil, errIssuerAnswer},
		{"discovers another issuer", says("issuer", "https://evil.example"), nil, errIssuerAnswer},
		{"token endpoint in the clear", says("token_endpoint", "http://issuer.test/token"), nil, errIssuerAnswer},
		{"no token endpoint", says("token_endpoint", nil), nil, errIssuerAnswer},
		{"no authorization endpoint", says("authorization_endpoint", nil), nil, errIssuerAnswer},
		{"keys in the clear", says("jwks_uri", "http://issuer.test/keys"), nil, errIssuerAnswer},
		{"wrong secret", func(f *fakeIssuer) { f.secret = "changed" }, nil, errIssuerSecret},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeIssuer(t)
			cfg := f.config()
			if tt.issuer != nil {
				tt.issuer(f)
			}
			if _, err := signIn(t, f, pin(t, cfg), tt.change); !errors.Is(err, tt.want) {
				t.Errorf("it ends in %v, want %v", err, tt.want)
			}
		})
	}
}

func TestPinnedIssuerAway(t *testing.T) {
	f := newFakeIssuer(t)
	clock := time.Now()
	p, err := newPinned(f.config(), func() time.Time { return clock })
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for _, tt := range []struct {
		name string
		does http.HandlerFunc
		want error
	}{
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, errIssuerDown},
		{"is broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, errIssuerDown},
		{"is not there", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, errIssuerAnswer},
		{"talks nonsense", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, errIssuerAnswer},
		{"talks for ever", func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"issuer":"`))
			for range 2 * issuerMaxBody / 1024 {
				w.Write([]byte(strings.Repeat("x", 1024)))
			}
		}, errIssuerAnswer},
		{"sends elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/.well-known/openid-configuration", http.StatusFound)
		}, errIssuerAnswer},
	} {
		f.set(func() { f.instead = tt.does })
		clock = clock.Add(issuerFresh)
		if _, err := p.start(t.Context(), newAttempt()); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		before := len(f.requests())
		if _, err := p.start(t.Context(), newAttempt()); !errors.Is(err, tt.want) || len(f.requests()) != before {
			t.Errorf("%s: asked again at once, %v", tt.name, err)
		}
	}
	f.set(func() { f.instead = nil })
	clock = clock.Add(issuerFresh)
	if _, err := p.start(t.Context(), newAttempt()); err != nil {
		t.Fatalf("when it is back: %v", err)
	}
	// What was begun then is not ended by its document being away.
	f.set(func() {
		f.instead = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
				return
			}
			w.WriteHeader(503)
		}
	})
	clock = clock.Add(time.Minute)
	if _, err := p.start(t.Context(), newAttempt()); !errors.Is(err, errIssuerDown) {
		t.Errorf("away again: %v, want %v", err, errIssuerDown)
	}
	if _, err := p.finish(t.Context(), newAttempt(), url.Values{"code": {"x"}}); !errors.Is(err, errIssuerCode) {
		t.Errorf("its token endpoint is there: %v, want %v", err, errIssuerCode)
	}
	f.set(func() { f.instead = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) } })
	if _, err := p.finish(t.Context(), newAttempt(), url.Values{"code": {"x"}}); !errors.Is(err, errIssuerDown) {
		t.Errorf("a broken token endpoint: %v, want %v", err, errIssuerDown)
	}
}

func TestPinnedIssuerOfAnUnknownCA(t *testing.T) {
	f := newFakeIssuer(t)
	cfg := f.config()
	cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	write(t, cfg.CAFile, newTestCA(t).pem)
	if _, err := pin(t, cfg).start(t.Context(), newAttempt()); !errors.Is(err, errIssuerDown) {
		t.Errorf("%v, want %v", err, errIssuerDown)
	}
}

func TestPinnedIssuerConfig(t *testing.T) {
	good := PinnedIssuer{URL: "https://login.acme.example/realms/acme", ClientID: "postern", Groups: map[string][]string{"accounting": {"CN=Books"}}}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), nil)
	write(t, filepath.Join(dir, "long"), []byte(strings.Repeat("x", maxSecret+1)))
	tests := []struct {
		name, field string // field empty: nothing is wrong
		change      func(*PinnedIssuer)
	}{
		{"good", "", func(*PinnedIssuer) {}},
		{"domains", "", func(i *PinnedIssuer) { i.Groups, i.Domains = nil, []string{"acme.example"} }},
		{"everybody", "", func(i *PinnedIssuer) { i.Groups, i.Allow = nil, AllowEverybody }},
		{"no URL", "url", func(i *PinnedIssuer) { i.URL = "" }},
		{"plain http", "url", func(i *PinnedIssuer) { i.URL = "http://login.acme.example" }},
		{"a query", "url", func(i *PinnedIssuer) { i.URL += "?x" }},
		{"a password", "url", func(i *PinnedIssuer) { i.URL = "https://a:b@login.acme.example" }},
		{"no client", "client_id", func(i *PinnedIssuer) { i.ClientID = "" }},
		{"two secrets", "client_secret", func(i *PinnedIssuer) { i.ClientSecret, i.ClientSecretFile = "x", "y" }},
		{"no such file", "client_secret_file", func(i *PinnedIssuer) { i.ClientSecretFile = filepath.Join(dir, "nope") }},
		{"an empty file", "client_secret_file", func(i *PinnedIssuer) { i.ClientSecretFile = filepath.Join(dir, "empty") }},
		{"a long file", "client_secret_file", func(i *PinnedIssuer) { i.ClientSecretFile = filepath.Join(dir, "long") }},
		{"no certificate", "ca_file", func(i *PinnedIssuer) { i.CAFile = filepath.Join(dir, "empty") }},
		{"nobody is said", "allow", func(i *PinnedIssuer) { i.Groups = nil }},
		{"odd people", "allow", func(i *PinnedIssuer) { i.Allow = "some" }},
		{"groups without groups", "groups", func(i *PinnedIssuer) { i.Groups, i.Allow = nil, AllowGroups }},
		{"a group that is no label", "groups", func(i *PinnedIssuer) { i.Groups = map[string][]string{"Book Keepers": {"x"}} }},
		{"a group worth nothing", "groups.sales", func(i *PinnedIssuer) { i.Groups = map[string][]string{"sales": nil} }},
		{"a domain that is none", "domains[0]", func(i *PinnedIssuer) { i.Domains = []string{"@acme.example"} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			_, err := newPinned(cfg, time.Now)
			var wrong *postern.FieldError
			if tt.field == "" && err != nil || tt.field != "" && (!errors.As(err, &wrong) || wrong.Field != tt.field) {
				t.Errorf("%v in %+v, want it in %q", err, wrong, tt.field)
			}
		})
	}
	a, b, c := good, good, good
	a.setDefaults()
	b.Title, b.ClientSecret = "Other words", "x"
	b.setDefaults()
	c.Groups = map[string][]string{"accounting": {"CN=Others"}}
	c.setDefaults()
	if a.rules() != b.rules() || a.rules() == c.rules() {
		t.Errorf("rules %s, with other words %s, of others %s", a.rules(), b.rules(), c.rules())
	}
}

// roundTrip is a RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Whoever signs in while the issuer hangs waits for one question, not for a queue of
// them, and whose sign-in is under way does not wait at all.
func TestPinnedIssuerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := newPinned(PinnedIssuer{URL: "https://issuer.test", ClientID: "c", Allow: AllowEverybody}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		p.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			asked++
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		begun := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := p.start(t.Context(), newAttempt()); !errors.Is(err, errIssuerDown) {
					t.Errorf("start: %v", err)
				}
			})
		}
		gone, leave := context.WithCancel(t.Context())
		synctest.Wait()
		leave()
		if _, err := p.start(gone, newAttempt()); !errors.Is(err, errIssuerDown) || time.Since(begun) != 0 {
			t.Errorf("who has left waits: %v after %v", err, time.Since(begun))
		}
		p.found.Store(&foundIssuer{})
		if _, err := p.discovered(t.Context()); err != nil || time.Since(begun) != 0 {
			t.Errorf("who comes back waits: %v after %v", err, time.Since(begun))
		}
		wg.Wait()
		if took := time.Since(begun); took != issuerTimeout || asked != 1 {
			t.Errorf("it took %v and %d questions, want %v and 1", took, asked, issuerTimeout)
		}
	})
}
