package coordinator

import (
	"context"

	"postern"
)

// An Operator is somebody who operates the deployment, or some tenants of it: all
// that the admin API can do, as methods. What lies outside its tenants does not
// exist for it: its refusals are CodeNotFound then. Errors that are Problems are for
// the operator to read.
type Operator struct {
	c       *Coordinator
	actor   string
	all     bool            // the whole deployment; else
	tenants map[string]bool // these, by name
}

// Operator returns what the user with id operates: the deployment, or the tenants
// that they manage. It is nil if that is nothing.
func (c *Coordinator) Operator(ctx context.Context, user string) (*Operator, error) { panic("stub") }

// Local returns the operator of the whole deployment who sits at its machine.
func (c *Coordinator) Local() *Operator { return &Operator{c: c, actor: actorLocal, all: true} }

// All reports whether o operates the whole deployment.
func (o *Operator) All() bool { return o.all }

// Status is GET /status; the others are named after their operations, too.
func (o *Operator) Status(ctx context.Context) (postern.Overview, error) { panic("stub") }

func (o *Operator) Tenants(ctx context.Context) ([]postern.Tenant, error) { panic("stub") }
func (o *Operator) AddTenant(ctx context.Context, req postern.TenantRequest) (postern.Tenant, error) {
	panic("stub")
}
func (o *Operator) RemoveTenant(ctx context.Context, tenant string) error { panic("stub") }
func (o *Operator) SetAdmission(ctx context.Context, tenant string, req postern.AdmissionRequest) (postern.AdmissionState, error) {
	panic("stub")
}
func (o *Operator) Admission(ctx context.Context, tenant string) (postern.AdmissionState, error) {
	panic("stub")
}

func (o *Operator) Tokens(ctx context.Context, tenant string) ([]postern.IssuedToken, error) {
	panic("stub")
}
func (o *Operator) CreateToken(ctx context.Context, req postern.TokenRequest) (postern.CreatedToken, error) {
	panic("stub")
}
func (o *Operator) RevokeToken(ctx context.Context, id postern.TokenID) error { panic("stub") }

func (o *Operator) Nodes(ctx context.Context, tenant string) ([]postern.NodeState, error) {
	panic("stub")
}
func (o *Operator) Node(ctx context.Context, id string) (postern.NodeState, error) { panic("stub") }
func (o *Operator) RemoveNode(ctx context.Context, id string) error                { panic("stub") }

func (o *Operator) Gateways(ctx context.Context) ([]postern.GatewayState, error) { panic("stub") }
func (o *Operator) RemoveGateway(ctx context.Context, id string) error           { panic("stub") }

func (o *Operator) Routes(ctx context.Context, tenant string) ([]postern.RouteState, error) {
	panic("stub")
}
func (o *Operator) AddRoute(ctx context.Context, req postern.RouteRequest) (postern.RouteState, error) {
	panic("stub")
}
func (o *Operator) RemoveRoute(ctx context.Context, host string) error { panic("stub") }
func (o *Operator) MatchRoute(ctx context.Context, host string) (postern.RouteState, error) {
	panic("stub")
}

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

// An AuditQuery picks entries of the audit log.
type AuditQuery struct {
	After  uint64 // only entries with a greater Seq
	Before uint64 // only entries with a smaller Seq; zero: all. With Newest, pages back
	Newest bool   // the newest first
	Tenant string // only this tenant's
	Actor  string // only this actor's
	Action string // only those whose action begins so
	Limit  int    // 1 to 1000
}

// Audit returns entries that o may see.
func (o *Operator) Audit(ctx context.Context, q AuditQuery) ([]postern.AuditEntry, error) {
	panic("stub")
}
