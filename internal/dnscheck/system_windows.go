package dnscheck

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/windows"
)

// siteLocal are addresses that Windows puts where an adapter has no IPv6 DNS
// server. They were deprecated (RFC 3879), and nobody answers there.
var siteLocal = netip.MustParsePrefix("fec0::/10")

// system returns the DNS servers of the network adapters that are up, at most
// three: of those with a gateway first, since others lead to a part of the world.
func system() ([]netip.AddrPort, error) {
	first, err := adapters()
	if err != nil {
		return nil, fmt.Errorf("the network adapters' DNS servers: %w", err)
	}
	var near, far []netip.AddrPort
	for a := first; a != nil; a = a.Next {
		if a.OperStatus != windows.IfOperStatusUp {
			continue
		}
		list := &near
		if a.FirstGatewayAddress != nil {
			list = &far
		}
		for s := a.FirstDnsServerAddress; s != nil; s = s.Next {
			addr := address(s.Address)
			server := netip.AddrPortFrom(addr, 53)
			if addr.IsValid() && !siteLocal.Contains(addr.WithZone("")) && !slices.Contains(*list, server) {
				*list = append(*list, server)
			}
		}
	}
	servers := far
	for _, server := range near {
		if !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	if len(servers) == 0 {
		return nil, errors.New("no network adapter has a DNS server")
	}
	return servers[:min(len(servers), 3)], nil
}

// adapters returns the head of the list that Windows keeps of its adapters.
func adapters() (*windows.IpAdapterAddresses, error) {
	const flags = windows.GAA_FLAG_SKIP_UNICAST | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST |
		windows.GAA_FLAG_SKIP_FRIENDLY_NAME | windows.GAA_FLAG_INCLUDE_GATEWAYS
	size := uint32(16 << 10) // bytes; Windows says how many if these are too few
	for range 5 {            // adapters may be added between two calls
		// Of uint64 because the structures in it must be aligned.
		buf := make([]uint64, (size+7)/8)
		first := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0]))
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, first, &size)
		switch {
		case err == nil && size == 0:
			return nil, nil
		case err == nil:
			return first, nil
		case !errors.Is(err, windows.ERROR_BUFFER_OVERFLOW):
			return nil, err
		}
	}
	return nil, windows.ERROR_BUFFER_OVERFLOW
}

// address returns what a holds, with the zone of a link-local address.
func address(a windows.SocketAddress) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.IP())
	addr = addr.Unmap()
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		scope := (*windows.RawSockaddrInet6)(unsafe.Pointer(a.Sockaddr)).Scope_id
		addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
	}
	return addr
}
