package relay

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// notSent is how many bytes the kernel may hold that it did not send yet. More
	// would wait there, where nobody drops what is old.
	notSent = 64 << 10

	// userTimeout is how long, in milliseconds, what was sent may go unacknowledged
	// (RFC 5482).
	userTimeout = 15_000
)

// tune sets up the socket below c for datagrams. All of it may be refused: the relay works
// without. BBR, unlike what systems use by themselves, does not take a lost packet for a
// full line: on lossy paths it is several times as fast.
func tune(c net.Conn) {
	for {
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = below.NetConn()
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
		_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr")
	})
}
