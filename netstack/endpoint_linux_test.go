//go:build !android

package netstack

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

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
		return answered.(*endpoint).dst.Addr().String()
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
		if got := answered.(*endpoint).dst.Addr().String(); got != step.want {
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
		if got := m.of(key).dst.Addr().As4(); binary.BigEndian.Uint32(got[:]) != uint32(i) {
			t.Fatalf("sender %d has the endpoint of %v", i, got)
		}
	}
	if len(m) > maxEndpoints {
		t.Errorf("%d endpoints are remembered, want at most %d", len(m), maxEndpoints)
	}
}
