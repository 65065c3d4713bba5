package netstack

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBuffer is how many bytes the kernel may hold for a socket each way, if
// it lets us: a burst of all peers while we are busy.
const socketBuffer = 7 << 20

// A socket is one family's UDP socket. Many may send on it at once.
type socket struct {
	// Static after listen.
	conn   *net.UDPConn
	raw    syscall.RawConn
	port   uint16
	kernel kernel
	logger *slog.Logger

	route func(dst, src netip.Addr) (ifindex uint32, err error) // kernel.route, with the mark

	batches sync.Pool // of *outBatch
	mark    atomic.Uint32

	segments atomic.Bool // the kernel cuts what we send
	single   atomic.Bool // it takes one datagram at a time
}

// listen opens the UDP socket of a network, "udp4" or "udp6", on port or, if it
// is zero, on any.
func listen(network string, port uint16, k kernel, logger *slog.Logger) (*socket, error) {
	s := &socket{kernel: k, logger: logger}
	s.batches.New = func() any { return newOutBatch(s) }
	s.route = func(dst, src netip.Addr) (uint32, error) { return k.route(dst, src, s.mark.Load()) }
	config := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = s.prepare(network, int(fd)) }); e != nil {
			return e
		}
		return err
	}}
	c, err := config.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	s.conn = c.(*net.UDPConn)
	s.port = s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		s.conn.Close()
		return nil, err
	}
	return s, nil
}

// prepare sets what the socket must have and asks for what it had better have.
func (s *socket) prepare(network string, fd int) error {
	// Nobody is to cut datagrams in pieces, on the way or here: that costs twice the
	// packets where it works, and where it does not nobody tells. What passes is found
	// out by echoes, and not from what ICMP says, which anybody may (RFC 8899, section 4.1).
	required := []struct{ level, option, value int }{
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
	}
	if network == "udp6" {
		required = []struct{ level, option, value int }{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
		}
	}
	for _, o := range required {
		if err := s.kernel.setOption(fd, o.level, o.option, o.value); err != nil {
			return fmt.Errorf("set option %d of a %s socket: %w", o.option, network, err)
		}
	}
	// Beyond the system's limit with CAP_NET_ADMIN, else up to it.
	for _, options := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if s.kernel.setOption(fd, unix.SOL_SOCKET, options[0], socketBuffer) != nil {
			_ = s.kernel.setOption(fd, unix.SOL_SOCKET, options[1], socketBuffer)
		}
	}
	_, err := s.kernel.option(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	s.segments.Store(err == nil)
	// Kernels before 5.12 cannot be asked whether it is on, and had faults in it.
	_ = s.kernel.setOption(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	if on, err := s.kernel.option(fd, unix.SOL_UDP, unix.UDP_GRO); err != nil || on != 1 {
		_ = s.kernel.setOption(fd, unix.SOL_UDP, unix.UDP_GRO, 0)
	}
	return nil
}

// setMark sets SO_MARK (socket(7)).
func (s *socket) setMark(mark uint32) (err error) {
	if e := s.raw.Control(func(fd uintptr) {
		err = s.kernel.setOption(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	}); e != nil {
		return e
	}
	if err == nil {
		s.mark.Store(mark)
	}
	return err
}

// receive fills at least the first of msgs, or returns an error.
func (s *socket) receive(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
	if !s.single.Load() {
		n, errno := s.kernel.receiveMany(fd, msgs)
		if errno != unix.ENOSYS {
			return n, errno
		}
		s.single.Store(true)
	}
	return s.kernel.receiveOne(fd, msgs)
}

// transmit sends at least the first of msgs, or returns an error.
func (s *socket) transmit(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
	if !s.single.Load() {
		n, errno := s.kernel.sendMany(fd, msgs)
		if errno != unix.ENOSYS {
			return n, errno
		}
		s.single.Store(true)
	}
	return s.kernel.sendOne(fd, msgs)
}
