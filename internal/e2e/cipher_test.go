//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"postern"
)

const (
	cipherSessions = 1000 // TLS sessions through each gateway that is to be blind
	brokenSessions = 50   // through the one that is not
	cipherWorkers  = 16
)

// The gateway sees only ciphertext: of what people and applications say to each
// other, nothing is in the gateway's memory.
func TestCipherMemory(t *testing.T) {
	c := newCipher(t)
	c.d.startGatewayWithoutLimits()
	c.nodes()
	c.d.ready("acme-office")
	c.d.ready("globex-office")
	during, after := c.run(c.d.roots(), cipherSessions)
	c.blind("memory during a transfer", during)
	c.blind("memory afterwards", after)
	c.record("real", cipherSessions, map[string]*search{"memory in use": during, "memory after use": after})
}

// The same of a gateway whose every conn is recorded: neither in what it read
// and wrote nor in its memory.
func TestCipherRecording(t *testing.T) {
	c := newCipher(t)
	o := c.observe(false)
	c.nodes()
	c.d.ready("acme-office")
	c.d.ready("globex-office")
	during, after := c.run(c.d.roots(), cipherSessions)
	recording := c.recording(o)
	c.blind("memory during a transfer", during)
	c.blind("memory afterwards", after)
	c.blind("recording", recording)
	c.record("recorded", cipherSessions, map[string]*search{
		"memory in use": during, "memory after use": after, "recording": recording,
	})
	proved(t, 1, "It reads nothing.",
		fmt.Sprintf("In %d TLS sessions through a gateway, clients and applications said secret words: in paths, headers, cookies, bodies, answers and "+
			"WebSocket messages. Then its memory, twice, and every byte that it had read or written were searched for them, also in hex and base64: %.0f MiB.",
			cipherSessions, float64(during.bytes+after.bytes+recording.bytes)/(1<<20)),
		"Not one was found. The same search of a gateway that ends TLS finds thousands, or it would prove nothing.")
}

// A gateway that ends TLS is found out, by the same search and by the node.
func TestCipherBrokenGatewayIsFoundOut(t *testing.T) {
	c := newCipher(t)
	o := c.observe(true)
	c.nodes()
	roots := readRoots(t, o.Intercept)
	eventually(t, 30*time.Second, func() error {
		return errors.Join(c.session("acme", roots, 0, "http/1.1"), c.session("globex", roots, 0, "http/1.1"))
	})
	// While the gateway lives: the nodes look through it.
	for _, name := range []string{"acme-office", "globex-office"} {
		eventually(t, 30*time.Second, func() error {
			text := must(t, program("postern"), "node", "status", "--data", c.d.data(name), "--json")
			if !strings.Contains(text, `"alarm"`) {
				return fmt.Errorf("%s raised no alarm: %s", name, text)
			}
			return nil
		})
	}
	during, after := c.run(roots, brokenSessions)
	recording := c.recording(o)
	for what, s := range map[string]*search{"memory during a transfer": during, "memory afterwards": after, "recording": recording} {
		if s.hits() == 0 {
			t.Errorf("%s: no marker was found, and there are many", what)
		}
	}
	for _, kind := range []string{"path", "header", "cookie", "body", "reply", "answer", "message"} {
		if recording.kinds[kind] == 0 {
			t.Errorf("recording: no marker of kind %q was found, only %v", kind, recording.kinds)
		}
	}
	c.record("broken", brokenSessions, map[string]*search{
		"memory in use": during, "memory after use": after, "recording": recording,
	})
}

// A cipher is a deployment without its gateway, and two applications that are
// spoken to in markers: a secret word, a kind and a number. Only the clients and
// the applications, all in this process, know the word.
type cipher struct {
	t    *testing.T
	d    *deployment
	word string
	app  *httptest.Server
	hold chan struct{} // closed to end the transfer that is held open
	wire *recorder     // of what the gateway says to the coordinator, and of an observer's datagrams

	sessions atomic.Int64 // TLS sessions that the gateway carried
}

