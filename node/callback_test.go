package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern"
	"postern/internal/member"
)

// Each of the portal's answers that is not as it should be signs nobody in.
func TestCallbackRefuses(t *testing.T) {
	type claims = map[string]any
	type header = map[jose.HeaderKey]any
	with := func(name string, value any) func(*testing.T, *office) {
		return func(_ *testing.T, o *office) { o.portal.forge = func(_ header, c claims) { c[name] = value } }
	}
	without := func(name string) func(*testing.T, *office) {
		return func(_ *testing.T, o *office) { o.portal.forge = func(_ header, c claims) { delete(c, name) } }
	}
	signed := func(alg jose.SignatureAlgorithm, key func(o *office) any) func(*testing.T, *office) {
		return func(t *testing.T, o *office) {
			o.portal.sign = func(h header, c claims) string { return signToken(t, alg, key(o), h, c) }
		}
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		prepare func(t *testing.T, o *office)
		status  int
		says    string
	}{
		{"another nonce", with("nonce", "x"), 502, "cannot be verified"},
		{"no nonce", without("nonce"), 502, "cannot be verified"},
		{"another audience", with("aud", "b.test"), 502, "cannot be verified"},
		{"another audience too", with("aud", []string{"a.test", "b.test"}), 502, "cannot be verified"},
		{"the audience of access tokens", with("aud", "https://a.test:8443"), 502, "cannot be verified"},
		{"another issuer", with("iss", "https://evil.test"), 502, "cannot be verified"},
		{"another tenant", with("tenant", "globex"), 502, "cannot be verified"},
		{"nobody", with("sub", ""), 502, "cannot be verified"},
		{"no session", without("sid"), 502, "cannot be verified"},
		{"no time", without("auth_time"), 502, "cannot be verified"},
		{"another access token", with("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), 502, "cannot be verified"},
		{"an access token", func(_ *testing.T, o *office) {
			o.portal.forge = func(h header, _ claims) { h["typ"] = "at+jwt" }
		}, 502, "cannot be verified"},
		{"a token of another kind", func(_ *testing.T, o *office) {
			o.portal.forge = func(h header, _ claims) { h["typ"] = "rt+jwt" }
		}, 502, "cannot be verified"},
		{"another's key", signed(jose.ES256, func(*office) any { return stranger }), 502, "cannot be verified"},
		{"HMAC with the public key", signed(jose.HS256, func(o *office) any {
			der, err := o.portal.key.PublicKey.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			return der
		}), 502, "cannot be verified"},
		{"no signature", func(t *testing.T, o *office) {
			o.portal.sign = func(_ header, c claims) string {
				text, err := json.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				enc := base64.RawURLEncoding.EncodeToString
				return enc([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + enc(text) + "."
			}
		}, 502, "cannot be verified"},
		{"nonsense", func(_ *testing.T, o *office) {
			o.portal.sign = func(header, claims) string { return "nonsense" }
		}, 502, "cannot be verified"},
		{"a clock that is ahead", func(_ *testing.T, o *office) {
			o.portal.now = func() time.Time { return o.clock.time().Add(-20 * time.Minute) }
		}, 503, "20m0s ahead"},
		{"the coordinator is away", func(_ *testing.T, o *office) { o.portal.away = errors.New("no route") }, 503, "cannot be asked"},
		{"the coordinator refuses the node", func(_ *testing.T, o *office) {
			o.portal.away = postern.NewProblem(403, postern.CodeForbidden, "a.test is not yours", "")
		}, 503, "cannot be asked"},
		{"signed out everywhere since", func(_ *testing.T, o *office) {
			o.change(func(t *table) {
				p := ann
				p.NotBefore = o.clock.time().Add(time.Hour).Unix()
				t.people = people(p)
			})
		}, 403, "has been opened to you"},
		{"session ended since", func(_ *testing.T, o *office) {
			o.change(func(t *table) { t.ended = map[string]bool{"sid-u-ann": true} })
		}, 403, "has been opened to you"},
		{"of no tenant here", func(_ *testing.T, o *office) {
			o.change(func(t *table) { t.people = people(bob) })
		}, 403, "has been opened to you"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, map[string]Service{"a.test": hello("a")})
			tt.prepare(t, o)
			c := o.browser(2)
			resp, _ := get(t, c, "https://a.test/x", navigation...)
			resp, body := get(t, c, o.back(resp, o.user(ann)), navigation...)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) {
				t.Errorf("got %d %s, want %d and %q", resp.StatusCode, body, tt.status, tt.says)
			}
			if len(sessionCookies(resp)) > 0 || o.gate.sessions.count() > 0 {
				t.Error("somebody is signed in")
			}
			if resp, _ := get(t, c, "https://a.test/x"); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("the application is asked: %d", resp.StatusCode)
			}
		})
	}
}

