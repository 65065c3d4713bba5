package node

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"postern"
)

// ask asks the node whose directory is dir and returns the status and the body.
func ask(t *testing.T, dir *Dir, method, path, body string) (int, string) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", dir.Path(Socket))
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://node"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := "application/json"
	if resp.StatusCode != http.StatusOK {
		want = "application/problem+json"
	}
	if got := resp.Header.Get("Content-Type"); got != want {
		t.Errorf("%s %s: %d is %s, want %s", method, path, resp.StatusCode, got, want)
	}
	return resp.StatusCode, string(data)
}

func TestLocalAPI(t *testing.T) {
	w := newWorld(t)
	dir := w.join()
	n, stop, ended := w.run(Config{Dir: dir, Services: []Service{{Upstream: "http://127.0.0.1:1"}}, Remember: true})
	await(t, "the socket", func() bool { _, err := QueryStatus(t.Context(), dir.Path(Socket)); return err == nil })

	const body = `{"services": [{"name": "books", "title": "Books", "upstream": "http://joe:s3cret@127.0.0.1:1",
		"entries": [{"name": "y2026", "path": "/y/2026"}]}]}`
	status, answer := ask(t, dir, "PUT", pathServices, body)
	if status != http.StatusOK {
		t.Fatalf("PUT: %d %s", status, answer)
	}
	if got, want := n.Services(), []Service{{
		Name: "books", Title: "Books", Upstream: "http://joe:s3cret@127.0.0.1:1", Entries: []postern.Entry{{Name: "y2026", Path: "/y/2026"}},
		Access: postern.AccessMembers,
	}}; !reflect.DeepEqual(got, want) {
		t.Errorf("the node publishes %+v, want %+v", got, want)
	}
	if _, got := ask(t, dir, "GET", pathServices, ""); got != answer {
		t.Errorf("GET tells %s, PUT told %s", got, answer)
	}
	// What was read can be written back.
	if status, again := ask(t, dir, "PUT", pathServices, answer); status != http.StatusOK || again != answer {
		t.Errorf("PUT of what was got: %d %s", status, again)
	}
	if saved, err := dir.Services(); err != nil || len(saved) != 1 || saved[0].Name != "books" {
		t.Errorf("remembered: %+v, %v", saved, err)
	}

	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		code, detail             string
	}{
		{"no such path", "GET", "/v1/secrets", "", 404, postern.CodeNotFound, `there is no GET "/v1/secrets" here`},
		{"no such method", "DELETE", pathServices, "", 404, postern.CodeNotFound, "there is no DELETE"},
		{"no JSON", "PUT", pathServices, "services: []", 400, postern.CodeInvalid, "invalid character 's'"},
		{"no services", "PUT", pathServices, "{}", 400, postern.CodeInvalid, `"services" is missing`},
		{"an unknown field", "PUT", pathServices, `{"services": [{"titel": "x"}]}`, 400, postern.CodeInvalid, `unknown field "titel"`},
		{"two documents", "PUT", pathServices, `{"services": []}{}`, 400, postern.CodeInvalid, "something follows"},
		{"a bad upstream", "PUT", pathServices, `{"services": [{"upstream": "/"}, {"name": "a", "upstream": "htp:/x"}]}`, 422, postern.CodeInvalid,
			`services[1].upstream: service "a": upstream "htp:/x"`},
		{"a bad entry", "PUT", pathServices, `{"services": [{"upstream": "/", "entries": [{"name": "a", "path": "//b"}]}]}`, 422, postern.CodeInvalid,
			`services[0].entries[0].path: path "//b" does not start with one /`},
		{"a relative folder", "PUT", pathServices, `{"services": [{"upstream": "./docs"}]}`, 422, postern.CodeInvalid, `services[0].upstream: path "./docs" is not absolute`},
		{"a relative file", "PUT", pathServices, `{"services": [{"upstream": "/", "cert_file": "a.pem"}]}`, 422, postern.CodeInvalid, `services[0].cert_file: path "a.pem" is not`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := ask(t, dir, tt.method, tt.path, tt.body)
			var p postern.Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				t.Fatal(err)
			}
			if status != tt.status || p.Status != tt.status || p.Code != tt.code || !strings.Contains(p.Detail, tt.detail) {
				t.Errorf("got %d %s, want %d %s %q", status, body, tt.status, tt.code, tt.detail)
			}
		})
	}
	if got := n.Services(); len(got) != 1 || got[0].Name != "books" {
		t.Errorf("a refusal changed what is published to %+v", got)
	}
	// Not over the socket: net/http's goroutine would outlive the test by a moment.
	large := httptest.NewRequest("PUT", pathServices, strings.NewReader(`{"services": [{"title": "`+strings.Repeat("x", maxFile)))
	rec := httptest.NewRecorder()
	n.localAPI().ServeHTTP(rec, large)
	if rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), "too large") {
		t.Errorf("too large a body: %d %s", rec.Code, rec.Body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	// Who has a file, or is a program's own, is not told by others.
	path := filepath.Join(t.TempDir(), FileName)
	write(t, path, []byte("services: []\n"))
	for name, tt := range map[string]struct {
		cfg  Config
		want string
	}{
		"a file":    {Config{File: path, Remember: true}, "is said in " + path},
		"a program": {Config{}, "is said by the program"},
	} {
		tt.cfg.Dir = dir
		_, stop, ended := w.run(tt.cfg)
		await(t, "the socket", func() bool { _, err := QueryStatus(t.Context(), dir.Path(Socket)); return err == nil })
		if status, got := ask(t, dir, "PUT", pathServices, `{"services": []}`); status != http.StatusForbidden || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %d %s, want 403 with %q", name, status, got, tt.want)
		}
		stop()
		<-ended
	}
}

// FuzzReadServices asserts that what is taken says the same when it is told again.
func FuzzReadServices(f *testing.F) {
	f.Add(`{"services": [{"name": "a", "upstream": "http://b", "entries": [{"name": "e", "path": "/"}]}]}`)
	f.Add(`{"services": []}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := readServices(strings.NewReader(text))
		if err != nil {
			return
		}
		data, err := json.Marshal(Published{got})
		if err != nil {
			t.Fatal(err)
		}
		again, err := readServices(strings.NewReader(string(data)))
		if err != nil {
			t.Fatalf("%s is not taken again: %v", data, err)
		}
		if twice, err := json.Marshal(Published{again}); err != nil || string(twice) != string(data) {
			t.Errorf("%s became %s, %v", data, twice, err)
		}
	})
}
