package node

import (
	"context"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const secret = "this must never be shown"

// site files, with what must not be seen beside and below them.
func sampleFolder(t testing.TB) string {
	t.Helper()
	outside := t.TempDir()
	dir := filepath.Join(outside, "public")
	for name, content := range map[string]string{
		"secret.txt":                 secret,
		"public/index.html":          "<p>home",
		"public/app.js":              "let a = 1",
		"public/data.wasm":           "\x00asm",
		"public/plain.txt":           "0123456789",
		"public/docs/index.html":     "<p>docs",
		"public/empty/note.txt":      "note",
		"public/.env":                secret,
		"public/.git/config":         secret,
		"public/docs/.hidden/a.txt":  secret,
		"public/.well-known/sec.txt": "contact",
		"public/odd/index.html/x":    "an index that is a directory",
		"public/two words.txt":       "two words",
	} {
		path := filepath.Join(outside, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"out.txt": "../secret.txt", "abs.txt": filepath.Join(outside, "secret.txt"), "up": "..", "in.txt": "plain.txt",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFolder(t *testing.T) {
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: sampleFolder(t)}})
	tests := []struct {
		name, path  string
		status      int
		body        string
		contentType string
	}{
		{"index", "/", 200, "<p>home", "text/html; charset=utf-8"},
		{"index by name", "/index.html", 301, "", ""},
		{"script", "/app.js", 200, "let a = 1", "text/javascript; charset=utf-8"},
		{"wasm", "/data.wasm", 200, "\x00asm", "application/wasm"},
		{"directory", "/docs/", 200, "<p>docs", "text/html; charset=utf-8"},
		{"directory without slash", "/docs", 301, "", ""},
		{"directory without index", "/empty/", 404, "", ""},
		{"file in it", "/empty/note.txt", 200, "note", "text/plain; charset=utf-8"},
		{"index that is a directory", "/odd/", 404, "", ""},
		{"link within", "/in.txt", 200, "0123456789", "text/plain; charset=utf-8"},
		{"escaped name", "/two%20words.txt", 200, "two words", "text/plain; charset=utf-8"},
		{"well-known", "/.well-known/sec.txt", 200, "contact", "text/plain; charset=utf-8"},
		{"no such file", "/none", 404, "", ""},
		{"dot file", "/.env", 404, "", ""},
		{"below a dot directory", "/.git/config", 404, "", ""},
		{"dot directory further down", "/docs/.hidden/a.txt", 404, "", ""},
		{"link out", "/out.txt", 404, "", ""},
		{"absolute link out", "/abs.txt", 404, "", ""},
		{"link to a directory outside", "/up/secret.txt", 404, "", ""},
		{"dots, escaped", "/%2e%2e/secret.txt", 404, "", ""},
		{"slash, escaped", "/..%2fsecret.txt", 404, "", ""},
		{"backslash", `/..%5csecret.txt`, 404, "", ""},
		{"zero byte", "/plain.txt%00", 404, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := get(t, s.client(t, 1), "https://a.test"+tt.path)
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if strings.Contains(body, secret) {
				t.Error("shows what must not be shown")
			}
			if tt.status != 200 {
				return
			}
			h := resp.Header
			if body != tt.body || h.Get("Content-Type") != tt.contentType || h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("got %q as %q, want %q as %q", body, h.Get("Content-Type"), tt.body, tt.contentType)
			}
		})
	}
}

func TestFolderRequests(t *testing.T) {
	dir := sampleFolder(t)
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: dir}})
	c := s.client(t, 2)
	resp, body := get(t, c, "https://a.test/plain.txt", "Range", "bytes=2-4")
	if resp.StatusCode != http.StatusPartialContent || body != "234" {
		t.Errorf("range: %d %q", resp.StatusCode, body)
	}
	resp, _ = get(t, c, "https://a.test/plain.txt", "If-Modified-Since", resp.Header.Get("Last-Modified"))
	if resp.StatusCode != http.StatusNotModified {
		t.Errorf("conditional: %d, want 304", resp.StatusCode)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		req, err := http.NewRequestWithContext(t.Context(), method, "https://a.test/plain.txt", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, _ := do(t, c, req); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	if resp, _ := get(t, c, "https://a.test/"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("folder gone: %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if err := os.Rename(dir+"-moved", dir); err != nil {
		t.Fatal(err)
	}
	if resp, _ := get(t, c, "https://a.test/"); resp.StatusCode != http.StatusOK {
		t.Errorf("folder back: %d", resp.StatusCode)
	}
}

// FuzzFolder asserts that no path whatever leads to a hidden file or out of the
// folder.
func FuzzFolder(f *testing.F) {
	for _, seed := range []string{
		"/", "/plain.txt", "/../secret.txt", "/.env", "/./.git/../.git/config", "//..//secret.txt", "/up/secret.txt",
		"/docs/..\\..\\secret.txt", "/out.txt/", "/.well-known/../.env", "/index.html/../.env", "",
	} {
		f.Add(seed)
	}
	svc, err := newService(Service{Upstream: sampleFolder(f)}, discard)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest(http.MethodGet, "https://a.test/", nil)
		r = r.WithContext(context.WithValue(r.Context(), connKey{}, testConn()))
		r.URL = &url.URL{Path: path}
		w := httptest.NewRecorder()
		svc.handler.ServeHTTP(w, r)
		if strings.Contains(w.Body.String(), secret) {
			t.Errorf("%q shows a hidden file", path)
		}
		switch w.Code {
		case http.StatusOK, http.StatusMovedPermanently, http.StatusNotFound:
		default:
			t.Errorf("%q: status %d", path, w.Code)
		}
		if loc := w.Header().Get("Location"); strings.HasPrefix(loc, "//") || strings.Contains(loc, "://") {
			t.Errorf("%q redirects to %q, another site", path, loc)
		}
	})
}

func TestVisibleOpensOnlyWhatItShows(t *testing.T) {
	root, err := os.OpenRoot(sampleFolder(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]bool{
		"plain.txt": true, ".": true, "docs": true, "empty": false, ".env": false, "out.txt": false, "../secret.txt": false, "": false,
	} {
		f, err := visible{root}.Open(name)
		if (err == nil) != want {
			t.Errorf("open %q: %v", name, err)
		}
		if err == nil {
			// net/http lists a directory whose index it cannot open after all.
			if _, lists := f.(fs.ReadDirFile); lists && (name == "." || name == "docs") {
				t.Errorf("%q can be listed", name)
			}
			f.Close()
		}
	}
	if _, err := (visible{root}).Open(".env"); err == nil || !os.IsNotExist(err) {
		t.Errorf("hidden file: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestIsShort(t *testing.T) {
	for name, want := range map[string]bool{
		"GIT~1": true, "ENV~12": true, "CONFIG~1.TXT": true, "a~b~1": true,
		"git": false, "~": false, "backup~": false, "~joe": false, "a~b": false,
	} {
		if got := isShort(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}
