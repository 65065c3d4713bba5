// Package splice copies two connections into each other until both are done.
package splice

import (
	"context"
	"io"
	"net"
	"sync"
)

// Conns copies a into b and b into a until both have ended, and returns how
// many bytes went each way.
//
// The end of one side's bytes is passed on with the other side's CloseWrite
// method, and bytes keep coming back; a conn without that method cannot be half
// closed and is closed. A failure on either side, such as a reset, ends both, as
// does the end of ctx. The error is the first failure or ctx's cause, and nil
// when both sides ended by themselves.
//
// While nothing comes, conns with a method ReadReady (see readier) cost nothing.
// The others cost a goroutine each, of which a's is the caller's: without a
// buffer if the conn has a method SyscallConn and the system is a Unix one, and
// else with a small one.
//
// Conns owns a and b: they are closed when it returns.
func Conns(ctx context.Context, a, b net.Conn) (aToB, bToA int64, err error) {
	return Paced(ctx, a, b, nil)
}

// A Pacer says when bytes may be moved, and how many.
type Pacer interface {
	// Take waits until bytes may be moved, and returns how many. If done is closed
	// before, it returns 0.
	Take(done func() <-chan struct{}) int

	// Give takes back so many of them that were not.
	Give(n int)
}

// Paced is Conns, except that what it reads, it reads when pace says. Nil is any time.
func Paced(ctx context.Context, a, b net.Conn, pace Pacer) (aToB, bToA int64, err error) {
	// What is not needed while bytes are awaited is in begin and end, and not on
	// the stack.
	p := begin(ctx, a, b, pace)
	if !p.up.watch() {
		p.up.copy()
	}
	return p.end()
}

// A pair is two conns that end together.
type pair struct {
	up, down way
	ways     sync.WaitGroup
	pace     Pacer // nil: none

	stop     func() bool    // keeps ctx from aborting the pair, unless it does
	aborting sync.WaitGroup // done when ctx has

	once sync.Once
	err  error // written in once, read when all that may write it are done

	mu      sync.Mutex
	aborted bool
	gone    chan struct{} // closed when aborted; nil: nobody asked for it
}

// begin starts the way from b to a, and waiting for the end of ctx.
func begin(ctx context.Context, a, b net.Conn, pace Pacer) *pair {
	p := &pair{up: way{src: a, dst: b}, down: way{src: b, dst: a}, pace: pace}
	p.up.pair, p.down.pair = p, p
	p.aborting.Add(1)
	p.stop = context.AfterFunc(ctx, func() {
		defer p.aborting.Done()
		p.abort(context.Cause(ctx))
	})
	if !p.down.watch() {
		p.ways.Go(p.down.copy)
	}
	return p
}

// end returns when all is done what has come of it.
func (p *pair) end() (aToB, bToA int64, err error) {
	p.ways.Wait()
	if !p.stop() {
		p.aborting.Wait()
	}
	p.close()
	return p.up.n, p.down.n, p.err
}

// abort closes both conns, for the reason err.
func (p *pair) abort(err error) {
	p.once.Do(func() {
		p.err = err
		p.close()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.aborted = true
		if p.gone != nil {
			close(p.gone)
		}
	})
}

// done returns what is closed when the pair is aborted. It is made for who has to wait
// for a turn, and not for every pair.
func (p *pair) done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone == nil {
		p.gone = make(chan struct{})
		if p.aborted {
			close(p.gone)
		}
	}
	return p.gone
}

func (p *pair) close() {
	p.up.src.Close()
	p.up.dst.Close()
}

// A way is one direction of a pair.
type way struct {
	pair     *pair
	src, dst net.Conn
	n        int64 // bytes copied

	pumping func() // starts a goroutine that pumps
}

// A readier tells of bytes to who does not wait. ReadReady reports whether Read
// would return at once; if not, f is called once when it would or might, and must
// not block.
type readier interface {
	ReadReady(f func()) bool
}

// watch copies src into dst until src ends, in goroutines that are there only while
// there is something to copy. It reports whether src can tell when that is.
func (w *way) watch() bool {
	if _, ok := w.src.(readier); !ok {
		return false
	}
	w.pair.ways.Add(1) // until src has ended
	w.pumping = func() { w.pair.ways.Go(w.pump) }
	w.pumping()
	return true
}

// pump copies what src has, and has itself called again when there is more.
func (w *way) pump() {
	for w.src.(readier).ReadReady(w.pumping) {
		n, err := w.move()
		w.n += int64(n)
		if err != nil {
			w.end(err)
			w.pair.ways.Done()
			return
		}
	}
}

// copy copies src into dst until src ends.
func (w *way) copy() {
	w.end(w.copyBytes())
}

// end passes src's end on. If that is not why it ended, or that fails, it aborts
// the pair.
func (w *way) end(err error) {
	if err == io.EOF {
		err = closeWrite(w.dst)
	}
	if err != nil {
		w.pair.abort(err)
	}
}

func closeWrite(c net.Conn) error {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return c.Close()
}
