package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

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
		"Postern_Identity", "x.y.z", "Postern-Name", "Root",
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
			if isOurs(name) && strings.HasPrefix(strings.ToLower(name), "postern") && name != headerIdentity {
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

// readOn opens an answer that goes on and on, and returns what waits for its end.
func readOn(t *testing.T, o *office, c *http.Client, url string) func() error {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d", url, resp.StatusCode)
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return func() error {
		_, err := io.Copy(io.Discard, resp.Body)
		if err == nil {
			t.Errorf("GET %s: what was cut off looks whole", url)
			return io.EOF
		}
		return err
	}
}

// drip sends until nobody listens, and looks at no context.
func drip(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(w, "data: x\n\n"); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		<-tick.C
	}
}

// hang sends one byte, and then looks at nothing but what the browser sends.
func hang(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).EnableFullDuplex()
	io.WriteString(w, "x")
	http.NewResponseController(w).Flush()
	io.Copy(io.Discard, r.Body)
}

// talk echoes over a WebSocket until its end.
func talk(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	for {
		kind, data, err := ws.Read(context.WithoutCancel(r.Context()))
		if err != nil || ws.Write(context.WithoutCancel(r.Context()), kind, data) != nil {
			return
		}
	}
}

// takeOver takes the connection and returns, as some do with WebSockets.
func takeOver(w http.ResponseWriter, r *http.Request) {
	c, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	io.WriteString(buf, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")
	buf.Flush()
	context.AfterFunc(context.Background(), func() { io.Copy(c, c) })
}

// application that can do all of it.
func longApplication() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/drip", drip)
	mux.HandleFunc("/hang", hang)
	mux.HandleFunc("/talk", talk)
	mux.HandleFunc("/take", takeOver)
	mux.HandleFunc("/", echo)
	return mux
}

// Each way in which a request can go on ends with what let it through.
func TestUnderWay(t *testing.T) {
	folder := t.TempDir()
	big, err := os.Create(filepath.Join(folder, "big.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Truncate(1 << 34); err != nil { // a hole
		t.Fatal(err)
	}
	big.Close()
	srv := httptest.NewServer(longApplication())
	t.Cleanup(srv.Close)
	hosts := map[string]Service{
		"proxy.test":   {Name: "proxy", Upstream: srv.URL},
		"handler.test": {Name: "handler", Handler: longApplication()},
		"folder.test":  {Name: "folder", Upstream: folder},
	}
	webSocket := func(t *testing.T, o *office, c *http.Client, host string) func() error {
		ws, _, err := websocket.Dial(t.Context(), "wss://"+host+"/talk", &websocket.DialOptions{HTTPClient: c})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		return func() error { _, _, err := ws.Read(t.Context()); return err }
	}
	path := func(path string) func(t *testing.T, o *office, c *http.Client, host string) func() error {
		return func(t *testing.T, o *office, c *http.Client, host string) func() error {
			return readOn(t, o, c, "https://"+host+path)
		}
	}
	upload := func(t *testing.T, o *office, c *http.Client, host string) func() error {
		r, w := io.Pipe()
		t.Cleanup(func() { w.Close() })
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+"/hang", r)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return func() error {
			b, err := io.ReadAll(resp.Body)
			if err == nil {
				t.Errorf("the answer to an upload that was cut off looks whole: %q", b)
			}
			return io.EOF
		}
	}
	ways := []struct {
		name    string
		host    string
		version int
		open    func(t *testing.T, o *office, c *http.Client, host string) func() error
	}{
		{"events through the proxy", "proxy.test", 1, path("/drip")},
		{"events through the proxy, HTTP/2", "proxy.test", 2, path("/drip")},
		{"a WebSocket through the proxy", "proxy.test", 1, webSocket},
		{"an upload through the proxy", "proxy.test", 2, upload},
		{"events of a handler", "handler.test", 1, path("/drip")},
		{"events of a handler, HTTP/2", "handler.test", 2, path("/drip")},
		{"a WebSocket of a handler", "handler.test", 1, webSocket},
		{"an upload to a handler", "handler.test", 2, upload},
		{"a connection that a handler took", "handler.test", 1, path("/take")},
		{"a download", "folder.test", 1, path("/big.bin")},
		{"a download, HTTP/2", "folder.test", 2, path("/big.bin")},
	}
	causes := []struct {
		name string
		end  func(o *office, c *http.Client, host string)
	}{
		{"the grant is revoked", func(o *office, _ *http.Client, _ string) {
			o.change(func(t *table) { t.people = people(bob, carol) })
		}},
		{"the access changes", func(o *office, _ *http.Client, host string) {
			o.change(func(t *table) {
				s := t.hosts[host].Service
				s.Access, s.Groups = postern.AccessGroups, []string{"accounting"}
				t.hosts = maps.Clone(t.hosts)
				t.hosts[host] = t.hosts[host].relabelled(s)
			})
		}},
	}
	for _, way := range ways {
		for _, cause := range causes {
			t.Run(way.name+", "+cause.name, func(t *testing.T) {
				o := newOffice(t, hosts)
				end := map[string]func() error{}
				for _, p := range []postern.Person{ann, bob} {
					c := o.browser(way.version)
					o.signIn(c, way.host, o.user(p))
					end[p.ID] = way.open(t, o, c, way.host)
				}
				cause.end(o, nil, way.host)
				if err := end[ann.ID](); err == nil {
					t.Error("it goes on")
				}
				await(t, "one to be left", func() bool { return o.passes() == 1 })
			})
		}
	}
}

