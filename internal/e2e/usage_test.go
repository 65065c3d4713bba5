//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// A usage is what a process has used of the machine so far.
type usage struct {
	cpu     time.Duration // user and system, of all threads
	private int64         // bytes of memory that are its own
	files   int           // open
}

// clockTick is the kernel's USER_HZ, in which it tells times of processes.
const clockTick = time.Second / 100

// used returns what the process has used. Behind ip netns exec it is the program itself,
// which takes the place of ip.
func (p *process) used() (u usage) {
	p.t.Helper()
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold anything
	fields := strings.Fields(rest)                // from the third on
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		p.t.Fatal(err)
	}
	u.cpu = time.Duration(user+system) * clockTick
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			if _, err := fmt.Sscan(value, &u.private); err != nil {
				p.t.Fatal(err)
			}
			u.private <<= 10
		}
	}
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		p.t.Fatal(err)
	}
	u.files = len(files)
	return u
}
