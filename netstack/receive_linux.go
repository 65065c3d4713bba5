package netstack

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// A receiver reads a socket into WireGuard's buffers. The way in:
//
//	receive      point messages to lanes, wait for the kernel to fill some
//	parse        the sender of a message, and the size of its datagrams
//	settle       each datagram where WireGuard looks for it
//	deliverHeld  what had more datagrams than its lane has buffers goes first next time
type receiver struct {
	// Static after newReceiver.
	socket *socket
	fill   func(fd uintptr) bool // tryFill, bound once

	// Owned by receive.
	known  endpoints
	shape  shape
	held   []coalesced
	flat   []byte // scratch
	failed bool   // the last receive did

	msgs     [batchSize]unix.Mmsghdr
	iovs     [batchSize]unix.Iovec
	names    [batchSize][unix.SizeofSockaddrInet6]byte
	controls [batchSize][controlSize]byte
	lanes    int
	filled   int // of the lanes
	errno    unix.Errno
}

// coalesced is datagrams of one sender in a row, of size bytes each but for the
// last, which may be shorter.
type coalesced struct {
	bytes []byte
	size  int
	from  *endpoint
}

func newReceiver(s *socket) *receiver {
	r := &receiver{socket: s, shape: newShape(), known: endpoints{}}
	r.fill = r.tryFill
	return r
}

// receive is a conn.ReceiveFunc. Each of bufs has room for any datagram.
func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	switch {
	case r.failed:
		// The device sleeps on an error and gives up after ten in a row; but as
		// long as a socket is open it may recover.
		r.failed = false
		return 0, nil
	case len(r.held) > 0:
		return r.deliverHeld(bufs, sizes, eps), nil
	}
	width := min(r.shape.width, len(bufs))
	r.point(bufs, width)
	if err := r.socket.raw.Read(r.fill); err != nil {
		return 0, err
	}
	if r.errno != 0 {
		r.failed = true
		return 0, fmt.Errorf("receive on %v: %w", r.socket.conn.LocalAddr(), r.errno)
	}
	n := 0
	var seen traffic
	for i := range r.filled {
		total, size, from := r.parse(i)
		if total == 0 {
			continue
		}
		count := datagrams(total, size)
		seen.add(total, size, count)
		first := i * width
		lane := bufs[first : first+width]
		if count > width || len(r.held) > 0 {
			r.held = append(r.held, coalesced{r.shape.flatten(nil, lane, total), size, from})
			continue
		}
		if !r.shape.fits(width, total, size) {
			r.flat = r.shape.flatten(r.flat[:0], lane, total)
			split(lane, r.flat, size)
		}
		clear(sizes[n:first])
		n = first + settle(sizes[first:], eps[first:], total, size, from)
	}
	r.shape.adapt(seen)
	return n, nil
}

// settle writes down the sizes of total bytes of datagrams and their sender, and
// returns how many they are.
func settle(sizes []int, eps []conn.Endpoint, total, size int, from *endpoint) (n int) {
	for ; total > 0; n++ {
		sizes[n] = min(size, total)
		eps[n] = from
		total -= sizes[n]
	}
	return n
}

// deliverHeld is receive for what is held.
func (r *receiver) deliverHeld(bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int) {
	for n < len(bufs) && len(r.held) > 0 {
		c := &r.held[0]
		size := min(c.size*(len(bufs)-n), len(c.bytes))
		split(bufs[n:], c.bytes[:size], c.size)
		n += settle(sizes[n:], eps[n:], size, c.size, c.from)
		if c.bytes = c.bytes[size:]; len(c.bytes) == 0 {
			r.held = r.held[1:]
		}
	}
	if len(r.held) == 0 {
		r.held = nil
	}
	return n
}

// point points each message to width of bufs.
func (r *receiver) point(bufs [][]byte, width int) {
	r.lanes = len(bufs) / width
	for lane := range r.lanes {
		first, last := lane*width, lane*width+width-1
		for i, buf := range bufs[first:last] {
			setIovec(&r.iovs[first+i], buf[:r.shape.stride])
		}
		setIovec(&r.iovs[last], bufs[last])
		h := &r.msgs[lane].Hdr
		h.Name = &r.names[lane][0]
		h.Namelen = uint32(len(r.names[lane]))
		h.Iov = &r.iovs[first]
		h.SetIovlen(width)
		h.Control = &r.controls[lane][0]
		h.SetControllen(len(r.controls[lane]))
	}
}

func setIovec(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}

// tryFill reports whether the kernel had anything, be it an error.
func (r *receiver) tryFill(fd uintptr) bool {
	for {
		r.filled, r.errno = r.socket.receive(fd, r.msgs[:r.lanes])
		switch r.errno {
		case 0:
			return true
		case unix.EAGAIN:
			return false
		case unix.EINTR:
			continue
		case unix.ECONNREFUSED, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EMSGSIZE, unix.EPROTO, unix.ENOPROTOOPT:
			// What ICMP says of a datagram that we sent.
			r.errno = 0
		}
		r.filled = 0
		return true
	}
}

// parse returns how many bytes message i has, the size of its datagrams, and
// who sent them.
func (r *receiver) parse(i int) (total, size int, from *endpoint) {
	msg := &r.msgs[i]
	total = int(msg.Len)
	if total == 0 || msg.Hdr.Flags&unix.MSG_TRUNC != 0 {
		return 0, 0, nil
	}
	key := endpointKey{name: r.names[i]}
	size, key.pin = parseControl(r.controls[i][:min(int(msg.Hdr.Controllen), controlSize)])
	if size <= 0 || size > total {
		size = total
	}
	return total, size, r.known.of(key)
}
