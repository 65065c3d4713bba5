package coordinator

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
)

// The overlay's addresses (RFC 4193, section 3.1), by bit:
//
//	0    fd, then 40 random bits: the deployment's /48
//	48   tenant's number, 32 bits: the tenant's /80
//	80   node's number in its tenant, 48 bits
//
// Tenants' numbers start at firstTenant, so the /64 whose next 16 bits are zero
// meets no tenant. It is the gateways', with their number in its last 64 bits.
// All numbers are given in turn and never again.
const firstTenant = 0x10000

func newPrefix() netip.Prefix {
	var a [16]byte
	a[0] = 0xfd
	rand.Read(a[1:6])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

func tenantPrefix(deployment netip.Prefix, tenant uint32) netip.Prefix {
	a := deployment.Addr().As16()
	binary.BigEndian.PutUint32(a[6:], tenant)
	return netip.PrefixFrom(netip.AddrFrom16(a), 80)
}

func nodeAddress(deployment netip.Prefix, tenant uint32, node uint64) netip.Addr {
	a := tenantPrefix(deployment, tenant).Addr().As16()
	binary.BigEndian.PutUint16(a[10:], uint16(node>>32))
	binary.BigEndian.PutUint32(a[12:], uint32(node))
	return netip.AddrFrom16(a)
}

func gatewayAddress(deployment netip.Prefix, gateway uint64) netip.Addr {
	a := deployment.Addr().As16()
	binary.BigEndian.PutUint64(a[8:], gateway)
	return netip.AddrFrom16(a)
}
