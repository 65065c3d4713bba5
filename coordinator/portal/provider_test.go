package portal_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"postern"
	"postern/coordinator"
)

// A wish is what a node asks the portal for, and what it redeems with.
type wish struct {
	host, verifier string
	query, form    url.Values
}

func origin(host string) string { return "https://" + host + ":8443" }

func callback(host string) string { return origin(host) + "/.well-known/postern/callback" }

// newWish returns what the node of host does, rightly.
func newWish(host string) wish {
	w := wish{host: host, verifier: rand.Text() + rand.Text()}
	sum := sha256.Sum256([]byte(w.verifier))
	w.query = url.Values{
		"client_id": {host}, "redirect_uri": {callback(host)}, "response_type": {"code"}, "scope": {"openid profile"},
		"state": {rand.Text()}, "nonce": {rand.Text()},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	w.form = url.Values{
		"grant_type": {"authorization_code"}, "client_id": {host}, "redirect_uri": {callback(host)}, "code_verifier": {w.verifier},
	}
	return w
}

func (w wish) path() string { return "/authorize?" + w.query.Encode() }

// code has b fetch a code for w.
func (w wish) code(b *browser) string {
	b.t.Helper()
	back := b.get(w.path()).back(w.host)
	if back.Get("state") != w.query.Get("state") || back.Get("iss") != b.d.PortalURL() || back.Get("code") == "" {
		b.t.Fatalf("came back with %v", back)
	}
	return back.Get("code")
}

// back returns what a brings back to host's callback.
func (a *answer) back(host string) url.Values {
	a.t.Helper()
	a.want(http.StatusSeeOther)
	u, err := url.Parse(a.header.Get("Location"))
	must(a.t, err)
	q := u.Query()
	u.RawQuery = ""
	if u.String() != callback(host) {
		a.t.Fatalf("%s: leads to %s, want %s", a.what, u, callback(host))
	}
	return q
}

// redeem has m, a node, redeem code with w's form.
func (m *machine) redeem(w wish, code string) *answer {
	m.d.t.Helper()
	form := url.Values{}
	for k, v := range w.form {
		form[k] = v
	}
	form.Set("code", code)
	return m.form(postern.PathToken, form)
}

func (m *machine) form(path string, form url.Values) *answer {
	m.d.t.Helper()
	resp, err := m.client.PostForm(controlURL+path, form)
	must(m.d.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(m.d.t, err)
	return &answer{m.d.t, "POST " + path, resp.StatusCode, resp.Header, string(body)}
}

// wantError fails the test if a is not an OAuth error with that code.
func (a *answer) wantError(status int, code string) {
	a.t.Helper()
	var e struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal([]byte(a.body), &e) != nil || e.Error != code || a.status != status || e.Description == "" {
		a.t.Errorf("%s: got status %d, %s, want %d, %s", a.what, a.status, a.body, status, code)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		a.t.Errorf("%s: Cache-Control is %q", a.what, a.header.Get("Cache-Control"))
	}
	a.wantChallenge()
}

// signIns is a deployment with two companies, each with a node and a person.
type signIns struct {
	*deployment
	acme, globex *machine
	ann, bob     postern.UserState
}

const acmeHost, globexHost = "acme." + base, "globex." + base

func newSignIns(t *testing.T) *signIns {
	t.Helper()
	s := &signIns{deployment: deploy(t, nil)}
	s.tenant("acme", "Acme")
	s.tenant("globex", "Globex")
	s.acme, s.globex = s.join(postern.RoleNode, "acme", "office"), s.join(postern.RoleNode, "globex", "office")
	s.acme.publish(ledger, postern.Service{Name: "erp", Access: postern.Access{Who: postern.AccessGroups, Groups: []string{"accounting"}}})
	s.globex.publish(ledger)
	s.ann, s.bob = s.member("ann", "acme", postern.TenantAdmin), s.member("bob", "globex", postern.TenantMember)
	return s
}

// typing is newSignIns, with people who have a password.
func typing(t *testing.T) *signIns {
	t.Helper()
	s := newSignIns(t)
	for _, u := range []postern.UserState{s.ann, s.bob} {
		_, err := s.Accept(t.Context(), s.invitation(u.ID), "", password, nil)
		must(t, err)
	}
	return s
}

// trusting returns an HTTP client that trusts the deployment's private CA.
func (d *deployment) trusting() *http.Client {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(d.ca) {
		d.t.Fatal("no private CA")
	}
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, d.addr)
		},
	}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// A relying party as others write it signs somebody in, over TLS that it verifies.
