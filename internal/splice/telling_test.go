package splice

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// A telling conn is a socket with ReadReady.
type telling struct {
	*net.TCPConn
	raw syscall.RawConn
}

func newTelling(c *net.TCPConn) *telling {
	raw, err := c.SyscallConn()
	if err != nil {
		panic(err)
	}
	return &telling{TCPConn: c, raw: raw}
}

func (c *telling) ReadReady(f func()) bool {
	ready := true // if the conn is closed
	c.raw.Read(func(fd uintptr) bool { ready = isReadable(fd); return true })
	if !ready {
		go func() { c.raw.Read(isReadable); f() }() // until the conn is closed, at the latest
	}
	return ready
}

func isReadable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n != 0 || err != nil
}
