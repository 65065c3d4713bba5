// Package dnscheck asks DNS what a certificate authority would ask before it
// issues: TXT, addresses, and the CAA records that count for a name (RFC 8659).
// It says who may issue by them, and what that is worth to the name's owner.
//
// The path of a question, from the top down:
//
//	TXT, Addresses, CAA   one lookup, or several as CAA climbs
//	lookup                follows aliases, within an answer and by asking again
//	ask                   tries the servers in turn, twice
//	try                   one server: UDP, and TCP if the answer was cut short
//	match                 bytes that came, held against what was asked
//
// Nothing is cached. Signatures (DNSSEC) are not checked here: an answer is as
// good as the resolver it comes from and the way to it.
package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"postern"
)

const (
	// tryTimeout is how long one server has for one answer.
	tryTimeout = 3 * time.Second
	// lookupTimeout bounds TXT, Addresses and CAA, whatever ctx allows: a
	// server that gives one alias at a time, each just in time, ends here.
	lookupTimeout = 30 * time.Second
)

// ErrNone is what the error of a lookup is (errors.Is) if DNS answered that
// there is no such record: the name does not exist, or it has none of the type.
var ErrNone = errors.New("no such record")

// A Resolver asks DNS servers. It is safe for concurrent use and holds nothing
// open between lookups.
type Resolver struct {
	servers func() ([]netip.AddrPort, error)
	timeout time.Duration // of one try
}

// New returns a resolver that asks server: "IP", "IP:port" or "[IPv6]:port",
// port 53 if there is none. If server is empty it asks the system's, as they are
// at each lookup: the nameservers of /etc/resolv.conf, whose search domains are
// not used, or those of the network adapters on Windows.
func New(server string) (*Resolver, error) {
	r := &Resolver{servers: system, timeout: tryTimeout}
	if server != "" {
		addr, err := parseServer(server)
		if err != nil {
			return nil, err
		}
		r.servers = func() ([]netip.AddrPort, error) { return []netip.AddrPort{addr}, nil }
	}
	if _, err := r.servers(); err != nil {
		return nil, err
	}
	return r, nil
}

func parseServer(s string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr, 53), nil
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil || addr.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("DNS server %q: want an IP address, with or without a port", s)
	}
	return addr, nil
}

// TXT returns the text records of name, the strings of each joined as they
// stand. They are bytes that strangers chose: show them with %q. If there is
// none the error is ErrNone.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	name, err := parseName(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := r.lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, rr := range found.records {
		text := unescape(strings.Join(rr.(*dns.TXT).Txt, ""))
		if len(text) > maxValue {
			return nil, fmt.Errorf("a TXT record of %s has %d bytes, more than %d", found.owner, len(text), maxValue)
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// Addresses are where a name leads.
type Addresses struct {
	Addrs []netip.Addr // IPv4 first, each as answered
	Via   []string     // the CNAMEs on the way, the last of which has Addrs
}

// Addresses returns the addresses of name, of both families. One family is
// enough: the other's failure is an error only if there is no address at all.
// If DNS says that there is none the error is ErrNone, and Via is still filled.
func (r *Resolver) Addresses(ctx context.Context, name string) (Addresses, error) {
	name, err := postern.ParseHost(name)
	if err != nil {
		return Addresses{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()

	v4, err4 := r.lookup(ctx, name, dns.TypeA)
	v6, err6 := r.lookup(ctx, name, dns.TypeAAAA)
	addrs := Addresses{Via: v4.via}
	if len(v4.records) == 0 && len(v6.via) > 0 {
		addrs.Via = v6.via
	}
	for _, rr := range append(v4.records, v6.records...) {
		var addr netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if addr.IsValid() {
			addrs.Addrs = append(addrs.Addrs, addr)
		}
	}
	switch {
	case len(addrs.Addrs) > 0:
		return addrs, nil
	case err4 != nil && !errors.Is(err4, ErrNone):
		return addrs, err4
	case err6 != nil && !errors.Is(err6, ErrNone):
		return addrs, err6
	}
	return addrs, &none{fmt.Sprintf("%s has no address", aliased(name, addrs.Via))}
}

// parseName is postern.ParseHost for names that may begin with labels such as
// _postern-challenge (RFC 8552).
func parseName(s string) (string, error) {
	label, rest, ok := strings.Cut(s, ".")
	if !ok || !strings.HasPrefix(label, "_") {
		return postern.ParseHost(s)
	}
	label = strings.ToLower(label)
	if len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return "", fmt.Errorf("name %q: label %q is no DNS label", s, label)
	}
	rest, err := parseName(rest)
	if err != nil {
		return "", err
	}
	if name := label + "." + rest; len(name) <= 253 {
		return name, nil
	}
	return "", fmt.Errorf("name %q: want at most 253 characters", s)
}
