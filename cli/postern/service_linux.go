package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	units "postern/scripts/systemd"
)

// Where systemd looks, below a systemdHost's root.
const (
	ownUnit     = "/etc/systemd/system/" + serviceName + ".service"     // what install writes
	packageUnit = "/usr/lib/systemd/system/" + serviceName + ".service" // what a package has
	unitOptions = "/etc/default/" + serviceName
)

// What the unit in scripts/systemd says of the program and its data.
const (
	unitProgram = "/usr/bin/postern"
	unitData    = "/var/lib/postern/node"
	unitUser    = "postern"
	rootUser    = "0"
)

// written is the first line of what install writes.
const written = "# Written by `postern node service install`, which writes it anew."

// A systemdHost is this machine's, or a test's.
type systemdHost struct {
	root string // "" for the machine's
	run  func(name string, args ...string) (stdout string, err error)
}

// systemService returns this machine's service manager.
func systemService() (serviceHost, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil { // sd_booted(3)
		return nil, fail("have whatever starts programs here start `postern node run`", errors.New("this machine is not run by systemd"))
	}
	return systemdHost{run: runTool}, nil
}

// hosted runs f as what started this process wants it.
func hosted(f func(ctx context.Context, stdout, stderr io.Writer) int) int {
	return f(context.Background(), os.Stdout, os.Stderr)
}

func runTool(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

func (s systemdHost) install(n nodeService) error {
	if err := s.mayChange(); err != nil {
		return err
	}
	_, err := os.Stat(s.root + packageUnit)
	if packaged := err == nil && n.program == unitProgram && n.data == unitData; packaged {
		// What was installed here before would hide it.
		if err := errors.Join(foreign(s.root+ownUnit), removeOwn(s.root+ownUnit)); err != nil {
			return err
		}
	} else {
		owner, err := s.owner(n.data)
		if err != nil {
			return err
		}
		if owner[0] != rootUser {
			if err := reachable(n.program); err != nil {
				return err
			}
		}
		if err := writeOwn(s.root+ownUnit, 0o644, renderUnit(n, owner)); err != nil {
			return err
		}
	}
	if err := s.writeOptions(n.options); err != nil {
		return err
	}
	if _, err := s.run("systemctl", "daemon-reload"); err != nil {
		return err
	}
	_, err = s.run("systemctl", "enable", serviceName)
	return err
}

// mayChange reports whether systemd is ours to change.
func (s systemdHost) mayChange() error {
	if s.root == "" && os.Geteuid() != 0 {
		return fail("run it as root: sudo postern node service …", fmt.Errorf("change services: %w", fs.ErrPermission))
	}
	return nil
}

// owner returns the names of user and group that are to run a node with data: those of the
// packages for where they have it, which are made if they are not there; else whose it is.
func (s systemdHost) owner(data string) ([2]string, error) {
	if data == unitData {
		if _, err := user.Lookup(unitUser); err != nil {
			line := strings.TrimSpace(units.Users)
			if _, err := s.run("systemd-sysusers", "--inline", line); err != nil {
				return [2]string{}, fail("add a system user called "+unitUser+" and try again", err)
			}
		}
		return [2]string{unitUser, unitUser}, nil
	}
	info, err := os.Stat(data)
	if err != nil {
		return [2]string{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return [2]string{strconv.Itoa(int(stat.Uid)), strconv.Itoa(int(stat.Gid))}, nil
}

// reachable reports why another user could not run program, if it could not.
func reachable(program string) error {
	for path := program; path != "/"; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fail("copy it to /usr/local/bin, and install from there",
				fmt.Errorf("the service could not run %s: %s is closed to other users", program, path))
		}
	}
	return nil
}

// renderUnit returns the packages' unit for n, run by owner, a user and a group.
func renderUnit(n nodeService, owner [2]string) string {
	unit := strings.Replace(units.Node, "ExecStart="+unitProgram, "ExecStart="+unitWord(n.program), 1)
	if n.data != unitData {
		unit = strings.NewReplacer(
			"User="+unitUser+"\n", "User="+owner[0]+"\n",
			"Group="+unitUser+"\n", "Group="+owner[1]+"\n",
			"StateDirectory=postern/node\nStateDirectoryMode=0700\n", "ReadWritePaths="+unitWord(n.data)+"\n",
			"Environment=POSTERN_DATA="+unitData+"\n", "Environment="+unitWord("POSTERN_DATA="+n.data)+"\n",
		).Replace(unit)
	}
	return written + "\n" + unit
}

// unitWord returns word as one word of a unit (systemd.syntax(7), systemd.unit(5)).
func unitWord(word string) string {
	word = strings.ReplaceAll(word, "%", "%%")
	if strings.ContainsAny(word, " \t\"'\\;") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
	}
	return word
}

