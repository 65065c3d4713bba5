package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A bench is a machine whose systemd is a file tree and a list of what was asked.
type bench struct {
	systemdHost
	asked  []string
	active bool
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{systemdHost: systemdHost{root: t.TempDir()}}
	b.run = func(name string, args ...string) (string, error) {
		b.asked = append(b.asked, strings.Join(append([]string{name}, args...), " "))
		switch {
		case name != "systemctl":
		case args[0] == "start":
			b.active = true
		case args[0] == "stop":
			b.active = false
		case args[0] == "show":
			_, err := os.Stat(b.root + ownUnit)
			if err != nil {
				return "LoadState=not-found\nActiveState=inactive\n", nil
			}
			return fmt.Sprintf("LoadState=loaded\nActiveState=%s\nUnitFileState=enabled\nFragmentPath=%s\n",
				map[bool]string{true: "active", false: "inactive"}[b.active], ownUnit), nil
		}
		return "", nil
	}
	return b
}

// openDir returns a directory that every user may enter, and a program in it.
func openDir(t *testing.T) (dir, program string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "postern service ")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program = filepath.Join(dir, "postern")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir, program
}

func TestSystemdService(t *testing.T) {
	b := newBench(t)
	dir, program := openDir(t)
	s := nodeService{program: program, data: dir, options: []string{"--proxy=http://u:p%2F$w@proxy:3128", "--log-level=debug"}}
	for range 2 { // once more is as good as once
		if err := errors.Join(b.install(s), b.start()); err != nil {
			t.Fatal(err)
		}
	}
	unit := readText(t, b.root+ownUnit)
	for _, want := range []string{
		`ExecStart="` + program + `" node run $POSTERN_OPTIONS` + "\n", `ReadWritePaths="` + dir + `"` + "\n",
		`Environment="POSTERN_DATA=` + dir + `"` + "\n", fmt.Sprintf("User=%d\n", os.Getuid()),
	} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit has no %q:\n%s", want, unit)
		}
	}
	if strings.Contains(unit, "StateDirectory=") || strings.Contains(unit, unitProgram) || !strings.Contains(unit, "ProtectSystem=strict") {
		t.Errorf("the unit is not the packages', for this program:\n%s", unit)
	}
	verifyUnit(t, unit)
	if info, err := os.Stat(b.root + unitOptions); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("options: %v, %v", info, err)
	}
	if got := b.asked[len(b.asked)-3:]; !slices.Equal(got, []string{"systemctl daemon-reload", "systemctl enable postern-node", "systemctl start postern-node"}) {
		t.Errorf("systemd was asked %q", b.asked)
	}
	if state, err := b.state(); err != nil || !state.Installed || !state.Enabled || !state.Running || state.File != ownUnit {
		t.Errorf("state %+v, %v", state, err)
	}
	s.options = nil
	if err := b.install(s); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.root + unitOptions); err == nil {
		t.Error("options that were not given again are still there")
	}
	if err := errors.Join(b.stop(), b.uninstall()); err != nil {
		t.Fatal(err)
	}
	if state, err := b.state(); err != nil || state.Installed {
		t.Errorf("after it was taken away: %+v, %v", state, err)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// verifyUnit has systemd judge a unit, where there is one to ask, as scripts/check-units
// does with those of the packages.
func verifyUnit(t *testing.T, unit string) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("there is no systemd-analyze here")
		return
	}
	file := filepath.Join(t.TempDir(), serviceName+".service")
	if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput() // of other units, too
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, filepath.Base(file)) {
			t.Errorf("systemd says: %s", line)
		}
	}
}

