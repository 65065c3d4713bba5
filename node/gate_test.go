package node

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
)

// program is what a script or an API client says of itself.
var program = []string{"Accept", "application/json"}

func TestWhoGetsThrough(t *testing.T) {
	app := func(s Service) Service { s.Upstream = application(t, echo); return s }
	o := newOffice(t, map[string]Service{
		"members.test": app(Service{}),
		"public.test":  app(Service{Access: postern.AccessPublic}),
		"group.test":   app(Service{Access: postern.AccessGroups, Groups: []string{"accounting"}}),
		"mixed.test": app(Service{Exceptions: []Exception{
			{Path: "/hooks/", Access: postern.AccessPublic}, {Path: "/ledger/", Access: postern.AccessGroups, Groups: []string{"accounting"}},
		}}),
		"only.test": app(Service{Name: "only"}),
		"gone.test": {},
	})
	limited := ann
	limited.ID, limited.Services = "u-eve", []string{"other"}
	o.change(func(t *table) { t.people = people(ann, bob, carol, limited) })
	clients := map[string]func(host string) *http.Client{
		"nobody": func(string) *http.Client { return o.browser(2) },
		"ann":    func(host string) *http.Client { return o.signedIn(host, ann) },
		"bob":    func(host string) *http.Client { return o.signedIn(host, bob) },
		"carol":  func(host string) *http.Client { return o.signedIn(host, carol) },
		"eve":    func(host string) *http.Client { return o.signedIn(host, limited) },
	}
	tests := []struct {
		host, path string
		passes     []string // the others are turned away
	}{
		{"members.test", "/", []string{"ann", "bob", "carol"}},
		{"public.test", "/", []string{"ann", "bob", "carol", "eve", "nobody"}},
		{"group.test", "/", []string{"bob", "carol"}},
		{"mixed.test", "/x", []string{"ann", "bob", "carol"}},
		{"mixed.test", "/hooks/github", []string{"ann", "bob", "carol", "eve", "nobody"}},
		{"mixed.test", "/hooks%2Fgithub", []string{"bob", "carol"}},
		{"mixed.test", "/hooks/..%2Fx", []string{"bob", "carol"}},
		{"mixed.test", "/hooks/%2e%2e/x", []string{"bob", "carol"}},
		{"mixed.test", "/hooks/..;/x", []string{"bob", "carol"}},
		{"mixed.test", "/Hooks/x", []string{"ann", "bob", "carol"}},
		{"mixed.test", "/ledger/2026", []string{"bob", "carol"}},
		{"mixed.test", "/LEDGER/2026", []string{"bob", "carol"}},
		{"mixed.test", "/ledger", []string{"bob", "carol"}},
		{"only.test", "/", []string{"ann", "bob", "carol"}},
	}
	for _, tt := range tests {
		for who, client := range clients {
			t.Run(strings.Join([]string{tt.host, tt.path, who}, " "), func(t *testing.T) {
				c := client(tt.host)
				want := slices.Contains(tt.passes, who)
				resp, body := get(t, c, "https://"+tt.host+tt.path, program...)
				switch {
				case want:
					if resp.StatusCode != http.StatusOK {
						t.Fatalf("got %d %s", resp.StatusCode, body)
					}
					login := hear(t, body).Header[headerUserID]
					if wantLogin := map[bool]string{true: "", false: "u-" + who}[who == "nobody"]; login != wantLogin {
						t.Errorf("the application heard of %q", login)
					}
				case who == "nobody":
					if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != `Bearer realm="`+tt.host+`"` {
						t.Errorf("got %d %v", resp.StatusCode, resp.Header)
					}
					checkProblem(t, resp, body, 401, postern.CodeUnauthorized)
				default:
					checkProblem(t, resp, body, 403, postern.CodeForbidden)
					if resp.StatusCode != 403 || resp.Header.Get("WWW-Authenticate") != "" {
						t.Errorf("got %d %v", resp.StatusCode, resp.Header)
					}
				}
			})
		}
	}
	if resp, body := get(t, o.browser(2), "https://gone.test/", navigation...); resp.StatusCode != 404 {
		t.Errorf("what is not published: %d %s", resp.StatusCode, body)
	}
}

