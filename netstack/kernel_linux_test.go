//go:build !android

package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernels are the ways in which a kernel can be less than it should be.
var kernels = []struct {
	name string
	make func() kernel
}{
	{"the one we run on", func() kernel { return linux }},
	{"no segmentation", func() kernel { return refuseOption(unix.SOL_UDP, unix.UDP_SEGMENT, unix.ENOPROTOOPT) }},
	{"no coalescing", func() kernel { return refuseOption(unix.SOL_UDP, unix.UDP_GRO, unix.ENOPROTOOPT) }},
	{"neither", func() kernel {
		k := refuseOption(unix.SOL_UDP, unix.UDP_SEGMENT, unix.ENOPROTOOPT)
		k.setOption = refuseOption(unix.SOL_UDP, unix.UDP_GRO, unix.ENOPROTOOPT).setOption
		return k
	}},
	{"a coalescing that cannot be asked back", func() kernel {
		k := linux
		k.option = refuseOption(unix.SOL_UDP, unix.UDP_GRO, unix.ENOPROTOOPT).option
		return k
	}},
	{"segments refused by a card", func() kernel { return refuseSegments(unix.EIO) }},
	{"segments refused as too large", func() kernel { return refuseSegments(unix.EMSGSIZE) }},
	{"segments refused as invalid", func() kernel { return refuseSegments(unix.EINVAL) }},
	{"one message at a time", func() kernel {
		k := linux
		none := func(uintptr, []unix.Mmsghdr) (int, unix.Errno) { return 0, unix.ENOSYS }
		k.sendMany, k.receiveMany = none, none
		return k
	}},
	{"one message at a time and no segments", func() kernel {
		k := refuseSegments(unix.EIO)
		k.sendMany = func(uintptr, []unix.Mmsghdr) (int, unix.Errno) { return 0, unix.ENOSYS }
		return k
	}},
	{"small buffers", func() kernel { return refuseOption(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, unix.EPERM) }},
	{"three messages at most", func() kernel {
		k := linux
		k.sendMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
			return linux.sendMany(fd, msgs[:min(3, len(msgs))])
		}
		return k
	}},
	{"interrupted and full every other time", func() kernel {
		k := linux
		var calls int
		k.sendMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
			switch calls++; calls % 3 {
			case 1:
				return 0, unix.EINTR
			case 2:
				return 0, unix.EAGAIN
			}
			return linux.sendMany(fd, msgs[:1])
		}
		return k
	}},
	{"told of ICMP errors", func() kernel {
		k := linux
		var calls int
		k.receiveMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
			if calls++; calls%2 == 1 {
				return 0, unix.ECONNREFUSED
			}
			return linux.receiveMany(fd, msgs)
		}
		return k
	}},
}

func refuseOption(level, option int, err error) kernel {
	k := linux
	k.setOption = func(fd, l, o, value int) error {
		if l == level && o == option && value != 0 {
			return err
		}
		return linux.setOption(fd, l, o, value)
	}
	k.option = func(fd, l, o int) (int, error) {
		if l == level && o == option {
			return 0, err
		}
		return linux.option(fd, l, o)
	}
	return k
}

// refuseSegments refuses the first segmented message that it sees, as the kernel
// does: it counts those before it.
func refuseSegments(errno unix.Errno) kernel {
	k := linux
	k.sendMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
		for i := range msgs {
			if segmented(&msgs[i]) {
				if i == 0 {
					return 0, errno
				}
				return linux.sendMany(fd, msgs[:i])
			}
		}
		return linux.sendMany(fd, msgs)
	}
	k.sendOne = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
		if segmented(&msgs[0]) {
			return 0, errno
		}
		return linux.sendOne(fd, msgs)
	}
	return k
}

// segmented reports whether the kernel is asked to cut msg, be it from another
// address than its own choice.
func segmented(msg *unix.Mmsghdr) bool {
	control := unsafe.Slice(msg.Hdr.Control, msg.Hdr.Controllen)
	return bytes.Contains(control, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, unix.SOL_UDP), unix.UDP_SEGMENT))
}

func TestBindCarries(t *testing.T) {
	for _, k := range kernels {
		for i, address := range []string{"127.0.0.1", "::1"} {
			t.Run(k.name+"/"+address, func(t *testing.T) {
				a, b := openPort(t, newTestBind(k.make())), openPort(t, newTestBind(k.make()))
				to := b.at(t, a, address)
				for _, sizes := range bursts {
					want := burst(sizes...)
					if err := a.Send(want, to); err != nil {
						t.Fatal(err)
					}
					got, from := b.mustReceive(t, b.receive[i], len(want))
					checkBurst(t, got, want)
					if want := a.at(t, b, address).DstToString(); from.DstToString() != want {
						t.Fatalf("got datagrams from %v, want %v", from.DstToString(), want)
					}
					if from.SrcToString() != address {
						t.Fatalf("got datagrams to %v, want %v", from.SrcToString(), address)
					}
					if err := b.Send(want, from); err != nil {
						t.Fatal(err)
					}
					got, _ = a.mustReceive(t, a.receive[i], len(want))
					checkBurst(t, got, want)
				}
			})
		}
	}
}

