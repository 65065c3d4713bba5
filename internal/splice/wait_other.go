//go:build !unix

package splice

import "syscall"

// waitForSocket returns nil: there is no looking at a socket without reading it.
func waitForSocket(syscall.RawConn) func() error { return nil }
