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
	"sync"
	"testing"

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

// bursts are what a tunnel sends, and what it does not.
var bursts = [][]int{
	{148},
	repeat(1452, 128),
	repeat(1452, 128),
	{1452, 1452, 700, 1452, 112, 112, 96, 1452, 1452},
	repeat(112, 128),
	join(repeat(1312, 70), repeat(1452, 58)),
	join(repeat(8952, 20), []int{32, 32, 1}),
	repeat(8952, 128),
	repeat(1452, 3),
	join(repeat(1, 64), repeat(2, 64)),
	{65000},
	repeat(32500, 5),
}

func newTestBind(k kernel) *bind {
	b := newBind(slog.New(slog.DiscardHandler)).(*bind)
	b.kernel = k
	return b
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
	// What Open had of it, it gave back.
	v4, err := net.ListenPacket("udp4", fmt.Sprintf(":%d", number))
	if err != nil {
		t.Error(err)
	} else {
		v4.Close()
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
