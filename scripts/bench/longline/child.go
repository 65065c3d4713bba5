// Package longline is what the bench does over a long and lossy line: a cloud at
// its near end and an office at its far end, and the ways from one to the other.
//
//	cloud                                    line       office
//	visitor ─────────────────────────────────────────── origin           direct, direct+bbr
//	visitor ─ relay ─────────────────────────────────── relay ─ origin   relay+bbr
//	visitor ─ gateway ───────────────────────────────── node ── origin   postern
//
// Each is a process of its own, in the network namespace of its end.
package longline

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// childEnv makes this program one of the processes, a job in JSON.
const childEnv = "POSTERN_BENCH_LONGLINE"

// A job is what a child does: the one that is not nil.
type job struct {
	Origin *origin `json:",omitempty"`
	Relay  *relay  `json:",omitempty"`
	Visit  *visit  `json:",omitempty"`
}

// Child does the job that this process was started for. It reports false if it
// was started for none.
func Child() (bool, error) {
	text := os.Getenv(childEnv)
	if text == "" {
		return false, nil
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return true, fmt.Errorf("%s: %w", childEnv, err)
	}
	switch {
	case j.Origin != nil:
		return true, j.Origin.run()
	case j.Relay != nil:
		return true, j.Relay.run()
	case j.Visit != nil:
		return true, j.Visit.run()
	}
	return true, fmt.Errorf("%s names no job", childEnv)
}

// An end is one end of the line: a network namespace and its addresses.
type end struct {
	namespace string
	cubic     string // address between which and the other end's the kernel's TCP goes by CUBIC
	bbr       string // the same by BBR
}

// command returns the command that runs program there.
func (e end) command(program string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", e.namespace, program}, args...)...)
}

// child returns the command that does a job there.
func (e end) child(j job) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := e.command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	return cmd, nil
}
