package gateway

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// isSilent reports whether the other end of a socket answers nothing any more.
func isSilent(raw syscall.RawConn) (silent bool) {
	raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		silent = err == nil && saysSilent(info)
	})
	return silent
}

// saysSilent reports whether, by what the kernel knows of a connection, its other end is
// gone: it acknowledged nothing for long, of what was sent or, if its window is closed, of
// several probes. Whoever answers those may take as long as they like; they are up to
// two minutes apart, and the first answer begins the count anew.
func saysSilent(i *unix.TCPInfo) bool {
	const probes = 3
	return time.Duration(i.Last_ack_recv)*time.Millisecond > silence && (i.Unacked > 0 || i.Probes >= probes)
}
