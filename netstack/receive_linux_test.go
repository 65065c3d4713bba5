//go:build !android

package netstack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// A message is what the kernel gives at a time.
type message struct {
	total, size int // size is 0 if the kernel says nothing of it
	truncated   bool
}

func TestReceiverSplits(t *testing.T) {
	for _, test := range []struct {
		name     string
		messages []message
		want     []int // datagrams' sizes
	}{
		{"one", []message{{total: 148}}, []int{148}},
		{"as large as can be", []message{{total: maxDatagram}}, []int{maxDatagram}},
		{"one that is said to be glued", []message{{total: 148, size: 148}}, []int{148}},
		{"one shorter than its size", []message{{total: 148, size: 1452}}, []int{148}},
		{"empty", []message{{total: 0}, {total: 10}}, []int{10}},
		{"truncated", []message{{total: 500, size: 100, truncated: true}, {total: 10}}, []int{10}},
		{"even", []message{{total: 300, size: 100}}, []int{100, 100, 100}},
		{"odd", []message{{total: 301, size: 100}}, []int{100, 100, 100, 1}},
		{"single bytes", []message{{total: 64, size: 1}}, repeat(1, 64)},
		{"several", []message{{total: 250, size: 100}, {total: 7}, {total: 30, size: 15}}, []int{100, 100, 50, 7, 15, 15}},
		{"more than is wanted at once", []message{{total: maxDatagram, size: 100}, {total: maxDatagram, size: 1452}},
			join(repeat(100, 655), []int{35}, repeat(1452, 45), []int{195})},
	} {
		for _, batch := range []int{1, 7, batchSize} {
			t.Run(fmt.Sprintf("%s/%d", test.name, batch), func(t *testing.T) {
				messages := test.messages
				k := linux
				var sent []byte
				k.receiveMany = func(_ uintptr, msgs []unix.Mmsghdr) (n int, _ unix.Errno) {
					for n < len(msgs) && len(messages) > 0 {
						sent = append(sent, give(&msgs[n], messages[0])...)
						messages = messages[1:]
						n++
					}
					return n, 0
				}
				p := openPort(t, newTestBind(k))
				var got []int
				var received []byte
				for len(got) < len(test.want) {
					n, err := p.receive[0](p.bufs[:batch], p.sizes, p.eps)
					if err != nil {
						t.Fatal(err)
					}
					for i, size := range p.sizes[:n] {
						got = append(got, size)
						received = append(received, p.bufs[i][:size]...)
						if want := "192.0.2.1:53"; p.eps[i].DstToString() != want {
							t.Fatalf("a datagram came from %v, want %v", p.eps[i].DstToString(), want)
						}
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(test.want) {
					t.Errorf("got %v, want %v", got, test.want)
				}
				if !bytes.Equal(received, sent) {
					t.Error("the bytes are not those that were sent")
				}
			})
		}
	}
}

// give fills msg as the kernel does, and returns the bytes of its datagrams.
func give(msg *unix.Mmsghdr, m message) []byte {
	h := &msg.Hdr
	name := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	name = append(name, 0, 53, 192, 0, 2, 1)
	h.Namelen = uint32(copy(unsafe.Slice(h.Name, h.Namelen), name))
	control := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 1, Spec_dst: [4]byte{192, 0, 2, 2}})
	if m.size > 0 {
		c := unix.Cmsghdr{Level: unix.SOL_UDP, Type: unix.UDP_GRO}
		c.SetLen(unix.CmsgLen(4))
		gro := make([]byte, unix.CmsgSpace(4))
		copy(gro, unsafe.Slice((*byte)(unsafe.Pointer(&c)), unix.SizeofCmsghdr))
		binary.NativeEndian.PutUint32(gro[unix.CmsgLen(0):], uint32(m.size))
		control = append(control, gro...)
	}
	h.SetControllen(copy(unsafe.Slice(h.Control, h.Controllen), control))
	h.Flags = 0
	if m.truncated {
		h.Flags = unix.MSG_TRUNC
	}
	msg.Len = uint32(m.total)
	payload := unsafe.Slice(h.Iov.Base, h.Iov.Len)[:m.total]
	for i := range payload {
		payload[i] = byte(i % 251)
	}
	if m.truncated {
		return nil
	}
	return payload
}

// TestReceiverAsks has as many messages read at a time as WireGuard takes, be they
// there at once or waited for.
func TestReceiverAsks(t *testing.T) {
	a, b := openPort(t, newTestBind(linux)), newTestBind(linux)
	var asked []int
	var size int
	var to conn.Endpoint
	waited := false
	b.kernel.receiveMany = func(_ uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
		if waited = !waited; waited {
			if err := a.Send(burst(10), to); err != nil {
				t.Error(err)
			}
			return 0, unix.EAGAIN
		}
		asked = append(asked, len(msgs))
		give(&msgs[0], message{total: 64000, size: size})
		return 1, 0
	}
	p := openPort(t, b)
	to = p.at(t, a, "127.0.0.1")
	for _, size = range []int{64000, 1600, 1000, 6400} {
		if _, err := p.receive[0](p.bufs, p.sizes, p.eps); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(asked), "[16 16 4 2]"; got != want {
		t.Errorf("asked for %v messages, want %v", got, want)
	}
}
