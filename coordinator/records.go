package coordinator

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"postern"
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
	add := func(value string) {
		all = append(all, postern.DNSRecord{Name: host, Type: "CAA", Value: value, Purpose: postern.PurposeCAA})
	}
	for _, account := range accountsOf(certificates) {
		add(fmt.Sprintf(`128 issue "%s; accounturi=%s; validationmethods=%s"`, authorityOf(account), account, caaMethod))
	}
	if len(all) > 0 {
		add(`128 issuewild ";"`)
	}
	return all
}

// accountsOf returns the ACME accounts that certificates came or are to come from, once
// each, as far as they can stand in a CAA record.
func accountsOf(certificates []postern.RouteCertificate) []string {
	var all []string
	for _, c := range certificates {
		u, err := url.Parse(c.Account)
		if err == nil && u.Scheme == "https" && u.Host != "" && !strings.ContainsAny(c.Account, "\"\\; \t") {
			all = append(all, c.Account)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// authorities are the names in CAA records of authorities whose accounts are elsewhere.
var authorities = map[string]string{
	"acme.zerossl.com":         "sectigo.com",
	"dv.acme-v02.api.pki.goog": "pki.goog",
}

// authorityOf returns the name by which CAA records call the authority that has account,
// an ACME account's URL.
func authorityOf(account string) string {
	u, err := url.Parse(account)
	if err != nil {
		return ""
	}
	host := strings.ToLower(u.Hostname())
	top, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		top = host
	}
	return cmp.Or(authorities[host], top)
}
