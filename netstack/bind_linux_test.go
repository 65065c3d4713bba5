//go:build !android

package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// A port is an open bind and what it receives.
type port struct {
	conn.Bind
	number  uint16
	receive []conn.ReceiveFunc // IPv4, IPv6

	bufs  [][]byte
	sizes []int
	eps   []conn.Endpoint
}

func openPort(t testing.TB, b conn.Bind) *port {
	t.Helper()
	p := &port{Bind: b, bufs: newBufs(), sizes: make([]int, batchSize), eps: make([]conn.Endpoint, batchSize)}
	var err error
	if p.receive, p.number, err = b.Open(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return p
}

func newBufs() (bufs [][]byte) {
	for range batchSize {
		bufs = append(bufs, make([]byte, 1<<16-1))
	}
	return bufs
}

// at returns the endpoint of p at an address of this machine.
func (p *port) at(t testing.TB, from *port, address string) conn.Endpoint {
	t.Helper()
	ep, err := from.ParseEndpoint(netip.AddrPortFrom(netip.MustParseAddr(address), p.number).String())
	if err != nil {
		t.Fatal(err)
	}
	return ep
}

// mustReceive returns n datagrams and the endpoint that all of them came from.
func (p *port) mustReceive(t testing.TB, receive conn.ReceiveFunc, n int) (got [][]byte, from conn.Endpoint) {
	t.Helper()
	for len(got) < n {
		count, err := receive(p.bufs, p.sizes, p.eps)
		if err != nil {
			t.Fatal(err)
		}
		for i, size := range p.sizes[:count] {
			if size == 0 {
				continue
			}
			if from != nil && p.eps[i].DstToString() != from.DstToString() {
				t.Fatalf("got a datagram from %v, want it from %v", p.eps[i].DstToString(), from.DstToString())
			}
			got, from = append(got, bytes.Clone(p.bufs[i][:size])), p.eps[i]
		}
	}
	return got, from
}

// burst returns datagrams of the given sizes, each of which tells where it is.
func burst(sizes ...int) [][]byte {
	var bufs [][]byte
	for i, size := range sizes {
		b := bytes.Repeat([]byte{byte(i)}, size+1)
		binary.BigEndian.PutUint16(b, uint16(size))
		bufs = append(bufs, b[:size])
	}
	return bufs
}

func repeat(size, n int) []int {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

func join(all ...[]int) (sizes []int) {
	for _, s := range all {
		sizes = append(sizes, s...)
	}
	return sizes
}

func checkBurst(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d datagrams, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("datagram %d is %d bytes, want %d, or of other content", i, len(got[i]), len(want[i]))
		}
	}
}

// bursts are one after another what a tunnel sends: the lanes adapt in between.
var bursts = [][]int{
	{148},
	repeat(1452, 128),
	repeat(1452, 128),
	{1452, 1452, 700, 1452, 112, 112, 96, 1452, 1452},
	repeat(112, 128),
	join(repeat(1312, 70), repeat(1452, 58)),
	join(repeat(8952, 20), []int{32, 32, 1}),
	repeat(1452, 3),
	join(repeat(1, 64), repeat(2, 64)),
	{65000},
	repeat(32500, 5),
}

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
			if msgs[i].Hdr.Iovlen > 1 {
				if i == 0 {
					return 0, errno
				}
				return linux.sendMany(fd, msgs[:i])
			}
		}
		return linux.sendMany(fd, msgs)
	}
	k.sendOne = func(fd uintptr, msgs []unix.Mmsghdr) (int, unix.Errno) {
		if msgs[0].Hdr.Iovlen > 1 {
			return 0, errno
		}
		return linux.sendOne(fd, msgs)
	}
	return k
}

