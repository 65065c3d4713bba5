package node

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern"
	"postern/internal/member"
)

const testIssuer = "https://portal.test:8443"

// A testPortal is an OpenID Provider that has signed in whoever a test says. Its
// redeem is what the coordinator would answer to a node.
type testPortal struct {
	t   testing.TB
	key *ecdsa.PrivateKey
	now func() time.Time

	mu    sync.Mutex
	codes map[string]authRequest // not used yet
	away  error                  // with which redeem fails

	// forge changes the ID tokens of a test.
	forge func(header map[jose.HeaderKey]any, claims map[string]any)
	// sign makes a token in place of ES256 and key.
	sign func(header map[jose.HeaderKey]any, claims map[string]any) string
}

// An authRequest is what was asked of the authorization endpoint, and for whom.
type authRequest struct {
	query url.Values
	user  testUser
}

// A testUser is somebody at the portal.
type testUser struct {
	id, sid string
	since   time.Time
}

func newTestPortal(t testing.TB, now func() time.Time) *testPortal {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &testPortal{t: t, key: key, now: now, codes: map[string]authRequest{}}
}

// told returns the portal as the map tells of it.
func (p *testPortal) told() *postern.Portal {
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		p.t.Fatal(err)
	}
	return &postern.Portal{Issuer: testIssuer, Keys: keys}
}

// authorize answers what a node sent a browser there with, and returns the URL that
// the browser is sent back to.
func (p *testPortal) authorize(location string, user testUser) string {
	p.t.Helper()
	u, err := url.Parse(location)
	if err != nil || u.Scheme+"://"+u.Host != testIssuer || u.Path != "/authorize" {
		p.t.Fatalf("the browser was sent to %q, %v", location, err)
	}
	code := newSecret()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes[code] = authRequest{u.Query(), user}
	return u.Query().Get("redirect_uri") + "?" + url.Values{"code": {code}, "state": {u.Query().Get("state")}}.Encode()
}

func (p *testPortal) redeem(_ context.Context, form url.Values) (member.Tokens, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away != nil {
		return member.Tokens{}, p.away
	}
	req, ok := p.codes[form.Get("code")]
	delete(p.codes, form.Get("code"))
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	if !ok || form.Get("grant_type") != "authorization_code" || form.Get("client_id") != req.query.Get("client_id") ||
		form.Get("redirect_uri") != req.query.Get("redirect_uri") ||
		base64.RawURLEncoding.EncodeToString(sum[:]) != req.query.Get("code_challenge") || req.query.Get("code_challenge_method") != "S256" {
		return member.Tokens{}, &member.TokenError{Code: "invalid_grant"}
	}
	const access = "an access token"
	hash := sha256.Sum256([]byte(access))
	header := map[jose.HeaderKey]any{"typ": "JWT", "kid": "k1"}
	claims := map[string]any{
		"iss": testIssuer, "sub": req.user.id, "aud": req.query.Get("client_id"), "nonce": req.query.Get("nonce"),
		"sid": req.user.sid, "auth_time": req.user.since.Unix(), "amr": []string{"pwd"}, "tenant": "acme",
		"iat": p.now().Unix(), "exp": p.now().Add(5 * time.Minute).Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(hash[:16]),
	}
	if p.forge != nil {
		p.forge(header, claims)
	}
	return member.Tokens{IDToken: p.token(header, claims), AccessToken: access}, nil
}

// token signs claims.
func (p *testPortal) token(header map[jose.HeaderKey]any, claims map[string]any) string {
	if p.sign != nil {
		return p.sign(header, claims)
	}
	return signToken(p.t, jose.ES256, p.key, header, claims)
}

func signToken(t testing.TB, alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, &jose.SignerOptions{ExtraHeaders: header})
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// access returns an access token for a user at audience, with other claims if forge
// says so.
func (p *testPortal) access(user testUser, audience string, forge func(header map[jose.HeaderKey]any, claims map[string]any)) string {
	header := map[jose.HeaderKey]any{"typ": "at+jwt", "kid": "k1"}
	claims := map[string]any{
		"iss": testIssuer, "sub": user.id, "aud": audience, "sid": user.sid, "auth_time": user.since.Unix(), "client_id": "postern-cli",
		"scope": "openid", "tenant": "acme", "iat": p.now().Unix(), "exp": p.now().Add(10 * time.Minute).Unix(),
	}
	if forge != nil {
		forge(header, claims)
	}
	return p.token(header, claims)
}

// A clock is the time that a test says that it is.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// An office is a site whose people sign in at a testPortal.
type office struct {
	*site
	t      *testing.T
	portal *testPortal
	clock  *clock

	mu sync.Mutex
	on table // the one in force
}

