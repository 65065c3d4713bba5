//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
)

// An application is what stands behind a tenant's node: an HTTP server in this
// process that tells what reached it.
//
//	GET /            its name
//	GET /seen        the request as it arrived, a seen in JSON
//	GET /crowd       the same, once everybody in crowd has asked
//	GET /socket      a WebSocket that echoes
//	GET /events?n=   n server-sent events, one for each token in next
//	GET /bytes?n=    n bytes of stream
//	PUT /bytes       a received in JSON
//	GET /toss?set=   an answer with each set as a Set-Cookie header
type application struct {
	name  string
	url   string
	next  chan struct{}
	crowd *crowd

	server *httptest.Server
}

// A seen is a request as the application saw it.
type seen struct {
	Name   string // the application's
	Method string
	Host   string
	Proto  string
	Header http.Header
}

// A received is what the application got of an upload.
type received struct {
	Bytes  int64
	SHA256 string
}

// newApplication starts an application on a loopback port. It ends with the test.
func newApplication(t testing.TB, name string) *application {
	t.Helper()
	a := prepareApplication(t, name)
	a.server.Start()
	a.url = a.server.URL
	return a
}

// prepareApplication returns an application that has yet to be started, at its
// server's Listener, which the caller may replace.
func prepareApplication(t testing.TB, name string) *application {
	t.Helper()
	a := &application{name: name, next: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.hello)
	mux.HandleFunc("/seen", a.seen)
	mux.HandleFunc("GET /crowd", a.inCrowd)
	mux.HandleFunc("GET /socket", a.socket)
	mux.HandleFunc("GET /events", a.events)
	mux.HandleFunc("GET /bytes", a.download)
	mux.HandleFunc("PUT /bytes", a.upload)
	mux.HandleFunc("GET /toss", a.toss)
	a.server = httptest.NewUnstartedServer(mux)
	t.Cleanup(a.stop)
	return a
}

// stop ends the application, as when its machine loses power: nothing is said.
func (a *application) stop() {
	a.server.CloseClientConnections()
	a.server.Close()
}

// again starts the application anew where it was before it stopped.
func (a *application) again(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", a.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b := prepareApplication(t, a.name)
	b.server.Listener.Close()
	b.server.Listener = ln
	b.server.Start()
	a.server, a.next = b.server, b.next
}

func (a *application) hello(w http.ResponseWriter, r *http.Request) { io.WriteString(w, a.name) }

func (a *application) seen(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(seen{a.name, r.Method, r.Host, r.Proto, r.Header})
}

func (a *application) inCrowd(w http.ResponseWriter, r *http.Request) {
	a.crowd.join(r.Context())
	a.seen(w, r)
}

// A crowd is requests that are answered once all of them are there.
type crowd struct {
	missing atomic.Int64
	all     chan struct{} // closed when none is missing
}

func newCrowd(n int) *crowd {
	c := &crowd{all: make(chan struct{})}
	c.missing.Store(int64(n))
	return c
}

// join waits for the others, for as long as somebody waits for the answer.
func (c *crowd) join(ctx context.Context) {
	if c.missing.Add(-1) == 0 {
		close(c.all)
	}
	select {
	case <-c.all:
	case <-ctx.Done():
	}
}

func (a *application) socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func (a *application) events(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("n"))
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
	for i := range n {
		select {
		case <-a.next:
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, a.name)
		http.NewResponseController(w).Flush()
	}
}

func (a *application) download(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.ParseInt(r.FormValue("n"), 10, 64)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.CopyBuffer(onlyWriter{w}, stream(n), make([]byte, 256<<10))
}

func (a *application) upload(w http.ResponseWriter, r *http.Request) {
	got, err := digest(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	json.NewEncoder(w).Encode(got)
}

func (a *application) toss(w http.ResponseWriter, r *http.Request) {
	w.Header()["Set-Cookie"] = r.URL.Query()["set"]
	io.WriteString(w, a.name)
}

// onlyWriter hides ReadFrom, which would bring its own small buffer.
type onlyWriter struct{ io.Writer }

// stream returns n bytes that look random and are always the same.
func stream(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte([]byte("postern end to end, bulk stream."))), n)
}

// digest reads r to its end.
func digest(r io.Reader) (received, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(onlyWriter{h}, r, make([]byte, 256<<10))
	return received{n, hex.EncodeToString(h.Sum(nil))}, err
}
