package node

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern"
)

// An accessTest keeps what a server tells of requests.
type accessTest struct {
	mu  sync.Mutex
	all []access
}

func (l *accessTest) add(a access) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, a)
}

// next waits for another and returns it, with its line.
func (l *accessTest) next(t *testing.T) (access, string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		l.mu.Lock()
		if len(l.all) > 0 {
			a := l.all[0]
			l.all = l.all[1:]
			l.mu.Unlock()
			line, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			return a, string(line)
		}
		l.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("no request was told of")
		}
	}
}

// What the access log says of requests, and what not: queries, cookies and bodies.
func TestAccessLog(t *testing.T) {
	var log accessTest
	seen := make(chan string, 8)
	up := application(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get(headerRequestID)
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "a short answer")
	})
	o := newOfficeWith(t, map[string]Service{
		"a.test": {Name: "tea", Upstream: up},
		"b.test": {Name: "quiet", Access: postern.AccessPublic, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})},
		"c.test": {Name: "torn", Access: postern.AccessPublic, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		})},
	}, serverConfig{tell: log.add})
	c := o.signedIn("a.test", ann)
	for a, line := log.next(t); a.Path != pathCallback; a, line = log.next(t) {
		if strings.Contains(line, "?") || a.Service != "" || a.User != "" {
			t.Errorf("on the way in: %s", line)
		}
	}

	get(t, c, "https://a.test/pot?secret=1", "Cookie", "theirs=2")
	a, line := log.next(t)
	for ; a.Path != "/pot"; a, line = log.next(t) { // what the browser was sent back to
		<-seen
	}
	if a.Method != "GET" || a.Path != "/pot" || a.Host != "a.test" || a.Service != "tea" || a.Status != http.StatusTeapot ||
		a.Bytes != int64(len("a short answer")) || a.User != ann.ID || a.Request != <-seen || !strings.HasPrefix(a.Request, a.ID+"-") || a.Aborted {
		t.Errorf("got %s", line)
	}
	for _, private := range []string{"secret", "theirs", "short answer", cookieSession} {
		if strings.Contains(line, private) {
			t.Errorf("%q is in %s", private, line)
		}
	}

	get(t, o.client(t, 1), "https://a.test/pot")
	if a, line := log.next(t); a.Status != http.StatusUnauthorized || a.User != "" || a.Service != "" {
		t.Errorf("nobody: %s", line)
	}
	get(t, o.client(t, 2), "https://b.test/")
	if a, line := log.next(t); a.Status != http.StatusOK || a.Bytes != 0 || a.Service != "quiet" {
		t.Errorf("no body: %s", line)
	}
	resp, err := o.client(t, 1).Get("https://c.test/")
	if err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if a, line := log.next(t); !a.Aborted || a.Bytes != 4 {
		t.Errorf("aborted: %s", line)
	}
	get(t, o.client(t, 1), "https://b.test/"+strings.Repeat("x", 2*maxAccessPath))
	if a, _ := log.next(t); len(a.Path) != maxAccessPath {
		t.Errorf("the path has %d bytes", len(a.Path))
	}
}

// WebSockets work as before, and are told of when they end.
func TestAccessLogOfWebSockets(t *testing.T) {
	var log accessTest
	s := serveWith(t, SourceCA, newTable(t, map[string]Service{
		"a.test": {Name: "proxied", Upstream: application(t, talk)},
		"b.test": {Name: "own", Handler: http.HandlerFunc(talk)},
	}), serverConfig{tell: log.add})
	for _, host := range []string{"a.test", "b.test"} {
		ws, _, err := websocket.Dial(t.Context(), "wss://"+host+"/talk", &websocket.DialOptions{HTTPClient: s.client(t, 1)})
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.Read(t.Context()); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
		log.mu.Lock()
		if len(log.all) > 0 {
			t.Errorf("%s: told of before its end: %v", host, log.all)
		}
		log.mu.Unlock()
		ws.CloseNow()
		if a, line := log.next(t); a.Status != http.StatusSwitchingProtocols || a.Bytes < 5 || a.Aborted {
			t.Errorf("%s: got %s", host, line)
		}
	}
}
