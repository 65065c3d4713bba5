//go:build e2e

package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern"
)

// newSignIns returns an estate with somebody at each tenant, signed in at the portal.
func newSignIns(t *testing.T) (e *estate, ann, bob *visitor) {
	t.Helper()
	e = newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": membersOnly})
	ann = e.member(t, "ann", "acme", postern.GrantRequest{Groups: []string{"accounting"}})
	bob = e.member(t, "bob", "globex", postern.GrantRequest{Role: postern.TenantOwner})
	return e, ann, bob
}

// A request for a code, as a node makes it, and what proves who made it.
type codeRequest struct {
	host, verifier, nonce, state string
	url                          string // at the portal
}

// codeFor returns a request for a code that is good at host.
func (d *deployment) codeFor(host string) codeRequest {
	r := codeRequest{host: host, verifier: rand.Text() + rand.Text(), nonce: rand.Text(), state: rand.Text()}
	sum := sha256.Sum256([]byte(r.verifier))
	r.url = d.portal("/authorize?" + url.Values{
		"client_id": {host}, "redirect_uri": {d.callback(host)}, "response_type": {"code"}, "scope": {"openid profile"},
		"state": {r.state}, "nonce": {r.nonce}, "code_challenge_method": {"S256"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])},
	}.Encode())
	return r
}

// callback is where the portal sends browsers back to host.
func (d *deployment) callback(host string) string {
	return fmt.Sprintf("https://%s:%d/.well-known/postern/callback", host, d.https)
}

