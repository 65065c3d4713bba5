package netstack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// routeTo asks the kernel by which interface a packet with a mark would go from
// src, an address of this machine, to dst (RTM_GETROUTE, rtnetlink(7)). Its
// answer is 0 if there is no way. It does not wait.
func routeTo(dst, src netip.Addr, mark uint32) (ifindex uint32, err error) {
	answer, err := askNetlink(routeRequest(dst, src, mark))
	if err != nil {
		return 0, fmt.Errorf("route from %v to %v: %w", src, dst, err)
	}
	for _, m := range answer {
		if m.Header.Type != unix.RTM_NEWROUTE {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return 0, fmt.Errorf("route from %v to %v: %w", src, dst, err)
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.RTA_OIF && len(a.Value) >= 4 {
				return binary.NativeEndian.Uint32(a.Value), nil
			}
		}
	}
	return 0, nil
}

func routeRequest(dst, src netip.Addr, mark uint32) []byte {
	family := byte(unix.AF_INET)
	if dst.Is6() {
		family = unix.AF_INET6
	}
	bits := byte(dst.BitLen())
	b := make([]byte, unix.SizeofNlMsghdr, 128)
	b = append(b, family, bits, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0) // struct rtmsg
	b = appendAttr(b, unix.RTA_DST, dst.AsSlice())
	b = appendAttr(b, unix.RTA_SRC, src.AsSlice())
	b = appendAttr(b, unix.RTA_MARK, binary.NativeEndian.AppendUint32(nil, mark))
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_GETROUTE)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	return b
}

// appendAttr appends an attribute whose value is a multiple of 4 bytes long, and
// so needs no padding.
func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return append(b, value...)
}

// askNetlink returns what the kernel answers at once, as it does on routes.
func askNetlink(request []byte) ([]syscall.NetlinkMessage, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
	if err != nil {
		return nil, err
	}
	return syscall.ParseNetlinkMessage(answer[:n])
}
