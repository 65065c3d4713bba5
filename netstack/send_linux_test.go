//go:build !android

package netstack

import (
	"fmt"
	"testing"
)

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
			var bufs [][]byte
			want := 0
			for i, size := range test.sizes {
				bufs = append(bufs, make([]byte, size))
				if i < test.want {
					want += size
				}
			}
			if n, total := sameSize(bufs); n != test.want || total != want {
				t.Errorf("got %d of %d bytes, want %d of %d", n, total, test.want, want)
			}
		})
	}
}
