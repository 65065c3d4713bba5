package dnscheck

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// A Grade says who could get a certificate for a name without its node's
// account at an authority, by the CAA records that count for the name.
//
// A to C each mean that whoever carries the traffic, a gateway above all, gets
// none: every record that lets anybody issue names an account, or only methods
// that prove control of DNS. They differ in whose DNS that rests on. Whose
// account it is, Permits tells. All rest on authorities that mind CAA and its
// parameters (RFC 8657, section 5.2).
//
// Wildcards do not count: the authorities give none to who controls only
// traffic (CA/Browser Forum Baseline Requirements, sections 3.2.2.4.19 and .20).
type Grade string

const (
	// GradeA is a name under the deployment's base. The operator's DNS decides:
	// who holds it can change the records and get a certificate, which then
	// shows in Certificate Transparency logs.
	GradeA Grade = "A"
	// GradeB is a name of one's own whose records are in the same registered
	// domain, with no alias out of it: neither gateway nor operator can get a
	// certificate.
	GradeB Grade = "B"
	// GradeC is a name of one's own about which somebody else's DNS decides,
	// because it is an alias of a name there, whose records count first, now
	// or as soon as there are any; or because the only records are a registry's.
	GradeC Grade = "C"
	// GradeNone is a name for which whoever carries its traffic can get a
	// certificate: it has no CAA records that restrict, or one of them lets
	// any account of some authority have it.
	GradeNone Grade = "none"
)

// Grade grades the set, for a deployment whose names are under base, and
// explains it to a person.
func (s CAASet) Grade(base string) (Grade, string) {
	base = fold(base)
	p := s.policy(false)
	switch {
	case p.forbidden != "":
	case s.Found == "":
		return GradeNone, fmt.Sprintf("No CAA record counts for %s: whoever carries its traffic can get a certificate for it, from any authority.%s", s.Asked, s.overruled(base))
	case !p.restricted:
		return GradeNone, fmt.Sprintf("CAA at %s does not restrict who may issue: whoever carries the traffic of %s can get a certificate for it, from any authority.", s.place(), s.Asked)
	}
	if p.forbidden == "" {
		for _, g := range p.grants {
			if g.satisfiable() && !g.bound() {
				return GradeNone, fmt.Sprintf("CAA at %s pins no account at %s (accounturi): whoever carries the traffic of %s can get a certificate for it there.", s.place(), clip(g.issuer), s.Asked)
			}
		}
	}

	who := p.words()
	if who == "" || p.forbidden != "" {
		who = "nobody"
	}
	lets := fmt.Sprintf("CAA at %s lets only %s issue", s.place(), who)
	if who == "nobody" {
		lets = fmt.Sprintf("CAA at %s lets nobody issue", s.place())
	}
	elsewhere := s.elsewhere(base)
	switch {
	case under(s.Asked, base):
		return GradeA, lets + fmt.Sprintf(". %s is a hosted name, so the operator's DNS decides: a gateway cannot get a certificate for it; who holds that DNS can, and it would show in Certificate Transparency logs.", s.Asked)
	case elsewhere == "":
		return GradeB, lets + fmt.Sprintf(". That is in the DNS of %s itself: neither a gateway nor the operator can get a certificate for it.", s.Asked)
	case slices.Contains(s.Via, s.Found):
		return GradeC, lets + fmt.Sprintf(". %s is an alias (CNAME), so who holds the DNS of %s decides, and CAA records above %s do not count: a gateway cannot get a certificate for it, %s can. Use A and AAAA records with CAA of your own instead.", s.Asked, elsewhere, s.Asked, holder(elsewhere, base))
	case len(s.Via) > 0:
		return GradeC, lets + "." + s.overruled(base) + " Use A and AAAA records instead."
	}
	return GradeC, lets + fmt.Sprintf(". That is the DNS of %s, not of %s: who holds it decides. Add CAA records of your own.", elsewhere, s.Asked)
}

// bound reports whether control of the traffic is not enough to meet g.
func (g grant) bound() bool {
	if g.account != "" {
		return true
	}
	return len(g.methods) > 0 && !slices.ContainsFunc(g.methods, func(m string) bool {
		return m != "dns-01" && m != "dns-account-01" && m != "dns-persist-01"
	})
}

// overruled is a sentence about an alias whose target has no records yet.
func (s CAASet) overruled(base string) string {
	elsewhere := s.elsewhere(base)
	if len(s.Via) == 0 || elsewhere == "" || under(s.Asked, base) {
		return ""
	}
	return fmt.Sprintf(" There is an alias (CNAME) to %s: CAA records there, as soon as there are any, count before these, so %s decides.", elsewhere, holder(elsewhere, base))
}

// elsewhere returns the first name that has a say about s and is not in the
// registered domain of the name asked for, or is the deployment's; "" if none.
func (s CAASet) elsewhere(base string) string {
	for _, name := range append(slices.Clone(s.Via), s.Found) {
		if name != "" && (under(name, base) || !sameOwner(name, s.Asked)) {
			return name
		}
	}
	return ""
}

// sameOwner reports whether name is in the registered domain of asked: the
// label below the public suffix, which the registry gave to one owner.
func sameOwner(name, asked string) bool {
	registered, err := publicsuffix.EffectiveTLDPlusOne(asked)
	return err == nil && under(name, registered)
}

func holder(name, base string) string {
	if under(name, base) {
		return "the operator"
	}
	return "who holds it"
}

// under reports whether name is domain or below it.
func under(name, domain string) bool {
	return domain != "" && (name == domain || strings.HasSuffix(name, "."+domain))
}