// Clocks are never quite the same.
func TestSmallSkewIsNone(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, -5 * time.Minute, 5 * time.Minute} {
		o := newOffice(t, map[string]Service{"a.test": hello("a")})
		o.portal.now = func() time.Time { return o.clock.time().Add(-ahead) }
		o.signIn(o.browser(2), "a.test", o.user(ann))
	}
}

// What comes to the callback and is no sign-in of this browser's, at this host.
func TestStates(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a"), "b.test": hello("b")})
	begin := func(c *http.Client, host string) (*url.URL, string) {
		resp, _ := get(t, c, "https://"+host+"/x", navigation...)
		u, err := url.Parse(o.back(resp, o.user(ann)))
		if err != nil {
			t.Fatal(err)
		}
		return u, u.Query().Get("state")
	}
	change := func(u *url.URL, name, value string) string {
		q := u.Query()
		q.Set(name, value)
		u.RawQuery = q.Encode()
		return u.String()
	}
	flip := func(s string) string {
		b := []byte(s)
		b[len(b)/2] ^= 1
		return string(b)
	}
	tests := []struct {
		name   string
		url    func(mine, others *http.Client) string // by the one, in the other's hands
		status int
	}{
		{"tampered", func(c, _ *http.Client) string { u, s := begin(c, "a.test"); return change(u, "state", flip(s)) }, 400},
		{"cut short", func(c, _ *http.Client) string { u, s := begin(c, "a.test"); return change(u, "state", s[:20]) }, 400},
		{"none", func(c, _ *http.Client) string { u, _ := begin(c, "a.test"); return change(u, "state", "") }, 400},
		{"of another host", func(c, _ *http.Client) string {
			u, _ := begin(c, "b.test")
			return strings.Replace(u.String(), "b.test", "a.test", 1)
		}, 400},
		{"another issuer", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			return change(u, "iss", "https://evil.test")
		}, 400},
		{"the portal refuses", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			return change(u, "error", "access_denied")
		}, 403},
		{"the portal is in trouble", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			return change(u, "error", "server_error")
		}, 503},
		{"the portal says what it never does", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			return change(u, "error", "invalid_scope")
		}, 502},

		// An attacker's own, in the victim's browser: the attacker is not signed in there.
		{"of another browser", func(_, other *http.Client) string { u, _ := begin(other, "a.test"); return u.String() }, 400},
		{"a code of another sign-in", func(c, other *http.Client) string {
			theirs, _ := begin(other, "a.test")
			mine, _ := begin(c, "a.test")
			return change(mine, "code", theirs.Query().Get("code"))
		}, 400},
		{"a code that was used", func(c, _ *http.Client) string {
			u, _ := begin(c, "a.test")
			o.portal.mu.Lock()
			delete(o.portal.codes, u.Query().Get("code"))
			o.portal.mu.Unlock()
			return u.String()
		}, 400},
		{"no code", func(c, _ *http.Client) string { u, _ := begin(c, "a.test"); return change(u, "code", "") }, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mine, others := o.browser(2), o.browser(2)
			resp, body := get(t, mine, tt.url(mine, others), navigation...)
			if resp.StatusCode != tt.status || len(sessionCookies(resp)) > 0 {
				t.Fatalf("got %d %v %s, want %d", resp.StatusCode, resp.Header, body, tt.status)
			}
			checkHTML2(t, resp, body)
		})
	}
	if n := o.gate.sessions.count(); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// A request that a browser repeats, cookies and all, has its code redeemed once.
