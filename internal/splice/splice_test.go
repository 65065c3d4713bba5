package splice

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair returns the two ends of a TCP connection over loopback.
func tcpPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	deadline := time.Now().Add(20 * time.Second)
	c.SetDeadline(deadline)
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

type result struct {
	aToB, bToA int64
	err        error
}

// A kind is a sort of conn, by how Conns learns that there is something to read.
type kind func(*net.TCPConn) net.Conn

// ofEachKind runs f with conns of each kind.
func ofEachKind(t *testing.T, f func(*testing.T, kind)) {
	for _, k := range []struct {
		name string
		kind kind
	}{
		{"socket", func(c *net.TCPConn) net.Conn { return c }},
		{"telling", func(c *net.TCPConn) net.Conn { return newTelling(c) }},
		{"blind", func(c *net.TCPConn) net.Conn { return blind{c, c} }},
	} {
		t.Run(k.name, func(t *testing.T) { f(t, k.kind) })
	}
}

// A blind conn only blocks.
type blind struct {
	net.Conn
	closer interface{ CloseWrite() error }
}

func (b blind) CloseWrite() error { return b.closer.CloseWrite() }

// spliced returns the far ends of two conns that Conns works on, and its outcome.
func spliced(t testing.TB, ctx context.Context, k kind) (a, b *net.TCPConn, done <-chan result) {
	t.Helper()
	a, socketA := tcpPair(t)
	b, socketB := tcpPair(t)
	nearA, nearB := k(socketA), k(socketB)
	c := make(chan result, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		aToB, bToA, err := Conns(ctx, nearA, nearB)
		// Both are closed by now: a second Close says so.
		if nearA.Close() == nil || nearB.Close() == nil {
			err = errors.Join(err, errors.New("Conns left a conn open"))
		}
		c <- result{aToB, bToA, err}
	})
	t.Cleanup(func() { a.Close(); b.Close(); wg.Wait() })
	return a, b, c
}

