package portal_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern"
	"postern/coordinator"
	"postern/coordinator/portal"
	"postern/coordinator/sqlite"
	"postern/internal/dnscheck"
	"postern/internal/dnscheck/dnstest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the OpenID library's
	goleak.VerifyTestMain(m)
}

const (
	base     = "apps.test"
	password = "correct horse battery"
)

// A clock is everybody's time, moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// A deployment is a coordinator that serves on loopback, with its portal.
type deployment struct {
	*coordinator.Coordinator
	t     *testing.T
	addr  string
	ca    []byte // of the private CA
	clock *clock
	dns   *dnstest.Server // knows nothing at first
	disk  *disk
	stop  func()
}

// A disk is a store that can be made to fail.
type disk struct {
	coordinator.Store
	left atomic.Int64 // reads and writes until one fails; below 1: none will
}

var errDisk = errors.New("the disk failed")

func (s *disk) View(ctx context.Context, fn func(coordinator.Tx) error) error {
	if s.left.Add(-1) == 0 {
		return errDisk
	}
	return s.Store.View(ctx, fn)
}

func (s *disk) Update(ctx context.Context, fn func(coordinator.Tx) error) error {
	if s.left.Add(-1) == 0 {
		return errDisk
	}
	return s.Store.Update(ctx, fn)
}

// deploy makes a deployment of what change, if not nil, makes of the portal's settings.
func deploy(t *testing.T, change func(*portal.Config)) *deployment {
	t.Helper()
	d := &deployment{t: t, clock: &clock{at: time.Now()}, dns: dnstest.New(t, "")}
	dir := t.TempDir()
	store, err := sqlite.Open(t.Context(), filepath.Join(dir, "registry.db"))
	must(t, err)
	d.disk = &disk{Store: store}
	authority, err := coordinator.OpenAuthority(filepath.Join(dir, "authority"), base, d.clock.now)
	must(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	d.addr, d.ca = ln.Addr().String(), authority.CA()
	resolver, err := dnscheck.New(d.dns.Addr)
	must(t, err)
	d.Coordinator, err = coordinator.New(coordinator.Config{
		Store: d.disk, Authority: authority, Base: base, Port: 8443, Now: d.clock.now, Resolver: resolver,
	})
	must(t, err)
	cfg := portal.Config{Coordinator: d.Coordinator, Now: d.clock.now}
	if change != nil {
		change(&cfg)
	}
	p, err := portal.New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Serve(ctx, ln, p); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	d.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(d.stop)
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// user makes a user, who is granted nothing and has no password: hashing is slow.
func (d *deployment) user(login string) postern.UserState {
	d.t.Helper()
	u, err := d.Local().AddUser(d.t.Context(), postern.UserRequest{Login: login})
	must(d.t, err)
	return u
}

// typist makes a user with the password.
func (d *deployment) typist(login string) postern.UserState {
	d.t.Helper()
	u := d.user(login)
	_, err := d.Accept(d.t.Context(), d.invitation(u.ID), "", password, nil)
	must(d.t, err)
	return u
}

// member makes a user with a role in tenant.
func (d *deployment) member(login, tenant, role string) postern.UserState {
	d.t.Helper()
	u := d.user(login)
	_, err := d.Local().Grant(d.t.Context(), u.ID, tenant, postern.GrantRequest{Role: role})
	must(d.t, err)
	return u
}

// operator makes an operator of the whole deployment.
func (d *deployment) operator(login string) postern.UserState {
	d.t.Helper()
	u, err := d.Local().AddUser(d.t.Context(), postern.UserRequest{Login: login, Operator: true})
	must(d.t, err)
	return u
}

// invitation returns the secret of a new invitation.
func (d *deployment) invitation(user string) string {
	d.t.Helper()
	i, err := d.Local().InviteUser(d.t.Context(), user)
	must(d.t, err)
	_, secret, ok := strings.Cut(i.URL, "/invite/")
	if !ok {
		d.t.Fatalf("invitation URL is %q", i.URL)
	}
	return secret
}

func (d *deployment) tenant(name, title string) {
	d.t.Helper()
	_, err := d.Local().AddTenant(d.t.Context(), postern.TenantRequest{Name: name, Title: title})
	must(d.t, err)
}

// wantLog fails the test if no entry of the audit log with that action has all words.
func (d *deployment) wantLog(action string, words ...string) {
	d.t.Helper()
	entries, err := d.Local().Audit(d.t.Context(), coordinator.AuditQuery{Action: action, Limit: 1000})
	must(d.t, err)
	var said []string
	for _, e := range entries {
		line := fmt.Sprint(e.Actor, " ", e.Action, " ", e.Tenant, " ", e.Target, " ", e.Detail)
		said = append(said, line)
		if hasAll(line, words) {
			return
		}
	}
	d.t.Errorf("no entry %s with %q in the audit log; there are %q", action, words, said)
}

func hasAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// A browser keeps cookies and does not follow redirects.
type browser struct {
	d      *deployment
	t      *testing.T
	client *http.Client
	header http.Header // of all requests
}

func (d *deployment) browser() *browser {
	jar, err := cookiejar.New(nil)
	must(d.t, err)
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // who answers is not what these tests are about
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, d.addr)
		},
	}
	d.t.Cleanup(tr.CloseIdleConnections)
	return &browser{
		d: d, t: d.t, client: &http.Client{Transport: tr, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		header: http.Header{"Accept": {"text/html,*/*"}, "User-Agent": {"Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0 Safari/537.36"}, "Sec-Fetch-Site": {"same-origin"}},
	}
}