func newCipher(t *testing.T) *cipher {
	d := bareDeployment(t)
	d.startCoordinator()
	wire, err := newRecorder(d.data("wire"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wire.file.Close() })
	d.control = wire.tapTCP(t, loopback(d.control))
	d.joinGateway()
	c := &cipher{t: t, d: d, word: postern.NewID() + postern.NewID(), hold: make(chan struct{}), wire: wire}
	mux := http.NewServeMux()
	mux.HandleFunc("/hold/", c.serveHold)
	mux.HandleFunc("/socket/", c.serveSocket)
	mux.HandleFunc("/", c.serve)
	c.app = httptest.NewServer(mux)
	t.Cleanup(c.app.Close)
	return c
}

// observe starts an observer in the gateway's place.
func (c *cipher) observe(intercept bool) observer {
	c.t.Helper()
	o := observer{
		Data: c.d.data("gateway"), Listen: loopback(c.d.https), UDP: uint16(c.d.udp),
		Advertise: loopback(c.wire.tapUDP(c.t, loopback(c.d.udp))), Public: loopback(c.d.https), Record: c.d.data("record"),
	}
	if intercept {
		o.Intercept = c.d.data("intercept.pem")
	}
	c.d.becomeObserver(o)
	return o
}

// nodes joins and starts a node for each of two tenants.
func (c *cipher) nodes() {
	c.t.Helper()
	for _, tenant := range []string{"acme", "globex"} {
		name := tenant + "-office"
		file := c.d.secretFile(c.d.tenant(tenant))
		eventually(c.t, 20*time.Second, func() error {
			if c.d.gateway.ended() {
				c.t.Fatal("the gateway ended")
			}
			_, err := run(c.t, "", append([]string{program("postern"), "node", "join", "--no-run", "--data", c.d.data(name), "--name", name,
				"--token-file", file}, publicly(c.app.URL)...)...)
			return err
		})
		c.d.runNode(name)
	}
}

// run has people speak with both applications, and searches the gateway's memory
// while they do and after they did.
func (c *cipher) run(roots *x509.CertPool, sessions int) (during, after *search) {
	c.t.Helper()
	var work errgroup.Group
	work.SetLimit(cipherWorkers)
	for n := range sessions {
		work.Go(func() error {
			return c.session([]string{"acme", "globex"}[n%2], roots, n, []string{"http/1.1", "h2"}[n/2%2])
		})
	}
	if err := work.Wait(); err != nil {
		c.t.Fatal(err)
	}
	held, err := c.holdOpen(roots)
	if err != nil {
		c.t.Fatal(err)
	}
	during = newSearch(c.word)
	during.memory(c.t, c.d.gateway.cmd.Process.Pid)
	c.serverNameInMemory()
	close(c.hold)
	if err := held(); err != nil {
		c.t.Fatalf("the transfer that was held open: %v", err)
	}
	if got := c.sessions.Load(); got < int64(sessions) {
		c.t.Errorf("%d TLS sessions were made, want at least %d", got, sessions)
	}
	after = newSearch(c.word)
	after.memory(c.t, c.d.gateway.cmd.Process.Pid)
	return during, after
}

// serverNameInMemory checks that what a gateway must know is found in it, so
// that a search that finds nothing means something.
func (c *cipher) serverNameInMemory() {
	c.t.Helper()
	s := newSearch("acme." + base)
	s.memory(c.t, c.d.gateway.cmd.Process.Pid)
	if s.found["plain"] == 0 {
		c.t.Error("the server name is not in the gateway's memory: the search is blind")
	}
}

