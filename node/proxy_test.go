package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// application starts h as what is behind a node, and returns its URL.
func application(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestApplicationSeesWhoAsked(t *testing.T) {
	type seen struct {
		host, uri string
		header    http.Header
	}
	requests := make(chan seen, 1)
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		requests <- seen{r.Host, r.RequestURI, r.Header.Clone()}
	})
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: up + "/base"}})
	for _, version := range []int{1, 2} {
		c := s.client(t, version)
		header := []string{
			"Host", "A.test:8443",
			"Forwarded", "for=6.6.6.6", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "http",
			"X-Forwarded-Host", "evil", "X-Forwarded-Prefix", "/evil", "X-Real-IP", "6.6.6.6",
			"X-Request-Id", "evil", "Postern-User", "root", "Postern-Anything", "evil",
			"X_Forwarded_For", "6.6.6.6", "X-Forwarded_For", "6.6.6.6", "Postern_User", "root",
			"X.Forwarded.For", "6.6.6.6", "Postern.User", "root", "X+Real~IP", "6.6.6.6",
			"Accept-Encoding", "br", "X-Mine", "kept", "Cookie", "a=b",
		}
		if version == 1 {
			// Names ours as hop-by-hop, to have them dropped on the way.
			header = append(header, "Connection", "X-Real-Ip, X-Forwarded-For, X-Request-Id, X-Forwarded-Proto")
		}
		get(t, c, "https://a.test/x%2Fy/z?q=1;2&q=%zz", header...)
		got := <-requests
		if got.host != "A.test:8443" || got.uri != "/base/x%2Fy/z?q=1;2&q=%zz" {
			t.Errorf("HTTP/%d: asked for %q at %q", version, got.uri, got.host)
		}
		want := http.Header{
			"X-Forwarded-For": {"203.0.113.7"}, "X-Forwarded-Host": {"A.test:8443"}, "X-Forwarded-Proto": {"https"},
			"X-Real-Ip": {"203.0.113.7"}, "X-Request-Id": {"f00dfeed-1"},
			"Accept-Encoding": {"br"}, "X-Mine": {"kept"}, "Cookie": {"a=b"}, "User-Agent": {"Go-http-client/" + fmt.Sprint(version) + ".1"},
		}
		if version == 2 {
			want["User-Agent"] = []string{"Go-http-client/2.0"}
		}
		if !maps.EqualFunc(got.header, want, slices.Equal) {
			t.Errorf("HTTP/%d: header is\n%v, want\n%v", version, got.header, want)
		}
		get(t, c, "https://a.test/")
		if id := (<-requests).header.Get("X-Request-Id"); id != "f00dfeed-2" {
			t.Errorf("HTTP/%d: the second request of the connection has id %q", version, id)
		}
	}
}

// FuzzForwarded asserts that no header of a browser's reaches an application
// under a name that only the node may use, however it is spelled.
func FuzzForwarded(f *testing.F) {
	f.Add("X-Forwarded-For", "6.6.6.6")
	f.Add("x_forwarded_host", "evil")
	f.Add("Postern-User", "root")
	f.Add("FORWARDED", "for=6.6.6.6")
	f.Add("X-Mine", "kept")
	f.Fuzz(func(t *testing.T, name, value string) {
		if value == "" {
			value = "empty"
		}
		r := httptest.NewRequest(http.MethodGet, "https://a.test/", nil)
		r = r.WithContext(context.WithValue(r.Context(), connKey{}, testConn()))
		r.Header[name] = []string{value}
		setForwarded(r)
		ours := map[string]string{
			"x-forwarded-for": "203.0.113.7", "x-real-ip": "203.0.113.7", "x-forwarded-host": "a.test",
			"x-forwarded-proto": "https", "x-request-id": "f00d-1",
		}
		kept := false
		for got, values := range r.Header {
			folded := strings.ToLower(strings.ReplaceAll(got, "_", "-"))
			if want, ok := ours[folded]; ok {
				if !slices.Equal(values, []string{want}) {
					t.Errorf("%q is %q, want %q", got, values, want)
				}
				delete(ours, folded)
				continue
			}
			if folded == "forwarded" || strings.HasPrefix(folded, "x-forwarded-") || strings.HasPrefix(folded, "postern-") {
				t.Errorf("%q: %q got through", got, values)
			}
			kept = kept || got == name
		}
		if len(ours) > 0 {
			t.Errorf("missing: %v", ours)
		}
		if !kept && !isOurs(name) {
			t.Errorf("%q was lost", name)
		}
	})
}

