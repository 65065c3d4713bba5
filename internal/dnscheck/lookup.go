package dnscheck

import (
	"context"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

const (
	maxAliases = 16   // CNAMEs from a name to its records
	maxRecords = 256  // in the answer section
	maxValue   = 4096 // bytes of one TXT or CAA record
)

// none is an ErrNone in words.
type none struct{ words string }

func (e *none) Error() string        { return e.words }
func (e *none) Is(target error) bool { return target == ErrNone }

// found is what a lookup found.
type found struct {
	owner   string   // of records; the name itself or the last of via
	via     []string // the aliases on the way
	records []dns.RR // each of the type asked for; none with an error
}

// lookup asks for the records of type typ at name, a folded name, and follows
// aliases: those in an answer, and by asking on where an answer ends with one
// (RFC 1034, section 5.3.3). If there is none the error is ErrNone, and via is
// as far as the aliases led.
func (r *Resolver) lookup(ctx context.Context, name string, typ uint16) (found, error) {
	c := chain{at: name, seen: map[string]bool{name: true}}
	for {
		answer, server, err := r.ask(ctx, c.at, typ)
		if err != nil {
			return found{via: c.via}, err
		}
		before := len(c.via)
		records, err := c.follow(answer.Answer, typ)
		if err == nil && len(records) > 0 && answer.Rcode == dns.RcodeNameError {
			err = fmt.Errorf("there are records of %s, and yet no such name", c.at)
		}
		if err != nil {
			return found{via: c.via}, fmt.Errorf("what DNS server %v answered for %s of %s cannot be: %w", server, dns.TypeToString[typ], name, err)
		}
		if len(records) > 0 {
			return found{c.at, c.via, records}, nil
		}
		// After aliases the code is about where they lead (RFC 6604, section 3).
		if answer.Rcode == dns.RcodeNameError {
			return found{via: c.via}, &none{fmt.Sprintf("%s does not exist, says DNS server %v (NXDOMAIN)", aliased(name, c.via), server)}
		}
		if len(c.via) == before {
			return found{via: c.via}, &none{fmt.Sprintf("%s has no %s record, says DNS server %v", aliased(name, c.via), dns.TypeToString[typ], server)}
		}
	}
}

// A chain is a way along aliases, which never passes a name twice.
type chain struct {
	at   string
	via  []string
	seen map[string]bool
}

// follow goes along the aliases in an answer section, and returns the records
// of type typ where they end. All other records are nobody's business, and a
// resolver that took them in would believe whatever strangers add to an answer.
func (c *chain) follow(section []dns.RR, typ uint16) ([]dns.RR, error) {
	if len(section) > maxRecords {
		return nil, fmt.Errorf("%d records, more than %d", len(section), maxRecords)
	}
	for {
		var records []dns.RR
		alias := ""
		for _, rr := range section {
			if rr.Header().Class != dns.ClassINET || fold(rr.Header().Name) != c.at {
				continue
			}
			cname, ok := rr.(*dns.CNAME)
			switch {
			case ok && alias != "" && alias != fold(cname.Target):
				return nil, fmt.Errorf("%s is an alias of both %s and %s", c.at, alias, fold(cname.Target))
			case ok:
				alias = fold(cname.Target)
			case rr.Header().Rrtype == typ:
				records = append(records, rr)
			}
		}
		switch {
		case alias == "":
			return records, nil
		case len(records) > 0:
			return nil, fmt.Errorf("%s is an alias and has records of its own", c.at)
		case c.seen[alias]:
			return nil, fmt.Errorf("the aliases lead round in a circle at %s", alias)
		case len(c.via) == maxAliases:
			return nil, fmt.Errorf("more than %d aliases", maxAliases)
		}
		c.at, c.seen[alias] = alias, true
		c.via = append(c.via, alias)
	}
}

// fold returns name, as the library writes it, in the one spelling that is
// compared and shown: lower case (RFC 4343), no trailing dot but for the root.
// Bytes that are not printable ASCII are escaped in it already.
func fold(name string) string {
	if name == "." {
		return name
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

func aliased(name string, via []string) string {
	if len(via) == 0 {
		return name
	}
	return via[len(via)-1] + ", which " + name + " is an alias of,"
}

// unescape undoes how the library writes strings (RFC 1035, section 5.1).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch rest := s[i+1:]; {
		case s[i] != '\\' || rest == "":
			b.WriteByte(s[i])
		case len(rest) >= 3 && isDigit(rest[0]) && isDigit(rest[1]) && isDigit(rest[2]):
			b.WriteByte((rest[0]-'0')*100 + (rest[1]-'0')*10 + rest[2] - '0')
			i += 3
		default:
			b.WriteByte(rest[0])
			i++
		}
	}
	return b.String()
}

// escape writes bytes as inside the quotes of a zone file (RFC 1035, section
// 5.1): printable ASCII, on one line.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// clip keeps what strangers wrote from filling a message to a person.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
