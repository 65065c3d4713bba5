package postern

import (
	"fmt"
	"path"
	"slices"
	"strings"
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

// An Exception is a part of a service that others may open than the rest.
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
	return a.Who == AccessMembers || a.Who == ""
}

// AccessAt returns what has to allow a request for urlPath, which is decoded: all
// of what is returned. That is one Access, of the exception with the longest
// matching path, or of the service; or, for a path that applications may read in
// more ways than one, all that the service has.
//
// Letters of either case are one where that keeps people out, and two where it
// would let them in.
func (s Service) AccessAt(urlPath string) []Access {
	if !plainPath(urlPath) {
		all := []Access{s.Access}
		for _, e := range s.Exceptions {
			all = append(all, e.Access)
		}
		return all
	}
	best := Exception{Access: s.Access}
	for _, e := range s.Exceptions {
		if len(e.Path) > len(best.Path) && e.covers(urlPath) {
			best = e
		}
	}
	return []Access{best.Access}
}

func (e Exception) covers(urlPath string) bool {
	at := e.Path
	if !e.Public() {
		at, urlPath = strings.ToLower(at), strings.ToLower(urlPath)
	}
	if strings.HasSuffix(at, "/") {
		return strings.HasPrefix(urlPath, at)
	}
	return urlPath == at || !e.Public() && strings.HasPrefix(urlPath, at+"/")
}

// plainPath reports whether all applications see the same in p: no . or ..
// segments, no empty ones, nothing that some take for a / or for parameters.
func plainPath(p string) bool {
	if p == "" || p[0] != '/' || strings.ContainsAny(p, "\\;%\x00") {
		return false
	}
	return path.Clean(p) == p || path.Clean(p)+"/" == p
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
	if !plainPath(e.Path) || strings.ContainsAny(e.Path, "?#") {
		return fieldError(within+"path", "path %q of an exception has more than names between slashes", e.Path)
	}
	return e.Access.check(within)
}

// Equal reports whether a and b let the same people in.
func (a Access) Equal(b Access) bool { return a.Who == b.Who && slices.Equal(a.Groups, b.Groups) }

// A Person is somebody who was granted a tenant, as its nodes need to know them.
type Person struct {
	ID        string   `json:"id"`    // the subject of ID tokens
	Login     string   `json:"login"` // what they sign in with
	Name      string   `json:"name,omitempty"`
	Role      string   `json:"role"`                 // one of TenantRoles
	Groups    []string `json:"groups,omitempty"`     // labels
	Services  []string `json:"services,omitempty"`   // names; nil: all that members may open
	NotBefore int64    `json:"not_before,omitempty"` // Unix seconds: sign-ins before it count no longer
}

// Equal reports whether nodes are to treat p and q alike.
func (p Person) Equal(q Person) bool {
	return p.ID == q.ID && p.Login == q.Login && p.Name == q.Name && p.Role == q.Role && p.NotBefore == q.NotBefore &&
		slices.Equal(p.Groups, q.Groups) && slices.Equal(p.Services, q.Services) && (p.Services == nil) == (q.Services == nil)
}
