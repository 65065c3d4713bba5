package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern"
)

const wholeFile = `# what the office publishes
name: office
keepalive: 20s
services:
  - title: Books
    description: Double entry.
    icon: book
    upstream: http://localhost:9000
    entries:
      - {name: y2026, title: "2026", path: /y/2026?open=1, note: open}
      - name: y2025
        path: /y/2025
    access: groups
    groups: [accounting, board]
    exceptions:
      - {path: /hooks/, access: public}
      - {path: /help}
    require: passkey
  - name: docs
    upstream: ./docs
    access: public
  - name: erp
    upstream: https://10.0.0.5
    upstream_insecure: true
    cert_file: cert.pem
    key_file: key.pem
sign_in:
  idle: 15m
  max: 8h
`

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := newTestCA(t).files("a.test")
	for _, move := range []struct{ from, to string }{{certFile, "cert.pem"}, {keyFile, "key.pem"}} {
		if err := os.Rename(move.from, filepath.Join(dir, move.to)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, FileName)
	write(t, path, []byte(wholeFile))
	got, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := File{
		Name: "office", Keepalive: 20 * time.Second, SignIn: SignIn{Idle: 15 * time.Minute, Max: 8 * time.Hour},
		Services: []Service{
			{
				Title: "Books", Description: "Double entry.", Icon: "book", Upstream: "http://localhost:9000",
				Entries: []postern.Entry{
					{Name: "y2026", Title: "2026", Path: "/y/2026?open=1", Note: "open"}, {Name: "y2025", Path: "/y/2025"},
				},
				Access: postern.AccessGroups, Groups: []string{"accounting", "board"},
				Exceptions: []Exception{{Path: "/hooks/", Access: postern.AccessPublic}, {Path: "/help"}},
				Require:    postern.RequirePasskey,
			},
			{Name: "docs", Upstream: filepath.Join(dir, "docs"), Access: postern.AccessPublic},
			{
				Name: "erp", Upstream: "https://10.0.0.5", UpstreamInsecure: true,
				CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
			},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	write(t, path, []byte("services: []\n"))
	if got, err := ReadFile(path); err != nil || len(got.Services) != 0 {
		t.Errorf("an empty list: %+v, %v", got, err)
	}
	if _, err := ReadFile(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestFileErrors holds what is said of a bad file against the very text, as
// testdata/file has it: NAME.yaml, and NAME.txt with the error and the source.
func TestFileErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/file/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	t.Chdir("testdata/file")
	for _, path := range files {
		path = filepath.Base(path)
		name := strings.TrimSuffix(path, ".yaml")
		t.Run(name, func(t *testing.T) {
			_, err := ReadFile(path)
			var fe *FileError
			if !errors.As(err, &fe) {
				t.Fatalf("got %v, want a FileError", err)
			}
			got := fe.Error() + "\n" + fe.Source
			if !strings.HasSuffix(got, "\n") {
				got += "\n"
			}
			if strings.Contains(fe.Error(), "\n") {
				t.Errorf("the error is not one line: %q", fe)
			}
			if os.Getenv("UPDATE") != "" {
				write(t, name+".txt", []byte(got))
			}
			want, err := os.ReadFile(name + ".txt")
			if err != nil || got != string(want) {
				t.Errorf("got\n%swant\n%s%v", got, want, err)
			}
		})
	}
}

// TestFollowFile changes the file under a node that runs.
func TestFollowFile(t *testing.T) {
	w := newWorld(t)
	one, two := newTap(t, "one"), newTap(t, "two")
	path := filepath.Join(t.TempDir(), FileName)
	write(t, path, []byte("keepalive: 1s\nservices: [{access: public, upstream: \""+one.url+"\"}]\n"))
	n, _, _ := w.run(Config{Dir: w.join(), File: path})
	await(t, "ready", ready(n))
	open := w.tapped(t)
	open.next("one")

	begin := time.Now()
	write(t, path, []byte("keepalive: 2s\nservices:\n- access: public\n  upstream: "+one.url+"\n  title: Books\n  icon: book\n"))
	await(t, "what the coordinator is told", func() (ok bool) {
		w.get(func() {
			for _, p := range w.published {
				ok = reflect.DeepEqual(p.Services, []postern.Service{{Name: "default", Title: "Books", Icon: "book", Access: postern.Access{Who: postern.AccessPublic}}})
			}
		})
		return ok
	})
	t.Logf("the coordinator was told after %v", time.Since(begin))
	if got := time.Duration(n.keepalive.Load()); got != 2*time.Second {
		t.Errorf("keepalive is %v, want 2s", got)
	}

	// A bad file changes nothing and is said to be bad, however long it stays.
	write(t, path, []byte("services:\n- access: public\n  upstream: "+two.url+"\n  titel: Books\n"))
	await(t, "the file's error", func() bool { return strings.HasSuffix(n.Status().ConfigError, ":4:3: unknown field \"titel\"") })
	if got := n.Services()[0].Upstream; got != one.url || n.Status().ConfigFile != path {
		t.Errorf("a bad file changed the upstream to %q", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	await(t, "the file's absence", func() bool { return strings.Contains(n.Status().ConfigError, "no such file") })
	one.turn <- struct{}{}
	open.next("one")

	write(t, path, []byte("sign_in: {idle: 10m}\nservices:\n- access: public\n  upstream: "+two.url+"\n"))
	await(t, "the new upstream", func() bool { return n.Services()[0].Upstream == two.url })
	await(t, "the error's end", func() bool { return n.Status().ConfigError == "" })
	sessions := n.server.gate.sessions
	secret := sessions.start(session{Host: testHost, Person: "u1"}, time.Now())
	for after, want := range map[time.Duration]bool{9 * time.Minute: true, 10 * time.Minute: false} {
		if _, ok := sessions.find(testHost, secret, time.Now().Add(after)); ok != want {
			t.Errorf("with the new file a session lasts %v: %v, want %v", after, ok, want)
		}
	}
	if got, err := w.browse("/"); err != nil || got != "two\n" {
		t.Errorf("with the new file: %q, %v", got, err)
	}
}

// FuzzParseFile asserts that every error has one line, that what is taken is
// ready to serve or refused with a place, and that nothing panics.
func FuzzParseFile(f *testing.F) {
	f.Add([]byte(wholeFile))
	files, _ := filepath.Glob("testdata/file/*.yaml")
	for _, path := range files {
		if data, err := os.ReadFile(path); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, tree, err := parseFile(data)
		if err == nil {
			err = file.check()
		}
		if err == nil {
			return
		}
		if said := inFile("f", tree, err).Error(); strings.Contains(said, "\n") {
			t.Errorf("the error has more than one line: %q", said)
		}
	})
}