func TestCodeIsRedeemedOnce(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	c := o.browser(1)
	resp, _ := get(t, c, "https://a.test/x", navigation...)
	back, state := o.back(resp, o.user(ann)), resp.Cookies()[0]
	redeem, redeemed := o.portal.redeem, 0
	o.gate.redeem = func(ctx context.Context, form url.Values) (member.Tokens, error) {
		redeemed++
		return redeem(ctx, form)
	}
	cookie := []string{"Cookie", state.Name + "=" + state.Value}
	resp, _ = get(t, o.client(t, 1), back, append(cookie, navigation...)...)
	if len(sessionCookies(resp)) != 1 {
		t.Fatalf("the first time: %d %v", resp.StatusCode, resp.Header)
	}
	resp, body := get(t, o.client(t, 1), back, append(cookie, navigation...)...)
	if resp.StatusCode != 400 || len(sessionCookies(resp)) != 0 || redeemed != 1 || !strings.Contains(body, `href="/x"`) {
		t.Errorf("the second time: %d %v, redeemed %d times", resp.StatusCode, resp.Header, redeemed)
	}
}

func TestSpentIsBounded(t *testing.T) {
	var s spent
	now := time.Now()
	for i := range 3 * maxSpent {
		st := signInState{ID: strconv.Itoa(i), Expires: now.Add(stateLife)}
		if !s.first(st, now) || s.first(st, now) {
			t.Fatalf("state %d is not told apart", i)
		}
	}
	if n := len(s.until); n > maxSpent {
		t.Errorf("%d are remembered", n)
	}
	late := now.Add(stateLife)
	for i := range maxSpent {
		s.first(signInState{ID: "late" + strconv.Itoa(i), Expires: late.Add(stateLife)}, late)
	}
	if _, old := s.until["1"]; old {
		t.Error("what is of no use any more is remembered")
	}
}

// Strangers' junk uses up neither what the portal answers to this node, nor the log.
func TestJunkCodes(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	redeem, redeemed := o.portal.redeem, 0
	o.gate.redeem = func(ctx context.Context, form url.Values) (member.Tokens, error) {
		redeemed++
		return redeem(ctx, form)
	}
	var log strings.Builder
	o.gate.log = slog.New(slog.NewTextHandler(&log, nil))
	for range maxGuesses + 5 { // a whole company may have one address
		o.signIn(o.browser(2), "a.test", o.user(ann))
	}
	redeemed = 0
	junk := func() int {
		c := o.browser(2)
		resp, _ := get(t, c, "https://a.test/x", navigation...)
		resp, _ = get(t, c, strings.Replace(o.back(resp, o.user(ann)), "code=", "code=x", 1), navigation...)
		return resp.StatusCode
	}
	for range maxGuesses {
		if got := junk(); got != 400 {
			t.Fatalf("a junk code gets %d", got)
		}
	}
	for range 10 {
		if got := junk(); got != 429 {
			t.Fatalf("one too many gets %d", got)
		}
	}
	if redeemed != maxGuesses {
		t.Errorf("the portal was asked %d times, want %d", redeemed, maxGuesses)
	}
	if n := strings.Count(log.String(), "sign-in refused"); n != maxGuesses {
		t.Errorf("the log tells of %d refusals, want %d", n, maxGuesses)
	}
	o.clock.advance(time.Minute)
	o.signIn(o.browser(2), "a.test", o.user(ann))
}
