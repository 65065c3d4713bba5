// Under the race detector sync.Pool drops some of what it is given.

//go:build !race

package netstack

import "testing"

// An acknowledgement of one flow in steady state allocates nothing, nor does what
// it lets be sent.
func TestPathAllocatesNothing(t *testing.T) {
	step := steadyPath(t)
	if allocs := testing.AllocsPerRun(2000, step); allocs != 0 {
		t.Errorf("%v allocations a segment, want none", allocs)
	}
}
