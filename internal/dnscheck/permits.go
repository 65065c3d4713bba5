package dnscheck

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Wish is what somebody wants of an authority.
type Wish struct {
	Authority string // its name in CAA records, such as letsencrypt.org
	Account   string // URI of the account that asks; if empty, none that a record names
	Method    string // such as tls-alpn-01; if empty, none that a record names
	Wildcard  bool   // the certificate is for "*." and the name
}

// Permits returns nil if an authority that keeps to RFC 8659 and RFC 8657 may
// grant w, and else an error that tells a person why not.
func (s CAASet) Permits(w Wish) error {
	p := s.policy(w.Wildcard)
	if p.forbidden != "" {
		return fmt.Errorf("CAA at %s lets nobody issue: it holds the critical property %s, which no authority knows", s.place(), p.forbidden)
	}
	if !p.restricted {
		return nil
	}
	for _, g := range p.grants {
		if g.permits(w) {
			return nil
		}
	}
	what := ""
	if w.Wildcard {
		what = " for wildcards"
	}
	if words := p.words(); words != "" {
		return fmt.Errorf("CAA at %s lets only %s issue%s, not %s", s.place(), words, what, w.words())
	}
	return fmt.Errorf("CAA at %s lets nobody issue%s%s", s.place(), what, p.flaw())
}

// place is Found, and how the search came there if that is not plain.
func (s CAASet) place() string {
	if slices.Contains(s.Via, s.Found) {
		return s.Found + " (by alias, for " + s.Asked + ")"
	}
	return s.Found
}

