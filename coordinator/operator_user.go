package coordinator

import (
	"context"

	"postern"
)

// Operator returns what the user with id operates: the deployment, or the tenants
// that they manage. It is nil if that is nothing.
func (c *Coordinator) Operator(ctx context.Context, user string) (*Operator, error) { panic("stub") }

// Users returns the users with a grant of tenant, or, for "", all whom o may see.
func (o *Operator) Users(ctx context.Context, tenant string) ([]postern.UserState, error) {
	panic("stub")
}

// User returns a user, by id or login.
func (o *Operator) User(ctx context.Context, user string) (postern.UserState, error) { panic("stub") }

// AddUser makes a user. Who operates tenants only adds a user together with a
// grant, see AddMember.
func (o *Operator) AddUser(ctx context.Context, req postern.UserRequest) (postern.UserState, error) {
	panic("stub")
}

// AddMember grants tenant to the user with req's login, who is made if need be.
// Whoever manages the tenant may do it.
func (o *Operator) AddMember(ctx context.Context, tenant string, req postern.UserRequest, grant postern.GrantRequest) (postern.UserState, error) {
	panic("stub")
}
func (o *Operator) RemoveUser(ctx context.Context, user string) error { panic("stub") }
func (o *Operator) InviteUser(ctx context.Context, user string) (postern.Invite, error) {
	panic("stub")
}
func (o *Operator) DisableUser(ctx context.Context, user string) (postern.UserState, error) {
	panic("stub")
}
func (o *Operator) EnableUser(ctx context.Context, user string) (postern.UserState, error) {
	panic("stub")
}
func (o *Operator) Grant(ctx context.Context, user, tenant string, req postern.GrantRequest) (postern.UserState, error) {
	panic("stub")
}
func (o *Operator) Revoke(ctx context.Context, user, tenant string) (postern.UserState, error) {
	panic("stub")
}

func (o *Operator) Issuers(ctx context.Context) ([]postern.IssuerState, error) { panic("stub") }
func (o *Operator) PutIssuer(ctx context.Context, name string, req postern.IssuerRequest) (postern.IssuerState, error) {
	panic("stub")
}
func (o *Operator) RemoveIssuer(ctx context.Context, name string) error { panic("stub") }