func TestCodeFlow(t *testing.T) {
	d := typing(t)
	_, err := d.Local().Grant(t.Context(), "ann", "globex", postern.GrantRequest{Groups: []string{"secret"}})
	must(t, err)
	_, err = d.Local().Grant(t.Context(), "ann", "acme", postern.GrantRequest{Role: postern.TenantMember, Groups: []string{"accounting", "sales"}})
	must(t, err)
	must(t, d.SetName(t.Context(), coordinator.ActorUser(d.ann.ID), d.ann.ID, "Ann Ample"))
	ctx := oidc.ClientContext(t.Context(), d.trusting())
	p, err := oidc.NewProvider(ctx, d.PortalURL())
	must(t, err)
	verifier, nonce, state := oauth2.GenerateVerifier(), rand.Text(), rand.Text()
	rp := oauth2.Config{ClientID: acmeHost, Endpoint: p.Endpoint(), RedirectURL: callback(acmeHost), Scopes: []string{"openid", "profile"}}
	begin := strings.TrimPrefix(rp.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)), d.PortalURL())

	// Nobody is signed in: first they do that, and come back.
	b := d.browser()
	next := b.get(begin).want(http.StatusSeeOther).header.Get("Location")
	if !strings.HasPrefix(next, "/sign-in?next=%2Fcontinue%3Fid%3D") {
		t.Fatalf("who is not signed in is sent to %q", next)
	}
	at, err := url.Parse(next)
	must(t, err)
	b.post("/sign-in", "login", "ann", "password", password, "next", at.Query().Get("next")).want(http.StatusOK)
	a := b.get(at.Query().Get("next"))
	if a.header.Get("Referrer-Policy") != "no-referrer" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the code's answer has the header %v", a.header)
	}
	back := a.back(acmeHost)
	if back.Get("state") != state || back.Get("iss") != d.PortalURL() || len(back.Get("code")) != 43 {
		t.Fatalf("came back with %v", back)
	}

	// The node redeems over its control channel, and there alone.
	rp.Endpoint.TokenURL, rp.Endpoint.AuthStyle = controlURL+postern.PathToken, oauth2.AuthStyleInParams
	_, err = rp.Exchange(oidc.ClientContext(ctx, d.trusting()), back.Get("code"), oauth2.VerifierOption(verifier))
	if err == nil {
		t.Fatal("redeemed without a certificate")
	}
	tokens, err := rp.Exchange(context.WithValue(ctx, oauth2.HTTPClient, d.acme.client), back.Get("code"), oauth2.VerifierOption(verifier))
	must(t, err)
	raw, _ := tokens.Extra("id_token").(string)
	id, err := p.Verifier(&oidc.Config{ClientID: acmeHost, SupportedSigningAlgs: []string{oidc.ES256}}).Verify(ctx, raw)
	must(t, err)
	var claims map[string]any
	must(t, id.Claims(&claims))
	sessions, err := d.Sessions(t.Context(), d.ann.ID)
	must(t, err)
	want := map[string]any{
		"iss": d.PortalURL(), "sub": d.ann.ID, "aud": acmeHost, "nonce": nonce, "sid": sessions[0].ID,
		"auth_time": float64(sessions[0].Signed.Unix()), "amr": []any{"pwd"}, "name": "Ann Ample", "preferred_username": "ann",
		"tenant": "acme", "roles": []any{"member"}, "groups": []any{"accounting", "sales"},
		"iat": claims["iat"], "exp": claims["iat"].(float64) + 300,
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims:\n got %v\nwant %v", claims, want)
	}
	if strings.Contains(raw, "globex") || slices.Contains(id.Audience, globexHost) {
		t.Error("the ID token tells of another tenant")
	}
	if tokens.RefreshToken != "" {
		t.Error("a host got a refresh token")
	}
	info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
	must(t, err)
	var said map[string]any
	must(t, info.Claims(&said))
	if info.Subject != d.ann.ID || said["tenant"] != "acme" || said["preferred_username"] != "ann" {
		t.Errorf("user info is %v", said)
	}
	d.wantLog("authorize", "user:"+d.ann.ID, "acme", acmeHost)

	// Neither token is one of another kind.
	program := d.program()
	for _, other := range []string{raw, tokens.AccessToken} {
		program.refresh(other).wantError(400, "invalid_grant")
	}
	b.get("/account").want(http.StatusOK)

	// What holds now is what is said.
	_, err = d.Local().Revoke(t.Context(), "ann", "acme")
	must(t, err)
	if _, err := p.UserInfo(ctx, oauth2.StaticTokenSource(tokens)); err == nil {
		t.Error("user info of who may not open the host any more")
	}
}