func newTestBind(k kernel) *bind {
	b := newBind(slog.New(slog.DiscardHandler)).(*bind)
	b.kernel = k
	return b
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

// TestBindAnswersFromTheAddressItWasCalledBy has a machine with two addresses.
func TestBindAnswersFromTheAddressItWasCalledBy(t *testing.T) {
	a, b := openPort(t, newTestBind(linux)), openPort(t, newTestBind(linux))
	if err := a.Send(burst(10, 10), b.at(t, a, "127.0.0.2")); err != nil {
		t.Fatal(err)
	}
	_, from := b.mustReceive(t, b.receive[0], 2)
	if from.SrcToString() != "127.0.0.2" {
		t.Fatalf("called by %v, want 127.0.0.2", from.SrcToString())
	}
	answersFrom := func(ep conn.Endpoint) string {
		t.Helper()
		if err := b.Send(burst(10, 10), ep); err != nil {
			t.Fatal(err)
		}
		_, answered := a.mustReceive(t, a.receive[0], 2)
		return answered.DstIP().String()
	}
	if got := answersFrom(from); got != "127.0.0.2" {
		t.Errorf("answers came from %v, want 127.0.0.2", got)
	}
	// As WireGuard does when answers do not arrive.
	from.ClearSrc()
	if got := answersFrom(from); got != "127.0.0.1" {
		t.Errorf("with any address, answers came from %v, want 127.0.0.1", got)
	}
	// It keeps to the address again when the peer has called it again.
	if err := a.Send(burst(10, 10), b.at(t, a, "127.0.0.2")); err != nil {
		t.Fatal(err)
	}
	_, from = b.mustReceive(t, b.receive[0], 2)
	if got := answersFrom(from); got != "127.0.0.2" {
		t.Errorf("answers came from %v, want 127.0.0.2", got)
	}
}

// TestBindLeavesADeadEnd has the way to a peer move to another interface than its
// packets came by.
func TestBindLeavesADeadEnd(t *testing.T) {
	var way uint32
	var refused error
	k := linux
	k.route = func(dst, src netip.Addr, mark uint32) (uint32, error) {
		if dst.String() != "127.0.0.1" || src.String() != "127.0.0.2" || mark != 7 {
			t.Errorf("asked for the way from %v to %v with mark %d", src, dst, mark)
		}
		return way, refused
	}
	k.setOption = func(fd, level, option, value int) error {
		if option == unix.SO_MARK {
			return nil
		}
		return linux.setOption(fd, level, option, value)
	}
	a, b := openPort(t, newTestBind(linux)), openPort(t, newTestBind(k))
	if err := b.SetMark(7); err != nil {
		t.Fatal(err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name    string
		way     int
		refused error
		old     bool // what the kernel said last
		want    string
	}{
		{"another interface", lo.Index + 1, nil, true, "127.0.0.1"},
		{"asked just before", lo.Index, nil, false, "127.0.0.1"},
		{"the interface it came by", lo.Index, nil, true, "127.0.0.2"},
		{"asked just before", 0, nil, false, "127.0.0.2"},
		{"no answer", 0, unix.EAFNOSUPPORT, true, "127.0.0.2"},
		{"no way", 0, nil, true, "127.0.0.1"},
	} {
		if err := a.Send(burst(10, 10), b.at(t, a, "127.0.0.2")); err != nil {
			t.Fatal(err)
		}
		_, from := b.mustReceive(t, b.receive[0], 2)
		way, refused = uint32(step.way), step.refused
		if step.old {
			from.(*endpoint).checked.Store(0)
		}
		if err := b.Send(burst(10, 10), from); err != nil {
			t.Fatal(err)
		}
		_, answered := a.mustReceive(t, a.receive[0], 2)
		if got := answered.DstIP().String(); got != step.want {
			t.Errorf("%s: the answer came from %v, want %v", step.name, got, step.want)
		}
	}
}

func TestRouteTo(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		dst, src string
		want     int
	}{
		{"127.0.0.1", "127.0.0.1", lo.Index},
		{"127.0.0.1", "127.0.0.2", lo.Index},
		{"::1", "::1", lo.Index},
		{"127.0.0.1", "192.0.2.1", 0},
	} {
		got, err := routeTo(netip.MustParseAddr(test.dst), netip.MustParseAddr(test.src), 0)
		if err != nil || got != uint32(test.want) {
			t.Errorf("from %v to %v: got %d, %v, want %d", test.src, test.dst, got, err, test.want)
		}
	}
}

// TestBindLosesItsAddress has the address that a peer reaches taken away.
func TestBindLosesItsAddress(t *testing.T) {
	for i, address := range []string{"127.0.0.1", "::1"} {
		t.Run(address, func(t *testing.T) {
			k := linux
			k.route = func(_, _ netip.Addr, _ uint32) (uint32, error) { return 0, unix.EACCES }
			a, b := openPort(t, newTestBind(k)), openPort(t, newTestBind(linux))
			ep := b.at(t, a, address).(*endpoint)
			if i == 0 {
				copy(ep.pin[:], unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{192, 0, 2, 1}}))
			} else {
				copy(ep.pin[:], unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}}))
			}
			for range 2 {
				want := burst(repeat(1000, 20)...)
				if err := a.Send(want, ep); err != nil {
					t.Fatal(err)
				}
				got, _ := b.mustReceive(t, b.receive[i], len(want))
				checkBurst(t, got, want)
			}
			if ep.SrcIP().IsValid() {
				t.Error("the address is still to be sent from")
			}
			if ep.plain.Load() != 0 {
				t.Error("segments are held to be what was refused")
			}
		})
	}
}

func TestEndpointsAreBounded(t *testing.T) {
	m := endpoints{}
	var key endpointKey
	binary.NativeEndian.PutUint16(key.name[:], unix.AF_INET)
	first := m.of(key)
	if m.of(key) != first {
		t.Error("the same sender has another endpoint")
	}
	for i := range 3 * maxEndpoints {
		binary.BigEndian.PutUint32(key.name[4:], uint32(i))
		if got := m.of(key).DstIP().As4(); binary.BigEndian.Uint32(got[:]) != uint32(i) {
			t.Fatalf("sender %d has the endpoint of %v", i, got)
		}
	}
	if len(m) > maxEndpoints {
		t.Errorf("%d endpoints are remembered, want at most %d", len(m), maxEndpoints)
	}
}