// What helps: a redirect where a browser fills a tab, an answer everywhere else.
func TestNavigations(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	html := []string{"Accept", acceptBrowser}
	add := func(list []string, more ...string) []string { return append(slices.Clone(list), more...) }
	tests := []struct {
		name, method string
		header       []string
		status       int
		html         bool
	}{
		{"a link", "GET", navigation, 303, false},
		{"a link, looked at", "HEAD", navigation, 303, false},
		{"an old browser", "GET", html, 303, false},
		{"a form", "POST", navigation, 401, true},
		{"an old browser's form", "POST", html, 401, true},
		{"a frame", "GET", add(html, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), 401, true},
		{"looked at in advance", "GET", add(navigation, "Sec-Purpose", "prefetch;prerender"), 401, true},
		{"fetch", "GET", []string{"Accept", "*/*", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, 401, false},
		{"fetch of a page", "GET", add(html, "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"), 401, true},
		{"an image", "GET", []string{"Accept", "image/*", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 401, false},
		{"a WebSocket", "GET", []string{"Sec-Fetch-Mode", "websocket", "Connection", "Upgrade", "Upgrade", "websocket"}, 401, false},
		{"curl", "GET", []string{"Accept", "*/*"}, 401, false},
		{"an API client", "DELETE", program, 401, false},
		{"nothing said", "GET", nil, 401, false},
		{"a preflight", "OPTIONS", []string{"Origin", "https://evil.test", "Access-Control-Request-Method", "PUT", "Sec-Fetch-Mode", "cors"}, 401, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, "https://a.test/x?y=z", nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(tt.header); i += 2 {
				req.Header.Set(tt.header[i], tt.header[i+1])
			}
			resp, body := do(t, o.browser(1), req)
			if resp.StatusCode != tt.status || resp.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("got %d %v %s", resp.StatusCode, resp.Header, body)
			}
			switch {
			case tt.status == 303:
				if !strings.HasPrefix(resp.Header.Get("Location"), testIssuer+"/authorize?") {
					t.Errorf("it leads to %q", resp.Header.Get("Location"))
				}
			case resp.Header.Get("WWW-Authenticate") == "" || len(resp.Cookies()) > 0:
				t.Errorf("header is %v", resp.Header)
			case tt.html:
				checkHTML2(t, resp, body)
				if strings.Contains(body, `href="/x?y=z"`) != (tt.method == "GET") {
					t.Errorf("the page's links: %s", body)
				}
			case tt.method != "HEAD":
				checkProblem(t, resp, body, 401, postern.CodeUnauthorized)
				if !strings.Contains(body, testIssuer) {
					t.Errorf("it does not say where to sign in: %s", body)
				}
			}
		})
	}
}

func TestNotAllowed(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Title: "Pay <roll>", Access: postern.AccessGroups, Groups: []string{"pay"}, Handler: http.NotFoundHandler()}})
	resp, body := get(t, o.signedIn("a.test", ann), "https://a.test/", navigation...)
	checkHTML2(t, resp, body)
	for _, want := range []string{
		"Not for you", "Ann Müller (ann@acme.test)", `action="/.well-known/postern/logout"`, `href="` + testIssuer + `/"`, "Pay &lt;roll&gt;",
	} {
		if resp.StatusCode != 403 || !strings.Contains(body, want) {
			t.Errorf("%d, the page lacks %q: %s", resp.StatusCode, want, body)
		}
	}
	if got := resp.Header.Get("Content-Security-Policy"); !strings.HasSuffix(got, "form-action 'self'") {
		t.Errorf("Content-Security-Policy is %q", got)
	}
}

func TestNoPortal(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	o.change(func(t *table) { t.portal = nil })
	for _, path := range []string{"/", pathLogin, pathCallback} {
		resp, body := get(t, o.browser(2), "https://a.test"+path, navigation...)
		if resp.StatusCode != 503 || !strings.Contains(body, "Nobody can sign in yet") || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
		resp, body = get(t, o.browser(2), "https://a.test"+path, program...)
		checkProblem(t, resp, body, 503, postern.CodeUnavailable)
	}
}