// recording ends the observer and searches what it has recorded.
func (c *cipher) recording(o observer) *search {
	c.t.Helper()
	c.d.gateway.kill()
	streams, err := readRecording(o.Record)
	if err != nil {
		c.t.Fatal(err)
	}
	s, names := newSearch(c.word), newSearch("acme."+base)
	for _, stream := range streams {
		s.in(stream)
		names.in(stream)
	}
	if names.found["plain"] < int(c.sessions.Load())/2 {
		c.t.Errorf("the server name is in the recording %d times: not all hellos of %d sessions are there", names.found["plain"], c.sessions.Load())
	}
	// What the gateway's sockets carried: all of the overlay once more, encrypted,
	// and the control stream.
	wire, err := readRecording(c.wire.file.Name())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, stream := range wire {
		s.in(stream)
	}
	// Where TLS is ended, the recording has each byte twice more.
	if overlay, sockets := size(streams)/4, size(wire); sockets < overlay {
		c.t.Errorf("%d bytes of datagrams and control are on record, and the overlay alone had at least %d", sockets, overlay)
	}
	// Every conn has two streams, and every session two conns.
	if len(streams) < 4*int(c.sessions.Load()) {
		c.t.Errorf("the recording has %d streams, too few for %d sessions", len(streams), c.sessions.Load())
	}
	return s
}

// size returns how many bytes streams have.
func size(streams [][]byte) (n int) {
	for _, s := range streams {
		n += len(s)
	}
	return n
}

// blind checks that s searched something and found nothing.
func (c *cipher) blind(what string, s *search) {
	c.t.Helper()
	if s.bytes == 0 {
		c.t.Errorf("%s: nothing was searched", what)
	}
	if s.hits() > 0 {
		c.t.Errorf("%s: markers were found: %v, of kinds %v", what, s.found, s.kinds)
	}
}

func (c *cipher) record(gateway string, sessions int, searches map[string]*search) {
	if c.t.Failed() {
		return
	}
	noteFigure(c.t, "cipher", gateway+": TLS sessions", float64(sessions), "")
	for _, what := range slices.Sorted(maps.Keys(searches)) {
		noteFigure(c.t, "cipher", gateway+": "+what+", searched", float64(searches[what].bytes)/(1<<20), "MiB")
		noteFigure(c.t, "cipher", gateway+": "+what+", markers found", float64(searches[what].hits()), "")
	}
}

// mark is the marker of a kind in session n.
func (c *cipher) mark(kind string, n int) string { return fmt.Sprintf("%s-%s-%d", c.word, kind, n) }

// markBody is a body of some kilobytes, full of markers.
func (c *cipher) markBody(kind string, n int) string {
	return strings.Repeat(c.mark(kind, n)+" ", 100)
}

// client returns an HTTP client whose connections to the gateway each come from
// another address of this machine, and whose every request is a TLS session.
func (c *cipher) client(roots *x509.CertPool, n int, proto string) *http.Client {
	from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: from}).DialContext(ctx, network, loopback(c.d.https))
		},
		TLSClientConfig:   &tls.Config{RootCAs: roots, NextProtos: []string{proto}},
		ForceAttemptHTTP2: proto == "h2",
		DisableKeepAlives: true,
	}}
}

// session is one TLS session with one request, markers all over it and over its
// answer, both checked at the other end.
func (c *cipher) session(tenant string, roots *x509.CertPool, n int, proto string) error {
	body := c.markBody("body", n)
	req, err := http.NewRequest("POST", c.d.url(tenant, fmt.Sprintf("/%d/%s", n, c.mark("path", n))), strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Marker", c.mark("header", n))
	req.Header.Set("Cookie", "session="+c.mark("cookie", n))
	hc := c.client(roots, n, proto)
	defer hc.CloseIdleConnections()
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", req.URL.Host, resp.Status, answer)
	}
	if resp.Header.Get("Marker") != c.mark("reply", n) || string(answer) != c.markBody("answer", n) {
		return fmt.Errorf("the answer lost its markers: %v %.80q", resp.Header, answer)
	}
	if !resp.TLS.DidResume {
		c.sessions.Add(1)
	}
	return nil
}

