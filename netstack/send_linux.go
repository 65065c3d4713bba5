package netstack

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// An outBatch is one call of Send on its way out, in order:
//
//	send     point to WireGuard's buffers
//	arrange  as few messages as can be: datagrams of one size in a row are one
//	         large one, which the kernel cuts
//	push     give them to the kernel, wait if it is full
//	refuse   the kernel would not have one: send it another way, or go on without
type outBatch struct {
	// Static after newOutBatch.
	socket    *socket
	tryPush   func(fd uintptr)
	retryPush func(fd uintptr) bool

	// Owned by send.
	to       *endpoint
	source   []byte // the pin in the messages
	iovs     [batchSize]unix.Iovec
	msgs     [batchSize]unix.Mmsghdr
	controls [batchSize]outControl
	bufs     int        // how many of iovs are to be sent,
	done     int        // and how many of them were
	count    int        // how many of msgs are to be sent,
	sent     int        // and how many of them were
	full     bool       // the kernel took no more
	refused  bool       // nor segments, perhaps because of the path to this endpoint
	err      unix.Errno // the first that cost a datagram
}

const (
	// maxSegments is how many segments the kernel cuts at most (UDP_MAX_SEGMENTS
	// of old).
	maxSegments = 64
	// maxSegmented is how many bytes: what with all headers is a full IP packet
	// and still less than the largest that network cards take.
	maxSegmented = 65000
	// plainBatches is how many batches to an endpoint are sent plainly when its
	// path did not take segments, before they are tried again.
	plainBatches = 1 << 12
)

func newOutBatch(s *socket) *outBatch {
	b := &outBatch{socket: s}
	b.tryPush = func(fd uintptr) { b.full = !b.push(fd) }
	b.retryPush = b.push
	for i := range b.controls {
		b.controls[i].init()
	}
	return b
}

// send sends bufs in order and waits while the kernel is full. Its error is that
// of the first datagram that the kernel refused; the others went out.
func (s *socket) send(bufs [][]byte, to *endpoint) error {
	b := s.batches.Get().(*outBatch)
	defer s.batches.Put(b)
	defer clear(b.iovs[:len(bufs)])
	b.to, b.bufs, b.sent, b.done, b.err, b.refused = to, len(bufs), 0, 0, 0, false
	for i, buf := range bufs {
		setIovec(&b.iovs[i], buf)
	}
	segments := s.segments.Load()
	if segments && to.plain.Load() > 0 {
		to.plain.Add(-1)
		segments = false
	}
	to.check(time.Now(), s.route)
	b.arrange(segments, to.source())
	// Many may push at once; only those who wait queue up.
	err := s.raw.Control(b.tryPush)
	if err == nil && b.full {
		err = s.raw.Write(b.retryPush)
	}
	if err == nil && b.err != 0 {
		err = b.err
	}
	if err != nil {
		return fmt.Errorf("send to %v: %w", to.dst, err)
	}
	return nil
}

// arrange makes messages of what is not sent yet.
func (b *outBatch) arrange(segments bool, source []byte) {
	name := b.to.sockaddr()
	b.source, b.count, b.sent = source, 0, 0
	for i := b.done; i < b.bufs; b.count++ {
		n, size := 1, 0
		if segments {
			n = sameSize(b.iovs[i:b.bufs])
		}
		if n > 1 {
			size = int(b.iovs[i].Len)
		}
		h := &b.msgs[b.count].Hdr
		h.Name = &name[0]
		h.Namelen = uint32(len(name))
		h.Iov = &b.iovs[i]
		h.SetIovlen(n)
		control := b.controls[b.count].set(size, source)
		h.Control = nil
		if len(control) > 0 {
			h.Control = &control[0]
		}
		h.SetControllen(len(control))
		i += n
	}
}

// sameSize returns how many of the first datagrams can be sent as one: those of
// the size of the first, and one that is smaller.
func sameSize(iovs []unix.Iovec) int {
	size := iovs[0].Len
	total := size
	n := 1
	for ; n < min(len(iovs), maxSegments) && iovs[n-1].Len == size; n++ {
		total += iovs[n].Len
		if iovs[n].Len > size || iovs[n].Len == 0 || total > maxSegmented {
			break
		}
	}
	return n
}

// push gives messages to the kernel and reports whether it has had all; if not,
// it is full.
func (b *outBatch) push(fd uintptr) bool {
	for b.sent < b.count {
		n, errno := b.socket.transmit(fd, b.msgs[b.sent:b.count])
		switch errno {
		case 0:
			if b.refused {
				b.refused = false
				b.to.plain.Store(plainBatches)
			}
			b.advance(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			b.refuse(errno)
		}
	}
	return true
}

// advance leaves n messages behind.
func (b *outBatch) advance(n int) {
	for _, m := range b.msgs[b.sent : b.sent+n] {
		b.done += int(m.Hdr.Iovlen)
	}
	b.sent += n
}

// refuse sends the next message another way, if there is one, or leaves it
// behind.
func (b *outBatch) refuse(errno unix.Errno) {
	segmented := b.msgs[b.sent].Hdr.Iovlen > 1
	switch {
	case segmented && errno == unix.EIO:
		// Some network card or its driver cannot: udp(7), UDP_SEGMENT.
		if b.socket.segments.Swap(false) {
			b.socket.logger.Info("udp segmentation refused, packets are sent one by one", "err", errno)
		}
		b.arrange(false, b.source)
	case segmented && (errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EOPNOTSUPP):
		// They may be larger than the path's MTU, which plain ones may be.
		b.refused = true
		b.arrange(false, b.source)
	case len(b.source) > 0 && lostSource(errno):
		b.to.ClearSrc()
		b.refused = false
		b.arrange(b.socket.segments.Load(), nil)
	case errno == unix.ENOBUFS:
		// A queue overflowed: loss as any other.
		b.advance(1)
	default:
		if b.err == 0 {
			b.err = errno
		}
		b.advance(1)
	}
}

// lostSource reports whether a packet may leave if it need not leave from a
// certain address of ours and by a certain interface.
func lostSource(errno unix.Errno) bool {
	switch errno {
	case unix.EINVAL, unix.ENODEV, unix.EADDRNOTAVAIL, unix.ENETUNREACH, unix.EHOSTUNREACH:
		return true
	}
	return false
}
