//go:build !android

package netstack

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// BenchmarkBind sends a batch and receives it, in turns over WireGuard's standard
// bind and ours; x-std is how many times the CPU time of ours the standard one takes.
func BenchmarkBind(b *testing.B) {
	for _, test := range []struct {
		name    string
		senders int
		sizes   []int
	}{
		{"full", 1, repeat(1452, 128)},
		{"acks", 1, repeat(112, 128)},
		{"mixed", 1, join(repeat(1452, 20), repeat(1312, 20), repeat(112, 20), repeat(1452, 20))},
		{"one", 1, []int{112}},
		{"one of each of 32", 32, []int{112}},
	} {
		b.Run(test.name, func(b *testing.B) {
			std := newRoad(b, conn.NewStdNetBind, test.senders, test.sizes)
			ours := newRoad(b, func() conn.Bind { return newTestBind(linux) }, test.senders, test.sizes)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var stdTook, oursTook time.Duration
			for b.Loop() {
				start := cpuTime(b)
				std.pass(b)
				between := cpuTime(b)
				ours.pass(b)
				stdTook += between - start
				oursTook += cpuTime(b) - between
			}
			b.ReportMetric(float64(oursTook.Nanoseconds())/float64(b.N), "ours-cpu-ns/op")
			b.ReportMetric(float64(stdTook.Nanoseconds())/float64(b.N), "std-cpu-ns/op")
			b.ReportMetric(float64(stdTook)/float64(oursTook), "x-std")
			b.ReportMetric(testing.AllocsPerRun(100, func() { ours.pass(b) }), "ours-allocs/op")
			b.ReportMetric(testing.AllocsPerRun(100, func() { std.pass(b) }), "std-allocs/op")
		})
	}
}

// cpuTime is what this thread has used.
func cpuTime(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A road is many that send to one. The buffers take turns, as those in WireGuard's
// pool do, each of which has room for the largest datagram.
type road struct {
	from []*port
	to   *port
	ep   conn.Endpoint

	packets [8][][]byte // the same ones in other buffers
	bufs    [8][][]byte
	turn    int
}

func newRoad(t testing.TB, newBind func() conn.Bind, senders int, sizes []int) *road {
	t.Helper()
	r := &road{to: openPort(t, newBind())}
	for range senders {
		r.from = append(r.from, openPort(t, newBind()))
	}
	r.ep = r.to.at(t, r.from[0], "127.0.0.1")
	for i := range r.packets {
		for _, p := range burst(sizes...) {
			r.packets[i] = append(r.packets[i], append(make([]byte, 0, 1<<16-1), p...))
		}
		r.bufs[i] = newBufs()
	}
	return r
}

func (r *road) pass(t testing.TB) {
	r.turn = (r.turn + 1) % len(r.bufs)
	for _, from := range r.from {
		if err := from.Send(r.packets[r.turn], r.ep); err != nil {
			t.Fatal(err)
		}
	}
	r.to.bufs = r.bufs[r.turn]
	r.to.drain(t, r.to.receive[0], len(r.from)*len(r.packets[0]))
}

// drain receives n datagrams.
func (p *port) drain(t testing.TB, receive conn.ReceiveFunc, n int) {
	for n > 0 {
		count, err := receive(p.bufs, p.sizes, p.eps)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range p.sizes[:count] {
			if size > 0 {
				n--
			}
		}
	}
}