func TestBindWithoutAFamily(t *testing.T) {
	for _, test := range []struct {
		name          string
		level, option int
		address       string
	}{
		{"IPv4 only", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, "127.0.0.1"},
		{"IPv6 only", unix.IPPROTO_IP, unix.IP_PKTINFO, "::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := refuseOption(test.level, test.option, unix.EAFNOSUPPORT)
			a, b := openPort(t, newTestBind(k)), openPort(t, newTestBind(k))
			if len(b.receive) != 1 || b.number == 0 {
				t.Fatalf("got %d receivers on port %d, want one", len(b.receive), b.number)
			}
			want := burst(100)
			if err := a.Send(want, b.at(t, a, test.address)); err != nil {
				t.Fatal(err)
			}
			got, _ := b.mustReceive(t, b.receive[0], 1)
			checkBurst(t, got, want)
			for _, other := range []string{"127.0.0.1", "::1"} {
				if other != test.address {
					if err := a.Send(want, b.at(t, a, other)); !errors.Is(err, unix.EAFNOSUPPORT) {
						t.Errorf("got %v, want %v", err, unix.EAFNOSUPPORT)
					}
				}
			}
		})
	}
	neither := refuseOption(unix.IPPROTO_IP, unix.IP_PKTINFO, unix.EAFNOSUPPORT)
	neither.setOption = func(int, int, int, int) error { return unix.EAFNOSUPPORT }
	if _, _, err := newTestBind(neither).Open(0); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("got %v, want %v", err, unix.EAFNOSUPPORT)
	}
}

func TestBindOpensAndCloses(t *testing.T) {
	b := newTestBind(linux)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	p := openPort(t, b)
	if _, _, err := b.Open(0); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Fatalf("got %v, want %v", err, conn.ErrBindAlreadyOpen)
	}
	for range 10 {
		var receivers sync.WaitGroup
		for _, receive := range p.receive {
			receivers.Go(func() {
				bufs := [][]byte{make([]byte, 1<<16-1)}
				for {
					_, err := receive(bufs, make([]int, 1), make([]conn.Endpoint, 1))
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		to := p.at(t, p, "127.0.0.1")
		var senders sync.WaitGroup
		for range 3 {
			senders.Go(func() {
				for {
					err := b.Send(burst(100, 100), to)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		senders.Wait()
		receivers.Wait()
		fns, number, err := b.Open(p.number)
		if err != nil {
			t.Fatal(err)
		}
		if number != p.number {
			t.Fatalf("got port %d, want %d", number, p.number)
		}
		p.receive = fns
	}
}

// TestBindSharesItsPort finds a port free in both families where IPv6's is not.
func TestBindSharesItsPort(t *testing.T) {
	taken, err := net.ListenPacket("udp6", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	number := uint16(taken.LocalAddr().(*net.UDPAddr).Port)
	if _, _, err := newTestBind(linux).Open(number); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v, want %v", err, unix.EADDRINUSE)
	}
	tries := 0
	k := linux
	k.setOption = func(fd, level, option, value int) error {
		if level == unix.IPPROTO_IPV6 && option == unix.IPV6_V6ONLY {
			if tries++; tries < 5 {
				return unix.EADDRINUSE
			}
		}
		return linux.setOption(fd, level, option, value)
	}
	if p := openPort(t, newTestBind(k)); len(p.receive) != 2 || tries != 5 {
		t.Errorf("got %d receivers after %d tries, want 2 after 5", len(p.receive), tries)
	}
}

func TestBindMarks(t *testing.T) {
	marked := map[int]int{}
	k := linux
	k.setOption = func(fd, level, option, value int) error {
		if level == unix.SOL_SOCKET && option == unix.SO_MARK {
			marked[fd] = value
			return nil
		}
		return linux.setOption(fd, level, option, value)
	}
	p := openPort(t, newTestBind(k))
	if err := p.SetMark(42); err != nil {
		t.Fatal(err)
	}
	if len(marked) != 2 {
		t.Errorf("%d sockets were marked, want 2", len(marked))
	}
	for fd, mark := range marked {
		if mark != 42 {
			t.Errorf("socket %d has mark %d, want 42", fd, mark)
		}
	}
}

func TestBindAllocatesNothing(t *testing.T) {
	for _, sizes := range [][]int{{112}, repeat(112, 128), repeat(1452, 128)} {
		r := newRoad(t, func() conn.Bind { return newTestBind(linux) }, 3, sizes)
		if allocs := testing.AllocsPerRun(200, func() { r.pass(t) }); allocs != 0 {
			t.Errorf("%d datagrams of %d bytes: %v allocations, want none", len(sizes), sizes[0], allocs)
		}
	}
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