// serve is the application's end of session.
func (c *cipher) serve(w http.ResponseWriter, r *http.Request) {
	var n int
	body, err := io.ReadAll(r.Body)
	if err == nil {
		_, err = fmt.Sscanf(r.URL.Path, "/%d/", &n)
	}
	cookie, noCookie := r.Cookie("session")
	switch {
	case err != nil || noCookie != nil:
		http.Error(w, fmt.Sprint(err, noCookie), http.StatusBadRequest)
	case !strings.HasSuffix(r.URL.Path, c.mark("path", n)), r.Header.Get("Marker") != c.mark("header", n),
		cookie.Value != c.mark("cookie", n), string(body) != c.markBody("body", n):
		http.Error(w, "the request lost its markers", http.StatusBadRequest)
	default:
		w.Header().Set("Marker", c.mark("reply", n))
		io.WriteString(w, c.markBody("answer", n))
	}
}

// holdOpen opens an upload with its download, and a WebSocket, and returns once
// markers went over each both ways. The func that it returns ends them.
func (c *cipher) holdOpen(roots *x509.CertPool) (end func() error, err error) {
	up, feed := io.Pipe()
	req, err := http.NewRequest("POST", c.d.url("acme", "/hold/"), up)
	if err != nil {
		return nil, err
	}
	var feeding sync.WaitGroup
	feeding.Go(func() { io.WriteString(feed, c.markBody("body", 1)) })
	resp, err := c.client(roots, 1, "h2").Do(req)
	if err != nil {
		return nil, err
	}
	feeding.Wait()
	first := make([]byte, len(c.markBody("answer", 1)))
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		return nil, err
	}
	ctx := context.Background()
	ws, _, err := websocket.Dial(ctx, c.d.url("globex", "/socket/"), &websocket.DialOptions{HTTPClient: c.client(roots, 2, "http/1.1")})
	if err != nil {
		return nil, err
	}
	if err := c.exchange(ctx, ws); err != nil {
		return nil, err
	}
	return func() error {
		feed.Close()
		rest, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && string(rest) != c.markBody("answer", 2) {
			err = fmt.Errorf("the end of the download is %.80q", rest)
		}
		return errors.Join(err, c.exchange(ctx, ws), ws.Close(websocket.StatusNormalClosure, ""))
	}, nil
}

// exchange sends a message and waits for the answer. (What a client sends is
// masked, RFC 6455, section 5.3, and so would not be found anywhere.)
func (c *cipher) exchange(ctx context.Context, ws *websocket.Conn) error {
	if err := ws.Write(ctx, websocket.MessageText, []byte(c.mark("message", 1))); err != nil {
		return err
	}
	_, got, err := ws.Read(ctx)
	if err == nil && string(got) != c.mark("message", 1) {
		err = fmt.Errorf("the WebSocket answered %q", got)
	}
	return err
}

func (c *cipher) serveHold(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	rc.EnableFullDuplex()
	want := []byte(c.markBody("body", 1))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r.Body, got); err != nil || !bytes.Equal(got, want) {
		http.Error(w, "the upload lost its markers", http.StatusBadRequest)
		return
	}
	io.WriteString(w, c.markBody("answer", 1))
	rc.Flush()
	select {
	case <-c.hold:
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, c.markBody("answer", 2))
	case <-r.Context().Done():
	}
}

func (c *cipher) serveSocket(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	for {
		kind, message, err := ws.Read(r.Context())
		if err != nil || ws.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

// readRoots returns the one CA in a PEM file.
func readRoots(t testing.TB, file string) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	eventually(t, 10*time.Second, func() error {
		data, err := os.ReadFile(file)
		if err == nil && !pool.AppendCertsFromPEM(data) {
			err = fmt.Errorf("%s holds no certificate", file)
		}
		return err
	})
	return pool
}