// Ann may open what members may, Bob is in the group accounting, Carol manages the
// others, and Dave is of another company.
var (
	ann   = postern.Person{ID: "u-ann", Login: "ann@acme.test", Name: "Ann Müller", Role: postern.TenantMember}
	bob   = postern.Person{ID: "u-bob", Login: "bob", Role: postern.TenantMember, Groups: []string{"accounting", "sales"}}
	carol = postern.Person{ID: "u-carol", Login: "carol", Role: postern.TenantAdmin}
)

// user returns p at the portal, in a session of their own.
func (o *office) user(p postern.Person) testUser {
	return testUser{id: p.ID, sid: "sid-" + p.ID, since: o.clock.time()}
}

// newOffice serves hosts, which are for members unless they say otherwise.
func newOffice(t *testing.T, hosts map[string]Service) *office {
	t.Helper()
	return newOfficeWith(t, hosts, serverConfig{})
}

func newOfficeWith(t *testing.T, hosts map[string]Service, cfg serverConfig) *office {
	t.Helper()
	o := &office{t: t, clock: &clock{now: time.Now().Truncate(time.Second)}}
	o.portal = newTestPortal(t, o.clock.time)
	o.on = *newTable(t, private(hosts))
	o.on.tenant, o.on.port = "acme", 8443
	o.on.people = people(ann, bob, carol)
	var err error
	if o.on.portal, err = newPortal(o.portal.told()); err != nil {
		t.Fatal(err)
	}
	cfg.redeem, cfg.now = o.portal.redeem, o.clock.time
	cfg.grantWait = cmp.Or(cfg.grantWait, 20*time.Millisecond)
	tab := o.on
	o.site = serveWith(t, SourceCA, &tab, cfg)
	return o
}

// private returns hosts with the access that services have by default, which newTable
// has not.
func private(hosts map[string]Service) map[string]Service {
	out := map[string]Service{}
	for host, s := range hosts {
		if s.Access == "" {
			s.Access = postern.AccessMembers
		}
		out[host] = s
	}
	return out
}

func people(list ...postern.Person) map[string]*postern.Person {
	byID := map[string]*postern.Person{}
	for _, p := range list {
		byID[p.ID] = &p
	}
	return byID
}

// change puts another table into force.
func (o *office) change(change func(t *table)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(&o.on)
	tab := o.on
	o.setTable(&tab)
}

// browser returns a client that keeps cookies.
func (o *office) browser(version int) *http.Client {
	c := o.client(o.t, version)
	jar, err := cookiejar.New(nil)
	if err != nil {
		o.t.Fatal(err)
	}
	c.Jar = jar
	return c
}

// navigation is what a browser says of itself when somebody follows a link.
var navigation = []string{"Accept", acceptBrowser, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Fetch-Site", "cross-site"}

// signIn signs user in at host, by c, and returns where that led to.
func (o *office) signIn(c *http.Client, host string, user testUser) string {
	o.t.Helper()
	resp, body := get(o.t, c, "https://"+host+pathLogin+"?iss="+url.QueryEscape(testIssuer), navigation...)
	if resp.StatusCode != http.StatusSeeOther {
		o.t.Fatalf("the sign-in begins with %d %s", resp.StatusCode, body)
	}
	resp, body = get(o.t, c, o.back(resp, user), navigation...)
	if resp.StatusCode != http.StatusSeeOther {
		o.t.Fatalf("the sign-in ends with %d %s", resp.StatusCode, body)
	}
	return resp.Header.Get("Location")
}

// back returns what the portal sends a browser back to that was sent there by resp.
// The port is left out: the tests' connections have none.
func (o *office) back(resp *http.Response, user testUser) string {
	o.t.Helper()
	return strings.Replace(o.portal.authorize(resp.Header.Get("Location"), user), ":8443/", "/", 1)
}

// signedIn returns a browser with somebody signed in at host.
func (o *office) signedIn(host string, p postern.Person) *http.Client {
	o.t.Helper()
	c := o.browser(2)
	o.signIn(c, host, o.user(p))
	return c
}

// cookies returns the cookies that c has for host, by name.
func cookies(c *http.Client, host string) map[string]string {
	out := map[string]string{}
	for _, k := range c.Jar.Cookies(&url.URL{Scheme: "https", Host: host, Path: "/"}) {
		out[k.Name] = k.Value
	}
	return out
}

// echo is an application that tells what it was asked, and by whom.
func echo(w http.ResponseWriter, r *http.Request) {
	header := map[string]string{}
	for name := range r.Header {
		header[name] = strings.Join(r.Header[name], "|")
	}
	writeJSON(w, http.StatusOK, heard{r.Method, r.URL.RequestURI(), header})
}

// heard is what echo tells.
type heard struct {
	Method, URI string
	Header      map[string]string
}

func hear(t *testing.T, body string) heard {
	t.Helper()
	var h heard
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Fatalf("the application's answer %q: %v", body, err)
	}
	return h
}
