//go:build !android

package netstack

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// behindBytes is how much of what came the kernel may hold before we are behind: some
// milliseconds' worth. Of a smaller buffer than ours it is a quarter.
const behindBytes = 1 << 20

// behind reports whether the kernel holds much that we have not read.
func (b *bind) behind() bool {
	sockets := b.sockets.Load()
	if sockets == nil {
		return false
	}
	for s := range sockets.each {
		if held, room := s.held(); held > min(behindBytes, room/4) {
			return true
		}
	}
	return false
}

// held returns how many bytes the kernel holds for us, as it counts them, and for how
// many it has room (SO_MEMINFO: sock_diag(7), SK_MEMINFO_RMEM_ALLOC and _RCVBUF).
func (s *socket) held() (bytes, room uint32) {
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	s.raw.Control(func(fd uintptr) {
		// Without it, zeros say that nothing is held.
		unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	return info[0], info[1]
}
