package netstack

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A kernel is what a socket asks of the operating system and may be refused,
// since kernels, sandboxes and network cards differ.
type kernel struct {
	setOption func(fd, level, option, value int) error
	option    func(fd, level, option int) (int, error)

	// route says by which interface packets go, 0 for none.
	route func(dst, src netip.Addr, mark uint32) (ifindex uint32, err error)

	// These move messages without waiting, and return how many, at least one, or
	// an error. The latter two move the first one only.
	sendMany, receiveMany func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno)
	sendOne, receiveOne   func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno)
}

var linux = kernel{
	setOption:   unix.SetsockoptInt,
	option:      unix.GetsockoptInt,
	route:       routeTo,
	sendMany:    sendmmsg,
	receiveMany: recvmmsg,
	sendOne:     sendmsg,
	receiveOne:  recvmsg,
}

func sendmmsg(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func recvmmsg(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func sendmsg(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msgs[0].Hdr)), unix.MSG_DONTWAIT)
	msgs[0].Len = uint32(n)
	return 1, errno
}

func recvmsg(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msgs[0].Hdr)), unix.MSG_DONTWAIT)
	msgs[0].Len = uint32(n)
	return 1, errno
}

func setIovec(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}
