// Package splice copies two connections into each other until both are done.
package splice

import (
	"context"
	"io"
	"net"
	"sync"
)

// Conns copies a into b and b into a until both have ended, and returns how
// many bytes went each way. One goroutine works besides the caller's.
//
// The end of one side's bytes is passed on with the other side's CloseWrite
// method, and bytes keep coming back; a conn without that method cannot be half
// closed and is closed. A failure on either side, such as a reset, ends both, as
// does the end of ctx. The error is the first failure or ctx's cause, and nil
// when both sides ended by themselves.
//
// Conns owns a and b: they are closed when it returns.
func Conns(ctx context.Context, a, b net.Conn) (aToB, bToA int64, err error) {
	p := &pair{a: a, b: b}
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		p.abort(context.Cause(ctx))
		close(aborted)
	})
	var up sync.WaitGroup
	up.Go(func() { aToB = p.copy(b, a) })
	bToA = p.copy(a, b)
	up.Wait()
	if !stop() {
		<-aborted
	}
	p.close()
	return aToB, bToA, p.err
}

// A pair is two conns that end together.
type pair struct {
	a, b net.Conn

	once sync.Once
	err  error // written in once, read when all that may write it are done
}

// abort closes both conns, for the reason err.
func (p *pair) abort(err error) {
	p.once.Do(func() {
		p.err = err
		p.close()
	})
}

func (p *pair) close() {
	p.a.Close()
	p.b.Close()
}

// copy copies src into dst until src ends, passes the end on, and returns the
// number of bytes copied. If anything fails it aborts the pair.
func (p *pair) copy(dst, src net.Conn) int64 {
	n, err := copyBytes(dst, src)
	if err == nil {
		err = closeWrite(dst)
	}
	if err != nil {
		p.abort(err)
	}
	return n
}

func closeWrite(c net.Conn) error {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return c.Close()
}

// Most spliced conns wait most of the time, so what waits is small: a large
// buffer is held only while the small one keeps being filled.
const (
	smallSize = 2 << 10
	largeSize = 64 << 10
)

var (
	small = sync.Pool{New: func() any { return new([smallSize]byte) }}
	large = sync.Pool{New: func() any { return new([largeSize]byte) }}
)

// copyBytes copies src into dst until src ends (nil) or either fails.
func copyBytes(dst io.Writer, src io.Reader) (n int64, err error) {
	waiting := small.Get().(*[smallSize]byte)
	defer small.Put(waiting)
	var burst *[largeSize]byte // nil while waiting
	defer func() {
		if burst != nil {
			large.Put(burst)
		}
	}()
	buf := waiting[:]
	for {
		nr, readErr := src.Read(buf)
		if nr > 0 {
			nw, err := dst.Write(buf[:nr])
			n += int64(nw)
			if err != nil {
				return n, err
			}
		}
		switch {
		case readErr == io.EOF:
			return n, nil
		case readErr != nil:
			return n, readErr
		case burst == nil && nr == smallSize:
			burst = large.Get().(*[largeSize]byte)
			buf = burst[:]
		case burst != nil && nr <= smallSize:
			large.Put(burst)
			burst, buf = nil, waiting[:]
		}
	}
}
