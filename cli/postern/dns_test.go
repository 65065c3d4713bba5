package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"postern"
)

func dnsWith(addrs ...string) postern.DNSState {
	s := postern.DNSState{Names: []string{"*.apps.example.com"}, TTL: postern.DNSTTL}
	for _, a := range addrs {
		s.A = append(s.A, netip.MustParseAddr(a))
	}
	return s
}

// The command runs at each change that stays, once, and again while it fails.
func TestDNSHook(t *testing.T) {
	var state postern.DNSState
	var asked, failed error
	runs := 0
	h := &dnsHook{
		ask: func(context.Context) (postern.DNSState, error) { return state, asked },
		run: func(_ context.Context, in []byte) error { runs++; return failed },
		log: slog.New(slog.DiscardHandler),
	}
	now := time.Now()
	one, two := dnsWith("203.0.113.7"), dnsWith("203.0.113.7", "203.0.113.8")
	broken := errors.New("broken")
	for _, step := range []struct {
		name          string
		state         postern.DNSState
		asked, failed error
		after         time.Duration
		runs          int // then
	}{
		{name: "nobody has an address", state: dnsWith()},
		{name: "the coordinator is away", state: one, asked: broken},
		{name: "first", state: one, runs: 1},
		{name: "the same", state: one, runs: 1},
		{name: "a change", state: two, runs: 1},
		{name: "another at once", state: one, runs: 1},
		{name: "which is no change", state: one, runs: 1},
		{name: "a change again", state: two, runs: 1},
		{name: "the coordinator is away again", state: two, asked: broken, runs: 1},
		{name: "the change stays, and fails", state: two, failed: broken, runs: 2},
		{name: "too early", state: two, after: time.Second, runs: 2},
		{name: "it fails again", state: two, failed: broken, after: time.Second, runs: 3},
		{name: "too early for twice as long", state: two, after: 3 * time.Second, runs: 3},
		{name: "what was there before", state: one, runs: 3},
		{name: "may be there no more", state: one, runs: 4},
		{name: "done", state: one, after: time.Hour, runs: 4},
		{name: "nobody has an address again", state: dnsWith(), after: time.Hour, runs: 4},
	} {
		state, asked, failed = step.state, step.asked, step.failed
		now = now.Add(step.after)
		h.look(t.Context(), now)
		if runs != step.runs {
			t.Errorf("%s: ran %d times, want %d", step.name, runs, step.runs)
			runs = step.runs
		}
	}
	failed = broken
	for range 30 {
		now = h.retry
		state = two
		h.look(t.Context(), now)
	}
	if wait := h.retry.Sub(now); wait != maxHookRetry {
		t.Errorf("after many failures it waits %v, want %v", wait, maxHookRetry)
	}
}

func TestRunHook(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("the programs are shell scripts")
		return
	}
	script := func(text string) string {
		file := filepath.Join(t.TempDir(), "hook")
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	var out, errs bytes.Buffer
	if err := runHook(t.Context(), script("cat; echo told >&2"), []byte("{}"), &out, &errs); err != nil || out.String() != "{}" || errs.String() != "told\n" {
		t.Errorf("got %v, %q, %q", err, out.String(), errs.String())
	}
	if err := runHook(t.Context(), script("exit 3"), nil, &out, &errs); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
	if err := runHook(t.Context(), "/nonexistent", nil, &out, &errs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	started, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close()
	ended := make(chan error, 1)
	go func() { ended <- runHook(ctx, script("echo; exec sleep 600"), nil, w, &errs) }()
	if _, err := started.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("it was interrupted, and has not failed")
	}
	w.Close()
}
