package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"

	"postern"
)

// A CAASet is the Relevant RRset of a name (RFC 8659, section 3).
type CAASet struct {
	Asked string // the name, without "*." in front
	// Found is the name whose records these are: Asked, a name above it, or
	// where one of those is an alias. If empty there are none anywhere, and
	// everybody may issue.
	Found string
	// Via is every alias that the search met, up to Found, in order. Who has
	// the DNS of one of them can put records there that count before Found's.
	Via     []string
	Records []CAA
}

// A CAA is one record (RFC 8659, section 4.1).
type CAA struct {
	Flag       uint8
	Tag, Value string // bytes as they are in DNS; String escapes them
}

const critical = 128 // the one flag that there is (RFC 8659, section 4.1)

// String returns the record as it stands in a zone file.
func (c CAA) String() string {
	return fmt.Sprintf(`%d %s "%s"`, c.Flag, escape(c.Tag), escape(c.Value))
}

// CAA returns the Relevant RRset of name, which may be a wildcard. It climbs
// from name towards the root (RFC 8659, section 3):
//
//	RelevantCAASet(domain):
//	  while domain is not ".":
//	    if CAA(domain) is not Empty: return CAA(domain)
//	    domain = Parent(domain)
//	  return Empty
//
// where CAA(domain) is what a query for it yields, aliases followed. So the
// records of an alias' target count as the name's own, while the names above
// the target never do: Parent is that of the name (RFC 8659, section 7; it was
// otherwise in RFC 6844 before its erratum 5065).
//
// A question that stays without an answer, SERVFAIL among others, is an error
// and not an empty set: the authority must look before it issues.
func (r *Resolver) CAA(ctx context.Context, name string) (CAASet, error) {
	asked, err := postern.ParseHost(strings.TrimPrefix(name, "*."))
	if err != nil {
		return CAASet{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()

	set := CAASet{Asked: asked}
	for domain := asked; domain != ""; _, domain, _ = strings.Cut(domain, ".") {
		level, err := r.lookup(ctx, domain, dns.TypeCAA)
		set.Via = append(set.Via, level.via...)
		if errors.Is(err, ErrNone) {
			continue
		}
		if err != nil {
			return CAASet{}, fmt.Errorf("who may issue for %s is unknown, so no authority may: %w", asked, err)
		}
		set.Found = level.owner
		for _, rr := range level.records {
			caa := rr.(*dns.CAA)
			if len(caa.Value) > maxValue {
				return CAASet{}, fmt.Errorf("a CAA record of %s has %d bytes, more than %d", set.Found, len(caa.Value), maxValue)
			}
			set.Records = append(set.Records, CAA{caa.Flag, unescape(caa.Tag), caa.Value})
		}
		return set, nil
	}
	return set, nil
}
