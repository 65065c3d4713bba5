package coordinator

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"slices"

	"golang.org/x/net/publicsuffix"

	"postern"
	"postern/internal/dnscheck"
)

// records returns what has to be in the DNS of a claim's host, and what is better in
// there than not.
func (s *snapshot) records(c Claim, base string, certificates []postern.RouteCertificate) []postern.DNSRecord {
	var all []postern.DNSRecord
	if c.Proven.IsZero() {
		all = append(all, postern.DNSRecord{
			Name: c.challengeName(), Type: "TXT", Value: `"` + c.challengeText() + `"`, Purpose: postern.PurposeProof,
		})
	}
	for _, addr := range s.publicAddrs() {
		kind := "A"
		if addr.Is6() {
			kind = "AAAA"
		}
		all = append(all, postern.DNSRecord{Name: c.Host, Type: kind, Value: addr.String(), Purpose: postern.PurposeAddress})
	}
	if !isApex(c.Host) {
		all = append(all, postern.DNSRecord{
			Name: c.Host, Type: "CNAME", Value: aliasOf(c.Tenant, base) + ".", Purpose: postern.PurposeAddress,
		})
	}
	return append(all, caaRecords(c.Host, certificates)...)
}

// aliasOf returns the name that a tenant's custom host can be an alias of. It leads to
// the gateways like all names below the base domain.
func aliasOf(tenant, base string) string {
	return postern.ServiceHost(postern.DefaultService, tenant, base)
}

// isApex reports whether host is a zone's top, as far as one can tell, which can be no
// alias (RFC 1034, section 3.6.2).
func isApex(host string) bool {
	top, err := publicsuffix.EffectiveTLDPlusOne(host)
	return err == nil && top == host
}

// publicAddrs returns where the gateways are reached, as far as they say it in
// addresses.
func (s *snapshot) publicAddrs() []netip.Addr {
	var all []netip.Addr
	for _, g := range s.gateways {
		if addr, err := netip.ParseAddr(publicHost(g)); err == nil {
			all = append(all, addr.Unmap())
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// publicHost returns the name or address at which browsers reach g, "" if it never said.
func publicHost(g *Member) string {
	host, _, err := net.SplitHostPort(g.Public)
	if err != nil {
		return ""
	}
	return host
}

// caaMethod is how nodes prove to an authority that a host is theirs (RFC 8657, section
// 4; RFC 8737).
const caaMethod = "tls-alpn-01"

// caaRecords returns records that let the accounts of certificates get others, and
// nobody else (RFC 8657). There are none while no account is known.
func caaRecords(host string, certificates []postern.RouteCertificate) []postern.DNSRecord {
	var all []postern.DNSRecord
	for _, a := range accountsOf(certificates) {
		all = append(all, dnscheck.Record(host, a.authority, a.url))
	}
	if len(all) > 0 {
		all = append(all, dnscheck.NoWildcards(host))
	}
	return all
}

// An account is a node's at an authority.
type account struct{ url, authority string }

// accountsOf returns the accounts that certificates came or are to come from, once each.
func accountsOf(certificates []postern.RouteCertificate) []account {
	var all []account
	for _, c := range certificates {
		if u, err := url.Parse(c.Account); err == nil && u.Scheme == "https" && u.Host != "" && c.Authority != "" {
			all = append(all, account{c.Account, c.Authority})
		}
	}
	slices.SortFunc(all, func(a, b account) int {
		return cmp.Or(cmp.Compare(a.url, b.url), cmp.Compare(a.authority, b.authority))
	})
	return slices.Compact(all)
}
