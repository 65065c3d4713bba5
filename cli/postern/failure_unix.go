//go:build unix

package main

import "syscall"

// What the system says when an address is taken, or none of this machine's, and when
// there is no room on the disk.
const (
	errAddrInUse    = syscall.EADDRINUSE
	errAddrNotAvail = syscall.EADDRNOTAVAIL
	errDiskFull     = syscall.ENOSPC
)
