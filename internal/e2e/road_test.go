//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A road is a deployment with two tenants, each with an application behind a node.
type road struct {
	*deployment
	acme, globex         *application
	acmeNode, globexNode *process
}

func newRoad(t *testing.T) *road {
	t.Helper()
	r := &road{deployment: newDeployment(t), acme: newApplication(t, "acme"), globex: newApplication(t, "globex")}
	r.acmeNode = r.node(r.tenant("acme"), "acme-office", r.acme.url)
	r.globexNode = r.node(r.tenant("globex"), "globex-office", r.globex.url)
	return r
}

// clientFrom is client with a source address of its own, so that it counts as a
// client of its own and is told from others.
func (d *deployment) clientFrom(source string, protos ...string) *http.Client {
	c := d.client(protos...)
	dialer := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0))}
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, loopback(d.https))
	}
	return c
}

// fetch gets a page that must be answered with status, and returns its body.
func fetch(t testing.TB, c *http.Client, url string, status int) string {
	t.Helper()
	got, body, err := get(c, url)
	if err != nil {
		t.Fatal(err)
	}
	if got != status {
		t.Fatalf("GET %s: status %d, want %d; the answer was %.500q", url, got, status, body)
	}
	return body
}

// httpVersions are the protocols that browsers may speak with a node.
var httpVersions = []struct {
	name  string
	curl  string // option
	alpn  string
	proto string // as curl tells it
}{
	{"HTTP/1.1", "--http1.1", "http/1.1", "1.1"},
	{"HTTP/2", "--http2", "h2", "2"},
}

// TestRoadClients goes the whole road with clients that are not ours, and with
// everything that HTTP is used for.
func TestRoadClients(t *testing.T) {
	r := newRoad(t)
	t.Run("curl", r.testCurl)
	t.Run("openssl", r.testOpenSSL)
	t.Run("websocket", r.testWebSocket)
	t.Run("events", r.testEvents)
	t.Run("parallel", r.testParallel)
	t.Run("client address", r.testClientAddress)
	t.Run("misdirected", r.testMisdirected)
	t.Run("redirect", r.testRedirect)
	t.Run("well-known", r.testWellKnown)
	t.Run("edge pipe", r.testEdgePipe)
	t.Run("join", r.testJoin)
}

func (r *road) testCurl(t *testing.T) {
	for _, version := range httpVersions {
		for _, tenant := range []string{"acme", "globex"} {
			t.Run(version.name+" "+tenant, func(t *testing.T) {
				curl := []string{"curl", "--silent", "--show-error", "--fail", version.curl, "--cacert", r.caFile(),
					"--write-out", "\n%{http_version} %{response_code} %{ssl_verify_result}"}
				want := tenant + "\n" + version.proto + " 200 0"
				if got := must(t, append(curl, r.url(tenant, "/"))...); got != want {
					t.Errorf("curl by name: got %q, want %q", got, want)
				}
				resolve := fmt.Sprintf("%s.%s:%d:127.0.0.1", tenant, base, r.https)
				if got := must(t, append(curl, "--resolve", resolve, r.url(tenant, "/"))...); got != want {
					t.Errorf("curl by --resolve: got %q, want %q", got, want)
				}
				body := strings.Repeat("voucher ", 1<<18)
				sum, _ := digest(strings.NewReader(body))
				wantSum, _ := json.Marshal(sum)
				out, err := run(t, body, append(curl, "--upload-file", "-", "--header", "Expect: 100-continue", r.url(tenant, "/bytes"))...)
				if got, _, _ := strings.Cut(out, "\n"); err != nil || got != string(wantSum) {
					t.Errorf("curl upload: got %q and %v, want %q", out, err, wantSum)
				}
			})
		}
	}
}