func TestAnswerHeaders(t *testing.T) {
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Strict-Transport-Security", "max-age=63072000; includeSubDomains; preload")
		h.Set("Alt-Svc", `h3=":443"`)
		h.Set("X-Mine", "kept")
		h.Add("Set-Cookie", "a=1")
		h.Add("Set-Cookie", "b=2")
		w.WriteHeader(http.StatusTeapot)
	})
	for source, want := range map[string][]string{SourceFile: {"max-age=31536000"}, SourceCA: nil} {
		s := serveSite(t, source, map[string]Service{"a.test": {Upstream: up}})
		resp, _ := get(t, s.client(t, 2), "https://a.test/")
		if got := resp.Header["Strict-Transport-Security"]; !slices.Equal(got, want) {
			t.Errorf("%s: Strict-Transport-Security is %q, want %q", source, got, want)
		}
		if got := resp.Header["Alt-Svc"]; got != nil {
			t.Errorf("Alt-Svc is %q, which leads past the gateway", got)
		}
		if resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Mine") != "kept" || len(resp.Header["Set-Cookie"]) != 2 {
			t.Errorf("answer is %d %v", resp.StatusCode, resp.Header)
		}
	}
}

func TestUpstreams(t *testing.T) {
	whole := func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		fmt.Fprintf(w, "%s %s %s:%s", r.Host, r.URL.Path, user, password)
	}
	plain := application(t, whole)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(whole))
	secure.Config.ErrorLog = slog.NewLogLogger(discard.Handler(), 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	secureCA := filepath.Join(t.TempDir(), "ca.pem")
	write(t, secureCA, encodePEM("CERTIFICATE", secure.Certificate().Raw))
	socket := filepath.Join(shortDir(t), "app.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := httptest.NewUnstartedServer(http.HandlerFunc(whole))
	local.Listener.Close()
	local.Listener = ln
	local.Start()
	t.Cleanup(local.Close)

	tests := []struct {
		name    string
		service Service
		want    string // empty: 502
	}{
		{"http", Service{Upstream: plain}, "a.test /x :"},
		{"http with path and user", Service{Upstream: strings.Replace(plain, "http://", "http://joe:s3cret@", 1) + "/app/"}, "a.test /app/x joe:s3cret"},
		{"https with its CA", Service{Upstream: secure.URL, UpstreamCA: secureCA}, "a.test /x :"},
		{"https, any certificate", Service{Upstream: secure.URL, UpstreamInsecure: true}, "a.test /x :"},
		{"https, unknown CA", Service{Upstream: secure.URL}, ""},
		{"unix socket", Service{Upstream: "unix:" + socket}, "a.test /x :"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serveSite(t, SourceCA, map[string]Service{"a.test": tt.service})
			resp, got := get(t, s.client(t, 1), "https://a.test/x")
			if tt.want == "" {
				if resp.StatusCode != http.StatusBadGateway {
					t.Errorf("answer is %d, want 502", resp.StatusCode)
				}
				return
			}
			if got != tt.want {
				t.Errorf("answer is %d %q, want %q", resp.StatusCode, got, tt.want)
			}
			svc, _ := s.service("a.test")
			if err := svc.knock(t.Context()); err != nil {
				t.Errorf("knock: %v", err)
			}
			if shown := svc.status().Upstream; strings.Contains(shown, "s3cret") || strings.Contains(shown, "joe") {
				t.Errorf("status shows %q", shown)
			}
		})
	}
}