// Whatever comes from outside under the node's names is gone before the application
// hears it.
func TestNobodySpeaksForTheNode(t *testing.T) {
	o := newOffice(t, map[string]Service{
		"a.test": {Upstream: application(t, echo)},
		"p.test": {Upstream: application(t, echo), Access: postern.AccessPublic},
	})
	lies := []string{
		"Postern-User", "root", "postern_user_id", "u-root", "Postern-Role", "owner", "Postern-Groups", "accounting", "Postern-Identity", "x.y.z",
		"Postern_Identity", "x.y.z", "Postern-Name", "Root", "Postern.Role", "owner", "postern!user", "root",
		"Connection", "Postern-User, Postern-Role, Postern-Identity, Postern-User-Id",
		"Cookie", "a=1; __Host-postern=forged; __host-POSTERN_state_x=1; b=2; __Host-postern_pk=3",
	}
	for _, tt := range []struct {
		host string
		c    *http.Client
		want map[string]string
	}{
		{"p.test", o.client(t, 1), map[string]string{}},
		{"p.test", o.client(t, 2), map[string]string{}},
		{"a.test", nil, map[string]string{headerUser: "bob", headerUserID: "u-bob", headerRole: "member", headerGroups: "accounting,sales"}},
	} {
		c, header := tt.c, slices.Clone(lies)
		if c == nil {
			c = o.browser(1)
			o.signIn(c, tt.host, o.user(bob))
			header = header[:len(header)-2] // the jar has the cookies
		}
		if tt.c != nil && c.Transport.(*http.Transport).ForceAttemptHTTP2 {
			header = slices.Delete(header, len(header)-4, len(header)-2) // no Connection header there
		}
		_, body := get(t, c, "https://"+tt.host+"/", header...)
		got := map[string]string{}
		for name, value := range hear(t, body).Header {
			if strings.HasPrefix(strings.ToLower(name), "postern") && name != headerIdentity {
				got[name] = value
			}
		}
		if !maps.Equal(got, tt.want) {
			t.Errorf("%s: the application hears %v, want %v", tt.host, got, tt.want)
		}
		if tt.c != nil && hear(t, body).Header["Cookie"] != "a=1; b=2" {
			t.Errorf("%s: the application's cookies are %q", tt.host, hear(t, body).Header["Cookie"])
		}
		if (hear(t, body).Header[headerIdentity] != "") != (tt.c == nil) {
			t.Errorf("%s: identity is %q", tt.host, hear(t, body).Header[headerIdentity])
		}
	}
}

// Nor does anybody in what follows a body, announced or not.
func TestNobodySpeaksForTheNodeInTrailers(t *testing.T) {
	heard := make(chan http.Header, 1)
	listen := func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
		heard <- r.Trailer
	}
	o := newOffice(t, map[string]Service{
		"p.test": {Access: postern.AccessPublic, Upstream: application(t, listen)},
		"h.test": {Access: postern.AccessPublic, Handler: http.HandlerFunc(listen)},
	})
	want := http.Header{"X-Sum": {"1"}}
	for _, host := range []string{"p.test", "h.test"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+"/", io.MultiReader(strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Sum": {"1"}, "Postern-User": {"root"}, "Postern_identity": {"x.y.z"}, "X-Forwarded-For": {"6.6.6.6"}}
		do(t, o.client(t, 2), req)
		if got := <-heard; !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s, HTTP/2: the trailers are %v, want %v", host, got, want)
		}

		raw, err := o.dial(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{RootCAs: o.ca.pool(), ServerName: host})
		defer c.Close()
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: "+host+"\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Postern-Role\r\n\r\n"+
			"1\r\nx\r\n0\r\nX-Sum: 1\r\nPostern-Role: owner\r\nPostern-User: root\r\nPostern_Groups: bosses\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
		if got := <-heard; !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s, HTTP/1: the trailers are %v, want %v", host, got, want)
		}
	}
}

// Nor can the application set the node's cookies.
func TestApplicationSetsNoCookieOfOurs(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Access: postern.AccessPublic, Upstream: application(t, func(w http.ResponseWriter, r *http.Request) {
		for _, c := range []string{"a=1; Path=/", "__Host-postern=x; Secure; Path=/", " __HOST-Postern_rounds = 1", "__Host-posternal", "b=__Host-postern=x"} {
			w.Header().Add("Set-Cookie", c)
		}
	})}})
	resp, _ := get(t, o.client(t, 2), "https://a.test/")
	if got := resp.Header["Set-Cookie"]; !slices.Equal(got, []string{"a=1; Path=/", "b=__Host-postern=x"}) {
		t.Errorf("Set-Cookie: %q", got)
	}
}

