package node

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern"
	"postern/internal/member"
)

func TestNode(t *testing.T) {
	w := newWorld(t)
	up := application(t, func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, r.Header.Get("X-Forwarded-For"), " ", r.Host)
	})
	dir := w.join()
	books := Service{Title: "Books", Upstream: up, Access: postern.AccessPublic}
	n, stop, ended := w.start(dir, books)
	await(t, "ready", ready(n))
	if got, err := w.browse("/"); err != nil || got != "127.0.0.1 "+testHost {
		t.Fatalf("through the gateway: %q, %v", got, err)
	}
	await(t, "a publication", func() (ok bool) {
		w.get(func() { ok = len(w.published) > 0 })
		return ok
	})
	w.get(func() {
		if want := []postern.Service{{Name: "default", Title: "Books", Access: postern.Access{Who: postern.AccessPublic}}}; !reflect.DeepEqual(w.published[0].Services, want) {
			t.Errorf("published %+v, want %+v", w.published, want)
		}
	})
	await(t, "a report", func() (ok bool) {
		w.get(func() { ok = len(w.reported) > 0 })
		return ok
	})
	await(t, "the application's state", func() bool { return n.Status().Services[0].State == UpstreamUp })
	checkStatus(t, dir)

	// The coordinator is away, and the node starts from its disk.
	w.set(func() { w.mode = "away" })
	stop()
	if err := <-ended; err != nil {
		t.Fatalf("Run: %v", err)
	}
	n, stop, ended = w.start(dir, books)
	await(t, "ready without the coordinator", ready(n))
	if got, err := w.browse("/"); err != nil || got != "127.0.0.1 "+testHost {
		t.Fatalf("without the coordinator: %q, %v", got, err)
	}
	if n.Status().Control.Up {
		t.Error("the control stream is said to be up")
	}

	// It comes back with another gateway: the old one's connections end.
	w.set(func() {
		w.mode = ""
		w.gateways = slices.Clone(w.gateways)
		w.gateways[0].ID, w.gateways[0].Address, w.gateways[0].WireGuard = "g2", netip.MustParseAddr("fd12:3456:789a::2"), postern.NewWireGuardPrivate().Public()
	})
	await(t, "the old gateway's end", func() bool { _, err := w.browse("/"); return err != nil })

	w.set(func() { w.mode = "removed" })
	if err := <-ended; !errors.Is(err, member.ErrRemoved) {
		t.Errorf("Run of a removed node: %v, want %v", err, member.ErrRemoved)
	}
	stop()
}

// checkStatus holds what the socket says of TestNode's node against the world.
func checkStatus(t *testing.T, dir *Dir) {
	t.Helper()
	s, err := QueryStatus(t.Context(), dir.Path(Socket))
	if err != nil {
		t.Fatal(err)
	}
	want := Membership{ID: nodeID, Name: "office", Tenant: "acme", Address: nodeAddr, Deployment: "dep", Identity: s.Member.Identity, WireGuard: s.Member.WireGuard, KeySince: s.Member.KeySince}
	if s.Member != want || s.Member.Identity.IsZero() {
		t.Errorf("member is %+v, want %+v", s.Member, want)
	}
	if s.Version != "v1.2.3" || s.Started.IsZero() || s.Draining || !s.Control.Up || s.MapVersion == 0 || s.Connections.Accepted == 0 {
		t.Errorf("status is %+v", s)
	}
	if len(s.Tunnels) != 1 || s.Tunnels[0].Gateway != "gw-1" || s.Tunnels[0].Handshake.IsZero() || s.Tunnels[0].Received == 0 ||
		!strings.HasPrefix(s.Tunnels[0].Endpoint, "127.0.0.1:") {
		t.Errorf("tunnels are %+v", s.Tunnels)
	}
	if len(s.Routes) != 1 {
		t.Fatalf("routes are %+v", s.Routes)
	}
	r := s.Routes[0]
	if r.Host != testHost || r.URL != "https://acme.test:8443" || r.Service != "default" || r.SeenTLS != "TLS 1.3" || r.Error != "" ||
		r.Certificate == nil || r.Certificate.Source != SourceCA || r.Certificate.SHA256 != r.SeenSHA256 {
		t.Errorf("route is %+v, certificate %+v", r, r.Certificate)
	}
	if len(s.Services) != 1 || s.Services[0].Title != "Books" || !strings.HasPrefix(s.Services[0].Upstream, "http://127.0.0.1:") {
		t.Errorf("services are %+v", s.Services)
	}
}

