package main

import "golang.org/x/sys/windows"

// space returns how many bytes are free on the disk of dir, for its user, and how many it
// has.
func space(dir string) (free, all uint64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	err = windows.GetDiskFreeSpaceEx(name, &free, &all, nil)
	return free, all, err
}

// fileLimit returns 0: what a process may have open is bounded by memory alone.
func fileLimit() int { return 0 }
