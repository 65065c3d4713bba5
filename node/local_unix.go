//go:build unix

package node

import "syscall"

// What the system says of a unix socket that nobody listens on, and where there are none.
const (
	errRefused  = syscall.ECONNREFUSED
	errNoFamily = syscall.EAFNOSUPPORT
)