func (r *road) testOpenSSL(t *testing.T) {
	client := func(name string, more ...string) []string {
		return append([]string{"openssl", "s_client", "-connect", loopback(r.https), "-servername", name,
			"-CAfile", r.caFile(), "-verify_return_error", "-verify_hostname", name}, more...)
	}
	acme := "acme." + base
	for _, test := range []struct {
		name string
		argv []string
		want string // part of the output, or of the error if fails
		fail bool
	}{
		{name: "newest", argv: client(acme), want: "TLSv1.3"},
		{name: "TLS 1.2", argv: client(acme, "-tls1_2"), want: "TLSv1.2"},
		{name: "ALPN", argv: client(acme, "-alpn", "h2"), want: "ALPN protocol: h2"},
		{name: "TLS 1.1", argv: client(acme, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"), fail: true, want: "SSL alert number 70"},
		{name: "unknown name", argv: client("nobody." + base), fail: true, want: "SSL alert number 112"},
		{name: "no name", argv: []string{"openssl", "s_client", "-connect", loopback(r.https), "-noservername"}, fail: true, want: "SSL alert number 112"},
		{name: "no hello", argv: []string{"curl", "--silent", "--show-error", "http://" + loopback(r.https)}, want: "This port speaks HTTPS only"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := run(t, "", test.argv...)
			if (err != nil) != test.fail {
				t.Errorf("got error %v, want one: %v", err, test.fail)
			}
			if said := fmt.Sprint(out, err); !strings.Contains(said, test.want) {
				t.Errorf("got %s\nwant %q in it", said, test.want)
			}
		})
	}
}

func (r *road) testWebSocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, r.url("acme", "/socket"), &websocket.DialOptions{HTTPClient: r.client("http/1.1")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for _, size := range []int{0, 1, 125, 126, 4096, 65536, 300_000} {
		sent := bytes.Repeat([]byte{'p'}, size)
		if err := c.Write(ctx, websocket.MessageBinary, sent); err != nil {
			t.Fatalf("send %d bytes: %v", size, err)
		}
		kind, got, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, sent) {
			t.Fatalf("got %v of %d bytes and %v, want the %d bytes that were sent", kind, len(got), err, size)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
}

// testEvents lets the application send an event only when the one before it has
// arrived: whoever holds one back on the way stops the test.
func (r *road) testEvents(t *testing.T) {
	for _, version := range httpVersions {
		t.Run(version.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			const n = 20
			events := r.listen(ctx, t, r.client(version.alpn), "acme", n)
			for i := range n {
				r.acme.mustEvent(ctx, t, events, i)
			}
			if events.Scan() {
				t.Errorf("got %q behind the last event", events.Text())
			}
		})
	}
}

// listen opens a stream of n of a tenant's events.
func (d *deployment) listen(ctx context.Context, t testing.TB, c *http.Client, tenant string, n int) *bufio.Scanner {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url(tenant, fmt.Sprintf("/events?n=%d", n)), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("got status %d and type %q, want 200 and a stream of events", resp.StatusCode, got)
	}
	return bufio.NewScanner(resp.Body)
}

