package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern"
)

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

// A session that ends while a request that shows it is looked at lets nothing through.
func TestSessionEndsOnTheWayIn(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	secret := o.gate.sessions.start(session{Host: "a.test", Person: ann.ID, Since: o.clock.time()}, o.clock.time())
	s, ok := o.gate.sessions.find("a.test", secret, o.clock.time())
	if !ok {
		t.Fatal("there is no session")
	}
	r := httptest.NewRequest(http.MethodGet, "https://a.test/", nil)
	if v, _, _, p := o.gate.enter(r, "a.test", s.credential(), func() {}); v != passed {
		t.Fatalf("before the end: %v", v)
	} else {
		o.gate.leave(p)
	}
	if err := o.gate.sessions.end(s.Hash); err != nil {
		t.Fatal(err)
	}
	if v, _, person, _ := o.gate.enter(r, "a.test", s.credential(), func() {}); v != nobody || person != nil || o.passes() != 0 {
		t.Errorf("after the end: %v, %+v", v, person)
	}
}

// A deafConn stays open, and reads nothing once deaf is closed.
type deafConn struct {
	net.Conn
	deaf   <-chan struct{}
	closed context.Context
	close  context.CancelFunc
}

func (c deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.deaf:
		<-c.closed.Done()
	default:
	}
	return n, err
}

func (c deafConn) Close() error {
	c.close()
	return c.Conn.Close()
}

// A client that reads nothing any more does not keep what it may not have any more.
func TestSilentClient(t *testing.T) {
	var sent atomic.Int64
	flood := func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 64<<10)
		for {
			n, err := w.Write(chunk)
			if err != nil {
				return
			}
			sent.Add(int64(n))
		}
	}
	folder := t.TempDir()
	big, err := os.Create(filepath.Join(folder, "big.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(big.Truncate(1<<34), big.Close()); err != nil {
		t.Fatal(err)
	}
	hosts := map[string]Service{
		"proxy.test":   {Upstream: application(t, flood)},
		"handler.test": {Handler: http.HandlerFunc(flood)},
		"folder.test":  {Upstream: folder},
	}
	for host := range hosts {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, HTTP/%d", host, version), func(t *testing.T) {
				o := newOffice(t, hosts)
				c := o.browser(version)
				tr, deaf := c.Transport.(*http.Transport), make(chan struct{})
				dial := tr.DialContext
				tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := dial(ctx, network, addr)
					closed, shut := context.WithCancel(context.WithoutCancel(ctx))
					return deafConn{c, deaf, closed, shut}, err
				}
				o.signIn(c, host, o.user(ann))
				for range 10 { // more than what HTTP/2 lets one have on its way
					resp, err := c.Get("https://" + host + "/big.bin")
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
				}
				close(deaf)
				last, since := sent.Load(), time.Now()
				await(t, "the buffers to be full", func() bool {
					if now := sent.Load(); now != last {
						last, since = now, time.Now()
					}
					return time.Since(since) > 200*time.Millisecond
				})
				o.change(func(t *table) { t.people = people(bob) })
				await(t, "the end", func() bool { return o.passes() == 0 })
			})
		}
	}
}

// A request that takes its time to end is cut off once.
func TestCutOffOnce(t *testing.T) {
	o := newOffice(t, map[string]Service{"a.test": hello("a")})
	cuts := 0
	c := &credential{person: ann.ID, since: o.clock.time()}
	r := httptest.NewRequest(http.MethodGet, "https://a.test/", nil)
	if v, _, _, _ := o.gate.enter(r, "a.test", c, func() { cuts++ }); v != passed {
		t.Fatal(v)
	}
	o.change(func(t *table) { t.people = people(bob) })
	o.gate.recheck()
	if cuts != 1 {
		t.Errorf("it was cut off %d times", cuts)
	}
}
