package postern

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Values of an Access' Who.
const (
	AccessPublic  = "public"  // anybody, without signing in
	AccessMembers = "members" // whoever was granted the tenant, or the service
	AccessGroups  = "groups"  // of those, whoever is in one of the groups
)

// An Access says who may open a service, or a part of it.
type Access struct {
	Who    string   `json:"access,omitempty"` // AccessXxx; empty: members
	Groups []string `json:"groups,omitempty"` // labels; iff Who is groups
}

// An Exception is a part of a service that others may open than the rest. What it
// opens it opens at its very path; what it closes it closes also to who spells that
// path another way. See Service.AccessAt.
type Exception struct {
	Path string `json:"path"` // /PATH; with a / at its end, all below it
	Access
}

// Ways to prove who one is that are out of the coordinator's reach.
const (
	RequireIssuer  = "issuer"  // the OpenID issuer that is pinned in the node's configuration
	RequirePasskey = "passkey" // a passkey that was registered at the node, besides the portal
)

// Limits of an access policy.
const (
	MaxGroups     = 64 // of an Access
	MaxExceptions = 64 // of a service
)

// Roles of a person in a tenant. Owners and admins may open all of it, and
// manage its people; only an owner makes another.
const (
	TenantOwner  = "owner"
	TenantAdmin  = "admin"
	TenantMember = "member"
)

// TenantRoles are all roles, the most powerful first.
var TenantRoles = []string{TenantOwner, TenantAdmin, TenantMember}

// Manages reports whether role lets its owner manage the tenant's people.
func Manages(role string) bool { return role == TenantOwner || role == TenantAdmin }

// Public reports whether a asks nobody who they are.
func (a Access) Public() bool { return a.Who == AccessPublic }

// Allows reports whether p may open what a is about, a part of the service of
// that name. A nil p is somebody who did not sign in.
func (a Access) Allows(p *Person, service string) bool {
	switch {
	case a.Public():
		return true
	case p == nil:
		return false
	case Manages(p.Role):
		return true
	case p.Role != TenantMember || p.Services != nil && !slices.Contains(p.Services, service):
		return false
	case a.Who == AccessGroups:
		return slices.ContainsFunc(p.Groups, func(g string) bool { return slices.Contains(a.Groups, g) })
	}
	return a.members()
}

func (a Access) members() bool { return a.Who == AccessMembers || a.Who == "" }

// AccessAt returns what has to allow a request for urlPath, which is decoded: all of
// what is returned. For most paths that is one Access, of the exception with the
// longest path that covers urlPath, or of the service if none does.
//
// Applications read paths in different ways; see reading. What each of these ways asks
// for has to allow the request, so that none lets somebody in whom another keeps out.
// For a path that can be read in still more ways, all that the service has must.
func (s Service) AccessAt(urlPath string) []Access {
	if !plainPath(urlPath) {
		all := []Access{s.Access}
		for _, e := range s.Exceptions {
			all = append(all, e.Access)
		}
		return all
	}
	parts := s.partsAt(urlPath)
	if len(parts) == 0 {
		return []Access{s.Access}
	}
	var must []Access
	for _, r := range readings {
		for _, a := range r.accessAt(s, parts) {
			if !slices.ContainsFunc(must, a.Equal) {
				must = append(must, a)
			}
		}
	}
	return must
}

// A part is an exception that covers a path in some reading of both.
type part struct {
	Access
	length int    // in runes, of the exception's path without a slash at its end
	dir    bool   // whether it has one
	exact  bool   // whether the path begins so in that case of letters, too
	rest   string // of the path, behind that length: empty, or from a slash on
}

// partsAt returns the parts of s for a path that is plain.
func (s Service) partsAt(urlPath string) []part {
	var parts []part
	for _, e := range s.Exceptions {
		at, dir := strings.CutSuffix(e.Path, "/")
		rest, ok := cutFolded(urlPath, at)
		if ok && (rest == "" || rest[0] == '/') {
			parts = append(parts, part{e.Access, utf8.RuneCountInString(at), dir, strings.HasPrefix(urlPath, at), rest})
		}
	}
	return parts
}

// A reading is how an application may understand a path.
type reading struct {
	fold  bool // letters of either case are one
	slash bool // /a/ and /a are one
	below bool // what is at /a is also at /a/b
}

var readings = []reading{
	{}, {fold: true}, {slash: true}, {fold: true, slash: true},
	{below: true}, {fold: true, below: true}, {slash: true, below: true}, {fold: true, slash: true, below: true},
}

// accessAt returns the access of those of parts that cover the path with the longest
// one, or of s if none does.
func (r reading) accessAt(s Service, parts []part) []Access {
	best, length := []Access{s.Access}, -1
	for _, p := range parts {
		if p.length < length || !r.covers(p) {
			continue
		}
		if p.length > length {
			best, length = nil, p.length
		}
		best = append(best, p.Access)
	}
	return best
}

