// Under the race detector sync.Pool drops some of what it is given.

//go:build !race && !android

package netstack

import (
	"testing"

	"golang.zx2c4.com/wireguard/conn"
)

func TestBindAllocatesNothing(t *testing.T) {
	for _, sizes := range [][]int{{112}, repeat(112, 128), repeat(1452, 128)} {
		r := newRoad(t, func() conn.Bind { return newTestBind(linux) }, 3, sizes)
		if allocs := testing.AllocsPerRun(200, func() { r.pass(t) }); allocs != 0 {
			t.Errorf("%d datagrams of %d bytes: %v allocations, want none", len(sizes), sizes[0], allocs)
		}
	}
}
