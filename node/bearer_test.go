package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern"
)

func TestAccessTokens(t *testing.T) {
	app := application(t, echo)
	o := newOffice(t, map[string]Service{
		"a.test":      {Upstream: app},
		"group.test":  {Name: "group", Upstream: app, Access: postern.AccessGroups, Groups: []string{"accounting"}},
		"strict.test": {Name: "strict", Upstream: app, Require: postern.RequirePasskey},
		"open.test":   {Name: "open", Upstream: app, Access: postern.AccessPublic},
	})
	type claims = map[string]any
	type header = map[jose.HeaderKey]any
	origin := func(host string) string { return "https://" + host + ":8443" }
	good := o.portal.access(o.user(ann), origin("a.test"), nil)
	with := func(name string, value any) string {
		return o.portal.access(o.user(ann), origin("a.test"), func(_ header, c claims) { c[name] = value })
	}
	without := func(name string) string {
		return o.portal.access(o.user(ann), origin("a.test"), func(_ header, c claims) { delete(c, name) })
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	portal := o.portal.key
	signed := func(key *ecdsa.PrivateKey) string {
		o.portal.key = key
		defer func() { o.portal.key = portal }()
		return o.portal.access(o.user(ann), origin("a.test"), nil)
	}
	hmac := func() string {
		der, err := portal.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		o.portal.sign = func(h header, c claims) string { return signToken(t, jose.HS256, der, h, c) }
		defer func() { o.portal.sign = nil }()
		return o.portal.access(o.user(ann), origin("a.test"), nil)
	}
	now := o.clock.time()
	const invalid = `error="invalid_token"`
	tests := []struct {
		name, host, token string
		status            int
		challenge         string // a part of it; empty: none
	}{
		{"good", "a.test", good, 200, ""},
		{"just expired", "a.test", with("exp", now.Add(-30*time.Second).Unix()), 200, ""},
		{"not good yet, by a little", "a.test", with("nbf", now.Add(30*time.Second).Unix()), 200, ""},
		{"the type in full", "a.test", o.portal.access(o.user(ann), origin("a.test"), func(h header, _ claims) { h["typ"] = "application/at+JWT" }), 200, ""},

		{"expired", "a.test", with("exp", now.Add(-2*time.Minute).Unix()), 401, invalid},
		{"not good yet", "a.test", with("nbf", now.Add(2*time.Minute).Unix()), 401, invalid},
		{"made in the future", "a.test", with("iat", now.Add(2*time.Minute).Unix()), 401, invalid},
		{"good for ever", "a.test", without("exp"), 401, invalid},
		{"made at no time", "a.test", without("iat"), 401, invalid},
		{"of another host", "a.test", o.portal.access(o.user(ann), origin("group.test"), nil), 401, invalid},
		{"of another port", "a.test", o.portal.access(o.user(ann), "https://a.test", nil), 401, invalid},
		{"of two hosts", "a.test", with("aud", []string{origin("a.test"), origin("group.test")}), 401, invalid},
		{"of no host", "a.test", without("aud"), 401, invalid},
		{"an ID token", "a.test", o.portal.access(o.user(ann), "a.test", func(h header, _ claims) { h["typ"] = "JWT" }), 401, invalid},
		{"of no type", "a.test", o.portal.access(o.user(ann), origin("a.test"), func(h header, _ claims) { delete(h, "typ") }), 401, invalid},
		{"of another tenant", "a.test", with("tenant", "globex"), 401, invalid},
		{"of no session", "a.test", without("sid"), 401, invalid},
		{"of nobody", "a.test", with("sub", ""), 401, invalid},
		{"another's key", "a.test", signed(stranger), 401, invalid},
		{"HMAC with the public key", "a.test", hmac(), 401, invalid},
		{"tampered", "a.test", good[:len(good)-8] + "AAAAAAAA", 401, invalid},
		{"of a stranger", "a.test", o.portal.access(testUser{"u-x", "sid-x", now}, origin("a.test"), nil), 401, invalid},
		{"a personal one that is unknown", "a.test", "pst_pat_x", 401, invalid},
		{"a bad one where none is needed", "open.test", good, 401, invalid},

		{"not allowed", "group.test", o.portal.access(o.user(ann), origin("group.test"), nil), 403, `error="insufficient_scope"`},
		{"in the group", "group.test", o.portal.access(o.user(bob), origin("group.test"), nil), 200, ""},
		{"where more is required", "strict.test", o.portal.access(o.user(ann), origin("strict.test"), nil), 403, `error="insufficient_scope"`},
		{"where none is needed", "open.test", o.portal.access(o.user(ann), origin("open.test"), nil), 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := get(t, o.client(t, 2), "https://"+tt.host+"/", "Authorization", "bEARER "+tt.token, "Accept", "application/json")
			challenge := resp.Header.Get("WWW-Authenticate")
			if resp.StatusCode != tt.status || !strings.Contains(challenge, tt.challenge) || (challenge != "") != (tt.challenge != "") {
				t.Fatalf("got %d %v %s", resp.StatusCode, resp.Header, body)
			}
			if tt.status != 200 {
				var p postern.Problem
				if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != tt.status {
					t.Errorf("problem is %s", body)
				}
				return
			}
			got := hear(t, body).Header
			if got["Authorization"] != "" || got[headerUserID] == "" || got[headerIdentity] == "" {
				t.Errorf("the application hears %v", got)
			}
		})
	}

	t.Run("revoked", func(t *testing.T) {
		for name, change := range map[string]func(*table){
			"grant":      func(t *table) { t.people = people(bob) },
			"session":    func(t *table) { t.ended = map[string]bool{"sid-u-ann": true} },
			"everywhere": func(t *table) { p := ann; p.NotBefore = now.Unix() + 1; t.people = people(p) },
		} {
			o.change(func(t *table) { t.people, t.ended = people(ann, bob), nil; change(t) })
			if resp, _ := get(t, o.client(t, 2), "https://a.test/", "Authorization", "Bearer "+good); resp.StatusCode != 401 {
				t.Errorf("%s: %d", name, resp.StatusCode)
			}
		}
		o.change(func(t *table) { t.people, t.ended = people(ann, bob, carol), nil })
	})

	// A token of the application's own is the application's.
	t.Run("not ours", func(t *testing.T) {
		c := o.signedIn("a.test", ann)
		other := with("iss", "https://other.test")
		for _, value := range []string{"Bearer theirs", "Bearer " + other, "Basic YTpi", "Bearer", "Token " + good, "Bearer a.b.c"} {
			resp, body := get(t, c, "https://a.test/", "Authorization", value)
			if resp.StatusCode != 200 {
				t.Errorf("%.20s: %d %s", value, resp.StatusCode, body)
			} else if got := hear(t, body).Header; got["Authorization"] != value || got[headerUserID] != "u-ann" {
				t.Errorf("%.20s: the application hears %v", value, got)
			}
			if resp, _ := get(t, o.client(t, 1), "https://a.test/", "Authorization", value); resp.StatusCode != 401 {
				t.Errorf("%.20s of nobody: %d", value, resp.StatusCode)
			}
		}
	})

	// A token counts before a cookie: it is never silently somebody else who asks.
	t.Run("with a cookie", func(t *testing.T) {
		c := o.signedIn("a.test", bob)
		_, body := get(t, c, "https://a.test/", "Authorization", "Bearer "+good)
		if got := hear(t, body).Header[headerUserID]; got != "u-ann" {
			t.Errorf("it is %q who asks", got)
		}
		if resp, _ := get(t, c, "https://a.test/", "Authorization", "Bearer "+with("exp", now.Add(-time.Hour).Unix())); resp.StatusCode != 401 {
			t.Errorf("with a bad token: %d", resp.StatusCode)
		}
	})

	t.Run("two", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header["Authorization"] = []string{"Basic YTpi", "Bearer " + good}
		if resp, _ := do(t, o.client(t, 1), req); resp.StatusCode != 400 || !strings.Contains(resp.Header.Get("WWW-Authenticate"), "invalid_request") {
			t.Errorf("got %d %v", resp.StatusCode, resp.Header)
		}
	})
}

