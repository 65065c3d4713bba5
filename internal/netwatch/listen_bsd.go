//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package netwatch

import (
	"os"

	"golang.org/x/sys/unix"
)

// openEvents returns a socket that gets a message whenever a link, an address or a route
// changed; see route(4).
func openEvents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_ROUTE, unix.SOCK_RAW, unix.AF_UNSPEC)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setnonblock", err)
	}
	return os.NewFile(uintptr(fd), "route"), nil
}