// What the discovery document says is what there is.
func TestDiscovery(t *testing.T) {
	d := newSignIns(t)
	var doc map[string]any
	b := d.browser()
	must(t, json.Unmarshal([]byte(b.get("/.well-known/openid-configuration").want(http.StatusOK).body), &doc))
	for key, want := range map[string]any{
		"issuer": d.PortalURL(), "response_types_supported": []any{"code"}, "response_modes_supported": []any{"query"},
		"code_challenge_methods_supported": []any{"S256"}, "id_token_signing_alg_values_supported": []any{"ES256"},
		"token_endpoint_auth_methods_supported": []any{"none"}, "request_uri_parameter_supported": false,
		"authorization_response_iss_parameter_supported": true,
		"grant_types_supported":                          []any{"authorization_code", "urn:ietf:params:oauth:grant-type:device_code", "refresh_token"},
	} {
		if !reflect.DeepEqual(doc[key], want) {
			t.Errorf("%s: got %v, want %v", key, doc[key], want)
		}
	}
	for _, key := range []string{"introspection_endpoint", "end_session_endpoint", "registration_endpoint", "check_session_iframe"} {
		if doc[key] != nil {
			t.Errorf("it has %s", key)
		}
	}
	for key, at := range doc {
		if path, ok := strings.CutPrefix(text(at), d.PortalURL()+"/"); ok && strings.HasSuffix(key, "_endpoint") {
			if get, post := b.get("/"+path), b.post("/"+path); get.status == http.StatusNotFound && post.status == http.StatusNotFound {
				t.Errorf("%s is not there", key)
			}
		}
	}
	var keys struct {
		Keys []map[string]any `json:"keys"`
	}
	must(t, json.Unmarshal([]byte(b.get("/keys").want(http.StatusOK).body), &keys))
	if len(keys.Keys) != 1 || keys.Keys[0]["d"] != nil || keys.Keys[0]["crv"] != "P-256" || keys.Keys[0]["kid"] == "" {
		t.Errorf("keys are %v", keys)
	}
	if a := b.get("/oauth/introspect"); a.status != http.StatusNotFound {
		t.Errorf("introspection: status %d", a.status)
	}
	// No page of another origin reads an answer.
	for _, path := range []string{"/keys", "/userinfo", "/.well-known/openid-configuration"} {
		req := b.request("GET", path, nil)
		req.Header.Set("Origin", "https://evil.example")
		if a := b.do(req); a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s may be read by %q", path, a.header.Get("Access-Control-Allow-Origin"))
		}
	}
}

func text(v any) string { s, _ := v.(string); return s }

// A sign-in can ask for one that is not older than it says, or none at all.
func TestPrompt(t *testing.T) {
	d := typing(t)
	with := func(name, value string) wish {
		w := newWish(acmeHost)
		w.query.Set(name, value)
		return w
	}
	nobody := with("prompt", "none")
	if back := d.browser().get(nobody.path()).back(acmeHost); back.Get("error") != "login_required" || back.Get("state") != nobody.query.Get("state") {
		t.Errorf("prompt none by nobody: came back with %v", back)
	}
	bob := d.signedIn("bob")
	if back := bob.get(with("prompt", "none").path()).back(acmeHost); back.Get("error") != "access_denied" {
		t.Errorf("prompt none by who may not: came back with %v", back)
	}
	ann := d.signedIn("ann")
	with("prompt", "none").code(ann)
	with("max_age", "3600").code(ann)
	for _, tt := range []struct{ name, value string }{{"prompt", "login"}, {"prompt", "select_account"}, {"max_age", "0"}, {"max_age", "60"}} {
		t.Run(tt.name+" "+tt.value, func(t *testing.T) {
			d.clock.advance(2 * time.Minute)
			w := with(tt.name, tt.value)
			at := ann.get(w.path()).want(http.StatusSeeOther).header.Get("Location")
			u, err := url.Parse(at)
			must(t, err)
			if u.Path != "/sign-in" || u.Query().Get("again") == "" {
				t.Fatalf("sent to %s", at)
			}
			ann.get(at).want(http.StatusOK, "password") // a form, though somebody is signed in
			next := u.Query().Get("next")
			ann.post("/sign-in", "login", "ann", "password", password, "next", next).want(http.StatusOK)
			if back := ann.get(next).back(acmeHost); back.Get("code") == "" {
				t.Errorf("afterwards it came back with %v", back)
			}
		})
	}
}

