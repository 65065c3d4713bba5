package portal_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern"
	"postern/coordinator"
)

// A begun is a program that waits to be let in.
type begun struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	URI        string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	Expires    int    `json:"expires_in"`
	Interval   int    `json:"interval"`
}

// A program is a browser that is none: it keeps no cookies.
func (d *deployment) program() *browser {
	b := d.browser()
	b.client.Jar = nil
	b.header = http.Header{"User-Agent": {"postern/1 (linux)"}}
	return b
}

func (b *browser) beginDevice(host string) begun {
	b.t.Helper()
	var out begun
	must(b.t, json.Unmarshal([]byte(b.post("/oauth/device", "client_id", "postern-cli", "resource", origin(host)).want(http.StatusOK).body), &out))
	return out
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// poll asks for what b began, as soon as it may.
func (b *browser) poll(g begun) *answer {
	b.t.Helper()
	b.d.clock.advance(time.Duration(g.Interval) * time.Second)
	return b.post("/oauth/token", "grant_type", deviceGrant, "client_id", "postern-cli", "device_code", g.DeviceCode)
}

func (b *browser) refresh(token string, fields ...string) *answer {
	b.t.Helper()
	return b.post("/oauth/token", append([]string{"grant_type", "refresh_token", "client_id", "postern-cli", "refresh_token", token}, fields...)...)
}

// given are the tokens in an answer.
type given struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Type    string `json:"token_type"`
	Expires int    `json:"expires_in"`
}

func (a *answer) tokens() given {
	a.t.Helper()
	var out given
	must(a.t, json.Unmarshal([]byte(a.want(http.StatusOK).body), &out))
	if a.header.Get("Cache-Control") != "no-store" {
		a.t.Errorf("%s: Cache-Control is %q", a.what, a.header.Get("Cache-Control"))
	}
	return out
}

// claimsOf returns what an access token says, and of what type it is.
func (d *deployment) claimsOf(raw string) (typ string, claims map[string]any) {
	d.t.Helper()
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	must(d.t, err)
	key := d.SignInKey()
	must(d.t, token.Claims(key.Public().Key, &claims))
	return text(token.Headers[0].ExtraHeaders["typ"]), claims
}

// let signs a program in to host, by ann.
func (d *signIns) let(ann, program *browser, host string) given {
	d.t.Helper()
	g := program.beginDevice(host)
	ann.post("/device", "user_code", g.UserCode, "answer", "allow").want(http.StatusOK, "is let in")
	return program.poll(g).tokens()
}

func TestDeviceFlow(t *testing.T) {
	d := typing(t)
	program, ann := d.program(), d.browser()
	g := program.beginDevice(acmeHost)
	letters := strings.Replace(g.UserCode, "-", "", 1)
	if len(letters) != 8 || strings.Trim(letters, "BCDFGHJKLMNPQRSTVWXZ") != "" || g.URI != d.PortalURL()+"/device" ||
		g.Complete != g.URI+"?user_code="+g.UserCode || g.Expires != 600 || g.Interval != 5 {
		t.Fatalf("began with %+v", g)
	}
	program.poll(g).wantError(400, "authorization_pending")

	// The user signs in, sees what asks, and says so.
	at := ann.get("/device?user_code=" + g.UserCode).want(http.StatusSeeOther).header.Get("Location")
	u, err := url.Parse(at)
	must(t, err)
	ann.post("/sign-in", "login", "ann", "password", password, "next", u.Query().Get("next")).want(http.StatusOK)
	ann.get(u.Query().Get("next")).want(http.StatusOK, g.UserCode, "Ledger", "Acme", acmeHost, "127.0.0.1", "just started it yourself")
	ann.get("/device").want(http.StatusOK, "Type it here")
	ann.post("/device", "user_code", " "+strings.ToLower(letters)).want(http.StatusOK, g.UserCode)
	program.poll(g).wantError(400, "authorization_pending") // looking is not allowing
	ann.post("/device", "user_code", g.UserCode, "answer", "allow").want(http.StatusOK, "is let in")
	ann.post("/device", "user_code", g.UserCode, "answer", "deny").want(http.StatusNotFound)

	got := program.poll(g).tokens()
	sessions, err := d.Sessions(t.Context(), d.ann.ID)
	must(t, err)
	i := 0
	if !sessions[i].Device {
		i = 1
	}
	device := sessions[i]
	if !device.Device || device.Agent != "postern/1 (linux)" || device.Remote != "127.0.0.1" {
		t.Errorf("the session is %+v", device)
	}
	typ, claims := d.claimsOf(got.Access)
	want := map[string]any{
		"iss": d.PortalURL(), "sub": d.ann.ID, "aud": origin(acmeHost), "client_id": "postern-cli", "scope": "host:" + acmeHost,
		"sid": device.ID, "auth_time": float64(device.Signed.Unix()), "tenant": "acme",
		"jti": claims["jti"], "iat": claims["iat"], "exp": claims["iat"].(float64) + 600,
	}
	if typ != "at+jwt" || text(claims["jti"]) == "" || !reflect.DeepEqual(claims, want) || got.Type != "Bearer" || got.Expires != 600 {
		t.Errorf("%s:\n got %v\nwant %v", typ, claims, want)
	}
	program.poll(g).wantError(400, "invalid_grant") // once

	// It goes on for as long as the session does.
	next := program.refresh(got.Refresh).tokens()
	if _, again := d.claimsOf(next.Access); again["sid"] != device.ID || again["jti"] == claims["jti"] {
		t.Errorf("after a refresh: %v", again)
	}
	program.refresh(next.Refresh, "resource", origin("erp."+acmeHost)).wantError(400, "invalid_target")
	// What a program has is good for no browser, and for no more than its host.
	b := d.browser()
	req := b.request("GET", "/account", nil)
	req.AddCookie(&http.Cookie{Name: "__Host-postern_portal", Value: next.Refresh})
	b.do(req).want(http.StatusSeeOther)
	req = b.request("GET", "/userinfo", nil)
	req.Header.Set("Authorization", "Bearer "+next.Access)
	b.do(req).wantError(401, "invalid_token")

	program.post("/revoke", "client_id", "postern-cli", "token", next.Refresh).want(http.StatusOK)
	program.refresh(next.Refresh).wantError(400, "invalid_grant")
	program.post("/revoke", "client_id", "postern-cli", "token", "nonsense").want(http.StatusOK)
	d.wantLog("session.end", "user:"+d.ann.ID, device.ID)
}

