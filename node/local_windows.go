package node

import "golang.org/x/sys/windows"

// What the system says of a unix socket that nobody listens on, and where there are none.
// Package syscall's own names of these are of its invention here.
const (
	errRefused  = windows.WSAECONNREFUSED
	errNoFamily = windows.WSAEAFNOSUPPORT
)
