//go:build linux || darwin

package main

import "golang.org/x/sys/unix"

// space returns how many bytes are free on the disk of dir, for its user, and how many it
// has.
func space(dir string) (free, all uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