func (w Wish) words() string {
	return grant{issuer: w.Authority, account: w.Account, methods: nonEmpty(w.Method)}.words()
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// A policy is what a set says of plain names, or of wildcards.
type policy struct {
	restricted bool    // only those in grants may issue
	grants     []grant // additive: any of them suffices (RFC 8659, section 4.2)
	forbidden  string  // the quoted tag of a critical property that is not known, if any
}

// policy reads the records. "issuewild properties MUST be ignored" for plain
// names; for wildcards "all issue properties MUST be ignored" if there is one of
// those (RFC 8659, section 4.3).
func (s CAASet) policy(wildcard bool) policy {
	var p policy
	var issue, issuewild []grant
	for _, r := range s.Records {
		// "Matching of tags is case insensitive" (section 4.1).
		switch strings.ToLower(r.Tag) {
		case "issue":
			issue = append(issue, parseGrant(r.Value))
		case "issuewild":
			issuewild = append(issuewild, parseGrant(r.Value))
		case "iodef":
		default:
			if r.Flag&critical != 0 && p.forbidden == "" {
				p.forbidden = strconv.Quote(clip(r.Tag))
			}
		}
	}
	p.grants = issue
	if wildcard && len(issuewild) > 0 {
		p.grants = issuewild
	}
	p.restricted = len(p.grants) > 0
	return p
}

// words lists who may issue, "" if nobody.
func (p policy) words() string {
	var words []string
	more := 0
	for _, g := range p.grants {
		switch w := g.words(); {
		case !g.satisfiable() || slices.Contains(words, w):
		case len(words) == 5:
			more++
		default:
			words = append(words, w)
		}
	}
	if more > 0 {
		words = append(words, fmt.Sprintf("%d others", more))
	}
	return and(words)
}

// flaw tells why a record that names somebody is good for nobody.
func (p policy) flaw() string {
	for _, g := range p.grants {
		if g.flaw != "" {
			return ": " + g.flaw
		}
	}
	return ""
}

func and(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

// A grant is the value of an issue or issuewild property.
type grant struct {
	issuer  string   // if empty, nobody
	account string   // if empty, any
	methods []string // if empty, any
	flaw    string   // if set, nobody can meet the grant, and why
}

func (g grant) satisfiable() bool { return g.issuer != "" && g.flaw == "" }

func (g grant) permits(w Wish) bool {
	return g.satisfiable() && strings.EqualFold(g.issuer, w.Authority) &&
		(g.account == "" || g.account == w.Account) &&
		(len(g.methods) == 0 || slices.Contains(g.methods, w.Method))
}

func (g grant) words() string {
	words := clip(g.issuer)
	if words == "" {
		words = "an authority without a name"
	}
	if g.account != "" {
		words += " with account " + clip(g.account)
	}
	if len(g.methods) > 0 {
		words += " by " + clip(strings.Join(g.methods, " or "))
	}
	return words
}

// parseGrant reads the value of an issue or issuewild property. One that is
// malformed "MUST be treated the same as one specifying an empty issuer" (RFC
// 8659, section 4.2), and one whose accounturi is invalid or there twice is
// unsatisfiable (RFC 8657, section 3). So is one whose validationmethods are,
// since a rule that cannot be read must not be read as none.
//
// Parameters are told by their exact names: RFC 8657 does not say that case is
// ignored, so an authority may pass over AccountURI, and nobody should feel
// safe with it.
func parseGrant(value string) grant {
	issuer, params, err := parseIssueValue(value)
	if err != nil {
		return grant{flaw: fmt.Sprintf(`the value "%s" is malformed, %v`, clip(escape(value)), err)}
	}
	g := grant{issuer: strings.ToLower(issuer)}
	seen := map[string]bool{}
	for _, p := range params {
		if p.tag != "accounturi" && p.tag != "validationmethods" {
			continue
		}
		if seen[p.tag] {
			g.flaw = fmt.Sprintf("one record for %s has two parameters %s", clip(g.issuer), p.tag)
		}
		seen[p.tag] = true
		switch {
		case p.tag == "validationmethods":
			g.methods = strings.Split(p.value, ",")
			if slices.ContainsFunc(g.methods, func(m string) bool { return !isMethod(m) }) {
				g.flaw = fmt.Sprintf("the record for %s has the validationmethods %q, which are malformed", clip(g.issuer), clip(p.value))
			}
		case !isURI(p.value):
			g.flaw = fmt.Sprintf("the record for %s has the accounturi %q, which is no URI", clip(g.issuer), clip(p.value))
		default:
			g.account = p.value
		}
	}
	return g
}

// isMethod is for label = 1*(ALPHA / DIGIT / "-") of RFC 8657, section 4.
func isMethod(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '-' {
			return false
		}
	}
	return s != ""
}

// isURI asks for a scheme (RFC 3986, section 3.1), no more.
func isURI(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || rest == "" || scheme == "" || isDigit(scheme[0]) {
		return false
	}
	for i := range len(scheme) {
		if c := scheme[i]; !isAlphanumeric(c) && (i == 0 || !strings.ContainsRune("+-.", rune(c))) {
			return false
		}
	}
	return true
}

type parameter struct{ tag, value string }

// parseIssueValue parses the value of an issue or issuewild property (RFC 8659,
// section 4.2):
//
//	issue-value = *WSP [issuer-domain-name *WSP]
//	   [";" *WSP [parameters *WSP]]
//	issuer-domain-name = label *("." label)
//	label = (ALPHA / DIGIT) *( *("-") (ALPHA / DIGIT))
//	parameters = (parameter *WSP ";" *WSP parameters) / parameter
//	parameter = tag *WSP "=" *WSP value
//	tag = (ALPHA / DIGIT) *( *("-") (ALPHA / DIGIT))
//	value = *(%x21-3A / %x3C-7E)
func parseIssueValue(s string) (issuer string, params []parameter, err error) {
	issuer, rest, more := strings.Cut(s, ";")
	issuer = trim(issuer)
	if issuer != "" {
		for label := range strings.SplitSeq(issuer, ".") {
			if !isLabel(label) {
				return "", nil, errors.New("where an authority's name should be")
			}
		}
	}
	if !more || trim(rest) == "" {
		return issuer, nil, nil
	}
	// No value holds a semicolon, so each one separates.
	for part := range strings.SplitSeq(rest, ";") {
		tag, value, ok := strings.Cut(part, "=")
		tag, value = trim(tag), trim(value)
		if !ok || !isLabel(tag) || strings.ContainsFunc(value, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
			return "", nil, errors.New("in its parameters")
		}
		params = append(params, parameter{tag, value})
	}
	return issuer, params, nil
}

// trim removes WSP of RFC 5234, appendix B.1.
func trim(s string) string { return strings.Trim(s, " \t") }

func isLabel(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && (s[i] != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
