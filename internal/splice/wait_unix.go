//go:build unix

package splice

import (
	"os"
	"syscall"
)

// waitForSocket returns what waits until a socket has something to read. It looks
// again when it is woken, which costs a microsecond: at times it is woken for bytes
// that were read already, and who believed it would wait in Read, with a buffer.
func waitForSocket(raw syscall.RawConn) func() error {
	// Looking takes a socket's error away, so that it must be kept.
	var failed error
	look := func(fd uintptr) (done bool) {
		var b [1]byte
		for {
			_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			switch err {
			case nil:
				return true
			case syscall.EAGAIN:
				return false
			case syscall.EINTR:
			default:
				failed = os.NewSyscallError("recvfrom", err)
				return true
			}
		}
	}
	return func() error {
		if err := raw.Read(look); err != nil {
			return err
		}
		return failed
	}
}
