//go:build unix

package node

import (
	"path/filepath"
	"syscall"
	"testing"
)

// To open a pipe blocks until somebody writes to it.
func TestFolderPassesPipesOver(t *testing.T) {
	dir := sampleFolder(t)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.txt"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveSite(t, SourceCA, map[string]Service{"a.test": {Upstream: dir}})
	if resp, _ := get(t, s.client(t, 1), "https://a.test/pipe.txt"); resp.StatusCode != 404 {
		t.Errorf("status %d, want 404", resp.StatusCode)
	}
}
