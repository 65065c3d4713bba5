package main

import "golang.org/x/sys/windows"

// What the system says when an address is taken, or none of this machine's, and when
// there is no room on the disk. Package syscall's own names of these are of its invention
// here.
const (
	errAddrInUse    = windows.WSAEADDRINUSE
	errAddrNotAvail = windows.WSAEADDRNOTAVAIL
	errDiskFull     = windows.ERROR_DISK_FULL
)
