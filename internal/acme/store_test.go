package acme

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"postern/internal/acme/acmetest"
)

// Files that are truncated, garbled or somebody else's are got anew, and the log says
// why; keys that are good stay.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file    string
		newKey  bool // of the certificate
		newCert bool
		newURI  bool
		log     string
	}{
		{"certificates/" + books + ".pem", false, true, false, "the certificate on disk is of no use"},
		{"certificates/" + books + ".key", true, true, false, "the certificate on disk is of no use"},
		{"certificates/" + books + ".json", false, false, false, "it is not known where the certificate on disk is from"},
		{"accounts/*.key", false, false, true, "a key on disk is of no use"},
		{"accounts/*.json", false, false, false, "an account's record is of no use"},
	} {
		for how, damage := range map[string]func(t *testing.T, path string, other string){
			"truncated": func(t *testing.T, path, _ string) {
				info, err := os.Stat(path)
				if err == nil {
					err = os.Truncate(path, info.Size()/2)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			"empty":   func(t *testing.T, path, _ string) { os.Truncate(path, 0) },
			"garbled": func(t *testing.T, path, _ string) { os.WriteFile(path, []byte("\x00\x01\x02"), 0o600) },
			"foreign": func(t *testing.T, path, other string) {
				data, err := os.ReadFile(other)
				if err == nil {
					err = os.WriteFile(path, data, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
		} {
			if how == "foreign" && (strings.HasSuffix(tt.file, books+".json") || strings.HasPrefix(tt.file, "accounts/")) {
				continue // the same for all hosts; or of one authority
			}
			t.Run(filepath.Base(tt.file)+" "+how, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				ca := r.ca(acmetest.Options{})
				hosts := []string{books, "mail.acme.example"}
				m := r.run()
				m.Want(hosts, []Issuer{issuer(ca)})
				first := r.ready(books)
				r.ready(hosts[1])
				uri := m.Accounts()[0].URI
				r.end()

				paths, err := filepath.Glob(filepath.Join(r.dir, tt.file))
				if err != nil || len(paths) != 1 {
					t.Fatalf("%v, %v", paths, err)
				}
				damage(t, paths[0], filepath.Join(filepath.Dir(paths[0]), strings.Replace(filepath.Base(paths[0]), books, hosts[1], 1)))
				m = r.run()
				m.Want(hosts, []Issuer{issuer(ca)})
				second := r.ready(books)
				if tt.newCert {
					second = r.replaced(books, first)
				}
				if got := !second.Leaf.Equal(first.Leaf); got != tt.newCert {
					t.Errorf("a new certificate: %v, want %v", got, tt.newCert)
				}
				if got := string(second.Leaf.RawSubjectPublicKeyInfo) != string(first.Leaf.RawSubjectPublicKeyInfo); got != tt.newKey {
					t.Errorf("a new key: %v, want %v", got, tt.newKey)
				}
				if strings.HasPrefix(tt.file, "accounts/") {
					m.Renew(books)
					r.replaced(books, second)
					if got := m.Accounts()[0].URI != uri; got != tt.newURI {
						t.Errorf("a new account: %v, want %v", got, tt.newURI)
					}
				}
				if !strings.Contains(r.log.String(), tt.log) {
					t.Errorf("the log does not say %q", tt.log)
				}
				if err := r.dial(books, ca.Issuing()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestKeysOpenToOthers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // no such bits
	}
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	r.run().Want([]string{books}, []Issuer{issuer(ca)})
	r.ready(books)
	r.end()
	for _, pattern := range []string{"", "accounts", "certificates", "accounts/*.key", "certificates/*.key"} {
		paths, err := filepath.Glob(filepath.Join(r.dir, pattern))
		if err != nil || len(paths) != 1 {
			t.Fatalf("%v, %v", paths, err)
		}
		path, mode, hint := paths[0], os.FileMode(0o600), "chmod 600 "
		if filepath.Ext(path) != ".key" {
			mode, hint = 0o700, "chmod 700 "
		}
		for _, open := range []os.FileMode{0o040, 0o004, 0o020} {
			os.Chmod(path, mode|open)
			if _, err := New(Config{Dir: r.dir}); err == nil || !strings.Contains(err.Error(), hint+path) {
				t.Errorf("%s, mode %o: got %v, want %q", path, mode|open, err, hint+path)
			}
		}
		os.Chmod(path, mode)
		if _, err := New(Config{Dir: r.dir}); err != nil {
			t.Errorf("%s, mode %o: %v", path, mode, err)
		}
	}
	// Later is as bad as at the start: the key is not used, the certificate stays.
	m, first := r.holds(ca)
	os.Chmod(m.store.certificateFile(books, ".key"), 0o644)
	m.Renew(books)
	if st := r.failed(books); !strings.Contains(st.Err.Error(), "chmod 600 ") || !st.Certificate.Leaf.Equal(first.Leaf) {
		t.Errorf("got %v", st.Err)
	}
}

func TestNewNeedsADirectory(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil {
		t.Error("a Manager without a directory")
	}
	dir := filepath.Join(t.TempDir(), "not", "there")
	if _, err := New(Config{Dir: dir}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory is made before it is needed")
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	if _, err := New(Config{Dir: file}); err == nil {
		t.Error("a file serves as directory")
	}
}

func TestFileNames(t *testing.T) {
	t.Parallel()
	s := store{dir: "d"}
	long := strings.Repeat("a23456789.", 25) + "abc"
	for _, path := range []string{
		s.certificateFile(long, ".json"), s.accountFile("https://"+long+"/x", ".json"),
		s.accountFile("https://[2001:db8::1]:14000/dir/../../x", ".json"), s.accountFile("\x00%zz/../..", ".json"),
	} {
		name := filepath.Base(path)
		if len(name) > 240 || strings.ContainsAny(name, ":/\\[]%\x00") || filepath.Dir(filepath.Dir(path)) != "d" {
			t.Errorf("%q", path)
		}
	}
	if s.accountFile("https://a/1", ".key") == s.accountFile("https://a/2", ".key") {
		t.Error("two authorities share an account")
	}
}
