package postern

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

// slowAccessAt is AccessAt for a plain path, word for word: each reading of each
// exception anew.
func slowAccessAt(s Service, urlPath string) []Access {
	var must []Access
	for _, r := range readings {
		for _, a := range r.slowAccessAt(s, urlPath) {
			if !slices.ContainsFunc(must, a.Equal) {
				must = append(must, a)
			}
		}
	}
	return must
}

// slowAccessAt returns the access of those of s' exceptions that cover urlPath with the
// longest path, or of s if none does.
func (r reading) slowAccessAt(s Service, urlPath string) []Access {
	if r.fold {
		urlPath = foldCase(urlPath)
	}
	best, length := []Access{s.Access}, -1
	for _, e := range s.Exceptions {
		at := e.Path
		if r.fold {
			at = foldCase(at)
		}
		n := len(strings.TrimSuffix(at, "/"))
		if n < length || !r.slowCovers(at, urlPath) {
			continue
		}
		if n > length {
			best, length = nil, n
		}
		best = append(best, e.Access)
	}
	return best
}

// slowCovers reports whether urlPath is at, or below at if that ends with a slash.
func (r reading) slowCovers(at, urlPath string) bool {
	dir := strings.HasSuffix(at, "/")
	switch {
	case urlPath == at, dir && strings.HasPrefix(urlPath, at):
		return true
	case r.slash && strings.TrimSuffix(urlPath, "/") == strings.TrimSuffix(at, "/"):
		return true
	}
	return r.below && !dir && strings.HasPrefix(urlPath, at+"/")
}

// foldCase returns the same for all texts that differ in the case of letters alone.
func foldCase(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, s)
}

func TestAccessAtIsSlowOne(t *testing.T) {
	name := rapid.SampledFrom([]string{"a", "A", "b", "ab", "s", "\u017f", "S", "k", "\u212a", "ü", "Ü"})
	path := rapid.Custom(func(t *rapid.T) string {
		p := "/" + strings.Join(rapid.SliceOfN(name, 0, 3).Draw(t, "names"), "/")
		if rapid.Bool().Draw(t, "slash") && p != "/" {
			p += "/"
		}
		return p
	})
	rapid.Check(t, func(t *rapid.T) {
		s := Service{Name: "books"}
		for i := range rapid.IntRange(0, 6).Draw(t, "exceptions") {
			// Each with a group of its own, so that none is taken for another.
			s.Exceptions = append(s.Exceptions, Exception{path.Draw(t, "at"), Access{Who: AccessGroups, Groups: []string{fmt.Sprint("g", i)}}})
		}
		for range 10 {
			p := path.Draw(t, "path")
			got, want := s.AccessAt(p), slowAccessAt(s, p)
			if !slices.EqualFunc(got, want, Access.Equal) {
				t.Fatalf("%q: got %+v, want %+v; the exceptions are %+v", p, got, want, s.Exceptions)
			}
		}
	})
}

func BenchmarkAccessAt(b *testing.B) {
	s := Service{Name: "books"}
	for i := range MaxExceptions {
		s.Exceptions = append(s.Exceptions, Exception{fmt.Sprintf("/reports/year-%d/", i), Access{Who: AccessPublic}})
	}
	b.Run("fast", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.AccessAt("/reports/year-7/q1")
		}
	})
	b.Run("slow", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			slowAccessAt(s, "/reports/year-7/q1")
		}
	})
}
