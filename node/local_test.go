package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"postern/internal/monitor"
)

func TestLocal(t *testing.T) {
	path := filepath.Join(shortDir(t), Socket)
	if _, err := QueryStatus(t.Context(), path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v, want %v", err, ErrNotRunning)
	}
	// What a killed process leaves: a socket that nobody listens on.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := QueryStatus(t.Context(), path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead socket: %v, want %v", err, ErrNotRunning)
	}

	ln, err := listenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, mode %v, want 0600", err, info.Mode())
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusOK, Status{Version: "v1.2.3", MapVersion: 7})
		})
		if err := monitor.Serve(ctx, ln, h, discard); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	if s, err := QueryStatus(t.Context(), path); err != nil || s.Version != "v1.2.3" || s.MapVersion != 7 {
		t.Errorf("status %+v, %v", s, err)
	}
	cancel()
	wg.Wait()
	if _, err := QueryStatus(t.Context(), path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the end: %v, want %v", err, ErrNotRunning)
	}

	write(t, path, []byte("somebody's file"))
	if _, err := listenLocal(path); err == nil {
		t.Error("a file that is no socket was replaced")
	}
	if _, err := listenLocal(filepath.Join(shortDir(t), strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "at most 107 bytes") {
		t.Errorf("a path too long: %v", err)
	}
}
