package netstack

import (
	"fmt"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// A receiver reads a socket. The kernel glues datagrams of one sender and one
// size into large ones (UDP_GRO); these are read into a stage of our own and
// copied from there to WireGuard's buffers. The stage stays in the processor's
// cache and its buffers do not, so that copying costs less than pointing the
// kernel at as many buffers as there are datagrams. The way in:
//
//	receive     unless something is left on the stage,
//	clearStage  make room for some messages, and
//	tryFill     wait for the kernel to have any
//	deliver     cut what is there into WireGuard's buffers, as long as there are any
//	parse       the sender of a message, and the size of its datagrams
type receiver struct {
	// Static after newReceiver.
	socket *socket
	fill   func(fd uintptr) bool // tryFill, bound once

	// Owned by receive.
	known  endpoints
	failed bool // the last receive did
	most   int  // datagrams in one message, in the last fill

	msgs     [maxStaged]unix.Mmsghdr
	iovs     [maxStaged]unix.Iovec
	stage    [maxStaged][]byte
	names    [maxStaged][unix.SizeofSockaddrInet6]byte
	controls [maxStaged][controlSize]byte
	asked    int // messages,
	filled   int // of which so many are there,
	next     int // and this one is next
	left     coalesced
	errno    unix.Errno
}

const (
	// maxStaged is how many messages are read at a time: as many small ones as pay
	// for the call.
	maxStaged = 16
	// maxDatagram is how many bytes a message has at most, one datagram or many.
	maxDatagram = 1<<16 - 1
)

// coalesced is datagrams of one sender in a row, of size bytes each but for the
// last, which may be shorter.
type coalesced struct {
	bytes []byte
	size  int
	from  *endpoint
}

func newReceiver(s *socket) *receiver {
	r := &receiver{socket: s, known: endpoints{}, most: 1}
	r.fill = r.tryFill
	for i := range r.msgs {
		r.stage[i] = make([]byte, maxDatagram)
		setIovec(&r.iovs[i], r.stage[i])
		h := &r.msgs[i].Hdr
		h.Name = &r.names[i][0]
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i][0]
	}
	return r
}

// receive is a conn.ReceiveFunc.
func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if r.failed {
		// The device sleeps on an error and gives up after ten in a row; but as
		// long as a socket is open it may recover.
		r.failed = false
		return 0, nil
	}
	if len(r.left.bytes) == 0 && r.next == r.filled {
		r.clearStage()
		if err := r.socket.raw.Read(r.fill); err != nil {
			return 0, err
		}
		if r.errno != 0 {
			r.failed = true
			return 0, fmt.Errorf("receive on %v: %w", r.socket.conn.LocalAddr(), r.errno)
		}
	}
	return r.deliver(bufs, sizes, eps), nil
}

// clearStage makes room for as many messages as are enough for WireGuard, if they
// are like the last ones: others would only take room in the cache.
func (r *receiver) clearStage() {
	r.asked = min((batchSize+r.most-1)/r.most, maxStaged)
	for i := range r.msgs[:r.asked] {
		r.msgs[i].Hdr.Namelen = uint32(len(r.names[i]))
		r.msgs[i].Hdr.SetControllen(controlSize)
	}
	r.filled, r.next, r.most = 0, 0, 1
}

// tryFill reports whether the kernel had anything, be it an error.
func (r *receiver) tryFill(fd uintptr) bool {
	for {
		n, errno := r.socket.receive(fd, r.msgs[:r.asked])
		switch errno {
		case 0:
			r.filled = n
		case unix.EAGAIN:
			return false
		case unix.EINTR:
			continue
		case unix.ECONNREFUSED, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EMSGSIZE, unix.EPROTO, unix.ENOPROTOOPT:
			// What ICMP says of a datagram that we sent.
			errno = 0
		}
		r.errno = errno
		return true
	}
}

// deliver cuts what is on the stage into bufs, and returns how many it took.
func (r *receiver) deliver(bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int) {
	for n < len(bufs) {
		c := &r.left
		if len(c.bytes) == 0 {
			if r.next == r.filled {
				break
			}
			*c = r.parse(r.next)
			r.next++
			continue
		}
		size := min(c.size, len(c.bytes))
		sizes[n] = copy(bufs[n], c.bytes[:size])
		eps[n] = c.from
		c.bytes = c.bytes[size:]
		n++
	}
	return n
}

// parse returns the datagrams of message i, none if it was too long.
func (r *receiver) parse(i int) coalesced {
	msg := &r.msgs[i]
	total := int(msg.Len)
	if total == 0 || msg.Hdr.Flags&unix.MSG_TRUNC != 0 {
		return coalesced{}
	}
	key := endpointKey{name: r.names[i]}
	var size int
	size, key.pin = parseControl(r.controls[i][:min(int(msg.Hdr.Controllen), controlSize)])
	if size <= 0 || size > total {
		size = total
	}
	r.most = max(r.most, (total+size-1)/size)
	return coalesced{r.stage[i][:total], size, r.known.of(key)}
}