// covers reports whether the path is at p, or below p if that ends with a slash.
func (r reading) covers(p part) bool {
	switch {
	case !p.exact && !r.fold:
		return false
	case p.rest == "":
		return !p.dir || r.slash
	case p.rest == "/":
		return p.dir || r.slash || r.below
	}
	return p.dir || r.below
}

// cutFolded is strings.CutPrefix for texts that may differ in the case of letters.
func cutFolded(s, prefix string) (rest string, ok bool) {
	for prefix != "" {
		a, n := utf8.DecodeRuneInString(s)
		b, m := utf8.DecodeRuneInString(prefix)
		if n == 0 || a != b && foldRune(a) != foldRune(b) {
			return "", false
		}
		s, prefix = s[n:], prefix[m:]
	}
	return s, true
}

// foldRune returns the same for all runes that differ in case alone.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	return least
}

// plainPath reports whether applications see in p nothing but names between slashes,
// the same names all of them: no . or .. segments, no empty ones, nothing that some
// take for a slash, for parameters or for a dot (RFC 3986, section 3.3), or leave out,
// as Windows does with dots and spaces at the end of a name.
func plainPath(p string) bool {
	if p == "" || p[0] != '/' || !utf8.ValidString(p) || strings.ContainsFunc(p, ambiguous) {
		return false
	}
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") || strings.HasPrefix(name, " ") ||
			strings.Contains(name, "::") || shortName(name) {
			return false
		}
	}
	return path.Clean(p) == p || path.Clean(p)+"/" == p
}

// ambiguous reports whether r is more than a character of a name to some: itself, or
// once it was normalized (Unicode Standard Annex #15).
func ambiguous(r rune) bool {
	switch {
	case strings.ContainsRune(`\;%?#`, r), unicode.IsControl(r), r != ' ' && unicode.IsSpace(r):
		return true
	case unicode.In(r, unicode.Mn, unicode.Cf), r >= 0x1100 && r <= 0x11ff: // becomes one with its neighbours
		return true
	case r >= 0x2000 && r <= 0x206f, r == 0x037e, r == 0x2215, r == 0x2216, r == 0x29f5, r == 0x29f8: // punctuation, slashes
		return true
	}
	return r >= 0xfb00 && r <= 0xffff // other forms of other characters
}

// shortName reports whether name may be the second one, such as SECRET~1, that Windows
// gives to what has a longer one.
func shortName(name string) bool {
	tilde := strings.LastIndexByte(name, '~')
	return tilde >= 0 && tilde+1 < len(name) && name[tilde+1] >= '0' && name[tilde+1] <= '9'
}

// check reports what is wrong with a; within stands before its fields' paths.
func (a Access) check(within string) error {
	switch a.Who {
	case "", AccessPublic, AccessMembers:
		if len(a.Groups) > 0 {
			return fieldError(within+"groups", "groups are for access: %s", AccessGroups)
		}
		return nil
	case AccessGroups:
	default:
		return fieldError(within+"access", "there is no access %q; choose one of %s, %s and %s", a.Who, AccessPublic, AccessMembers, AccessGroups)
	}
	if n := len(a.Groups); n == 0 || n > MaxGroups {
		return fieldError(within+"groups", "want 1 to %d groups, not %d", MaxGroups, n)
	}
	seen := unique{}
	for i, g := range a.Groups {
		at := fmt.Sprintf("%sgroups[%d]", within, i)
		if err := CheckLabel("group", g); err != nil {
			return &FieldError{Field: at, Err: err}
		}
		if err := seen.add("group", g); err != nil {
			return &FieldError{Field: at, Err: err}
		}
	}
	return nil
}

func (e Exception) check(within string) error {
	if err := CheckPath(e.Path); err != nil {
		return &FieldError{Field: within + "path", Err: err}
	}
	if !plainPath(e.Path) {
		return fieldError(within+"path", "path %q of an exception has more than names between slashes", e.Path)
	}
	return e.Access.check(within)
}

// Equal reports whether a and b let the same people in.
func (a Access) Equal(b Access) bool {
	return (a.Who == b.Who || a.members() && b.members()) && slices.Equal(a.Groups, b.Groups)
}

// A Person is somebody who was granted a tenant, as its nodes need to know them.
type Person struct {
	ID        string   `json:"id"`    // the subject of ID tokens
	Login     string   `json:"login"` // what they sign in with
	Name      string   `json:"name,omitempty"`
	Role      string   `json:"role"`                 // one of TenantRoles; one that is not known opens what is public
	Groups    []string `json:"groups,omitempty"`     // labels
	Services  []string `json:"services,omitzero"`    // names; nil: all that members may open
	NotBefore int64    `json:"not_before,omitempty"` // Unix seconds: sign-ins before it count no longer
}

// Equal reports whether nodes are to treat p and q alike.
func (p Person) Equal(q Person) bool {
	return p.ID == q.ID && p.Login == q.Login && p.Name == q.Name && p.Role == q.Role && p.NotBefore == q.NotBefore &&
		slices.Equal(p.Groups, q.Groups) && slices.Equal(p.Services, q.Services) && (p.Services == nil) == (q.Services == nil)
}
