package netstack

import (
	"bytes"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Of whatever options, TCP sees no SACK block afterwards and nothing else changed;
// what was hidden is what TCP would have seen.
func FuzzHideSACK(f *testing.F) {
	block := []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9}
	f.Add([]byte(nil))
	f.Add(block)
	f.Add(slices.Concat(timestamps(7), block))
	f.Add(slices.Concat(block, timestamps(7), block))
	f.Add([]byte{5, 2, 5, 9, 1, 2, 3})
	f.Add([]byte{5, 0})
	f.Add([]byte{0, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, options []byte) {
		options = options[:min(len(options), header.TCPOptionsMaximumSize)]
		was := bytes.Clone(options)
		before := header.ParseTCPOptions(was)
		spans := hideSACK(options, nil)
		after := header.ParseTCPOptions(options)
		if len(after.SACKBlocks) > 0 {
			t.Fatalf("TCP sees %v", after.SACKBlocks)
		}
		if before.TS != after.TS || before.TSVal != after.TSVal || before.TSEcr != after.TSEcr {
			t.Fatalf("timestamps: got %+v, want %+v", after, before)
		}
		for _, b := range before.SACKBlocks {
			if !slices.Contains(spans, span{uint32(b.Start), uint32(b.End)}) {
				t.Fatalf("block %v was hidden and not returned", b)
			}
		}
		if len(spans) > maxSACKs {
			t.Fatalf("%d blocks in %d bytes", len(spans), len(options))
		}
		if again := hideSACK(options, nil); len(again) > 0 {
			t.Fatalf("%v was left", again)
		}
	})
}