func write(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// readAll reads c to its end.
func readAll(t *testing.T, c io.Reader, want string) {
	t.Helper()
	if got, err := io.ReadAll(c); string(got) != want || err != nil {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func TestHalfClose(t *testing.T) {
	ofEachKind(t, func(t *testing.T, k kind) {
		for _, tt := range []struct {
			name string
			swap bool
		}{{"a first", false}, {"b first", true}} {
			t.Run(tt.name, func(t *testing.T) {
				a, b, done := spliced(t, t.Context(), k)
				want := result{aToB: 8, bToA: 6}
				if tt.swap {
					a, b = b, a
					want = result{aToB: 6, bToA: 8}
				}
				write(t, a, "question")
				a.CloseWrite()
				readAll(t, b, "question") // to the end, while the way back is open
				write(t, b, "answer")
				b.CloseWrite()
				readAll(t, a, "answer")
				if got := <-done; got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			})
		}
	})
}

// TestNoCloseWrite: a conn that cannot be half closed is closed.
func TestNoCloseWrite(t *testing.T) {
	a, nearA := tcpPair(t)
	b, nearB := net.Pipe()
	done := make(chan result, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		aToB, bToA, err := Conns(t.Context(), nearA, nearB)
		done <- result{aToB, bToA, err}
	})
	write(t, a, "x")
	a.CloseWrite()
	readAll(t, b, "x")
	readAll(t, a, "")
	if got := <-done; got.aToB != 1 || got.bToA != 0 {
		t.Errorf("got %+v, want 1 byte up", got)
	}
	wg.Wait()
}

func TestReset(t *testing.T) {
	ofEachKind(t, func(t *testing.T, k kind) {
		for _, tt := range []struct {
			name string
			swap bool
		}{{"a", false}, {"b", true}} {
			t.Run(tt.name, func(t *testing.T) {
				a, b, done := spliced(t, t.Context(), k)
				if tt.swap {
					a, b = b, a
				}
				write(t, a, "x")
				if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				a.SetLinger(0)
				a.Close()
				if n, err := b.Read(make([]byte, 1)); err == nil {
					t.Errorf("read %d bytes of the side that was not reset, want its end", n)
				}
				if got := <-done; !errors.Is(got.err, syscall.ECONNRESET) {
					t.Errorf("got %v, want %v", got.err, syscall.ECONNRESET)
				}
			})
		}
	})
}

func TestCancel(t *testing.T) {
	ofEachKind(t, func(t *testing.T, k kind) {
		cause := errors.New("the route is gone")
		for _, tt := range []struct {
			name  string
			busy  bool // a writes and b does not read
			first bool // cancelled before Conns is called
		}{{"idle", false, false}, {"blocked in a write", true, false}, {"before", false, true}} {
			t.Run(tt.name, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				if tt.first {
					cancel(cause)
				}
				a, b, done := spliced(t, ctx, k)
				if tt.busy {
					a.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
					a.Write(make([]byte, 64<<20)) // until all buffers are full
				}
				cancel(cause)
				if got := <-done; !errors.Is(got.err, cause) {
					t.Errorf("got %v, want %v", got.err, cause)
				}
				io.Copy(io.Discard, b)
				if _, err := b.Read(make([]byte, 1)); err == nil {
					t.Error("b is still open")
				}
			})
		}
	})
}

// TestSlowReader: what the reader does not take yet is neither lost nor kept in
// memory.
func TestSlowReader(t *testing.T) {
	ofEachKind(t, func(t *testing.T, k kind) {
		a, b, done := spliced(t, t.Context(), k)
		data := make([]byte, 8<<20)
		rand.NewChaCha8([32]byte{1}).Read(data)
		var wg sync.WaitGroup
		wg.Go(func() { a.Write(data); a.CloseWrite() })
		defer wg.Wait()
		got := sha256.New()
		for buf := make([]byte, 8<<10); ; {
			n, err := b.Read(buf)
			got.Write(buf[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		b.Close()
		if want := sha256.Sum256(data); !bytes.Equal(got.Sum(nil), want[:]) {
			t.Error("the bytes differ")
		}
		if r := <-done; r.aToB != int64(len(data)) || r.err != nil {
			t.Errorf("got %+v, want %d bytes up", r, len(data))
		}
	})
}

// TestBothWaysAtOnce moves much in both directions.
func TestBothWaysAtOnce(t *testing.T) {
	ofEachKind(t, func(t *testing.T, k kind) {
		const size = 16 << 20
		a, b, done := spliced(t, t.Context(), k)
		var wg sync.WaitGroup
		for i, c := range []*net.TCPConn{a, b} {
			wg.Go(func() {
				io.Copy(c, io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), size))
				c.CloseWrite()
			})
			wg.Go(func() {
				got, want := sha256.New(), sha256.New()
				io.Copy(got, c)
				io.CopyN(want, rand.NewChaCha8([32]byte{byte(1 - i)}), size)
				if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
					t.Errorf("side %d: the bytes differ", i)
				}
			})
		}
		wg.Wait()
		if got, want := <-done, (result{size, size, nil}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestInterleavings: whatever the order in which two sides write, read and end,
// each reads exactly what the other wrote, and then the end.
func TestInterleavings(t *testing.T) {
	ofEachKind(t, func(t *testing.T, k kind) {
		rapid.Check(t, func(rt *rapid.T) {
			a, b, done := spliced(t, t.Context(), k)
			ends := [2]*net.TCPConn{a, b}
			var sent [2][]byte // by side
			var seen [2]int    // bytes of sent that the other side read
			var ended [2]bool
			for _, op := range rapid.SliceOfN(rapid.IntRange(0, 7), 1, 40).Draw(rt, "ops") {
				side := op % 2
				other := 1 - side
				switch {
				case op < 4 && !ended[side]:
					data := bytes.Repeat([]byte{byte(len(sent[side]) + side)}, rapid.IntRange(1, 5000).Draw(rt, "size"))
					if _, err := ends[side].Write(data); err != nil {
						rt.Fatal(err)
					}
					sent[side] = append(sent[side], data...)
				case op < 6:
					n := rapid.IntRange(0, len(sent[side])-seen[side]).Draw(rt, "read")
					got := make([]byte, n)
					if _, err := io.ReadFull(ends[other], got); err != nil || !bytes.Equal(got, sent[side][seen[side]:seen[side]+n]) {
						rt.Fatalf("side %d read other bytes than were sent: %v", other, err)
					}
					seen[side] += n
				case !ended[side]:
					ended[side] = true
					ends[side].CloseWrite()
				}
			}
			for side, c := range ends {
				if !ended[side] {
					c.CloseWrite()
				}
			}
			for side, c := range ends {
				other := 1 - side
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent[other][seen[other]:]) {
					rt.Fatalf("side %d: %d bytes left, %v; want %d", side, len(got), err, len(sent[other])-seen[other])
				}
			}
			if got, want := <-done, (result{int64(len(sent[0])), int64(len(sent[1])), nil}); got != want {
				rt.Fatalf("got %+v, want %+v", got, want)
			}
		})
	})
}

// A reader that cannot be waited for waits with a small buffer, and has a large
// one only while it keeps filling buffers.
func TestBlindReaderWaitsWithASmallBuffer(t *testing.T) {
	src := &script{reads: []int{smallSize, largeSize, largeSize, 3 * smallSize, 10}}
	w := &way{pair: &pair{}, src: src, dst: src}
	if err := w.copyBytes(); w.n != 4*smallSize+2*largeSize+10 || err != io.EOF {
		t.Fatalf("got %d, %v", w.n, err)
	}
	want := []int{smallSize, largeSize, largeSize, largeSize, smallSize, smallSize}
	if !slices.Equal(src.asked, want) {
		t.Errorf("asked for %v bytes, want %v", src.asked, want)
	}
}

// A script reads as many bytes as it says, then ends. What is written is lost.
type script struct {
	net.Conn     // nil
	reads, asked []int
}

func (s *script) Write(b []byte) (n int, err error) { return len(b), nil }

func (s *script) Read(b []byte) (n int, err error) {
	s.asked = append(s.asked, len(b))
	if len(s.reads) == 0 {
		return 0, io.EOF
	}
	n, s.reads = s.reads[0], s.reads[1:]
	return n, nil
}

// A conn that waits holds no buffer, even after a burst, and one that is read does.
func TestNoBufferWhileWaiting(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind func(*net.TCPConn, chan<- int64) net.Conn
	}{
		{"socket", func(c *net.TCPConn, reading chan<- int64) net.Conn { return watchedSocket{c, reading} }},
		{"telling", func(c *net.TCPConn, reading chan<- int64) net.Conn { return watchedTelling{newTelling(c), reading} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reading := make(chan int64) // from each Read: buffers in use, bytes read
			a, b, done := spliced(t, t.Context(), func(c *net.TCPConn) net.Conn { return tt.kind(c, reading) })
			for range 3 {
				write(t, a, string(make([]byte, largeSize)))
				for n := int64(0); n < largeSize; n += <-reading {
					if got := <-reading; got != 1 {
						t.Errorf("%d buffers are in use by who reads, want 1", got)
					}
				}
				for largeInUse.Load() != 0 { // until it is given back
					runtime.Gosched()
				}
			}
			a.Close()
			b.Close()
			for {
				select {
				case <-reading:
				case <-done:
					return
				}
			}
		})
	}
}

type watchedSocket struct {
	*net.TCPConn
	reading chan<- int64
}

func (s watchedSocket) Read(b []byte) (int, error) { return watch(s.TCPConn, b, s.reading) }

type watchedTelling struct {
	*telling
	reading chan<- int64
}

func (s watchedTelling) Read(b []byte) (int, error) { return watch(s.telling, b, s.reading) }

func watch(c net.Conn, b []byte, reading chan<- int64) (int, error) {
	reading <- largeInUse.Load()
	n, err := c.Read(b)
	reading <- int64(n)
	return n, err
}

// Beyond so many, there are no large buffers.
func TestLargeBuffersAreBounded(t *testing.T) {
	var taken []*[]byte
	for range maxLarge {
		taken = append(taken, take(true))
	}
	defer func() {
		for _, b := range taken {
			give(b)
		}
		if n := largeInUse.Load(); n != 0 {
			t.Errorf("%d are in use in the end, want 0", n)
		}
	}()
	for i, b := range taken {
		if len(*b) != largeSize {
			t.Fatalf("buffer %d has %d bytes, want %d", i, len(*b), largeSize)
		}
	}
	one := take(true)
	defer give(one)
	if len(*one) != smallSize {
		t.Errorf("the one beyond has %d bytes, want %d", len(*one), smallSize)
	}
}