// redeem asks the coordinator for the tokens of a code, as s.
func (s *stranger) redeem(r codeRequest, code string) (postern.Problem, map[string]any) {
	s.d.t.Helper()
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "client_id": {r.host},
		"redirect_uri": {s.d.callback(r.host)}, "code_verifier": {r.verifier},
	}
	resp, err := s.client().PostForm("https://"+loopback(s.d.control)+postern.PathToken, form)
	if err != nil {
		s.d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		postern.Problem
		Error   string `json:"error"`
		IDToken string `json:"id_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		s.d.t.Fatalf("status %d: %v", resp.StatusCode, err)
	}
	if resp.StatusCode != http.StatusOK {
		if answer.IDToken != "" {
			s.d.t.Errorf("a refusal of status %d has an ID token in it", resp.StatusCode)
		}
		answer.Problem.Status = resp.StatusCode
		if answer.Code == "" {
			answer.Code = answer.Error
		}
		return answer.Problem, nil
	}
	token, err := jwt.ParseSigned(answer.IDToken, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		s.d.t.Fatal(err)
	}
	claims := map[string]any{"raw": answer.IDToken}
	if err := token.UnsafeClaimsWithoutVerification(&claims); err != nil {
		s.d.t.Fatal(err)
	}
	return postern.Problem{}, claims
}

// publishes joins a stranger to a tenant and publishes one service as it.
func (d *deployment) publishes(tenant, service string) *stranger {
	d.t.Helper()
	s := newStranger(d, d.token(tenant)).mustJoin(service)
	p := postern.Publication{Services: []postern.Service{{Name: service}}}
	if err := s.ask("PUT", postern.PathServices, p, nil); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// I9: the portal lists what is permitted and nothing else; whoever may not open a
// host gets no code for it; a code is good at its host's node alone, and what it
// buys tells of that tenant alone and is good for nothing elsewhere.
func TestIsolationI9Permitted(t *testing.T) {
	e, ann, bob := newSignIns(t)
	tries := 0
	for _, test := range []struct {
		who               *visitor
		own, other, title string
	}{{ann, "acme", "globex", "Globex"}, {bob, "globex", "acme", "Acme"}} {
		tries++
		eventually(t, pageTime, func() error { // a gateway tells that a node is there once it sees its tunnel
			page := test.who.enters(e.portal("/"))
			if strings.Contains(page.body, test.title) {
				t.Errorf("the catalogue of %s's person: %s", test.own, page.body)
			}
			if !strings.Contains(page.body, "/open/"+test.own+"/") {
				return fmt.Errorf("the catalogue lacks what is open to %s's person: %s", test.own, page.body)
			}
			return nil
		})
		test.who.enters(e.url(test.own, "/"))
		// By the portal, by the node, and straight at the provider.
		for _, at := range []string{
			e.portal("/open/" + test.other + "/default"), e.url(test.other, "/"), e.codeFor(test.other + "." + base).url,
		} {
			tries++
			a := test.who.walk("GET", at, nil)
			for _, step := range a.trail {
				if step.Query().Has("code") {
					t.Errorf("%s's person got a code at %s", test.own, step)
				}
			}
			if a.status != 403 {
				t.Errorf("%s's person at %s: status %d at %s", test.own, at, a.status, a.url)
			}
		}
	}
	if len(e.audited("authorize.refused")) < 4 || len(e.audited("open.refused")) != 2 {
		t.Errorf("the audit log has %v and %v", e.audited("authorize.refused"), e.audited("open.refused"))
	}
	passed(t, "I9 only what is permitted", tries+e.codesAreForOne(ann))
}

// codesAreForOne takes codes for a node of acme to others.
func (e *estate) codesAreForOne(ann *visitor) int {
	t := e.t
	t.Helper()
	host := "spare.acme." + base
	own, same, foreign := e.publishes("acme", "spare"), e.publishes("acme", "other"), e.publishes("globex", "spare")
	code := func(r codeRequest) string {
		t.Helper()
		back := ann.until(r.url, isCallback)
		if got := back.Query().Get("state"); got != r.state || back.Host != fmt.Sprintf("%s:%d", host, e.https) {
			t.Fatalf("the code came to %s", back)
		}
		return back.Query().Get("code")
	}
	r := e.codeFor(host)
	problem, claims := own.redeem(r, code(r))
	if claims == nil {
		t.Fatalf("its own node cannot redeem a code: %+v", problem)
	}
	if claims["aud"] != host && !slices.Equal(claims["aud"].([]any), []any{host}) || claims["nonce"] != r.nonce || claims["tenant"] != "acme" {
		t.Errorf("the ID token is %v", claims)
	}
	if text := fmt.Sprint(claims); strings.Contains(text, "globex") || !strings.Contains(text, "accounting") || !strings.Contains(text, postern.TenantMember) {
		t.Errorf("the ID token says %v", claims)
	}
	tries := 1
	for name, who := range map[string]*stranger{"another node of the tenant": same, "another tenant's node": foreign} {
		for _, as := range []string{host, "spare.globex." + base, "other.acme." + base} {
			tries++
			r := e.codeFor(host)
			c := code(r)
			claimed := r
			claimed.host = as
			if problem, claims := who.redeem(claimed, c); claims != nil || problem.Status/100 != 4 {
				t.Errorf("%s redeemed a code as %s: %+v %v", name, as, problem, claims)
			}
		}
	}
	// The ID token is no ticket: not where it is for, and not elsewhere.
	for _, tenant := range []string{"acme", "globex"} {
		tries++
		raw, _ := claims["raw"].(string)
		a := e.visitor(t).ask("GET", e.url(tenant, "/seen"), nil, http.Header{"Authorization": {"Bearer " + raw}, "Accept": {"application/json"}, "Sec-Fetch-Mode": {"cors"}})
		if a.status != http.StatusUnauthorized {
			t.Errorf("an ID token at %s: status %d %s", tenant, a.status, a.body)
		}
	}
	return tries
}

// asProgram are headers of a request that no person makes by hand.
func asProgram(authorization string) http.Header {
	return http.Header{"Authorization": {authorization}, "Accept": {"application/json"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}
}

// I10: a session or a token of one tenant is worth nothing at another.
func TestIsolationI10Session(t *testing.T) {
	e, ann, bob := newSignIns(t)
	acme, globex := e.url("acme", "/seen"), e.url("globex", "/seen")
	ann.enters(acme)
	bob.enters(globex)
	tries := 0
	for _, test := range []struct {
		from          *visitor
		at, elsewhere string
	}{{ann, acme, globex}, {bob, globex, acme}} {
		for name, held := range map[string]*http.Cookie{
			nodeCookie: test.from.cookie(test.at, nodeCookie), portalCookie: test.from.cookie(e.portal("/"), portalCookie),
		} {
			if held == nil {
				t.Fatalf("there is no cookie %s", name)
			}
			tries++
			thief := e.visitor(t)
			thief.setCookie(test.elsewhere, nodeCookie, held.Value)
			if a := thief.ask("GET", test.elsewhere, nil, asProgram("")); a.status != http.StatusUnauthorized {
				t.Errorf("the value of %s at %s: status %d %s", name, test.elsewhere, a.status, a.body)
			}
			if a := thief.ask("GET", test.elsewhere, nil, nil); a.status/100 != 3 || !isLogin(a.location(t)) {
				t.Errorf("the value of %s at %s: status %d %s", name, test.elsewhere, a.status, a.body)
			}
		}
		tries += 2
		token := test.from.token(test.at)
		stranger := e.visitor(t)
		if a := stranger.ask("GET", test.at, nil, asProgram("Bearer "+token)); a.status != http.StatusOK {
			t.Errorf("a token at its own tenant: status %d %s", a.status, a.body)
		}
		if a := stranger.ask("GET", test.elsewhere, nil, asProgram("Bearer "+token)); a.status != http.StatusUnauthorized {
			t.Errorf("a token of another tenant: status %d %s", a.status, a.body)
		}
	}
	passed(t, "I10 sessions and tokens elsewhere", tries)
}

// isLogin tells where somebody is sent who has to sign in: to the portal, or to the
// node's own page that leads there.
func isLogin(u *url.URL) bool { return isAuthorize(u) || u.Path == "/.well-known/postern/login" }

// token makes a personal token at the node of address, which v is signed in at.
func (v *visitor) token(address string) string {
	v.t.Helper()
	at, err := url.Parse(address)
	if err != nil {
		v.t.Fatal(err)
	}
	a := v.walk("POST", "https://"+at.Host+"/.well-known/postern/tokens", url.Values{"name": {"test"}, "scope": {"write"}, "days": {"7"}})
	_, rest, ok := strings.Cut(a.body, "pst_pat_")
	end := strings.IndexFunc(rest, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", r)
	})
	if !ok || end < 0 {
		v.t.Fatalf("no token, but status %d: %.800s", a.status, a.body)
	}
	return "pst_pat_" + rest[:end]
}

// I11: no certificate covers two names that lead to different places, the portal's
// among them, and nobody answers for another.
func TestIsolationI11Certificates(t *testing.T) {
	s := newStreet(t)
	roots := s.roots()
	hosts := []string{"portal." + base}
	for host := range s.sites {
		hosts = append(hosts, host)
	}
	tries := 0
	for _, name := range hosts {
		for _, proto := range []string{"http/1.1", "h2"} {
			conn, err := s.handshake(roots, name, proto) // checks that there is one name, and this one
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			leaf := conn.ConnectionState().PeerCertificates[0]
			conn.Close()
			for _, other := range append(hosts, "*."+base, "x."+base, base) {
				tries++
				if leaf.VerifyHostname(other) == nil && other != name {
					t.Errorf("the certificate of %s is good for %s, too", name, other)
				}
			}
			for _, other := range hosts {
				if other == name {
					continue
				}
				tries++
				if status, body, err := s.visit(roots, name, other, proto); err != nil || status != http.StatusMisdirectedRequest {
					t.Errorf("%s, asked for %s over %s: status %d %q %v", name, other, proto, status, body, err)
				}
			}
		}
	}
	passed(t, "I11 certificates and names that are not theirs", tries)
}
