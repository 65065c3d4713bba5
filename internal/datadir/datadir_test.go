package datadir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"postern"
	"postern/internal/datadir"
)

func open(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(path, postern.RoleNode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestOpenIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, path)
	if _, err := datadir.Open(path, postern.RoleNode); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("second Open: got %v, want ErrInUse", err)
	}
	d.Close()
	open(t, path)
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    error
	}{
		{"another role's", func(t *testing.T, path string) {
			d, err := datadir.Open(path, postern.RoleGateway)
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
		}, datadir.ErrOtherRole},
		{"a newer program's", func(t *testing.T, path string) {
			write(t, filepath.Join(path, "postern.json"), `{"role":"node","schema":99}`)
		}, datadir.ErrNewer},
		{"somebody else's", func(t *testing.T, path string) {
			write(t, filepath.Join(path, "thesis.txt"), "x")
		}, datadir.ErrForeign},
		{"a file in its place", func(t *testing.T, path string) { write(t, path, "x") }, datadir.ErrUnwritable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data")
			tt.prepare(t, path)
			if d, err := datadir.Open(path, postern.RoleNode); !errors.Is(err, tt.want) {
				t.Errorf("got %v, %v, want %v", d, err, tt.want)
			}
		})
	}
}

// A crash between taking the lock and writing the mark leaves a directory that
// opens again.
func TestOpenAfterCrashBeforeMark(t *testing.T) {
	path := t.TempDir()
	write(t, filepath.Join(path, "lock"), "")
	write(t, filepath.Join(path, "postern.json.123.tmp"), "{")
	open(t, path)
}

func TestWriteReplacesWhole(t *testing.T) {
	d := open(t, t.TempDir())
	type content struct{ N int }
	for n := range 3 {
		if err := d.WriteJSON("x.json", content{n}); err != nil {
			t.Fatal(err)
		}
		var got content
		if err := d.ReadJSON("x.json", &got); err != nil || got.N != n {
			t.Errorf("got %v, %v, want %d", got, err, n)
		}
	}
	info, err := os.Stat(d.Path("x.json"))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode())
	}
	if left, _ := filepath.Glob(d.Path("*.tmp")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if err := d.Remove("x.json"); err != nil {
		t.Error(err)
	}
	if err := d.Remove("x.json"); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	if err := d.ReadJSON("x.json", new(content)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// A write that cannot be finished leaves the old file as it was.
func TestFailedWriteKeepsTheOldFile(t *testing.T) {
	d := open(t, t.TempDir())
	if err := os.Mkdir(d.Path("x"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(d.Path("x"), "kept"), "kept")
	if err := d.Write("x", []byte("new")); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if got, err := os.ReadFile(filepath.Join(d.Path("x"), "kept")); err != nil || string(got) != "kept" {
		t.Errorf("got %q, %v", got, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