// TestDeviceAgent: what a program says that it is stands nowhere that somebody reads.
func TestDeviceAgent(t *testing.T) {
	d := newSignIns(t)
	ann, program := d.signedIn("ann"), d.program()
	program.header.Set("User-Agent", "Your IT department. "+strings.Repeat("x", 8<<10))
	g := program.beginDevice(acmeHost)
	ann.get("/device?user_code="+g.UserCode).want(http.StatusOK, "An unknown program").wantNot("IT department", "xxx")
}

func TestDeviceRefused(t *testing.T) {
	d := newSignIns(t)
	ann, bob, program := d.signedIn("ann"), d.signedIn("bob"), d.program()
	for _, fields := range [][]string{
		{"client_id", "postern-cli"}, {"client_id", "postern-cli", "scope", "openid"},
		{"client_id", "postern-cli", "scope", "host:nobody." + base}, {"client_id", "postern-cli", "resource", "http://" + acmeHost + ":8443"},
		{"client_id", "postern-cli", "resource", origin(acmeHost) + "/x"}, {"client_id", "postern-cli", "resource", "https://evil.example"},
		{"client_id", "postern-cli", "resource", "%"},
	} {
		program.post("/oauth/device", fields...).wantError(400, "invalid_target")
	}
	program.post("/oauth/device", "client_id", acmeHost, "resource", origin(acmeHost)).wantError(401, "invalid_client")

	g := program.beginDevice(acmeHost)
	bob.post("/device", "user_code", g.UserCode, "answer", "allow").want(http.StatusForbidden, "may not open")
	program.poll(g).wantError(400, "authorization_pending")
	ann.post("/device", "user_code", g.UserCode, "answer", "deny").want(http.StatusOK, "not let in")
	program.poll(g).wantError(400, "access_denied")
	program.poll(g).wantError(400, "invalid_grant")
	d.wantLog("token.refused", "access_denied")
	d.wantLog("token.refused", "no such device_code")
	d.wantLog("authorize.refused", "user:"+d.ann.ID, "acme", acmeHost, "by the user")
	d.wantLog("authorize.refused", "user:"+d.bob.ID, "acme", acmeHost, "may not open")

	g = program.beginDevice(acmeHost)
	program.poll(g).wantError(400, "authorization_pending")
	hasty := func() *answer {
		return program.post("/oauth/token", "grant_type", deviceGrant, "client_id", "postern-cli", "device_code", g.DeviceCode)
	}
	hasty().wantError(400, "slow_down")
	d.clock.advance(6 * time.Second)
	hasty().wantError(400, "slow_down") // 10 seconds are due by now
	d.clock.advance(10 * time.Minute)
	ann.post("/device", "user_code", g.UserCode, "answer", "allow").want(http.StatusNotFound, "No program waits")
	hasty().wantError(400, "expired_token")

	entries, err := d.Local().Audit(t.Context(), coordinator.AuditQuery{Action: "token", Limit: 100})
	must(t, err)
	for _, e := range entries {
		if strings.Contains(e.Detail, "pending") || strings.Contains(e.Detail, "slow_down") {
			t.Errorf("who shall ask again is in the audit log: %s", e.Detail)
		}
	}

	// Another site's page allows nothing.
	g = program.beginDevice(acmeHost)
	req := ann.request("POST", "/device", strings.NewReader(url.Values{"user_code": {g.UserCode}, "answer": {"allow"}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-site")
	ann.do(req).want(http.StatusForbidden)
	program.poll(g).wantError(400, "authorization_pending")
}

// What happened between the user's word and the program's question counts.
func TestDeviceBetween(t *testing.T) {
	tests := []struct {
		name    string
		between func(d *signIns)
	}{
		{"grant revoked", func(d *signIns) { _, err := d.Local().Revoke(d.t.Context(), "ann", "acme"); must(d.t, err) }},
		{"user disabled", func(d *signIns) { _, err := d.Local().DisableUser(d.t.Context(), "ann"); must(d.t, err) }},
		{"signed out everywhere", func(d *signIns) {
			must(d.t, d.EndSessions(d.t.Context(), coordinator.ActorUser(d.ann.ID), d.ann.ID))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newSignIns(t)
			ann, program := d.signedIn("ann"), d.program()
			held := d.let(ann, program, acmeHost)
			g := program.beginDevice(acmeHost)
			ann.post("/device", "user_code", g.UserCode, "answer", "allow").want(http.StatusOK)
			tt.between(d)
			program.poll(g).wantError(400, "access_denied")
			program.refresh(held.Refresh).wantError(400, "invalid_grant")
			d.wantLog("token.refused", "stranger", "acme", acmeHost)
		})
	}
}

// A refresh token that comes back ends what it was for.
func TestRefreshTwice(t *testing.T) {
	d := newSignIns(t)
	ann, program := d.signedIn("ann"), d.program()
	first := d.let(ann, program, acmeHost)
	second := program.refresh(first.Refresh).tokens()
	program.refresh(first.Refresh).wantError(400, "invalid_grant")
	program.refresh(second.Refresh).wantError(400, "invalid_grant")
	d.wantLog("token.refused", "stranger", "acme", acmeHost, "used before")
	ann.get("/account").want(http.StatusOK) // which is the user's own
	other := d.let(ann, program, acmeHost)
	// Neither another of the portal's tokens nor one that was changed is one.
	for _, bad := range []string{other.Access, other.Refresh + "A", other.Refresh[:len(other.Refresh)-10], strings.Replace(other.Refresh, ".", "..", 1)} {
		program.refresh(bad).wantError(400, "invalid_grant")
	}
	d.clock.advance(31 * 24 * time.Hour)
	program.refresh(other.Refresh).wantError(400, "invalid_grant")
}

// A refresh token is used up by who gets something for it, and by nothing else.
func TestRefreshFails(t *testing.T) {
	d := newSignIns(t)
	ann, program := d.signedIn("ann"), d.program()
	got := d.let(ann, program, acmeHost)

	d.acme.publish(postern.Service{Name: postern.DefaultService, Access: postern.Access{Who: postern.AccessPublic}})
	program.refresh(got.Refresh).wantError(400, "invalid_target")
	d.acme.publish(ledger)
	got = program.refresh(got.Refresh).tokens()

	// Whichever look at the disk fails, it is the disk's fault.
	for failing := int64(1); ; failing++ {
		d.disk.left.Store(failing)
		a := program.refresh(got.Refresh)
		if a.status == http.StatusOK {
			if failing < 4 {
				t.Errorf("the disk was looked at %d times only", failing-1)
			}
			break
		}
		a.wantError(500, "server_error")
	}
	d.disk.left.Store(0)
	program.refresh(got.Refresh).wantError(400, "invalid_grant")
}

// Codes are not to be guessed, nor programs to wait without number.
func TestDeviceLimits(t *testing.T) {
	d := newSignIns(t)
	ann, program := d.signedIn("ann"), d.program()
	guesses := 0
	for ann.post("/device", "user_code", "BBBB-BBBB").status == http.StatusNotFound {
		if guesses++; guesses > 12 {
			t.Fatal("codes may be guessed without end")
		}
	}
	ann.post("/device", "user_code", "BBBB-BBBB").want(http.StatusTooManyRequests)
	d.wantLog("authorize.refused", "user:"+d.ann.ID, "no program waits")
	d.wantLog("authorize.refused", "user:"+d.ann.ID, "too many codes were tried")
	for range 16 {
		program.beginDevice(acmeHost)
	}
	program.post("/oauth/device", "client_id", "postern-cli", "resource", origin(acmeHost)).wantError(503, "temporarily_unavailable")
	d.clock.advance(10 * time.Minute)
	program.beginDevice(acmeHost)
}
