package netstack

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

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
