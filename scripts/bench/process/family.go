package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// tick is the unit of CPU time in /proc (USER_HZ).
const tick = 10 * time.Millisecond

// Family returns the processes pids and all that descend from them.
func Family(pids ...int) []int {
	all := slices.Clone(pids)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	children := map[int][]int{}
	for _, file := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if fields, err := stat(pid); err == nil {
			parent, _ := strconv.Atoi(fields[statParent])
			children[parent] = append(children[parent], pid)
		}
	}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// Fields of /proc/PID/stat that stat returns (proc_pid_stat(5)), whose third is
// the first here.
const (
	statState  = 0
	statParent = 4 - 3
	statUser   = 14 - 3
	statSystem = 15 - 3
)

// Runs reports whether there is a process pid that has not ended.
func Runs(pid int) bool {
	fields, err := stat(pid)
	return err == nil && fields[statState] != "Z"
}

// stat returns what /proc/PID/stat says after the program's name, which may
// contain anything.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	var fields []string
	for field := range bytes.FieldsSeq(data[bytes.LastIndexByte(data, ')')+1:]) {
		fields = append(fields, string(field))
	}
	if len(fields) <= statSystem {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// CPU returns the user and system time that the families of pids have taken.
func CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range Family(pids...) {
		fields, err := stat(pid)
		if err != nil {
			return 0, err
		}
		for _, field := range []int{statUser, statSystem} {
			n, err := strconv.ParseInt(fields[field], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
			}
			sum += time.Duration(n) * tick
		}
	}
	return sum, nil
}

// Resident returns how much memory the families of pids have, in KiB. A page that
// several processes share counts by its share of each (PSS).
func Resident(pids []int) (float64, error) {
	var sum float64
	for _, pid := range Family(pids...) {
		file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
		data, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		_, after, _ := bytes.Cut(data, []byte("\nPss:"))
		var kib float64
		if _, err := fmt.Sscanf(string(after), "%f kB", &kib); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += kib
	}
	return sum, nil
}
