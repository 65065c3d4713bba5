//go:build e2e

package e2e

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern"
)

// A visitor is a person at a browser of which a test sees every step: it keeps
// cookies, and follows no redirect by itself.
type visitor struct {
	t     testing.TB
	d     *deployment
	hc    *http.Client
	login string // at the portal; empty: nobody's
}

func (d *deployment) visitor(t testing.TB) *visitor {
	t.Helper()
	hc := d.client()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	hc.Jar = jar
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &visitor{t: t, d: d, hc: hc}
}

// member returns a visitor who is signed in at the portal with a new user of that
// login, who was granted tenant.
func (d *deployment) member(t testing.TB, login, tenant string, grant postern.GrantRequest) *visitor {
	t.Helper()
	v := d.visitor(t)
	v.login = login
	link := d.invite(login, login)
	if tenant != "" {
		d.grant(login, tenant, grant)
	}
	if at := v.walk("POST", link, url.Values{"name": {login}, "password": {rand.Text()}}); at.status != 200 || at.url.Path != "/" {
		t.Fatalf("%s's invitation led to %s, status %d: %.800s", login, at.url, at.status, at.body)
	}
	return v
}

// An answer is what came of a request.
type answer struct {
	url    *url.URL // that was asked
	status int
	header http.Header
	body   string
	trail  []*url.URL // where redirects led, url the last
}

// location returns where a redirect leads.
func (a answer) location(t testing.TB) *url.URL {
	t.Helper()
	u, err := a.url.Parse(a.header.Get("Location"))
	if err != nil || a.status/100 != 3 {
		t.Fatalf("%s answered %d and no redirect: %.500s", a.url, a.status, a.body)
	}
	return u
}

// ask makes one request as navigations are made, with a form if it is not nil;
// header is added to it.
func (v *visitor) ask(method, address string, form url.Values, header http.Header) answer {
	v.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, address, body)
	if err != nil {
		v.t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none", "Sec-Fetch-User": "?1",
	} {
		req.Header.Set(name, value)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := v.hc.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return answer{url: req.URL, status: resp.StatusCode, header: resp.Header, body: string(text)}
}

// maxSteps is how many redirects a walk may take.
const maxSteps = 15

// walk is ask that follows redirects to where they lead in the end.
func (v *visitor) walk(method, address string, form url.Values) answer {
	v.t.Helper()
	a := v.ask(method, address, form, nil)
	trail := []*url.URL{a.url}
	for range maxSteps {
		if a.status/100 != 3 {
			a.trail = trail
			return a
		}
		a = v.ask("GET", a.location(v.t).String(), nil, nil)
		trail = append(trail, a.url)
	}
	v.t.Fatalf("more than %d redirects: %s", maxSteps, trail)
	return a
}

// until walks as walk does, and returns the first address, not asked yet, that stop
// is true for.
func (v *visitor) until(address string, stop func(*url.URL) bool) *url.URL {
	v.t.Helper()
	for range maxSteps {
		a := v.ask("GET", address, nil, nil)
		next := a.location(v.t)
		if stop(next) {
			return next
		}
		address = next.String()
	}
	v.t.Fatalf("more than %d redirects, the last to %s", maxSteps, address)
	return nil
}

// isCallback tells where the portal sends a browser back to a node.
func isCallback(u *url.URL) bool { return u.Path == "/.well-known/postern/callback" }

// isAuthorize tells where a node sends a browser to the portal.
func isAuthorize(u *url.URL) bool { return u.Path == "/authorize" }

// cookie returns the cookie that requests of address carry whose name is name, or
// begins so if that ends in _; nil if there is none.
func (v *visitor) cookie(address, name string) *http.Cookie {
	v.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, c := range v.hc.Jar.Cookies(u) {
		if c.Name == name || strings.HasSuffix(name, "_") && strings.HasPrefix(c.Name, name) {
			return c
		}
	}
	return nil
}

// setCookie puts a cookie where requests of address will find it.
func (v *visitor) setCookie(address, name, value string) {
	v.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		v.t.Fatal(err)
	}
	v.hc.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: true}})
}

// Names of the product's cookies.
const (
	portalCookie = "__Host-postern_portal"
	nodeCookie   = "__Host-postern"
	stateCookie  = "__Host-postern_state_" // and an id
)

// enters opens a tenant's page, being signed in at the portal, and checks that it ends
// there.
func (v *visitor) enters(address string) answer {
	v.t.Helper()
	a := v.walk("GET", address, nil)
	if a.status != http.StatusOK || a.url.String() != address {
		v.t.Fatalf("%s led to %s with status %d: %.800s", address, a.url, a.status, a.body)
	}
	return a
}

// stream opens a stream at address, waits for its first bytes, and returns a channel
// that tells when its last ones came, once it has ended.
func (v *visitor) stream(address string) <-chan time.Time {
	v.t.Helper()
	resp, err := v.hc.Get(address)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { resp.Body.Close() })
	buf := make([]byte, 1024)
	if _, err := resp.Body.Read(buf); err != nil || resp.StatusCode != http.StatusOK {
		v.t.Fatalf("%s: status %d, %v", address, resp.StatusCode, err)
	}
	ended := make(chan time.Time, 1)
	go func() {
		defer close(ended)
		last := time.Now()
		for {
			n, err := resp.Body.Read(buf)
			if n > 0 {
				last = time.Now()
			}
			if err != nil {
				ended <- last
				return
			}
		}
	}()
	return ended
}
