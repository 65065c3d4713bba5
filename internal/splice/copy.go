package splice

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// copyBytes copies src into dst until either fails, if only with io.EOF at src's
// end. If src can be waited for, a buffer is taken when src has something to read,
// and given back once dst has taken it. Else src waits in Read, with a large
// buffer only while it keeps filling buffers.
func (w *way) copyBytes() error {
	wait := waitFor(w.src)
	for much := false; ; {
		var n int
		var err error
		if wait == nil {
			n, much, err = move(w.dst, w.src, much, largeSize, w.pay)
		} else if err = wait(); err == nil {
			n, err = w.move()
		}
		w.n += int64(n)
		if err != nil {
			return err
		}
	}
}

// move moves what one Read of src, which has something to read, returns into dst,
// when it is w's turn.
func (w *way) move() (n int, err error) {
	pace := w.pair.pace
	if pace == nil {
		n, _, err = move(w.dst, w.src, true, largeSize, free)
		return n, err
	}
	most := pace.Take(w.pair.done)
	if most == 0 {
		return 0, net.ErrClosed // the pair is aborted
	}
	n, _, err = move(w.dst, w.src, true, most, func(read int) { pace.Give(most - read) })
	return n, err
}

// free is what bytes cost without a Pacer.
func free(int) {}

// pay waits until n bytes may be moved that are read already: nobody should have a turn
// and wait for bytes.
func (w *way) pay(n int) {
	pace := w.pair.pace
	for pace != nil && n > 0 {
		got := pace.Take(w.pair.done)
		if got == 0 {
			return // the pair is aborted, and nothing can be written
		}
		pace.Give(max(0, got-n))
		n -= got
	}
}

// move moves what one Read of src returns into dst, at most so many bytes, by a large
// buffer if that may be much. It tells read how many it read before it writes them, and
// reports whether it filled the buffer.
func move(dst io.Writer, src io.Reader, much bool, most int, read func(n int)) (n int, filled bool, err error) {
	taken := take(much)
	defer give(taken)
	buf := (*taken)[:min(most, len(*taken))]
	got, readErr := src.Read(buf)
	read(got)
	if got > 0 {
		if n, err = dst.Write(buf[:got]); err != nil {
			return n, false, err
		}
	}
	return n, got == len(buf), readErr
}

// waitFor returns what returns when Read of src would, or fails when it would;
// nil if there is no such thing.
func waitFor(src io.Reader) func() error {
	if src, ok := src.(syscall.Conn); ok {
		if raw, err := src.SyscallConn(); err == nil {
			return waitForSocket(raw)
		}
	}
	return nil
}

const (
	smallSize = 2 << 10
	largeSize = 64 << 10

	// maxLarge bounds the large buffers in use, 64 MiB in all: those who write
	// to slow readers hold theirs for long. Everyone else gets small ones then.
	maxLarge = 1024
)

var (
	small = sync.Pool{New: func() any { return newBuffer(smallSize) }}
	large = sync.Pool{New: func() any { return newBuffer(largeSize) }}

	largeInUse atomic.Int64
)

func newBuffer(size int) *[]byte {
	b := make([]byte, size)
	return &b
}

// take returns a buffer, a large one if much is to be moved.
func take(much bool) *[]byte {
	if much && largeInUse.Add(1) <= maxLarge {
		return large.Get().(*[]byte)
	}
	if much {
		largeInUse.Add(-1)
	}
	return small.Get().(*[]byte)
}

// give takes back what take returned.
func give(b *[]byte) {
	if len(*b) == largeSize {
		largeInUse.Add(-1)
		large.Put(b)
		return
	}
	small.Put(b)
}
