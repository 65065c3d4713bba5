package netstack

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// scatter fills lane as the kernel does.
func scatter(s *shape, lane [][]byte, flat []byte) {
	for _, buf := range lane[:len(lane)-1] {
		flat = flat[copy(buf[:s.stride], flat):]
	}
	copy(lane[len(lane)-1], flat)
}

func TestLanes(t *testing.T) {
	bufs := make([][]byte, maxSegments)
	for i := range bufs {
		bufs[i] = make([]byte, 1<<16-1)
	}
	for _, stride := range []int{100, 1452, 9000} {
		for _, width := range []int{1, 2, 8, 64} {
			for _, size := range []int{1, 99, 100, 101, 1312, 1452, 9000} {
				for _, count := range []int{1, 2, width/2 + 1, width} {
					for _, last := range []int{1, (size + 1) / 2, size} {
						total := size*(count-1) + last
						if count <= width && total < 1<<16 {
							checkLane(t, shape{stride: stride, width: width}, bufs[:width], total, min(size, total))
						}
					}
				}
			}
		}
	}
}

// checkLane receives total bytes, of datagrams of size bytes, into lane.
func checkLane(t *testing.T, s shape, lane [][]byte, total, size int) {
	t.Helper()
	flat := make([]byte, total)
	for i := range flat {
		flat[i] = byte(i%251 + 1)
	}
	scatter(&s, lane, flat)
	if got := s.flatten(nil, lane, total); !bytes.Equal(got, flat) {
		t.Fatalf("%+v, %d bytes: flatten is not what was scattered", s, total)
	}
	if !s.fits(s.width, total, size) {
		split(lane, flat, size)
	}
	for i := range datagrams(total, size) {
		want := flat[i*size : min((i+1)*size, total)]
		if !bytes.Equal(lane[i][:len(want)], want) {
			t.Fatalf("%+v, %d bytes of %d: datagram %d is wrong", s, total, size, i)
		}
	}
}

func TestShapeAdapts(t *testing.T) {
	s := newShape()
	for _, step := range []struct {
		most, times int
		want        int
	}{
		{1, 2 * maxQuiet, 4},
		{45, 1, 64},
		{20, maxQuiet - 1, 64},
		{45, 1, 64},
		{20, maxQuiet, 32},
		{1, maxQuiet, 16},
		{1, 4 * maxQuiet, 4},
		{1, 4 * maxQuiet, 4},
		{5, 1, 8},
		{128, 1, 128},
		{1000, 1, 128},
		{0, 10 * maxQuiet, 4},
	} {
		for range step.times {
			s.adapt(traffic{most: step.most})
		}
		if s.width != step.want {
			t.Errorf("after %d receives of %d at most, a lane is %d wide, want %d", step.times, step.most, s.width, step.want)
		}
	}
}

func TestSameSize(t *testing.T) {
	for _, test := range []struct {
		sizes []int
		want  int
	}{
		{[]int{100}, 1},
		{[]int{100, 100}, 2},
		{[]int{100, 101}, 1},
		{[]int{100, 99}, 2},
		{[]int{100, 99, 99}, 2},
		{[]int{100, 100, 0}, 2},
		{repeat(10, 100), 64},
		{repeat(1452, 100), 44},
		{repeat(32500, 3), 2},
		{repeat(32501, 3), 1},
		{[]int{64999, 1, 1}, 2},
		{[]int{65507, 10}, 1},
	} {
		t.Run(fmt.Sprint(test.sizes), func(t *testing.T) {
			var iovs []unix.Iovec
			for _, b := range test.sizes {
				var v unix.Iovec
				v.SetLen(b)
				iovs = append(iovs, v)
			}
			if got := sameSize(iovs); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func FuzzParseControl(f *testing.F) {
	var c outControl
	c.init()
	f.Add(c.set(1452, unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 1})))
	f.Add(unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: 1}))
	f.Fuzz(func(t *testing.T, control []byte) {
		control = bytes.Clone(control)
		before := bytes.Clone(control)
		_, p := parseControl(control)
		if !bytes.Equal(control, before) {
			t.Fatal("the messages were written to")
		}
		// What is left of a pin is in the messages.
		if !bytes.Contains(control, bytes.TrimRight(p[:], "\x00")) {
			t.Fatalf("pin %x is not in %x", p, control)
		}
	})
}