// passes returns how many requests are under way.
func (o *office) passes() int {
	o.gate.mu.Lock()
	defer o.gate.mu.Unlock()
	return len(o.gate.passes)
}

// relabelled is relabel for a Handler's service too, which is made anew otherwise.
func (s *service) relabelled(words Service) *service {
	next := *s
	next.Service, next.policy = words, words.described()
	return &next
}

// Each way in which a sign-in can end, ends a request that is under way.
func TestSessionsEnd(t *testing.T) {
	tests := []struct {
		name string
		end  func(t *testing.T, o *office, c *http.Client)
	}{
		{"the grant is revoked", func(_ *testing.T, o *office, _ *http.Client) { o.change(func(t *table) { t.people = people(bob) }) }},
		{"signed out everywhere", func(_ *testing.T, o *office, _ *http.Client) {
			o.change(func(t *table) {
				p := ann
				p.NotBefore = o.clock.time().Unix() + 1
				t.people = people(p, bob)
			})
		}},
		{"the portal's session ended", func(_ *testing.T, o *office, _ *http.Client) {
			o.change(func(t *table) { t.ended = map[string]bool{"sid-u-ann": true} })
		}},
		{"signed out here", func(t *testing.T, o *office, c *http.Client) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.test"+pathLogout, nil)
			if err != nil {
				t.Fatal(err)
			}
			do(t, c, req)
		}},
		{"somebody else signs in", func(t *testing.T, o *office, c *http.Client) { o.signIn(c, "a.test", o.user(bob)) }},
		{"it is too old", func(_ *testing.T, o *office, _ *http.Client) { o.clock.advance(defaultMax); o.gate.recheck() }},
		{"the route is gone", func(_ *testing.T, o *office, _ *http.Client) { o.change(func(t *table) { t.hosts = nil }) }},
		{"the route leads to another service", func(t *testing.T, o *office, _ *http.Client) {
			other := newTable(t, private(map[string]Service{"a.test": {Name: "other", Handler: http.NotFoundHandler()}}))
			o.change(func(t *table) { t.hosts = other.hosts })
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t, map[string]Service{"a.test": {Handler: http.HandlerFunc(drip)}})
			c := o.browser(1)
			o.signIn(c, "a.test", o.user(ann))
			end := readOn(t, o, c, "https://a.test/")
			o.change(func(*table) {}) // a map that says the same ends nothing
			o.gate.recheck()
			if o.passes() != 1 {
				t.Fatal("it ended without a cause")
			}
			tt.end(t, o, c)
			end()
			await(t, "the end", func() bool { return o.passes() == 0 })
		})
	}
}

// What is public goes on whoever comes and goes, and ends when it is so no more.
func TestPublicUnderWay(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": {Access: postern.AccessPublic, Handler: http.HandlerFunc(drip)}})
	end := readOn(t, o, o.browser(1), "https://a.test/")
	o.change(func(t *table) { t.people = nil })
	if o.passes() != 1 {
		t.Fatal("a stranger was cut off from what is public")
	}
	o.change(func(t *table) {
		s := t.hosts["a.test"].Service
		s.Access = postern.AccessMembers
		t.hosts = map[string]*service{"a.test": t.hosts["a.test"].relabelled(s)}
	})
	end()
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

// A ticket resumes a TLS connection, and nobody's sign-in.
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
	if _, status := ask(); status != "HTTP/1.1 200 OK" {
		t.Fatalf("before: %s", status)
	}
	o.change(func(t *table) { t.people = people(bob) })
	if resumed, status := ask(); !resumed || status != "HTTP/1.1 401 Unauthorized" {
		t.Errorf("after the revocation: resumed %v, %s", resumed, status)
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