// FuzzTakeCookies asserts that none of ours is left, and nothing else is lost.
func FuzzTakeCookies(f *testing.F) {
	for _, seed := range []string{"a=1; b=2", "__Host-postern=x", "a=1;__Host-postern=x;b=2", " __HOST-POSTERN_state_1 =x", ";;=;", "a", "=__Host-postern=x", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		h := http.Header{"Cookie": {line}}
		takeCookies(h)
		left := strings.Join(h["Cookie"], "")
		for _, c := range (&http.Request{Header: h}).Cookies() {
			if isOurCookie(c.Name) {
				t.Errorf("%q leaves %q", line, left)
			}
		}
		var want []string
		for _, c := range (&http.Request{Header: http.Header{"Cookie": {line}}}).Cookies() {
			if !isOurCookie(c.Name) {
				want = append(want, c.String())
			}
		}
		var got []string
		for _, c := range (&http.Request{Header: h}).Cookies() {
			got = append(got, c.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q leaves %q, want %q", line, got, want)
		}
	})
}

// A cookie of the session's name that somebody else planted has no effect.
func TestTossedCookies(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a"), "b.test": hello("b")})
	secret := func(host string, p postern.Person) string { return cookies(o.signedIn(host, p), host)[cookieSession] }
	mine, theirs, foreign := secret("a.test", ann), secret("a.test", bob), secret("b.test", ann)
	pair := func(values ...string) string {
		var list []string
		for _, v := range values {
			list = append(list, cookieSession+"="+v)
		}
		return strings.Join(list, "; ")
	}
	tests := []struct {
		name, cookie string
		want         string // login; empty: nobody
	}{
		{"mine", pair(mine), ann.Login},
		{"mine, after junk", pair("junk", mine), ann.Login},
		{"mine, before junk", pair(mine, "", "junk"), ann.Login},
		{"mine, twice", pair(mine, mine), ann.Login},
		{"mine, and one of another host", pair(foreign, mine), ann.Login},
		{"mine and another's", pair(mine, theirs), ""},
		{"another's and mine", pair(theirs, mine), ""},
		{"of another host", pair(foreign), ""},
		{"junk", pair("junk"), ""},
		{"the hash of it", pair(secretHash(mine)), ""},
		{"another name", "postern=" + mine + "; __Secure-postern=" + mine + "; __host-postern=" + mine, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, body := get(t, o.client(t, 1), "https://a.test"+ownPath+"whoami", "Cookie", tt.cookie)
			if got := strings.Contains(body, `"user"`); got != (tt.want != "") || !strings.Contains(body, tt.want) {
				t.Errorf("whoami is %s, want %q", body, tt.want)
			}
		})
	}
}

