package splice

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync/atomic"
	"testing"
)

// A ledger is a Pacer that lets through so much at a time, and keeps count.
type ledger struct {
	most  int
	moved atomic.Int64
	shut  atomic.Bool // nothing more gets a turn
	asked chan struct{}
}

func (l *ledger) Take(done func() <-chan struct{}) int {
	if l.shut.Load() {
		l.asked <- struct{}{}
		<-done()
		return 0
	}
	l.moved.Add(int64(l.most))
	return l.most
}

func (l *ledger) Give(n int) { l.moved.Add(int64(-n)) }

// TestPaced: all bytes arrive, both ways, and each was paid for once.
func TestPaced(t *testing.T) {
	ofEachKind(t, func(t *testing.T, k kind) {
		a, near := tcpPair(t)
		far, b := tcpPair(t)
		l := &ledger{most: 5000}
		done := make(chan result, 1)
		go func() {
			var r result
			r.aToB, r.bToA, r.err = Paced(context.Background(), k(near), k(far), l)
			done <- r
		}()
		up, down := make([]byte, 300_000), make([]byte, 200_000)
		rand.Read(up)
		rand.Read(down)
		go func() { a.Write(up); a.CloseWrite() }()
		go func() { b.Write(down); b.CloseWrite() }()
		gotDown := make(chan []byte, 1)
		go func() { b, _ := io.ReadAll(a); gotDown <- b }()
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, up) {
			t.Errorf("up: got %d bytes, %v", len(got), err)
		}
		if got := <-gotDown; !bytes.Equal(got, down) {
			t.Errorf("down: got %d bytes", len(got))
		}
		want := result{int64(len(up)), int64(len(down)), nil}
		if got := <-done; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got := l.moved.Load(); got != 500_000 {
			t.Errorf("paid for %d bytes, want 500000", got)
		}
	})
}

// TestPacedAborts: who waits for a turn waits no longer when the pair is aborted.
func TestPacedAborts(t *testing.T) {
	ofEachKind(t, func(t *testing.T, k kind) {
		a, near := tcpPair(t)
		far, _ := tcpPair(t)
		l := &ledger{asked: make(chan struct{}, 1)}
		l.shut.Store(true)
		ctx, cancel := context.WithCancelCause(context.Background())
		done := make(chan result, 1)
		go func() {
			var r result
			r.aToB, r.bToA, r.err = Paced(ctx, k(near), k(far), l)
			done <- r
		}()
		a.Write([]byte("x"))
		<-l.asked
		why := errors.New("no more")
		cancel(why)
		if got := <-done; got.err != why {
			t.Errorf("got %+v, want the context's cause", got)
		}
	})
}
