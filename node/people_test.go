package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"testing"
	"time"

	"postern"
)

// browser returns a client of the gateway's public port that keeps cookies.
func (w *world) browser() *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.public)
		},
		TLSClientConfig: &tls.Config{RootCAs: w.ca.pool()},
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &http.Client{Transport: tr, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// signIn signs p in at testHost, with whom the session at the portal is called sid.
func (w *world) signIn(c *http.Client, p postern.Person, sid string) {
	w.t.Helper()
	resp, body := get(w.t, c, "https://"+testHost+"/", navigation...)
	if resp.StatusCode != http.StatusSeeOther {
		w.t.Fatalf("a stranger's link leads to %d %s", resp.StatusCode, body)
	}
	back := w.portal.authorize(resp.Header.Get("Location"), testUser{p.ID, sid, time.Now()})
	if resp, body = get(w.t, c, strings.Replace(back, ":8443/", "/", 1), navigation...); resp.StatusCode != http.StatusSeeOther {
		w.t.Fatalf("the sign-in ends with %d %s", resp.StatusCode, body)
	}
}

// Through a real tunnel and by a real map: signing in, a restart, and each way to lose
// it again, within two seconds.
func TestPeopleComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.portal, w.people = newTestPortal(t, time.Now), []postern.Person{ann, bob} })
	up := application(t, func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(rw, r.Header.Get(headerUser))
		if r.URL.Path == "/stream" {
			http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		}
	})
	dir := w.join()
	n, stop, ended := w.start(dir, Service{Upstream: up})
	await(t, "ready", ready(n))
	if s := n.Status(); s.Portal != testIssuer || s.Sessions != 0 || s.Services[0].Access != postern.AccessMembers {
		t.Errorf("status is %+v", s)
	}

	c := w.browser()
	w.signIn(c, ann, "sid-1")
	if _, body := get(t, c, "https://"+testHost+"/"); body != ann.Login+"\n" {
		t.Fatalf("the application heard of %q", body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	n, _, _ = w.start(dir, Service{Upstream: up})
	await(t, "ready again", ready(n))
	if _, body := get(t, c, "https://"+testHost+"/"); body != ann.Login+"\n" {
		t.Errorf("after a restart the application heard of %q", body)
	}
	if s := n.Status(); s.Sessions != 1 {
		t.Errorf("after a restart there are %d sessions", s.Sessions)
	}

	later := ann
	later.NotBefore = time.Now().Add(time.Hour).Unix()
	for i, tt := range []struct {
		name string
		set  func()
	}{
		{"session ended", func() { w.ended = []string{"sid-1"} }},
		{"grant revoked", func() { w.people = []postern.Person{bob} }},
		{"signed out everywhere", func() { w.people = []postern.Person{later, bob} }},
		{"access changed", func() {
			if err := n.SetServices([]Service{{Upstream: up, Access: postern.AccessGroups, Groups: []string{"accounting"}}}); err != nil {
				t.Error(err)
			}
		}},
	} {
		if i > 0 {
			w.set(func() { w.people = []postern.Person{ann, bob} })
			await(t, "the grant", func() bool { p := n.server.table.Load().people[ann.ID]; return p != nil && p.Equal(ann) })
			w.signIn(c, ann, fmt.Sprint("sid-again-", i))
		}
		other := w.browser()
		w.signIn(other, bob, fmt.Sprint("sid-bob-", i))
		var streams []io.ReadCloser
		for _, who := range []*http.Client{c, other} {
			resp, err := who.Get("https://" + testHost + "/stream")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			streams = append(streams, resp.Body)
		}
		begin := time.Now()
		w.set(tt.set)
		if _, err := io.Copy(io.Discard, streams[0]); err == nil {
			t.Errorf("%s: what was cut off looks whole", tt.name)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s: the stream went on for %v", tt.name, took)
		} else {
			t.Logf("%s: cut off after %v", tt.name, took)
		}
		if resp, _ := get(t, c, "https://"+testHost+"/", program...); resp.StatusCode != 401 && resp.StatusCode != 403 {
			t.Errorf("%s: the next request gets %d", tt.name, resp.StatusCode)
		}
		if resp, _ := get(t, other, "https://"+testHost+"/"); resp.StatusCode != 200 {
			t.Errorf("%s: somebody else gets %d", tt.name, resp.StatusCode)
		}
		streams[1].Close()
	}
}

// A program with an HTTPS server of its own has each request judged, or gets none.
func TestProtect(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.portal, w.people = newTestPortal(t, time.Now), []postern.Person{ann, bob} })
	ln, err := Listen(t.Context(), ListenConfig{
		Data: w.joined(), Drain: 20 * time.Second,
		Service: Service{Exceptions: []Exception{{Path: "/open/", Access: postern.AccessPublic}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(); err == nil || !strings.Contains(err.Error(), "Listener.Protect") {
		t.Errorf("Accept with nothing protected: %v", err)
	}
	if err := ln.SetService(Service{Access: postern.AccessPublic, Exceptions: []Exception{{Path: "/x/"}}}); err == nil {
		t.Error("a service that is for members in part is taken with nothing protected")
	}
	handler := ln.Protect(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		u, _ := UserOf(r.Context())
		fmt.Fprintf(rw, "%s %s %s", u.Login, r.Header.Get(headerUserID), r.Header.Get("Cookie"))
	}))
	hs := &http.Server{Handler: handler}
	var wg sync.WaitGroup
	wg.Go(func() { hs.Serve(ln) })
	defer wg.Wait()
	defer hs.Close()
	if _, err := ln.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := w.browser()
	if _, body := get(t, c, "https://"+testHost+"/open/x", "Postern-User-Id", "u-root"); body != "  " {
		t.Errorf("nobody is %q", body)
	}
	if resp, body := get(t, c, "https://"+testHost+"/", program...); resp.StatusCode != 401 {
		t.Errorf("nobody got %d %s", resp.StatusCode, body)
	}
	w.signIn(c, ann, "sid-1")
	if _, body := get(t, c, "https://"+testHost+"/"); body != "ann@acme.test u-ann " {
		t.Errorf("ann is %q", body)
	}
	if _, body := get(t, c, "https://"+testHost+ownPath+"whoami"); !strings.Contains(body, "u-ann") || !strings.Contains(body, `"address":"127.0.0.1"`) {
		t.Errorf("whoami is %s", body)
	}
	if resp, _ := get(t, c, "https://"+testHost+"/", "Host", "other.test"); resp.StatusCode != 421 {
		t.Errorf("another host gets %d", resp.StatusCode)
	}
	w.set(func() { w.people = []postern.Person{bob} })
	await(t, "the revocation", func() bool {
		resp, _ := get(t, c, "https://"+testHost+"/", program...)
		return resp.StatusCode == 401
	})

	// Elsewhere the handler knows nobody, and so lets nobody in.
	plain := application(t, handler.ServeHTTP)
	resp, err := http.Get(plain + "/open/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != 421 {
		t.Errorf("over another listener: %d", resp.StatusCode)
	}
}
