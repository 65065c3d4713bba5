package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// A file that somebody reads for a moment is replaced when they are done.
func TestReplaceWhileRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- Write(path, []byte("new")) }()
	select {
	case err := <-written:
		if err != nil { // else this system lets it be replaced at once
			t.Fatal(err)
		}
	case <-time.After(100 * time.Millisecond):
		reader.Close()
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
	reader.Close()
	if data, err := os.ReadFile(path); err != nil || string(data) != "new" {
		t.Errorf("%q, %v", data, err)
	}

	reader, err = os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := Write(path, []byte("newest")); err != nil && !errors.Is(err, windows.ERROR_SHARING_VIOLATION) && !errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		t.Errorf("while somebody reads on: %v", err)
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
		t.Errorf("%v is left behind, %v", left, err)
	}
}
