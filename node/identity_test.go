package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern"
)

// An application verifies who it is as any resource server would.
func TestIdentity(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Upstream: application(t, echo)}})
	c := o.signedIn("a.test", bob)
	tell := func() string {
		_, body := get(t, c, "https://a.test/")
		return hear(t, body).Header[headerIdentity]
	}
	token := tell()
	resp, body := get(t, o.client(t, 2), "https://a.test"+ownPath+"jwks.json")
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(body), &set); err != nil || resp.StatusCode != 200 || len(set.Keys) != 1 || !set.Keys[0].IsPublic() {
		t.Fatalf("the node's keys: %d %s, %v", resp.StatusCode, body, err)
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	key := set.Key(parsed.Headers[0].KeyID)
	if len(key) != 1 {
		t.Fatalf("no key %q", parsed.Headers[0].KeyID)
	}
	var claims identityClaims
	if err := parsed.Claims(key[0], &claims); err != nil {
		t.Fatal(err)
	}
	const origin = "https://a.test:8443"
	if err := claims.Validate(jwt.Expected{Issuer: origin, AnyAudience: jwt.Audience{origin}, Subject: "u-bob", Time: o.clock.time()}); err != nil {
		t.Error(err)
	}
	if claims.Login != "bob" || claims.Name != "" || claims.Tenant != "acme" || !slices.Equal(claims.Roles, []string{"member"}) ||
		!slices.Equal(claims.Groups, bob.Groups) || claims.AuthTime.Time() != o.clock.time() || !slices.Equal(claims.AMR, []string{"pwd"}) {
		t.Errorf("claims are %+v", claims)
	}
	if life := claims.Expiry.Time().Sub(o.clock.time()); life > 5*time.Minute {
		t.Errorf("it is good for %v", life)
	}

	// It is made again when a minute is over, or the person has changed.
	if again := tell(); again != token {
		t.Error("each request has its own")
	}
	o.clock.advance(identityReuse)
	minute := tell()
	if minute == token {
		t.Error("it is never made again")
	}
	o.change(func(t *table) { p := bob; p.Groups = nil; t.people = people(p) })
	if tell() == minute {
		t.Error("it goes on to tell of groups that they are not in any more")
	}
}

func TestSignKeys(t *testing.T) {
	dir := newDataDir(t)
	first, err := openSigner(dir)
	if err != nil {
		t.Fatal(err)
	}
	id := first.keys.Keys[0].KeyID
	again, err := openSigner(dir)
	if err != nil || again.keys.Keys[0].KeyID != id {
		t.Errorf("after a restart the key is another: %v", err)
	}
	if info, err := os.Stat(dir.Path(signFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	// A new key before the old one: both are told, the new one signs.
	_, fresh, err := newSignKey()
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(dir.Path(signFile))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir.Path(signFile), slices.Concat(fresh, old))
	both, err := openSigner(dir)
	if err != nil || len(both.keys.Keys) != 2 || both.keys.Keys[1].KeyID != id {
		t.Fatalf("two keys: %+v, %v", both, err)
	}
	token, err := both.identity("https://a.test", "acme", &ann, &credential{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || parsed.Headers[0].KeyID != both.keys.Keys[0].KeyID {
		t.Errorf("signed by %+v, %v", parsed.Headers, err)
	}
	if err := parsed.Claims(both.keys.Keys[0], new(identityClaims)); err != nil {
		t.Error(err)
	}

	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"nonsense": []byte("x"), "another curve": encodePEM("PRIVATE KEY", der), "no key": encodePEM("PRIVATE KEY", []byte("x"))} {
		write(t, dir.Path(signFile), text)
		if _, err := openSigner(dir); err == nil {
			t.Errorf("%s is taken for a key", name)
		}
	}
}

func TestHeaderText(t *testing.T) {
	for text, want := range map[string]string{
		"ann@acme.test": "ann@acme.test", "Ann Müller": "Ann M%C3%BCller", "100%": "100%25", "a\r\nb: c": "a%0D%0Ab: c", "": "",
	} {
		if got := headerText(text); got != want {
			t.Errorf("headerText(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestNewPortal(t *testing.T) {
	good := newTestPortal(t, time.Now).told()
	tests := []struct {
		name   string
		portal *postern.Portal
		ok     bool
	}{
		{"good", good, true},
		{"http", &postern.Portal{Issuer: "http://portal.test", Keys: good.Keys}, false},
		{"a path", &postern.Portal{Issuer: "https://portal.test/", Keys: good.Keys}, false},
		{"a query", &postern.Portal{Issuer: "https://portal.test?x", Keys: good.Keys}, false},
		{"a user", &postern.Portal{Issuer: "https://x@portal.test", Keys: good.Keys}, false},
		{"no issuer", &postern.Portal{Keys: good.Keys}, false},
		{"no keys", &postern.Portal{Issuer: testIssuer, Keys: json.RawMessage(`{"keys":[]}`)}, false},
		{"a key of another kind", &postern.Portal{Issuer: testIssuer, Keys: json.RawMessage(`{"keys":[{"kty":"oct","k":"AAAA"}]}`)}, false},
		{"no JSON", &postern.Portal{Issuer: testIssuer, Keys: json.RawMessage(`x`)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if p, err := newPortal(tt.portal); (err == nil) != tt.ok || (p != nil) != tt.ok {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
	if p, err := newPortal(nil); p != nil || err != nil {
		t.Errorf("none: %v, %v", p, err)
	}
}