// signedIn returns a browser in which the user with login is signed in.
func (d *deployment) signedIn(login string) *browser {
	d.t.Helper()
	b := d.browser()
	u, err := d.Local().User(d.t.Context(), login)
	must(d.t, err)
	secret, _, err := d.StartSession(d.t.Context(), coordinator.SignIn{
		User: u.ID, Methods: []string{"pwd"}, Agent: b.header.Get("User-Agent"), Remote: netip.MustParseAddr("127.0.0.1"),
	})
	must(d.t, err)
	b.keep("__Host-postern_portal", secret)
	return b
}

// keep gives b a cookie.
func (b *browser) keep(name, value string) {
	b.t.Helper()
	at, err := url.Parse(b.d.PortalURL())
	must(b.t, err)
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: name, Value: value, Secure: true, Path: "/"}})
}

// An answer is one response, read.
type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   string
}

// request returns a request for path, with form in the body if it is a POST.
func (b *browser) request(method, path string, body io.Reader) *http.Request {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.d.PortalURL()+path, body)
	must(b.t, err)
	req.Header = b.header.Clone()
	return req
}

func (b *browser) do(req *http.Request) *answer {
	b.t.Helper()
	resp, err := b.client.Do(req)
	must(b.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(b.t, err)
	return &answer{b.t, req.Method + " " + req.URL.RequestURI(), resp.StatusCode, resp.Header, string(body)}
}

func (b *browser) get(path string) *answer {
	b.t.Helper()
	return b.do(b.request("GET", path, nil))
}

// post sends a form of names and values in turn.
func (b *browser) post(path string, fields ...string) *answer {
	b.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	req := b.request("POST", path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(req)
}

// ask sends in, if not nil, as JSON, as a script does, and decodes the answer into
// out, if it is a 200.
func (b *browser) ask(path string, in, out any) *answer {
	b.t.Helper()
	data, err := json.Marshal(in)
	must(b.t, err)
	req := b.request("POST", path, strings.NewReader(string(data)))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	a := b.do(req)
	if out != nil && a.status == http.StatusOK {
		must(b.t, json.Unmarshal([]byte(a.body), out))
	}
	return a
}

// cookie returns the value of the cookie called name, "" if there is none.
func (b *browser) cookie(name string) string {
	at, err := url.Parse(b.d.PortalURL())
	must(b.t, err)
	for _, c := range b.client.Jar.Cookies(at) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// want fails the test now if a is of another status, or lacks one of the texts.
func (a *answer) want(status int, texts ...string) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: got status %d, want %d: %s", a.what, a.status, status, a.text())
	}
	a.wantChallenge()
	for _, text := range texts {
		if !strings.Contains(a.text(), text) {
			a.t.Fatalf("%s: no %q in %s", a.what, text, a.text())
		}
	}
	return a
}

// wantChallenge fails the test if a is a 401 that says nothing of how to sign in (RFC
// 9110, section 11.6.1).
func (a *answer) wantChallenge() {
	a.t.Helper()
	if got := a.header.Get("WWW-Authenticate") != ""; got != (a.status == http.StatusUnauthorized) {
		a.t.Errorf("%s: status %d, WWW-Authenticate is %q", a.what, a.status, a.header.Get("WWW-Authenticate"))
	}
}

func (a *answer) wantNot(texts ...string) *answer {
	a.t.Helper()
	for _, text := range texts {
		if strings.Contains(a.text(), text) {
			a.t.Fatalf("%s: %q should not be in %s", a.what, text, a.text())
		}
	}
	return a
}

// wantTo fails the test now if a is no redirect to location.
func (a *answer) wantTo(location string) *answer {
	a.t.Helper()
	a.want(http.StatusSeeOther)
	if got := a.header.Get("Location"); got != location {
		a.t.Fatalf("%s: leads to %q, want %q", a.what, got, location)
	}
	return a
}

// wantProblem fails the test now if a is no Problem with that code.
func (a *answer) wantProblem(status int, code string) *postern.Problem {
	a.t.Helper()
	a.want(status)
	p := new(postern.Problem)
	if err := json.Unmarshal([]byte(a.body), p); err != nil || p.Code != code || p.Status != status || p.Detail == "" {
		a.t.Fatalf("%s: got %q (%v), want a problem with code %q", a.what, a.body, err, code)
	}
	return p
}

var (
	tags     = regexp.MustCompile(`<[^>]*>`)
	spaces   = regexp.MustCompile(`\s+`)
	entities = strings.NewReplacer("&#39;", "'", "&#34;", `"`, "&amp;", "&", "&lt;", "<", "&gt;", ">", "&#43;", "+")
)

// text returns a's body without its tags, if it is HTML.
func (a *answer) text() string {
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		return a.body
	}
	return entities.Replace(spaces.ReplaceAllString(tags.ReplaceAllString(a.body, " "), " "))
}

// find returns the first group of pattern in a's body.
func (a *answer) find(pattern string) string {
	a.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(a.body)
	if m == nil {
		a.t.Fatalf("%s: nothing matches %s in %s", a.what, pattern, a.body)
	}
	return entities.Replace(m[1])
}

// eventually waits until ok, and fails the test if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}
