package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"postern/internal/member"
	"postern/node"
)

// A fakeHost remembers what it was asked.
type fakeHost struct {
	serviceState
	asked     []string
	installed nodeService
	stuck     error // of stop
}

func (h *fakeHost) note(what string) error { h.asked = append(h.asked, what); return nil }

func (h *fakeHost) install(s nodeService) error {
	h.installed, h.Installed, h.Enabled = s, true, true
	return h.note("install")
}
func (h *fakeHost) start() error { h.Running = true; return h.note("start") }
func (h *fakeHost) stop() error {
	h.Running = h.stuck != nil
	return errors.Join(h.note("stop"), h.stuck)
}
func (h *fakeHost) uninstall() error             { h.Installed = false; return h.note("uninstall") }
func (h *fakeHost) state() (serviceState, error) { return h.serviceState, nil }

// service runs `postern node service` with args on h.
func (h *fakeHost) service(args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	app := newApp(&out, &errs)
	cmd := nodeServiceCommand(dataFlag(""), configFlag(), func() (serviceHost, error) { return h, nil })
	prepare(cmd)
	app.Commands = []*cli.Command{cmd}
	err = app.Run(append([]string{"postern", "service"}, args...))
	return out.String(), errs.String(), err
}

// Without a membership nothing is installed, and what ran goes on.
func TestServiceNotJoined(t *testing.T) {
	empty, begun := filepath.Join(t.TempDir(), "none"), t.TempDir()
	dir, err := node.Open(begun)
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
	for _, v := range []struct {
		dir  string
		runs bool
		want []string
	}{{empty, false, nil}, {empty, true, nil}, {begun, false, nil}, {begun, true, []string{"stop", "start"}}} {
		h := &fakeHost{serviceState: serviceState{Installed: v.runs, Running: v.runs}}
		_, _, err := h.service("install", "--data", v.dir)
		if !errors.Is(err, member.ErrNotJoined) || !slices.Equal(h.asked, v.want) {
			t.Errorf("%+v: got %v, and the system was asked %q", v, err, h.asked)
		}
	}
	if _, err := os.Stat(empty); err == nil {
		t.Error("a data directory was made")
	}
}

func TestServiceStatus(t *testing.T) {
	for _, v := range []struct {
		state serviceState
		want  string
		fails bool
	}{
		{serviceState{}, "not installed", true},
		{serviceState{Installed: true, Enabled: true, Log: "the log"}, "stopped", true},
		{serviceState{Installed: true, Running: true}, "runs", false},
	} {
		h := &fakeHost{serviceState: v.state}
		out, _, err := h.service("status", "--data", t.TempDir())
		if (err != nil) != v.fails || !strings.Contains(out, v.want) {
			t.Errorf("%+v: got %q, %v", v.state, out, err)
		}
	}
}

func TestServiceUninstall(t *testing.T) {
	h := &fakeHost{}
	if _, _, err := h.service("uninstall"); !errors.Is(err, errNoService) || h.asked != nil {
		t.Errorf("got %v, asked %q", err, h.asked)
	}
	h.Installed, h.Running = true, true
	dir := t.TempDir()
	h.stuck = errors.New("it does not end")
	if _, _, err := h.service("uninstall", "--data", dir); !errors.Is(err, h.stuck) || !slices.Equal(h.asked, []string{"stop"}) {
		t.Errorf("one that does not end: got %v, asked %q", err, h.asked)
	}
	h.stuck, h.asked = nil, nil
	_, said, err := h.service("uninstall", "--data", dir)
	if err != nil || !slices.Equal(h.asked, []string{"stop", "uninstall"}) || !strings.Contains(said, dir) {
		t.Errorf("got %v, asked %q, said %q", err, h.asked, said)
	}
}

// Options that are wrong are found before anything is touched.
func TestServiceMisused(t *testing.T) {
	for _, args := range [][]string{{"--mtu", "12"}, {"--log-level", "loud"}, {"word"}} {
		h := &fakeHost{serviceState: serviceState{Installed: true, Running: true}}
		if _, _, err := h.service(append([]string{"install", "--data", t.TempDir()}, args...)...); err == nil || h.asked != nil {
			t.Errorf("%q: got %v, asked %q", args, err, h.asked)
		}
	}
}
