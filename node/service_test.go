package node

import (
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseService(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(filepath.Dir(dir))
	base := filepath.Base(dir)
	write(t, filepath.Join(dir, "file.txt"), []byte("x"))
	tests := []struct {
		name, spec     string
		service, value string // of what is returned
		err            string // a part of the error; empty: none
	}{
		{"http", "http://localhost:9000", "default", "http://localhost:9000", ""},
		{"https", "https://10.0.0.7/erp", "default", "https://10.0.0.7/erp", ""},
		{"IPv6", "http://[::1]:80", "default", "http://[::1]:80", ""},
		{"named", "books=http://localhost:9000", "books", "http://localhost:9000", ""},
		{"query sign in the path", "http://localhost/a=b", "default", "http://localhost/a=b", ""},
		{"named, = in the path", "books=http://localhost/a=b", "books", "http://localhost/a=b", ""},
		{"unix", "unix:/run/app.sock", "default", "unix:/run/app.sock", ""},
		{"unix, three slashes", "unix:///run/app.sock", "default", "unix:///run/app.sock", ""},
		{"folder", dir, "default", dir, ""},
		{"relative folder", "./" + base, "default", dir, ""},
		{"named folder", "files=./" + base, "files", dir, ""},
		{"file URL", "file://" + dir, "default", dir, ""},

		{"nothing", "", "", "", "want http://…"},
		{"typo", "htp:/x", "", "", `upstream "htp:/x": want http://…, https://…, unix:/path or a folder`},
		{"no scheme", "localhost:9000", "", "", "want http://…"},
		{"bare port", "9000", "", "", "want http://…"},
		{"bare word", "files", "", "", "want http://…"},
		{"no host", "http://", "", "", "no host"},
		{"no host but a port", "http://:9000", "", "", "no host"},
		{"port out of range", "http://localhost:99999", "", "", "port 99999"},
		{"port zero", "http://localhost:0", "", "", "port 0"},
		{"port no number", "http://localhost:http", "", "", "want http://…"},
		{"query", "http://localhost/?a=1", "", "", "query"},
		{"password in a bad URL", "ftp://joe:s3cret@host/", "", "", "want http://…"},
		{"password in no URL", "http://joe:s3cret@ho st/", "", "", "want http://…"},
		{"relative socket", "unix:./app.sock", "", "", "absolute"},
		{"no socket", "unix:", "", "", "absolute"},
		{"bad name", "Books=http://localhost:9000", "", "", "no DNS label"},
		{"empty name", "=http://localhost:9000", "", "", "empty"},
		{"no such folder", "./none", "", "", "no such file"},
		{"a file", filepath.Join(dir, "file.txt"), "", "", "want a folder"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ParseService(tt.spec)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				if strings.Contains(err.Error(), "s3cret") {
					t.Errorf("the error shows the password: %v", err)
				}
				return
			}
			if err != nil || s.Name != tt.service || s.Upstream != tt.value {
				t.Errorf("got %q=%q, %v, want %q=%q", s.Name, s.Upstream, err, tt.service, tt.value)
			}
			if _, err := newService(s, discard); err != nil {
				t.Errorf("what was parsed is refused: %v", err)
			}
		})
	}
	if _, err := ParseService("localhost:9000"); !errors.Is(err, ErrUpstream) {
		t.Errorf("error %v does not wrap ErrUpstream", err)
	}
}

// FuzzParseService asserts that what is taken can be served, and shows no
// password.
func FuzzParseService(f *testing.F) {
	for _, seed := range []string{"http://localhost:9000", "a=unix:/x", "file:///", "./", "https://u:p@h/x", "=", "a=b=c", "unix:", "http://[::1%25lo]:1/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := ParseService(spec)
		if err != nil {
			return
		}
		svc, err := newService(s, discard)
		if err != nil {
			t.Fatalf("ParseService(%q) = %+v, which is refused: %v", spec, s, err)
		}
		if svc.transport != nil {
			svc.transport.CloseIdleConnections()
		}
		up := svc.upstream
		if up.url != nil && up.url.User != nil && strings.Contains(up.String(), up.url.User.String()+"@") && up.url.User.String() != "" {
			t.Errorf("%q is shown as %q", spec, up)
		}
	})
}

func TestServicesThatAreRefused(t *testing.T) {
	ca := newTestCA(t)
	certFile, keyFile := ca.files("a.test")
	_, otherKey := ca.files("a.test")
	none := filepath.Join(t.TempDir(), "none.pem")
	tests := []struct {
		name    string
		service Service
		want    string
	}{
		{"neither", Service{}, "either an upstream or a handler"},
		{"both", Service{Upstream: "http://h", Handler: http.NotFoundHandler()}, "either an upstream or a handler"},
		{"no label", Service{Name: "a.b", Upstream: "http://h"}, "no DNS label"},
		{"certificate without key", Service{Upstream: "http://h", CertFile: certFile}, "both"},
		{"no such file", Service{Upstream: "http://h", CertFile: none, KeyFile: keyFile}, "none.pem"},
		{"another key", Service{Upstream: "http://h", CertFile: certFile, KeyFile: otherKey}, "does not match"},
		{"key as certificate", Service{Upstream: "http://h", CertFile: keyFile, KeyFile: keyFile}, keyFile},
		{"CA for http", Service{Upstream: "http://h", UpstreamCA: certFile}, "https:// only"},
		{"CA for a folder", Service{Upstream: "/", UpstreamInsecure: true}, "https:// only"},
		{"CA that is none", Service{Upstream: "https://h", UpstreamCA: keyFile}, "no certificate in"},
		{"no CA file", Service{Upstream: "https://h", UpstreamCA: none}, "none.pem"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := newService(tt.service, discard); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	_, err := newService(Service{Upstream: "https://h", UpstreamCA: none}, discard)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v does not wrap %v", err, fs.ErrNotExist)
	}
}