// What somebody else wrote stays, and is not run over.
func TestSystemdServiceOfOthers(t *testing.T) {
	dir, program := openDir(t)
	for _, path := range []string{ownUnit, unitOptions} {
		b := newBench(t)
		const theirs = "POSTERN_OPTIONS=\"--hide-loss\"\n"
		if err := errors.Join(os.MkdirAll(filepath.Dir(b.root+path), 0o755), os.WriteFile(b.root+path, []byte(theirs), 0o644)); err != nil {
			t.Fatal(err)
		}
		err := b.install(nodeService{program: program, data: dir, options: []string{"--mtu=1400"}})
		if err == nil || readText(t, b.root+path) != theirs {
			t.Errorf("%s: got %v, and it says %q", path, err, readText(t, b.root+path))
		}
		if err := b.uninstall(); err != nil || readText(t, b.root+path) != theirs {
			t.Errorf("%s: it is gone, %v", path, err)
		}
	}
}

// Where the package is, its unit is used as it is.
func TestSystemdServiceOfThePackage(t *testing.T) {
	b := newBench(t)
	if err := errors.Join(os.MkdirAll(filepath.Dir(b.root+packageUnit), 0o755), os.WriteFile(b.root+packageUnit, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := b.install(nodeService{program: unitProgram, data: unitData}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.root + ownUnit); err == nil {
		t.Error("there is a second unit")
	}
}

// A program that the service's user cannot reach is refused, and nothing is written.
// What was installed before there was a package, with other data, would hide its unit.
func TestSystemdServiceBecomesThePackages(t *testing.T) {
	b := newBench(t)
	dir, program := openDir(t)
	if err := b.install(nodeService{program: program, data: dir}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(b.root+packageUnit), 0o755), os.WriteFile(b.root+packageUnit, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	packaged := nodeService{program: unitProgram, data: unitData}
	if err := b.install(packaged); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.root + ownUnit); err == nil {
		t.Error("the unit of before is still there")
	}
	if err := os.WriteFile(b.root+ownUnit, []byte("[Service]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.install(packaged); err == nil || !strings.Contains(err.Error(), ownUnit) {
		t.Errorf("with somebody else's unit: got %v", err)
	}
}

func TestSystemdServiceOutOfReach(t *testing.T) {
	b := newBench(t)
	dir, program := openDir(t)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := b.install(nodeService{program: program, data: unitData})
	if _, err2 := os.Stat(b.root + ownUnit); err == nil || err2 == nil {
		t.Errorf("got %v, and a unit: %v", err, err2)
	}
}

// A shell undoes the quotes as systemd does, but that it reads $ and ` in the inner ones.
func TestEnvironmentValue(t *testing.T) {
	words := []string{"--publish=docs=/srv/my docs", `--a="b\c"`, "--d=it's", "--e=ü%2F", "--proxy=direct"}
	script := "POSTERN_OPTIONS=" + environmentValue(words) + "\neval \"set -- $POSTERN_OPTIONS\"\nprintf '%s\\n' \"$@\"\n"
	out, err := exec.Command("sh", "-c", script).Output()
	if err != nil || string(out) != strings.Join(words, "\n")+"\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if got, want := environmentValue([]string{"--a=$b`c"}), "\"--a=\\$b\\`c\""; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPlist(t *testing.T) {
	s := nodeService{program: "/usr/local/bin/postern", data: "/Users/a & b", options: []string{"--log-level=<debug>"}}
	d := xml.NewDecoder(strings.NewReader(renderPlist(s)))
	var words []string
	in := false
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch v := token.(type) {
		case xml.StartElement:
			in = v.Name.Local == "string" || v.Name.Local == "key"
		case xml.CharData:
			if in {
				words = append(words, string(v))
			}
			in = false
		}
	}
	for _, want := range [][]string{
		{"Label", serviceName},
		{"ProgramArguments", s.program, "node", "run", "--data", s.data, "--log-level=<debug>", "RunAtLoad"},
		{"StandardOutPath", launchdLog, "StandardErrorPath", launchdLog},
	} {
		at := slices.Index(words, want[0])
		if at < 0 || !slices.Equal(words[at:at+len(want)], want) {
			t.Errorf("got %q, want %q in it", words, want)
		}
	}
}
