package acme

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/mholt/acmez/v3/acme"
)

// A refusal is an authority's own words: a problem document (RFC 8555, section 6.7).
type refusal struct {
	kind  string // its type
	words string
}

func (r *refusal) Error() string { return r.words }

// Kinds of refusal that we act on.
const (
	accountDoesNotExist = acme.ProblemTypeAccountDoesNotExist
	rateLimited         = acme.ProblemTypeRateLimited
)

func isRefusal(err error, kinds ...string) bool {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return false
	}
	for _, kind := range kinds {
		if r.kind == kind {
			return true
		}
	}
	return len(kinds) == 0
}

// plain returns err without what the client wrapped around an authority's words, or
// around what the network said.
func plain(err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[acme.Problem](err); ok {
		return &refusal{p.Type, problemWords(p)}
	}
	if p, ok := errors.AsType[*acme.Problem](err); ok && p != nil {
		return &refusal{p.Type, problemWords(*p)}
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		if errors.Is(e, context.DeadlineExceeded) {
			return fmt.Errorf("%s %s: no answer in time", e.Op, e.URL)
		}
		return e
	}
	return errors.New(clean(err.Error()))
}

func problemWords(p acme.Problem) string {
	parts := []string{wordsOf(p.Type, p.Detail, p.Title)}
	for _, sub := range p.Subproblems {
		part := wordsOf(sub.Type, sub.Detail, sub.Title)
		if sub.Identifier.Value != "" {
			part += " (" + sub.Identifier.Value + ")"
		}
		parts = append(parts, part)
	}
	return clean(strings.Join(parts, "; "))
}

func wordsOf(kind, detail, title string) string {
	if kind == "" {
		kind = "about:blank" // RFC 9457, section 3.1.1
	}
	if detail == "" {
		detail = title
	}
	if detail == "" {
		return kind
	}
	return kind + ": " + detail
}

// maxWords is how much of a stranger's words is passed on.
const maxWords = 1000

// clean makes a stranger's text fit for logs, terminals and pages: one line, nothing
// that is not shown, not endless.
func clean(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > maxWords {
		s = string(runes[:maxWords]) + "…"
	}
	return s
}

// A pause is an error after which there is no point in asking before until.
type pause struct {
	err   error
	until time.Time
	asked bool // by the authority; otherwise it is our own patience
	idle  bool // no order was made
}

func (p *pause) Error() string { return p.err.Error() }
func (p *pause) Unwrap() error { return p.err }
