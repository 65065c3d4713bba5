package netstack

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An outBatch is one call of Send on its way out. Datagrams of one size in a row
// are copied to a stage, as one large one that the kernel cuts (UDP_SEGMENT): that
// costs less than having the kernel gather them from as many buffers. In order:
//
//	send     until nothing is left:
//	arrange  make messages of what is left, as long as the stage has room
//	tryPush  give them to the kernel, wait while it is full
//	refuse   it would not have one: send that another way, or go on without
type outBatch struct {
	// Static after newOutBatch.
	socket *socket
	push   func(fd uintptr)
	wait   func(fd uintptr) bool

	// Owned by send.
	to       *endpoint
	bufs     [][]byte   // what is not sent yet
	source   []byte     // the pin of the messages
	segments bool       // may be made
	refused  bool       // they were, perhaps because of the path to this endpoint
	full     bool       // the kernel took no more
	err      unix.Errno // the first that cost a datagram

	stage    []byte
	msgs     [batchSize]unix.Mmsghdr
	iovs     [batchSize]unix.Iovec
	controls [batchSize]outControl
	holds    [batchSize]int // datagrams in a message
	count    int            // of the messages,
	sent     int            // and how many of them were sent
}

const (
	// maxSegments is how many segments the kernel cuts at most (udp(7)).
	maxSegments = 64
	// maxSegmented is how many bytes it cuts: what with all headers is less than
	// the largest that network cards take.
	maxSegmented = 65000
	// stageSize lets a batch of full packets go out in one call.
	stageSize = 3 * maxSegmented
	// plainBatches is how many batches to an endpoint are sent plainly when its
	// path did not take segments, before they are tried again.
	plainBatches = 1 << 12
)

func newOutBatch(s *socket) *outBatch {
	b := &outBatch{socket: s, stage: make([]byte, stageSize)}
	b.push = func(fd uintptr) { b.full = !b.tryPush(fd) }
	b.wait = b.tryPush
	for i := range b.msgs {
		b.controls[i].init()
		b.msgs[i].Hdr.Iov = &b.iovs[i]
		b.msgs[i].Hdr.SetIovlen(1)
	}
	return b
}

// send sends bufs in order and waits while the kernel is full. Its error is that
// of the first datagram that the kernel refused; the others went out.
func (s *socket) send(bufs [][]byte, to *endpoint) error {
	b := s.batches.Get().(*outBatch)
	defer s.batches.Put(b)
	defer b.reset()
	to.check(time.Now(), s.route)
	b.to, b.bufs, b.source, b.segments = to, bufs, to.source(), s.segments.Load()
	if b.segments && to.plain.Load() > 0 {
		to.plain.Add(-1)
		b.segments = false
	}
	// Many may push at once; only those who wait queue up.
	err := s.raw.Control(b.push)
	if err == nil && b.full {
		err = s.raw.Write(b.wait)
	}
	if err == nil && b.err != 0 {
		err = b.err
	}
	if err != nil {
		return fmt.Errorf("send to %v: %w", to.dst, err)
	}
	return nil
}

// reset forgets the batch.
func (b *outBatch) reset() {
	b.to, b.bufs, b.source = nil, nil, nil
	b.refused, b.full, b.err = false, false, 0
	b.count, b.sent = 0, 0
	clear(b.iovs[:])
}

// tryPush gives all to the kernel, or reports that it is full.
func (b *outBatch) tryPush(fd uintptr) bool {
	for len(b.bufs) > 0 {
		if b.sent == b.count {
			b.arrange()
		}
		n, errno := b.socket.transmit(fd, b.msgs[b.sent:b.count])
		switch errno {
		case 0:
			if b.refused {
				b.refused = false
				b.to.plain.Store(plainBatches)
			}
			b.leave(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			b.refuse(errno)
		}
	}
	return true
}

// arrange makes messages of what is not sent yet: of all of it, unless the stage
// gets full.
func (b *outBatch) arrange() {
	b.count, b.sent = 0, 0
	stage := b.stage
	for bufs := b.bufs; len(bufs) > 0; {
		n, total := 1, len(bufs[0])
		if b.segments {
			n, total = sameSize(bufs)
		}
		switch {
		case n == 1:
			b.add(bufs[0], 1, 0)
		case total > len(stage):
			return
		default:
			at := 0
			for _, buf := range bufs[:n] {
				at += copy(stage[at:], buf)
			}
			b.add(stage[:at], n, len(bufs[0]))
			stage = stage[at:]
		}
		bufs = bufs[n:]
	}
}

// add adds a message that holds n datagrams, of size bytes if they are several.
func (b *outBatch) add(payload []byte, n, size int) {
	i := b.count
	b.count++
	b.holds[i] = n
	setIovec(&b.iovs[i], payload)
	h := &b.msgs[i].Hdr
	name := b.to.sockaddr()
	h.Name = &name[0]
	h.Namelen = uint32(len(name))
	control := b.controls[i].set(size, b.source)
	h.Control = unsafe.SliceData(control)
	h.SetControllen(len(control))
}

// sameSize returns how many of the first bufs can be sent as one message: those as
// long as the first, and one that is shorter. It also returns how long they are.
func sameSize(bufs [][]byte) (n, total int) {
	size := len(bufs[0])
	for _, buf := range bufs[:min(len(bufs), maxSegments)] {
		if n > 0 && (len(buf) > size || len(buf) == 0 || total+len(buf) > maxSegmented) {
			break
		}
		n++
		total += len(buf)
		if len(buf) < size {
			break
		}
	}
	return n, total
}

// leave leaves n messages behind.
func (b *outBatch) leave(n int) {
	for _, held := range b.holds[b.sent : b.sent+n] {
		b.bufs = b.bufs[held:]
	}
	b.sent += n
}

// refuse sends what is left another way, if there is one for the next message, or
// else leaves that behind.
func (b *outBatch) refuse(errno unix.Errno) {
	segmented := b.holds[b.sent] > 1
	switch {
	case segmented && errno == unix.EIO:
		// Some network card or its driver cannot (udp(7), UDP_SEGMENT).
		if b.socket.segments.Swap(false) {
			b.socket.logger.Info("udp segmentation refused, packets are sent one by one", "err", errno)
		}
		b.segments = false
	case segmented && (errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EOPNOTSUPP):
		// They may be larger than the path's MTU, which plain ones may be.
		b.segments, b.refused = false, true
	case len(b.source) > 0 && lostSource(errno):
		b.to.ClearSrc()
		b.source = nil
		b.segments, b.refused = b.socket.segments.Load(), false
	case errno == unix.ENOBUFS:
		// A queue overflowed: loss as any other.
		b.leave(1)
		return
	default:
		if b.err == 0 {
			b.err = errno
		}
		b.leave(1)
		return
	}
	b.count, b.sent = 0, 0
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