// What was answered last lies in the stack when the drain is over, and must not
// go down with it.
func TestDrainDeliversTheRest(t *testing.T) {
	const size = 4 << 20
	w := newWorld(t)
	began := make(chan struct{})
	n, stop, ended := w.start(w.join(), Service{Access: postern.AccessPublic, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		close(began)
		io.CopyN(rw, zeros{}, size)
	})})
	await(t, "ready", ready(n))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { <-began; stop() })
	if body, err := w.browse("/"); err != nil || len(body) != size {
		t.Errorf("got %d bytes, %v, want %d", len(body), err, size)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// Close ends a drain that a request holds up.
func TestCloseEndsTheDrain(t *testing.T) {
	w := newWorld(t)
	began := make(chan struct{})
	n, stop, ended := w.start(w.join(), Service{Access: postern.AccessPublic, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			close(began)
			<-r.Context().Done()
		}
	})})
	await(t, "ready", ready(n))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.browse("/hang") })
	<-began
	stop()
	await(t, "draining", func() bool { return n.Status().Draining })
	select {
	case err := <-ended:
		t.Fatalf("Run returned %v with a request under way", err)
	default:
	}
	n.Close()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	joined := w.join()
	gateway := w.join()
	id := w.id
	id.Role = postern.RoleGateway
	if err := gateway.dir.WriteJSON("identity.json", id); err != nil {
		t.Fatal(err)
	}
	empty, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	app := Service{Handler: http.NotFoundHandler()}
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"not joined", Config{Dir: empty}, member.ErrNotJoined.Error()},
		{"a gateway's membership", Config{Dir: gateway}, "want a node's"},
		{"keepalive of half a second", Config{Dir: joined, Keepalive: time.Second / 2}, "keepalive 500ms"},
		{"keepalive of a day", Config{Dir: joined, Keepalive: 24 * time.Hour}, "keepalive 24h"},
		{"a file and services", Config{Dir: joined, File: "x", Services: []Service{app}}, "want either a configuration file, or services"},
		{"no such file", Config{Dir: joined, File: "nowhere.yaml"}, "nowhere.yaml: no such file"},
		{"a service twice", Config{Dir: joined, Services: []Service{app, app}}, `service "default" is there twice`},
		{"a bad service", Config{Dir: joined, Services: []Service{{Name: "books", Upstream: "htp:/x"}}}, `service "books": upstream "htp:/x"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// What keeps a route from being ready stands in its status.
func TestRouteThatWaits(t *testing.T) {
	w := newWorld(t)
	certFile, keyFile := w.ca.files("b.test")
	n, err := New(Config{Dir: w.join(), Services: []Service{
		{Name: "files", Handler: http.NotFoundHandler(), CertFile: certFile, KeyFile: keyFile},
		{Name: "books", Handler: http.NotFoundHandler()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	own := []string{nodeID}
	n.apply(postern.Map{Version: 7, Sections: map[string]postern.Section{
		"": {Deployment: &postern.Deployment{ID: "dep", Base: "test"}},
		"acme": {Tenant: "acme", Routes: []postern.Route{
			{Host: "a.test", Service: "files", Nodes: own},
			{Host: "b.test", Service: "files", Nodes: own},
			{Host: "c.test", Service: "books", Nodes: own},
			{Host: "d.test", Service: "gone", Nodes: own},
			{Host: "e.test", Service: "books", Nodes: []string{"n2"}},
		}},
		"other": {Tenant: "other", Routes: []postern.Route{{Host: "f.test", Service: "books", Nodes: own}}},
	}})
	n.setTable(*n.latest.Load(), n.published.Load())
	want := []struct {
		host, says, source string
		held               bool
	}{
		{"a.test", "valid for b.test, not a.test", SourceFile, false},
		{"b.test", "", SourceFile, true},
		{"c.test", errNoCertificate.Error(), SourceCA, false},
		{"d.test", `does not publish the service "gone"`, "", false},
	}
	got := n.Status().Routes
	if len(got) != len(want) {
		t.Fatalf("routes are %+v", got)
	}
	for i, r := range got {
		if r.Host != want[i].host || r.URL != "https://"+r.Host || r.State != RouteWaiting || !strings.Contains(r.Error, want[i].says) {
			t.Errorf("route %+v, want %+v", r, want[i])
		}
		if r.Certificate == nil {
			r.Certificate = &Certificate{}
		}
		if r.Certificate.Source != want[i].source || (r.Certificate.SHA256 != "") != want[i].held {
			t.Errorf("%s: certificate %+v, want source %q, held %v", r.Host, r.Certificate, want[i].source, want[i].held)
		}
	}
}
