package node

import (
	"context"

	"postern"
)

// A User is who sent a request, as the node verified it.
type User struct {
	ID     string   `json:"id"` // the same for ever
	Login  string   `json:"login"`
	Name   string   `json:"name,omitempty"` // empty: they gave none
	Role   string   `json:"role"`           // in the tenant, one of postern.TenantRoles
	Groups []string `json:"groups,omitempty"`
}

type userKey struct{}

// UserOf returns who sent the request that ctx is of, for the handlers of Serve,
// Service.Handler and Listener.Protect. It reports false if nobody is signed in,
// which only gets that far where the access is public.
func UserOf(ctx context.Context) (User, bool) {
	u, ok := ctx.Value(userKey{}).(User)
	return u, ok
}

func withUser(ctx context.Context, u User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

func userOf(p *postern.Person) User {
	return User{ID: p.ID, Login: p.Login, Name: p.Name, Role: p.Role, Groups: p.Groups}
}
