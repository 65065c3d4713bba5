package netstack

import "math/bits"

// A shape says how WireGuard's buffers are given to the kernel. The kernel glues
// datagrams of one sender and one size into a large one (UDP_GRO), of up to
// 65,535 bytes, and each such one is read into a lane of buffers: all but the
// lane's last take a stride, which is the size that datagrams are expected to
// have, so that, if they do, each is where it belongs without a copy. The last
// has room for any rest. Few wide lanes suit bulk, many narrow ones suit small
// packets of many peers.
type shape struct {
	stride int // bytes
	width  int // buffers in a lane, a power of two
	quiet  int // receives since half a lane was not enough
}

const (
	// usualStride is a full packet of a tunnel with an MTU of 1420 (whitepaper,
	// section 5.4.6).
	usualStride = 1420 + 32
	// bulk is how many bytes in one make their datagrams' size the stride.
	bulk = 8 << 10
	// minWidth lets small packets come 32 at a time, and bounds what has to be
	// held when large ones come to such narrow lanes.
	minWidth = 4
	// maxQuiet is how many receives narrow a lane that is twice too wide.
	maxQuiet = 64
)

func newShape() shape { return shape{stride: usualStride, width: minWidth} }

// datagrams returns how many datagrams of size bytes total is; the last may be
// shorter.
func datagrams(total, size int) int { return (total + size - 1) / size }

// fits reports whether total bytes, of datagrams of size bytes that are no more
// than width, are where they belong.
func (s *shape) fits(width, total, size int) bool {
	return size == s.stride || total == size && (size < s.stride || width == 1)
}

// flatten appends the first total bytes in lane to dst.
func (s *shape) flatten(dst []byte, lane [][]byte, total int) []byte {
	last := len(lane) - 1
	for _, buf := range lane[:last] {
		n := min(s.stride, total)
		dst = append(dst, buf[:n]...)
		total -= n
	}
	return append(dst, lane[last][:total]...)
}

// split copies datagrams of size bytes to the starts of bufs.
func split(bufs [][]byte, flat []byte, size int) {
	for i := 0; len(flat) > 0; i++ {
		n := min(size, len(flat))
		copy(bufs[i], flat[:n])
		flat = flat[n:]
	}
}

// traffic is what was received at a time.
type traffic struct {
	most int // datagrams in one
	size int // of those in a large one; zero if there were none
}

// add adds a message.
func (t *traffic) add(total, size, count int) {
	t.most = max(t.most, count)
	if count > 1 && total >= bulk {
		t.size = size
	}
}

// adapt makes the shape suit what was seen. Lanes get wider at once, and narrower
// after a while.
func (s *shape) adapt(seen traffic) {
	if seen.size > 0 {
		s.stride = seen.size
	}
	switch most := min(max(seen.most, minWidth), batchSize); {
	case most > s.width:
		s.width = 1 << bits.Len(uint(most-1))
		s.quiet = 0
	case most*2 > s.width:
		s.quiet = 0
	default:
		if s.quiet++; s.quiet == maxQuiet {
			s.width /= 2
			s.quiet = 0
		}
	}
}