// shortDir returns a directory whose sockets' paths are not too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pst")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestEventsArriveAsTheyAreSent(t *testing.T) {
	next := make(chan struct{})
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		if length := r.URL.Query().Get("length"); length != "" {
			w.Header().Set("Content-Length", length)
		}
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n", i)
			http.NewResponseController(w).Flush()
			<-next // the browser has it, while this handler has not ended
		}
	})
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: up}})
	for _, version := range []int{1, 2} {
		for _, query := range []string{"type=text/event-stream", "type=application/json", "type=text/plain&length=24"} {
			resp, err := s.client(t, version).Get("https://a.test/?" + query)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			for i := range 3 {
				if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) {
					t.Fatalf("HTTP/%d: line %d is %q, %v", version, i, lines.Text(), lines.Err())
				}
				next <- struct{}{}
			}
		}
	}
}

func TestUploadIsNotBuffered(t *testing.T) {
	const size = 64 << 20
	first := make(chan struct{}, 1)
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadFull(r.Body, make([]byte, 1)); err != nil {
			t.Errorf("read the first byte: %v", err)
		}
		first <- struct{}{}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n+1, err)
	})
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: up}})
	for _, version := range []int{1, 2} {
		pr, pw := io.Pipe()
		sent := make(chan error, 1)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://a.test/", pr)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := pw.Write(make([]byte, 1<<10))
			<-first // the application has it before the rest is sent
			if err == nil {
				_, err = io.CopyN(pw, zeros{}, size-1<<10)
			}
			pw.Close()
			sent <- err
		}()
		_, body := do(t, s.client(t, version), req)
		if want := fmt.Sprintln(size, "<nil>"); body != want {
			t.Errorf("HTTP/%d: the application got %q, want %q", version, body, want)
		}
		if err := <-sent; err != nil {
			t.Errorf("HTTP/%d: send: %v", version, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestTrailers(t *testing.T) {
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Checksum")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read: %v", err)
		}
		fmt.Fprintf(w, "%s %s", body, r.Trailer.Get("Checksum"))
		w.Header().Set("Checksum", "42")
	})
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: up}})
	for _, version := range []int{1, 2} {
		trailer := http.Header{"Checksum": nil}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.test/",
			&atEOF{strings.NewReader("body"), func() { trailer.Set("Checksum", "7") }})
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = trailer
		resp, body := do(t, s.client(t, version), req)
		if body != "body 7" || resp.Trailer.Get("Checksum") != "42" {
			t.Errorf("HTTP/%d: body %q, trailer %v", version, body, resp.Trailer)
		}
	}
}

// atEOF calls done when its reader ends.
type atEOF struct {
	io.Reader
	done func()
}

func (r *atEOF) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err == io.EOF {
		r.done()
	}
	return n, err
}

// An application that refuses a body by its header must get no body.
func TestExpectContinue(t *testing.T) {
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		io.Copy(w, r.Body)
	})
	s := serveSite(t, SourceFile, map[string]Service{"a.test": {Upstream: up}})
	for path, want := range map[string]string{
		"/refuse": "HTTP/1.1 413 Request Entity Too Large\r\n",
		"/take":   "HTTP/1.1 100 Continue\r\n",
	} {
		raw, err := s.dial(t.Context(), "a.test")
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		c := tls.Client(raw, &tls.Config{ServerName: "a.test", RootCAs: s.ca.pool()})
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n", path)
		r := bufio.NewReader(c)
		if got, err := r.ReadString('\n'); got != want {
			t.Errorf("%s: first line %q, %v, want %q", path, got, err, want)
			continue
		}
		if path == "/take" {
			io.WriteString(c, "body")
			rest, err := io.ReadAll(r)
			if err != nil || !bytes.Contains(rest, []byte("body")) || !bytes.Contains(rest, []byte("max-age=31536000")) {
				t.Errorf("after the body: %q, %v", rest, err)
			}
		}
	}
}