// What an access token began goes on when it has expired, and not for ever.
func TestAccessTokenUnderWay(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Handler: http.HandlerFunc(drip)}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+o.portal.access(o.user(ann), "https://a.test:8443", nil))
	resp, err := o.client(t, 1).Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	}
	defer resp.Body.Close()
	o.clock.advance(defaultMax - time.Second)
	o.gate.recheck()
	if o.passes() != 1 {
		t.Fatal("it ended before its time")
	}
	o.clock.advance(time.Second)
	o.gate.recheck()
	await(t, "the end of the request", func() bool { return o.passes() == 0 })
}

// A personal access token is for its own hook, and so is what it may.
func TestPersonalTokens(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Handler: http.HandlerFunc(drip), Require: postern.RequirePasskey}})
	expired := false
	o.gate.ways.holds = func(host string, p *postern.Person, passkey string) bool { return host == "a.test" && passkey == "k1" }
	o.gate.ways.token = func(r *http.Request, host, token string) (*credential, error) {
		if token != "pst_pat_good" || host != "a.test" {
			return nil, &bearerError{code: bearerScope, detail: "Reading only."}
		}
		return &credential{
			person: ann.ID, since: o.clock.time(), proof: proof{Passkey: "k1"}, token: "t1",
			good: func(time.Time) bool { return !expired },
		}, nil
	}
	resp, _ := get(t, o.client(t, 1), "https://a.test/", "Authorization", "Bearer pst_pat_bad")
	if resp.StatusCode != 403 || !strings.Contains(resp.Header.Get("WWW-Authenticate"), `error="insufficient_scope", error_description="Reading only"`) {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer pst_pat_good")
	resp, err = o.client(t, 1).Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	}
	defer resp.Body.Close()
	o.gate.mu.Lock()
	expired = true
	o.gate.mu.Unlock()
	o.gate.recheck()
	await(t, "the end of the request", func() bool { return o.passes() == 0 })
}

// FuzzBearers asserts that a token is what follows the scheme, whole and alone.
func FuzzBearers(f *testing.F) {
	for _, seed := range []string{"Bearer x", "bearer  x", "Bearer", "Bearer ", "BEARER a b", "Basic x", "Bearerx", " Bearer x", "Bearer x "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, token := range bearers(http.Header{"Authorization": {value}}) {
			scheme := value[:len("bearer")]
			if token == "" || !strings.EqualFold(scheme, "bearer") || strings.Trim(value[len(scheme):], " ") != token {
				t.Errorf("%q has token %q", value, token)
			}
			_ = issuerOf(token) // never panics
		}
		if got := bearers(http.Header{"Authorization": {value, "Bearer x"}}); !slices.Contains(got, "x") {
			t.Errorf("%q hides another token: %q", value, got)
		}
	})
}