// Programs that ask for what there is not get the right words.
func TestTokenEndpoint(t *testing.T) {
	d := newSignIns(t)
	b := d.browser()
	code := newWish(acmeHost).code(d.signedIn("ann"))
	tests := []struct {
		name   string
		fields []string
		status int
		code   string
		log    string
	}{
		{"nothing", nil, 400, "invalid_request", "grant_type missing"},
		{"password", []string{"grant_type", "password", "username", "ann", "password", password, "client_id", "postern-cli"}, 400, "unsupported_grant_type", "unsupported_grant_type"},
		{"client credentials", []string{"grant_type", "client_credentials", "client_id", "postern-cli"}, 400, "unauthorized_client", "unauthorized_client"},
		{"token exchange", []string{"grant_type", "urn:ietf:params:oauth:grant-type:token-exchange", "client_id", "postern-cli", "subject_token", "x", "subject_token_type", "urn:ietf:params:oauth:token-type:access_token"}, 400, "unauthorized_client", "unauthorized_client"},
		{"JWT bearer", []string{"grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion", "x"}, 400, "unsupported_grant_type", "unsupported_grant_type"},
		{"a host's code", []string{"grant_type", "authorization_code", "client_id", acmeHost, "code", code, "redirect_uri", callback(acmeHost)}, 401, "invalid_client", "no such client"},
		{"a host's code by a program", []string{"grant_type", "authorization_code", "client_id", "postern-cli", "code", code, "redirect_uri", callback(acmeHost)}, 400, "unauthorized_client", "unauthorized_client"},
		{"a secret", []string{"grant_type", "refresh_token", "client_id", "postern-cli", "client_secret", "x", "refresh_token", "x"}, 401, "invalid_client", "no secrets"},
		{"another client", []string{"grant_type", "refresh_token", "client_id", "nobody", "refresh_token", "x"}, 401, "invalid_client", "no such client"},
		{"a parameter twice", []string{"grant_type", "refresh_token", "client_id", "postern-cli", "client_id", "other", "refresh_token", "x"}, 400, "invalid_request", "2 times"},
		{"nonsense", []string{"grant_type", "refresh_token", "client_id", "postern-cli", "refresh_token", "x"}, 400, "invalid_grant", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := b.post("/oauth/token", tt.fields...)
			a.t = t
			a.wantError(tt.status, tt.code)
			if target := clientIn(tt.fields); tt.log != "" {
				d.wantLog("token.refused", "stranger", target, tt.log)
			}
		})
	}
	req := b.request("POST", "/oauth/token", strings.NewReader("grant_type=refresh_token&refresh_token=x"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("postern-cli", "x")
	if a := b.do(req); a.status != http.StatusUnauthorized || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("by Basic: status %d, WWW-Authenticate is %q", a.status, a.header.Get("WWW-Authenticate"))
	}
	b.post("/oauth/token?grant_type=refresh_token", "client_id", "postern-cli", "refresh_token", "x").wantError(400, "invalid_request")
	d.wantLog("token.refused", "stranger", acmeHost, "no such client")
	d.wantLog("token.refused", "stranger", "the refresh token is not good")
	// The node's own channel has codes and nothing else.
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {acmeHost}, "refresh_token": {"x"}}
	d.acme.form(postern.PathToken, form).wantError(400, "unauthorized_client")
	form = url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"postern-cli"}, "device_code": {"x"}}
	d.acme.form(postern.PathToken, form).wantError(401, "invalid_client")
}

// clientIn returns the client in fields, names and values in turn.
func clientIn(fields []string) string {
	if i := slices.Index(fields, "client_id"); i >= 0 {
		return fields[i+1]
	}
	return ""
}
