package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"postern"
)

// joined returns the path of a directory that joined and that nobody has open.
func (w *world) joined() string {
	w.t.Helper()
	dir := w.join()
	if err := dir.Close(); err != nil {
		w.t.Fatal(err)
	}
	return dir.Path(".")
}

func TestListen(t *testing.T) {
	w := newWorld(t)
	data := w.joined()
	ln, err := Listen(t.Context(), ListenConfig{
		Data: data, Drain: 20 * time.Second,
		Service: Service{Title: "Hello", Entries: []postern.Entry{{Name: "help", Path: "/help"}}, Access: postern.AccessPublic},
	})
	if err != nil {
		t.Fatal(err)
	}
	turn := make(chan struct{})
	hs := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(rw, host, r.Proto, tls.VersionName(r.TLS.Version), r.TLS.ServerName)
		if r.URL.Path == "/stream" {
			http.NewResponseController(rw).Flush()
			<-turn
			fmt.Fprintln(rw, "the end")
		}
	})}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := hs.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	urls, err := ln.AwaitReady(t.Context())
	if err != nil || len(urls) != 1 || urls[0] != "https://acme.test:8443" {
		t.Errorf("ready at %q, %v", urls, err)
	}
	if got, err := w.browse("/"); err != nil || got != "127.0.0.1 HTTP/1.1 TLS 1.3 acme.test\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Open(data); err == nil {
		t.Error("another may open the directory")
	}
	if err := ln.SetService(Service{Title: "Hello again", Access: postern.AccessPublic}); err != nil {
		t.Fatal(err)
	}
	if err := ln.SetService(Service{Icon: "skull", Access: postern.AccessPublic}); err == nil {
		t.Error("a bad service is taken")
	}
	await(t, "the new title", func() (ok bool) {
		w.get(func() {
			for _, p := range w.published {
				ok = p.Services[0].Title == "Hello again" && p.Services[0].Entries == nil
			}
		})
		return ok
	})

	// What is under way ends well.
	open := w.tapped(t)
	open.next("127.0.0.1 HTTP/1.1 TLS 1.3 acme.test")
	wg.Go(func() {
		if err := hs.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	await(t, "the drain", func() bool { return ln.node.Status().Draining })
	close(turn)
	open.next("the end")
	if open.lines.Scan() || open.lines.Err() != nil {
		t.Errorf("the answer ends with %q, %v", open.lines.Text(), open.lines.Err())
	}
	if err := ln.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after the end: %v", err)
	}
	dir, err := Open(data)
	if err != nil {
		t.Fatalf("the directory is not free after the end: %v", err)
	}
	dir.Close()
}

// A connection that nobody accepts, or that does not end, holds up nothing.
func TestListenCutsOff(t *testing.T) {
	w := newWorld(t)
	ln, err := Listen(t.Context(), ListenConfig{Data: w.joined(), Drain: 50 * time.Millisecond, Service: Service{Access: postern.AccessPublic}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept() // the node's own look from outside
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ln.Close()
	if err := ln.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestServe(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	cfg := ListenConfig{Data: w.joined(), Service: Service{Access: postern.AccessPublic}}
	wg.Go(func() {
		h := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprint(rw, r.Host, " ", r.Header.Get("X-Forwarded-For"))
		})
		if err := Serve(ctx, cfg, h); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	await(t, "an answer", func() bool { got, err := w.browse("/"); return err == nil && got == testHost+" 127.0.0.1" })
	cancel()
	wg.Wait()
}

func TestListenRefuses(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name string
		cfg  ListenConfig
		want string
	}{
		{"no token", ListenConfig{Data: t.TempDir()}, "join as a node: not joined yet"},
		{"a bad token", ListenConfig{Data: t.TempDir(), Token: "pstjoin1_x"}, "join as a node: not a usable token"},
		{"an upstream", ListenConfig{Data: w.joined(), Service: Service{Upstream: "http://h"}}, "without upstream or handler"},
		{"a bad service", ListenConfig{Data: w.joined(), Service: Service{Name: "a.b"}}, "no DNS label"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Listen(t.Context(), tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	// The coordinator removes the node while somebody waits for a connection.
	ln, err := Listen(t.Context(), ListenConfig{Data: w.joined(), Service: Service{Access: postern.AccessPublic}})
	if err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.mode = "removed" })
	for err == nil {
		var c net.Conn
		if c, err = ln.Accept(); err == nil {
			c.Close()
		}
	}
	if waited := ln.Wait(); !errors.Is(waited, ErrRemoved) {
		t.Errorf("Accept %v, Wait %v, want %v", err, waited, ErrRemoved)
	}
}
