package splice

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
)

// ways are Conns and the plainest thing that does the same.
var ways = []struct {
	name  string
	conns func(a, b net.Conn)
}{
	{"io.Copy", func(a, b net.Conn) {
		var wg sync.WaitGroup
		wg.Go(func() { plainCopy(b, a) })
		plainCopy(a, b)
		wg.Wait()
		a.Close()
		b.Close()
	}},
	{"splice", func(a, b net.Conn) { Conns(context.Background(), a, b) }},
}

// plainCopy is io.Copy as it is for conns that are not both the kernel's.
func plainCopy(dst, src net.Conn) {
	io.Copy(struct{ io.Writer }{dst}, struct{ io.Reader }{src})
	closeWrite(dst)
}

// BenchmarkIdle reports what 1,000 spliced connections cost beyond themselves
// while they wait, after each has moved something: heap and stacks, per connection.
func BenchmarkIdle(b *testing.B) {
	const conns = 1000
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				type pair struct{ a, nearA, b, nearB net.Conn }
				pairs := make([]pair, conns)
				for i := range pairs {
					p := &pairs[i]
					p.a, p.nearA = tcpPair(b)
					p.b, p.nearB = tcpPair(b)
				}
				before := memory()
				var wg sync.WaitGroup
				for _, p := range pairs {
					wg.Go(func() { way.conns(p.nearA, p.nearB) })
					mustPass(b, p.a, p.b)
					mustPass(b, p.b, p.a)
				}
				b.ReportMetric(float64(memory()-before)/conns, "B/conn")
				for _, p := range pairs {
					p.a.Close()
					p.b.Close()
				}
				wg.Wait()
			}
		})
	}
}

// mustPass moves some bytes from one end to the other.
func mustPass(b *testing.B, from, to net.Conn) {
	buf := make([]byte, 10_000)
	if _, err := from.Write(buf); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(to, buf); err != nil {
		b.Fatal(err)
	}
}

// memory returns the bytes of heap and stacks in use. Stacks that were deep
// shrink by half with each collection.
func memory() int64 {
	for range 5 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// BenchmarkThroughput moves bytes one way; x-io.Copy is how many times the plain
// copy's speed ours is, in this run.
func BenchmarkThroughput(b *testing.B) {
	compare(b, func(b *testing.B, from, to net.Conn) {
		buf := make([]byte, 256<<10)
		b.SetBytes(int64(len(buf)))
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(io.Discard, to) })
		for b.Loop() {
			if _, err := from.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		closeWrite(from)
		wg.Wait()
	})
}

// BenchmarkPingPong moves one byte there and back.
func BenchmarkPingPong(b *testing.B) {
	compare(b, func(b *testing.B, from, to net.Conn) {
		var wg sync.WaitGroup
		wg.Go(func() { plainCopy(to, to) })
		buf := make([]byte, 1)
		for b.Loop() {
			if _, err := from.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(from, buf); err != nil {
				b.Fatal(err)
			}
		}
		closeWrite(from)
		wg.Wait()
	})
}

func compare(b *testing.B, f func(b *testing.B, from, to net.Conn)) {
	var plain float64 // seconds per operation
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			from, nearFrom := tcpPair(b)
			to, nearTo := tcpPair(b)
			var wg sync.WaitGroup
			wg.Go(func() { way.conns(nearFrom, nearTo) })
			b.ReportAllocs()
			f(b, from, to)
			from.Close()
			to.Close()
			wg.Wait()
			perOp := b.Elapsed().Seconds() / float64(b.N)
			if plain == 0 {
				plain = perOp
			} else {
				b.ReportMetric(plain/perOp, "x-io.Copy")
			}
		})
	}
}
