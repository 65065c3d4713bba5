package splice

import (
	"io"
	"sync"
	"sync/atomic"
	"syscall"
)

// copyBytes copies src into dst until either fails, if only with io.EOF at src's
// end. If src can be waited for, a buffer is taken when src has something to read,
// and given back once dst has taken it. Else src waits in Read, with a large
// buffer only while it keeps filling buffers.
func copyBytes(dst io.Writer, src io.Reader) (n int64, err error) {
	wait := waitFor(src)
	for much := wait != nil; err == nil; {
		if wait != nil {
			if err := wait(); err != nil {
				return n, err
			}
		}
		var moved int
		var filled bool
		moved, filled, err = move(dst, src, much)
		n += int64(moved)
		much = wait != nil || filled
	}
	return n, err
}

// move moves what one Read of src returns into dst, by a large buffer if that may
// be much, and reports whether it filled the buffer.
func move(dst io.Writer, src io.Reader, much bool) (n int, filled bool, err error) {
	buf := take(much)
	defer give(buf)
	read, readErr := src.Read(*buf)
	if read > 0 {
		if n, err = dst.Write((*buf)[:read]); err != nil {
			return n, false, err
		}
	}
	return n, read == len(*buf), readErr
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
