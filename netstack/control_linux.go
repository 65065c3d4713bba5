package netstack

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize has room for a pin, which is the larger with IPv6, and for
// UDP_GRO or UDP_SEGMENT (udp(7)).
const controlSize = 64

// parseControl returns the size of the datagrams that were glued into one, zero
// if none were, and the pin to answer with.
func parseControl(control []byte) (size int, p pin) {
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			size = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) == unix.SizeofInet4Pktinfo,
			h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) == unix.SizeofInet6Pktinfo:
			copy(p[:], control[:h.Len])
		}
		control = rest
	}
	return size, p
}

// An outControl is the control messages of one datagram to send.
type outControl [controlSize]byte

// pinAt is where a pin follows the order to cut.
var pinAt = unix.CmsgSpace(2)

// init makes room for the order to cut, whose size is zero.
func (c *outControl) init() {
	h := unix.Cmsghdr{Level: unix.SOL_UDP, Type: unix.UDP_SEGMENT}
	h.SetLen(unix.CmsgLen(2))
	copy(c[:], unsafe.Slice((*byte)(unsafe.Pointer(&h)), unix.SizeofCmsghdr))
}

// set returns the messages that let a datagram leave by pin, and cut into
// segments of size bytes unless that is zero.
func (c *outControl) set(size int, pin []byte) []byte {
	end := pinAt + copy(c[pinAt:], pin)
	if size == 0 {
		return c[pinAt:end]
	}
	binary.NativeEndian.PutUint16(c[unix.CmsgLen(0):], uint16(size))
	return c[:end]
}