// writeOptions has the unit's program given options. What somebody else wrote there stays.
func (s systemdHost) writeOptions(options []string) error {
	path := s.root + unitOptions
	if len(options) == 0 {
		return removeOwn(path)
	}
	for _, o := range options {
		if strings.ContainsAny(o, "\n\r") {
			return misuse("leave it away", "an option has a line break: %q", o)
		}
	}
	// Read by root alone: there may be a proxy's password in it.
	return writeOwn(path, 0o600, written+"\nPOSTERN_OPTIONS="+environmentValue(options)+"\n")
}

// environmentValue returns words such that systemd, which takes the value out of its
// quotes (systemd.exec(5), EnvironmentFile=) and parts it at spaces outside of quotes
// (systemd.service(5), Command lines), has the same words again.
func environmentValue(words []string) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)
	var all []string
	for _, w := range words {
		if strings.ContainsAny(w, " \t\"'\\") {
			w = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
		all = append(all, w)
	}
	return `"` + quote.Replace(strings.Join(all, " ")) + `"`
}

// writeOwn writes a file, unless there is one that install did not write.
func writeOwn(path string, mode fs.FileMode, text string) error {
	if err := foreign(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	next := path + ".new"
	if err := os.WriteFile(next, []byte(text), mode); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// removeOwn removes a file that install wrote.
func removeOwn(path string) error {
	if foreign(path) != nil {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// foreign reports a file that somebody else wrote.
func foreign(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(string(text), written) {
		return nil
	}
	if err != nil {
		return err
	}
	return fail("change it by hand, or move it away and try again", fmt.Errorf("%s is somebody else's; it was left as it is", path))
}

func (s systemdHost) start() error {
	_, err := s.run("systemctl", "start", serviceName)
	return err
}

func (s systemdHost) stop() error {
	if err := s.mayChange(); err != nil {
		return err
	}
	_, err := s.run("systemctl", "stop", serviceName)
	return err
}

func (s systemdHost) uninstall() error {
	if _, err := s.run("systemctl", "disable", serviceName); err != nil {
		return err
	}
	if err := errors.Join(removeOwn(s.root+ownUnit), removeOwn(s.root+unitOptions)); err != nil {
		return err
	}
	_, err := s.run("systemctl", "daemon-reload")
	return err
}

func (s systemdHost) state() (serviceState, error) {
	state := serviceState{Log: "journalctl -u " + serviceName}
	out, err := s.run("systemctl", "show", serviceName, "--property=LoadState,ActiveState,UnitFileState,FragmentPath")
	if err != nil {
		return state, err
	}
	said := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		said[key] = value
	}
	state.File = said["FragmentPath"]
	state.Enabled = said["UnitFileState"] == "enabled"
	switch said["ActiveState"] {
	case "active", "activating", "reloading":
		state.Running = true
	}
	// A package's unit is there before anybody wants it.
	state.Installed = said["LoadState"] == "loaded" && (state.Enabled || state.Running || state.File == ownUnit)
	if !state.Installed {
		state.File = ""
	}
	return state, nil
}
