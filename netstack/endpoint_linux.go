package netstack

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// An endpoint is where a peer is, and which address of ours it reaches: what we
// send leaves from that one, by the interface that the peer's packets came by, for
// as long as that is the way to the peer. WireGuard keeps endpoints and shares
// them, so only their atomics ever change.
type endpoint struct {
	endpointKey
	dst netip.AddrPort

	cleared atomic.Bool  // the address of ours does not count any more
	astray  atomic.Bool  // it does not count now: the way is by another interface
	checked atomic.Int64 // when that was asked, in Unix nanoseconds
	plain   atomic.Int32 // batches left to send without segments
}

// routeAge is how long the kernel's word on the way to a peer is believed.
const routeAge = 10 * time.Second

// An endpointKey is an endpoint in the kernel's words.
type endpointKey struct {
	name [unix.SizeofSockaddrInet6]byte // a sockaddr_in or sockaddr_in6
	pin  pin
}

// A pin is the control message that makes a packet leave from one of our
// addresses: IP_PKTINFO (ip(7)) or IPV6_PKTINFO (RFC 3542, section 6). All zero,
// it is none.
type pin [pinSize]byte

const pinSize = 40

var _ conn.Endpoint = (*endpoint)(nil)

// newEndpoint returns the endpoint of a peer that we have not heard from.
func newEndpoint(dst netip.AddrPort) (*endpoint, error) {
	e := &endpoint{dst: dst}
	binary.BigEndian.PutUint16(e.name[2:], dst.Port())
	if dst.Addr().Is4() {
		binary.NativeEndian.PutUint16(e.name[:], unix.AF_INET)
		copy(e.name[4:], dst.Addr().AsSlice())
		return e, nil
	}
	scope, err := scopeID(dst.Addr().Zone())
	if err != nil {
		return nil, fmt.Errorf("zone of %v: %w", dst, err)
	}
	binary.NativeEndian.PutUint16(e.name[:], unix.AF_INET6)
	copy(e.name[8:], dst.Addr().AsSlice())
	binary.NativeEndian.PutUint32(e.name[24:], scope)
	return e, nil
}

// heardFrom returns the endpoint of a packet.
func heardFrom(key endpointKey) *endpoint {
	e := &endpoint{endpointKey: key}
	port := binary.BigEndian.Uint16(key.name[2:])
	if !key.is6() {
		e.dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(key.name[4:])), port)
		return e
	}
	a := netip.AddrFrom16([16]byte(key.name[8:]))
	if scope := binary.NativeEndian.Uint32(key.name[24:]); scope != 0 {
		a = a.WithZone(strconv.FormatUint(uint64(scope), 10))
	}
	e.dst = netip.AddrPortFrom(a, port)
	return e
}

// scopeID returns the number of a zone, which is a number or an interface's name
// (RFC 4007, section 11.2).
func scopeID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

func (k *endpointKey) is6() bool { return binary.NativeEndian.Uint16(k.name[:]) == unix.AF_INET6 }

// sockaddr is the destination for sendmsg(2).
func (k *endpointKey) sockaddr() []byte {
	if k.is6() {
		return k.name[:]
	}
	return k.name[:unix.SizeofSockaddrInet4]
}

// check asks, now and then, whether the way to the peer is by the interface that
// its packets came by. If the way changed, our address there may be a dead end.
func (e *endpoint) check(now time.Time, route func(dst, src netip.Addr) (ifindex uint32, err error)) {
	checked := e.checked.Load()
	src := e.SrcIP()
	if !src.IsValid() || e.dst.Addr().Zone() != "" || now.UnixNano()-checked < int64(routeAge) ||
		!e.checked.CompareAndSwap(checked, now.UnixNano()) {
		return
	}
	if ifindex, err := route(e.dst.Addr(), src); err == nil {
		e.astray.Store(ifindex != e.ifindex())
	}
}

// source is the control message that picks our address; empty if any will do.
func (e *endpoint) source() []byte {
	if e.astray.Load() {
		return nil
	}
	return e.pinned()
}

// pinned is source, even if that is astray.
func (e *endpoint) pinned() []byte {
	switch {
	case e.cleared.Load() || e.pin == pin{}:
		return nil
	case e.is6():
		return e.pin[:unix.CmsgSpace(unix.SizeofInet6Pktinfo)]
	}
	return e.pin[:unix.CmsgSpace(unix.SizeofInet4Pktinfo)]
}

// ClearSrc forgets which address of ours the peer reaches.
func (e *endpoint) ClearSrc() { e.cleared.Store(true) }

// SrcIP returns the address of ours that the peer reaches, invalid if any will do.
func (e *endpoint) SrcIP() netip.Addr {
	at := unix.CmsgLen(0)
	switch {
	case len(e.pinned()) == 0:
		return netip.Addr{}
	case e.is6():
		return netip.AddrFrom16([16]byte(e.pin[at:])) // ipi6_addr
	}
	return netip.AddrFrom4([4]byte(e.pin[at+4:])) // ipi_spec_dst
}

// ifindex is the interface by which the peer's packets came.
func (e *endpoint) ifindex() uint32 {
	at := unix.CmsgLen(0)
	if e.is6() {
		at += 16 // ipi6_ifindex follows the address
	}
	return binary.NativeEndian.Uint32(e.pin[at:])
}

func (e *endpoint) SrcToString() string { return e.SrcIP().String() }
func (e *endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *endpoint) DstToString() string { return e.dst.String() }

// DstToBytes is what a cookie is bound to (whitepaper, section 5.4.7).
func (e *endpoint) DstToBytes() []byte {
	b, _ := e.dst.MarshalBinary()
	return b
}

// endpoints remembers those heard from, so that a packet needs none made.
type endpoints map[endpointKey]*endpoint

// maxEndpoints bounds what strangers can have us remember.
const maxEndpoints = 1 << 14

// of returns the endpoint that a packet came from.
func (m endpoints) of(key endpointKey) *endpoint {
	e := m[key]
	// One that was cleared has been heard from again, and counts anew.
	if e == nil || e.cleared.Load() {
		if len(m) >= maxEndpoints {
			clear(m)
		}
		e = heardFrom(key)
		m[key] = e
	}
	return e
}
