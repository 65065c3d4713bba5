package node

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern"
)

// A tap is an application whose answers go on line by line, as told.
type tap struct {
	name string
	url  string
	turn chan struct{}
}

func newTap(t *testing.T, name string) *tap {
	a := &tap{name: name, turn: make(chan struct{})}
	a.url = application(t, a.serve)
	return a
}

func (a *tap) serve(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, a.name)
	if r.URL.Path != "/stream" {
		return
	}
	for {
		http.NewResponseController(w).Flush()
		select {
		case <-a.turn:
			fmt.Fprintln(w, a.name)
		case <-r.Context().Done():
			return
		}
	}
}

// A stream is an answer that goes on.
type stream struct {
	t     *testing.T
	lines *bufio.Scanner
}

// tapped opens one through the gateway.
func (w *world) tapped(t *testing.T) *stream {
	t.Helper()
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.public)
		},
		TLSClientConfig: &tls.Config{RootCAs: w.ca.pool()},
	}
	t.Cleanup(tr.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+testHost+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &stream{t, bufio.NewScanner(resp.Body)}
}

func (s *stream) next(want string) {
	s.t.Helper()
	if !s.lines.Scan() || s.lines.Text() != want {
		s.t.Errorf("the stream goes on with %q and %v, want %q", s.lines.Text(), s.lines.Err(), want)
	}
}

func TestSetServices(t *testing.T) {
	w := newWorld(t)
	one, two := newTap(t, "one"), newTap(t, "two")
	n, _, _ := w.start(w.join(), Service{Upstream: one.url, Access: postern.AccessPublic})
	await(t, "ready", ready(n))
	first := w.tapped(t)
	first.next("one")
	told := func(want postern.Service) {
		t.Helper()
		begin := time.Now()
		await(t, "what the coordinator is told", func() (ok bool) {
			w.get(func() {
				for _, p := range w.published {
					ok = reflect.DeepEqual(p.Services, []postern.Service{want})
				}
			})
			return ok
		})
		t.Logf("the coordinator was told after %v", time.Since(begin))
	}

	// Other words, the same application: nothing is disturbed.
	books := Service{
		Title: "Books", Description: "Double entry.", Icon: "book", Upstream: one.url,
		Entries: []postern.Entry{{Name: "y2026", Title: "2026", Path: "/y/2026"}}, Access: postern.AccessPublic,
	}
	before := n.published.Load().order[0]
	if err := n.SetServices([]Service{books}); err != nil {
		t.Fatal(err)
	}
	told(postern.Service{
		Name: "default", Title: "Books", Description: "Double entry.", Icon: "book", Entries: books.Entries,
		Access: postern.Access{Who: postern.AccessPublic},
	})
	after := n.published.Load().order[0]
	if after.transport != before.transport || after.health != before.health || after.requests != before.requests {
		t.Error("what did not change was made anew")
	}
	one.turn <- struct{}{}
	first.next("one")

	// All or nothing.
	for _, bad := range []struct {
		service     Service
		field, want string
	}{
		{Service{Name: "files", Upstream: "htp:/x"}, "services[1].upstream", `service "files": upstream "htp:/x"`},
		{Service{Name: "files", Upstream: "/", Icon: "skull"}, "services[1].icon", `no icon "skull"`},
		{Service{Upstream: "/"}, "services[1].name", `service "default" is there twice`},
	} {
		err := n.SetServices([]Service{{Upstream: two.url}, bad.service})
		var fe *postern.FieldError
		if !errors.As(err, &fe) || fe.Field != bad.field || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("got %v at %+v, want %q at %s", err, fe, bad.want, bad.field)
		}
	}
	if got := n.Services(); len(got) != 1 || got[0].Upstream != one.url || n.published.Load().order[0] != after {
		t.Errorf("a refusal changed what is published to %+v", got)
	}

	// Another upstream: what is under way ends at the old one.
	books.Upstream = two.url
	if err := n.SetServices([]Service{books}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.browse("/"); err != nil || got != "two\n" {
		t.Errorf("after the change: %q, %v", got, err)
	}
	one.turn <- struct{}{}
	first.next("one")
	await(t, "the new application's state", func() bool { return n.Status().Services[0].State == UpstreamUp })

	// Nothing is published any more: what is under way is cut off.
	second := w.tapped(t)
	second.next("two")
	if err := n.SetServices(nil); err != nil {
		t.Fatal(err)
	}
	if second.lines.Scan() || second.lines.Err() == nil {
		t.Errorf("the stream of a service that is gone went on with %q, and ended with %v", second.lines.Text(), second.lines.Err())
	}
	if got, err := w.browse("/"); err != nil || !strings.Contains(got, "nothing is published") {
		t.Errorf("with nothing published: %q, %v", got, err)
	}
}

// A request that came with the table before is turned away by the service itself.
func TestRequestsEnd(t *testing.T) {
	var r requests
	ctx, done, ok := r.begin(t.Context())
	if !ok || ctx.Err() != nil {
		t.Fatal("a request does not begin")
	}
	_, over, _ := r.begin(t.Context())
	over()
	r.end()
	if ctx.Err() == nil {
		t.Error("the request goes on after the end")
	}
	done()
	if _, _, ok := r.begin(t.Context()); ok || len(r.open) != 0 {
		t.Error("requests begin after the end, or are kept")
	}
}