// event has the application send one event and returns its id, once it arrived.
func (a *application) event(ctx context.Context, events *bufio.Scanner) (id string, err error) {
	select {
	case a.next <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	for events.Scan() {
		line := events.Text()
		if line == "" && id != "" {
			return id, nil
		}
		if s, ok := strings.CutPrefix(line, "id: "); ok {
			id = s
		}
	}
	return "", fmt.Errorf("the stream ended: %v", events.Err())
}

// mustEvent is event for one that has to arrive, with the id i.
func (a *application) mustEvent(ctx context.Context, t testing.TB, events *bufio.Scanner, i int) {
	t.Helper()
	if got, err := a.event(ctx, events); err != nil || got != strconv.Itoa(i) {
		t.Fatalf("got event %q and %v, want %d", got, err, i)
	}
}

// testParallel has 200 requests of 20 clients under way at the same time.
// Neither application answers any before all have arrived.
func (r *road) testParallel(t *testing.T) {
	const clients, each = 20, 10
	crowd := newCrowd(clients * each)
	r.acme.crowd, r.globex.crowd = crowd, crowd
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	var all sync.WaitGroup
	for i := range clients {
		source := fmt.Sprintf("127.0.1.%d", i+1)
		c := r.clientFrom(source, httpVersions[i%2].alpn)
		for j := range each {
			tenant := []string{"acme", "globex"}[j%2]
			all.Go(func() {
				if err := r.inCrowd(ctx, c, tenant, source); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	noteFigure(t, "road", "200 parallel requests", time.Since(begin).Seconds(), "s")
}

// inCrowd makes one request of testParallel.
func (r *road) inCrowd(ctx context.Context, c *http.Client, tenant, source string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url(tenant, "/crowd"), nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got seen
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return fmt.Errorf("%s: status %d: %w", tenant, resp.StatusCode, err)
	}
	if from := got.Header.Get("X-Forwarded-For"); got.Name != tenant || from != source {
		return fmt.Errorf("asked %s from %s: %s answered one from %s", tenant, source, got.Name, from)
	}
	return nil
}

func (r *road) testClientAddress(t *testing.T) {
	const source = "127.0.7.7"
	for _, version := range httpVersions {
		t.Run(version.name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, r.url("acme", "/seen"), nil)
			if err != nil {
				t.Fatal(err)
			}
			spoofed := []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-User", "Forwarded",
				"X-Real-Ip", "X-Request-Id", "Postern-User", "X_Forwarded_For", "X_Real_IP"}
			for _, name := range spoofed {
				req.Header[name] = []string{"spoofed"}
			}
			resp, err := r.clientFrom(source, version.alpn).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var got seen
			if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
				t.Fatal(err)
			}
			host := fmt.Sprintf("acme.%s:%d", base, r.https)
			if got.Host != host {
				t.Errorf("Host: got %q, want %q", got.Host, host)
			}
			want := http.Header{"X-Forwarded-For": {source}, "X-Real-Ip": {source}, "X-Forwarded-Host": {host}, "X-Forwarded-Proto": {"https"}}
			for name, value := range want {
				if !slices.Equal(got.Header[name], value) {
					t.Errorf("%s: got %q, want %q", name, got.Header[name], value)
				}
			}
			if got.Header.Get("X-Request-Id") == "" {
				t.Error("no X-Request-Id arrived")
			}
			for name, values := range got.Header {
				if slices.Contains(values, "spoofed") {
					t.Errorf("%s: spoofed arrived at the application", name)
				}
			}
		})
	}
}

func (r *road) testMisdirected(t *testing.T) {
	for _, version := range httpVersions {
		t.Run(version.name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, r.url("acme", "/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = fmt.Sprintf("globex.%s:%d", base, r.https)
			resp, err := r.client(version.alpn).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("got status %d, want 421", resp.StatusCode)
			}
		})
	}
}

func (r *road) testRedirect(t *testing.T) {
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer c.CloseIdleConnections()
	for _, tenant := range []string{"acme", "nobody"} {
		req, err := http.NewRequest(http.MethodPost, "http://"+loopback(r.http)+"/books?year=2026", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tenant + "." + base
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := r.url(tenant, "/books?year=2026")
		if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusPermanentRedirect || got != want {
			t.Errorf("%s: got status %d to %q, want 308 to %q", tenant, resp.StatusCode, got, want)
		}
	}
}

func (r *road) testWellKnown(t *testing.T) {
	c := r.clientFrom("127.0.8.8")
	for path, want := range map[string]string{
		"health":  `"ok"`,
		"version": `"version"`,
		"whoami":  `"127.0.8.8"`,
	} {
		if got := fetch(t, c, r.url("acme", "/.well-known/postern/"+path), http.StatusOK); !json.Valid([]byte(got)) || !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want JSON with %s", path, got, want)
		}
	}
}

// testJoin adds a node to what runs.
func (r *road) testJoin(t *testing.T) {
	token := r.tenant("initech")
	begin := time.Now()
	r.node(token, "initech-office", newApplication(t, "initech").url)
	noteFigure(t, "road", "join to ready", time.Since(begin).Seconds(), "s")
	if got := fetch(t, r.client(), r.url("initech", "/"), http.StatusOK); got != "initech" {
		t.Errorf("got %q, want %q", got, "initech")
	}
}

// testEdgePipe checks that the nodes know no other way to the coordinator than
// through the gateway: that they joined and are ready tells the rest.
func (r *road) testEdgePipe(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(r.data("acme-office"), "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	var id struct{ URLs []string }
	if err := json.Unmarshal(data, &id); err != nil {
		t.Fatal(err)
	}
	if want := []string{fmt.Sprintf("https://control.%s:%d", base, r.https)}; !slices.Equal(id.URLs, want) {
		t.Errorf("the node reaches the coordinator at %q, want %q", id.URLs, want)
	}
}
