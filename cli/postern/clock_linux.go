package main

import "golang.org/x/sys/unix"

// clockSynchronised reports whether something keeps the system's clock right (adjtimex(2)),
// and whether that can be told.
func clockSynchronised() (synchronised, known bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err == nil
}