// A session that is used goes on, one that is not ends, and a request under way is use.
func TestLimits(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Handler: longApplication()}})
	ask := func(c *http.Client) int { resp, _ := get(t, c, "https://a.test/", program...); return resp.StatusCode }
	used, idle := o.signedIn("a.test", ann), o.signedIn("a.test", bob)
	stream := o.browser(1)
	o.signIn(stream, "a.test", o.user(carol))
	end := readOn(t, o, stream, "https://a.test/drip")
	elapsed := time.Duration(0)
	for step := defaultIdle - time.Minute; elapsed+step < defaultMax; elapsed += step {
		o.clock.advance(step)
		o.gate.recheck()
		if got := ask(used); got != 200 {
			t.Fatalf("%v after it began, one that is used: %d", elapsed+step, got)
		}
		if elapsed < step {
			continue
		}
		if got := ask(idle); got != 401 {
			t.Fatalf("%v after it began, one that is not used: %d", elapsed+step, got)
		}
	}
	if o.passes() != 1 {
		t.Error("a request under way was cut off for want of use")
	}
	o.clock.advance(defaultMax - elapsed)
	if got := ask(used); got != 401 {
		t.Errorf("after %v of use: %d", defaultMax, got)
	}
	o.gate.recheck()
	end()
	if n := o.gate.sessions.count(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A ticket resumes a TLS connection, and nobody's sign-in; and no connection once something
// was taken from somebody.
func TestTicketsProveNobody(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	secret := cookies(o.signedIn("a.test", ann), "a.test")[cookieSession]
	cfg := &tls.Config{ServerName: "a.test", RootCAs: o.ca.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	ask := func() (resumed bool, status string) {
		raw, err := o.dial(t.Context(), "a.test")
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		c := tls.Client(raw, cfg)
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a.test\r\nCookie: %s=%s\r\nConnection: close\r\n\r\n", cookieSession, secret)
		var answer bytes.Buffer
		if _, err := io.Copy(&answer, c); err != nil {
			t.Fatal(err)
		}
		status, err = bufio.NewReader(&answer).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().DidResume, strings.TrimSpace(status)
	}
	steps := []struct {
		name    string
		people  []postern.Person
		resumed bool
		status  string
	}{
		{"first", []postern.Person{ann, bob}, false, "HTTP/1.1 200 OK"},
		{"again", []postern.Person{ann, bob}, true, "HTTP/1.1 200 OK"},
		{"somebody new", []postern.Person{ann, bob, {ID: "u-new", Login: "new", Role: postern.TenantMember}}, true, "HTTP/1.1 200 OK"},
		{"who is gone again", []postern.Person{ann, bob}, false, "HTTP/1.1 200 OK"},
		{"her grant is revoked", []postern.Person{bob}, false, "HTTP/1.1 401 Unauthorized"},
		{"nothing changed", []postern.Person{bob}, true, "HTTP/1.1 401 Unauthorized"},
	}
	for _, step := range steps {
		o.change(func(t *table) { t.people = people(step.people...) })
		if resumed, status := ask(); resumed != step.resumed || status != step.status {
			t.Errorf("%s: resumed %v, %s, want %v, %s", step.name, resumed, status, step.resumed, step.status)
		}
	}
}

func TestWhoAmI(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	_, body := get(t, o.signedIn("a.test", bob), "https://a.test"+ownPath+"whoami")
	if want := `"user":{"id":"u-bob","login":"bob","role":"member","groups":["accounting","sales"]}`; !strings.Contains(body, want) {
		t.Errorf("whoami is %s, want %s", body, want)
	}
	if _, body = get(t, o.browser(2), "https://a.test"+ownPath+"whoami"); strings.Contains(body, "user") {
		t.Errorf("whoami of nobody is %s", body)
	}
}

// A program's own handlers learn who it is from the context.
func TestUserOf(t *testing.T) {
	users := make(chan User, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, ok := UserOf(r.Context())
		if !ok && u.ID != "" {
			t.Error("nobody has an id")
		}
		users <- u
	})
	o := newOffice(t, map[string]Service{"a.test": {Handler: handler, Exceptions: []Exception{{Path: "/open/", Access: postern.AccessPublic}}}})
	c := o.signedIn("a.test", bob)
	for _, path := range []string{"/", "/open/x"} {
		get(t, c, "https://a.test"+path)
		if got := <-users; got.ID != "u-bob" || got.Login != "bob" || got.Role != "member" || !slices.Equal(got.Groups, bob.Groups) {
			t.Errorf("%s: user is %+v", path, got)
		}
	}
	get(t, o.browser(2), "https://a.test/open/x")
	if got := <-users; got.ID != "" {
		t.Errorf("nobody is %+v", got)
	}
	if _, ok := UserOf(t.Context()); ok {
		t.Error("there is somebody without a request")
	}
}

// What a path asks for is worked out once, not each time that the map changes.
func BenchmarkRecheck(b *testing.B) {
	s := Service{Handler: http.NotFoundHandler(), Access: postern.AccessPublic}
	for i := range postern.MaxExceptions {
		s.Exceptions = append(s.Exceptions, Exception{Path: fmt.Sprintf("/part%d/", i), Access: postern.AccessPublic})
	}
	svc, err := newService(s, discard)
	if err != nil {
		b.Fatal(err)
	}
	tab := &table{hosts: map[string]*service{"a.test": svc}}
	g, err := newGate(gateConfig{table: func() *table { return tab }, log: discard}, nil)
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "https://a.test/"+strings.Repeat("x/", 1000), nil)
	for range 100 {
		if v, _, _, _ := g.enter(r, "a.test", nil, func() {}); v != passed {
			b.Fatal(v)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		g.recheck()
	}
}
