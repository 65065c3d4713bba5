//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/node"
)

// anybody is the access of what nobody has to sign in for.
var anybody = postern.Access{Who: postern.AccessPublic}

// TestRoadSDK reaches a Go program that is a node of its own.
func TestRoadSDK(t *testing.T) {
	d := newDeployment(t)
	token := d.secretFile(d.tenant("acme"))
	args := []string{program("ledger"), "-data", d.data("books.db"), "-sample", "acme", "-title", "Acme books", "-postern-data", d.data("node"), "-postern-access", postern.AccessPublic}
	ledger := start(t, "ledger", nil, append(args, "-postern-token", token)...)
	said := func(p *process) error {
		if p.ended() {
			t.Fatal("the ledger ended")
		}
		if !strings.Contains(p.out.String(), "ledger: listening on "+d.url("acme", "")) {
			return errors.New("it does not say where it listens")
		}
		return nil
	}
	eventually(t, 40*time.Second, func() error { return said(ledger) })

	for _, proto := range []string{"h2", "http/1.1"} {
		c := d.client(proto)
		if got := fetch(t, c, d.url("acme", "/"), http.StatusOK); !strings.Contains(got, "Acme books") {
			t.Errorf("%s: the first page lacks the title", proto)
		}
		req, err := http.NewRequest(http.MethodGet, d.url("acme", "/api/visitor"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "192.0.2.1")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, resp); !strings.Contains(got, `"127.0.0.1"`) || !strings.Contains(got, `"https"`) {
			t.Errorf("%s: the visitor is %s, want this test's address", proto, got)
		}
	}

	var nodes []postern.NodeState
	d.cli(&nodes, "nodes", "list")
	if s := nodes[0].Services; len(s) != 1 || s[0].Title != "Acme books" || s[0].Icon != "book" || len(s[0].Entries) == 0 {
		t.Fatalf("published: %+v", s)
	}
	for _, e := range nodes[0].Services[0].Entries {
		if got := fetch(t, d.client(), d.url("acme", e.Path), http.StatusOK); !strings.Contains(got, e.Title) {
			t.Errorf("%s does not show %q", e.Path, e.Title)
		}
	}

	// It comes back as the same node, without a token.
	ledger.stop()
	again := start(t, "ledger again", nil, args...)
	eventually(t, 40*time.Second, func() error { return said(again) })
	fetch(t, d.client(), d.url("acme", "/"), http.StatusOK)
}

// TestRoadLiveServices changes what a node publishes while a download goes on, by
// its file and by its socket.
func TestRoadLiveServices(t *testing.T) {
	d := newDeployment(t)
	books, docs := newApplication(t, "books"), newApplication(t, "docs")
	d.node(d.tenant("acme"), "office", books.url)
	c := d.client()
	resp, err := c.Get(d.url("acme", "/events?n=3"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	books.next <- struct{}{}

	// told waits until operators are told of want, and notes how long it took.
	told := func(how string, begin time.Time, want []postern.Service) {
		t.Helper()
		eventually(t, 20*time.Second, func() error {
			var nodes []postern.NodeState
			d.cli(&nodes, "nodes", "list")
			if !reflect.DeepEqual(nodes[0].Services, want) {
				return fmt.Errorf("operators are told %+v, want %+v", nodes[0].Services, want)
			}
			return nil
		})
		took := time.Since(begin)
		noteFigure(t, "road", "what is published known to the coordinator, by "+how, took.Seconds(), "s")
		if took > 2*time.Second {
			t.Logf("by %s: %v, longer than the 2s that are promised on a machine at rest", how, took)
		}
	}

	begin := time.Now()
	const body = `{"services": [{"title": "Books", "upstream": %q, "access": "public", "entries": [{"name": "y2026", "path": "/seen"}]}, ` +
		`{"name": "docs", "upstream": %q, "access": "public"}]}`
	answer := must(t, "curl", "-sS", "--fail-with-body", "--unix-socket", filepath.Join(d.data("office"), node.Socket),
		"-X", "PUT", "--data", fmt.Sprintf(body, books.url, docs.url), "http://node/v1/services")
	var published node.Published
	if err := json.Unmarshal([]byte(answer), &published); err != nil || len(published.Services) != 2 {
		t.Fatalf("the socket answers %s, %v", answer, err)
	}
	told("the socket", begin, []postern.Service{
		{Name: "default", Title: "Books", Access: anybody, Entries: []postern.Entry{{Name: "y2026", Path: "/seen"}}},
		{Name: "docs", Title: "docs", Access: anybody},
	})
	d.ready("office")
	if got := fetch(t, c, d.url("docs.acme", "/"), http.StatusOK); got != "docs" {
		t.Errorf("the new service answers %q", got)
	}
	books.next <- struct{}{}
	books.next <- struct{}{}
	if got := readAll(t, resp); strings.Count(got, "data: books") != 3 {
		t.Errorf("the stream that was open has %q, want three events", got)
	}
}

// TestRoadFile follows a node's file.
func TestRoadFile(t *testing.T) {
	d := newDeployment(t)
	app := newApplication(t, "books")
	file := d.data("postern.yaml")
	writeFile(t, file, "name: office\nservices:\n  - upstream: "+app.url+"\n    access: public\n")
	must(t, program("postern"), "node", "join", "--no-run", "--data", d.data("office"), "--token-file", d.secretFile(d.tenant("acme")), "--config", file)
	start(t, "office", nil, program("postern"), "node", "run", "--data", d.data("office"), "--config", file)
	d.ready("office")

	writeFile(t, file, "services:\n  - title: Books\n    upstream: "+app.url+"\n    access: public\n"+
		"  - name: spare\n    upstream: "+app.url+"\n    access: public\n")
	begin := time.Now()
	eventually(t, 20*time.Second, func() error {
		var nodes []postern.NodeState
		d.cli(&nodes, "nodes", "list")
		if want := []postern.Service{{Name: "default", Title: "Books", Access: anybody}, {Name: "spare", Title: "spare", Access: anybody}}; !reflect.DeepEqual(nodes[0].Services, want) {
			return fmt.Errorf("operators are told %+v", nodes[0].Services)
		}
		return nil
	})
	noteFigure(t, "road", "what is published known to the coordinator, by the file", time.Since(begin).Seconds(), "s")
	d.ready("office")
	if got := fetch(t, d.client(), d.url("spare.acme", "/"), http.StatusOK); got != "books" {
		t.Errorf("the new service answers %q", got)
	}
}
