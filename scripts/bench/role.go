package main

import (
	"fmt"
	"os"
	"os/exec"
)

// roleEnv makes this program one of roles instead of the bench: what is measured
// runs in processes of its own, so that its work is not the bench's.
const roleEnv = "POSTERN_BENCH_ROLE"

// roles are what this program can be besides the bench. Each runs until it is
// killed or, where it listens to its standard input, until that ends.
var roles = map[string]func() error{
	"origin": origin,
	"host":   serveHost,
}

// play runs the role called name.
func play(name string) error {
	role, ok := roles[name]
	if !ok {
		return fmt.Errorf("%s: there is no role %q", roleEnv, name)
	}
	if err := role(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// roleCommand returns a command, not yet started, that plays the role called name.
func roleCommand(name string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd, nil
}