func TestWebSocket(t *testing.T) {
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{"a.test"}})
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(1 << 20)
		for {
			kind, data, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			if err := ws.Write(r.Context(), kind, data); err != nil {
				t.Errorf("echo: %v", err)
			}
		}
	})
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: up}})
	ws, _, err := websocket.Dial(t.Context(), "wss://a.test/", &websocket.DialOptions{HTTPClient: s.client(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20)
	for _, size := range []int{1, 100, 200_000} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if err := ws.Write(t.Context(), websocket.MessageBinary, want); err != nil {
			t.Fatal(err)
		}
		_, got, err := ws.Read(t.Context())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("echo of %d bytes: %d bytes, %v", size, len(got), err)
		}
	}
	// Nothing else is under way, so the drain ends and cuts it.
	s.stop()
	if _, _, err := ws.Read(t.Context()); err == nil {
		t.Error("a WebSocket outlives its node")
	}
}

// A tunnel of another protocol would carry requests with whatever headers.
func TestOnlyWebSocketsAreUpgraded(t *testing.T) {
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		if upgrade := r.Header.Get("Upgrade"); upgrade != "" || r.Header.Get("Connection") != "" {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Errorf("hijack: %v", err)
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgrade)
		}
	})
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: up}})
	for upgrade, want := range map[string]int{
		"WebSocket": http.StatusSwitchingProtocols,
		"h2c":       http.StatusOK, "h2c, websocket": http.StatusOK, "TLS/1.0": http.StatusOK, "postgres": http.StatusOK,
	} {
		resp, _ := get(t, s.client(t, 1), "https://a.test/", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", upgrade, "HTTP2-Settings", "AAMAAABk")
		if resp.StatusCode != want {
			t.Errorf("upgrade to %q: got %d, want %d", upgrade, resp.StatusCode, want)
		}
	}
}

// Of an upstream with a path, only what is below it is published.
func TestNothingAboveThePathOfAnUpstream(t *testing.T) {
	up := application(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: up + "/app"}, "b.test": {Upstream: up}})
	tests := []struct{ name, url, want string }{ // empty: 404
		{"below", "https://a.test/x/y", "/app/x/y"},
		{"dots in names", "https://a.test/..x/y../...", "/app/..x/y../..."},
		{"plain", "https://a.test/../admin", ""},
		{"inside", "https://a.test/x/../../admin", ""},
		{"at the end", "https://a.test/x/..", ""},
		{"encoded dots", "https://a.test/%2e%2E/admin", ""},
		{"encoded slash", "https://a.test/..%2fadmin", ""},
		{"encoded backslash", "https://a.test/..%5cadmin", ""},
		{"parameter", "https://a.test/..;x=1/admin", ""},
		{"an upstream without path", "https://b.test/x/../y", "/x/../y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, got := get(t, s.client(t, 1), tt.url)
			if tt.want == "" && resp.StatusCode != http.StatusNotFound || tt.want != "" && got != tt.want {
				t.Errorf("got %d %q, want %q", resp.StatusCode, got, tt.want)
			}
		})
	}
}

// A browser that goes away, or an application that fails one request, says
// nothing about the application's health.
func TestOneFailedRequestIsNotDown(t *testing.T) {
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
	})
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: up}})
	c := s.client(t, 1)
	get(t, c, "https://a.test/")
	if resp, _ := get(t, c, "https://a.test/abort"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("an aborted answer became %d, want 502", resp.StatusCode)
	}
	svc, _ := s.service("a.test")
	if got := svc.status().State; got != UpstreamUp {
		t.Errorf("state is %q, want %q", got, UpstreamUp)
	}
	if unreachable(errors.New("EOF")) || !unreachable(&net.OpError{Op: "dial", Err: errors.New("refused")}) {
		t.Error("unreachable mixes up dial errors with others")
	}
}
