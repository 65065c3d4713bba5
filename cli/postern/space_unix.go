//go:build linux || darwin

package main

import (
	"math"

	"golang.org/x/sys/unix"
)

// space returns how many bytes are free on the disk of dir, for its user, and how many it
// has.
func space(dir string) (free, all uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}

// fileLimit returns how many files this process may have open, 0 if that is not known.
func fileLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return int(min(l.Cur, math.MaxInt32))
}