// TestBindRemembers counts how often what was refused is tried again.
func TestBindRemembers(t *testing.T) {
	for _, test := range []struct {
		errno  unix.Errno
		others int // how often for another endpoint
		logged int
	}{
		{unix.EIO, 0, 1},
		{unix.EMSGSIZE, 1, 0},
		{unix.EINVAL, 1, 0},
	} {
		t.Run(test.errno.Error(), func(t *testing.T) {
			tries := 0
			k := refuseSegments(test.errno)
			refusing := k.sendMany
			k.sendMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
				n, errno := refusing(fd, msgs)
				if errno == test.errno {
					tries++
				}
				return n, errno
			}
			var log strings.Builder
			sending := newTestBind(k)
			sending.logger = slog.New(slog.NewTextHandler(&log, nil))
			a, b := openPort(t, sending), openPort(t, newTestBind(linux))
			for i, want := range []int{1, 1 + test.others} {
				to := b.at(t, a, fmt.Sprintf("127.0.0.%d", 1+i))
				for range 3 {
					packets := burst(repeat(1000, 10)...)
					if err := a.Send(packets, to); err != nil {
						t.Fatal(err)
					}
					got, _ := b.mustReceive(t, b.receive[0], len(packets))
					checkBurst(t, got, packets)
				}
				if tries != want {
					t.Errorf("endpoint %d: segments were tried %d times, want %d", i, tries, want)
				}
			}
			if got := strings.Count(log.String(), "udp segmentation refused"); got != test.logged {
				t.Errorf("logged %d times, want %d: %s", got, test.logged, log.String())
			}
		})
	}
}

// TestBindCoalesces shows that the kernel was asked for what it is there for: a
// burst is few messages.
func TestBindCoalesces(t *testing.T) {
	var sent, received int
	k := linux
	k.sendMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
		n, errno := linux.sendMany(fd, msgs)
		sent += n
		return n, errno
	}
	k.receiveMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
		n, errno := linux.receiveMany(fd, msgs)
		if errno == 0 {
			received += n
		}
		return n, errno
	}
	a, b := openPort(t, newTestBind(k)), openPort(t, newTestBind(k))
	want := burst(repeat(1452, 128)...)
	if err := a.Send(want, b.at(t, a, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	got, _ := b.mustReceive(t, b.receive[0], len(want))
	checkBurst(t, got, want)
	if sent != 3 || received != 3 {
		t.Errorf("128 datagrams of 1452 bytes were %d messages sent and %d received, want 3", sent, received)
	}
}

// TestBindErrors has single datagrams refused.
func TestBindErrors(t *testing.T) {
	for _, test := range []struct {
		errno unix.Errno
		want  error
	}{
		{unix.EPERM, unix.EPERM},
		{unix.ENOBUFS, nil},
		{unix.ECONNREFUSED, unix.ECONNREFUSED},
		{unix.ENETUNREACH, unix.ENETUNREACH},
	} {
		t.Run(test.errno.Error(), func(t *testing.T) {
			calls := 0
			k := refuseOption(unix.SOL_UDP, unix.UDP_SEGMENT, unix.ENOPROTOOPT)
			k.sendMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
				if calls++; calls == 2 {
					return 0, test.errno
				}
				return linux.sendMany(fd, msgs[:min(2, len(msgs))])
			}
			a, b := openPort(t, newTestBind(k)), openPort(t, newTestBind(linux))
			packets := burst(repeat(100, 6)...)
			if err := a.Send(packets, b.at(t, a, "127.0.0.1")); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			got, _ := b.mustReceive(t, b.receive[0], 5)
			checkBurst(t, got, append(packets[:2:2], packets[3:]...))
		})
	}
	t.Run("too large", func(t *testing.T) {
		a, b := openPort(t, newTestBind(linux)), openPort(t, newTestBind(linux))
		packets := burst(100, 65530, 100)
		if err := a.Send(packets, b.at(t, a, "127.0.0.1")); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("got %v, want %v", err, unix.EMSGSIZE)
		}
		got, _ := b.mustReceive(t, b.receive[0], 2)
		checkBurst(t, got, [][]byte{packets[0], packets[2]})
	})
}

// TestBindReceiveErrors has the kernel fail for a while. The device would end a
// receiver at once on a net.Error that is not temporary, and after ten errors in
// a row.
func TestBindReceiveErrors(t *testing.T) {
	failures := 30
	k := linux
	k.receiveMany = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
		if failures--; failures > 0 {
			return 0, unix.ENOMEM
		}
		return linux.receiveMany(fd, msgs)
	}
	a, b := openPort(t, newTestBind(linux)), openPort(t, newTestBind(k))
	want := burst(100)
	if err := a.Send(want, b.at(t, a, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	failed := false
	for failures > 1 {
		_, err := b.receive[0](b.bufs, b.sizes, b.eps)
		if _, ok := err.(net.Error); ok {
			t.Fatalf("got %v, which ends the receiver", err)
		}
		if failed && err != nil {
			t.Fatal("got two errors in a row")
		}
		failed = err != nil
	}
	got, _ := b.mustReceive(t, b.receive[0], 1)
	checkBurst(t, got, want)
}
