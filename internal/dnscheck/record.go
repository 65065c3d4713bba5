package dnscheck

import (
	"fmt"
	"strings"

	"postern"
)

// Record returns the CAA record that lets only account, a URI, at authority get
// a certificate for host, and only by TLS-ALPN-01, which ends at the node (RFC
// 8657). If account is empty any account may.
//
// It is flagged critical. By RFC 8659, section 4.1, the flag speaks of the tag
// alone: an authority that does not know "issue" must not issue then. All that
// read CAA know it, so this costs nothing and fails closed; it does not make an
// authority mind accounturi, and 0 does where a provider's form has no 128.
//
// Account and authority may come from a stranger's directory. What the grammar
// has no room for in a parameter is percent-encoded (RFC 3986, section 2.1),
// so that it adds no parameter of its own, and an authority that is no host name
// makes a record that lets nobody issue.
func Record(host, authority, account string) postern.DNSRecord {
	value := ";"
	if issuer, err := postern.ParseHost(authority); err == nil {
		value = issuer
		if account != "" {
			value += "; accounturi=" + encode(account)
		}
		value += "; validationmethods=tls-alpn-01"
	}
	return record(host, CAA{critical, "issue", value})
}

// NoWildcards returns the CAA record that goes with Record: nobody gets a
// certificate for all names below host.
func NoWildcards(host string) postern.DNSRecord {
	return record(host, CAA{critical, "issuewild", ";"})
}

func record(host string, caa CAA) postern.DNSRecord {
	return postern.DNSRecord{Name: fold(host), Type: "CAA", Value: caa.String(), Purpose: "caa"}
}

// encode percent-encodes what is not in value = *(%x21-3A / %x3C-7E).
func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c <= '~' && c != ';' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
