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
// gone: nothing came from it for long, and it acknowledged nothing of what was sent or, if
// its window is closed, of several probes. Whoever answers those may take as long as they
// like; they are up to two minutes apart, and the first answer begins the count anew. The
// kernel does not count as an acknowledgement what came with data and said nothing new.
func saysSilent(i *unix.TCPInfo) bool {
	const probes = 3
	heard := time.Duration(min(i.Last_ack_recv, i.Last_data_recv)) * time.Millisecond
	return heard > silence && (i.Unacked > 0 || i.Probes >= probes)
}
