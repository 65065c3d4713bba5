package coordinator

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"postern"
)

// A Store keeps the registry. View and Update run fn in one transaction, which
// must not outlive fn. Update's is serialized with every other, and on disk when
// Update returns nil; when fn or the commit fails, nothing of it happened.
// Neither runs fn more than once. Both are safe for concurrent use.
type Store interface {
	View(ctx context.Context, fn func(Tx) error) error
	Update(ctx context.Context, fn func(Tx) error) error
}

// Errors of a Store, wrapped.
var (
	ErrNotFound = errors.New("not found")
	ErrFull     = errors.New("the coordinator's disk is full")
)

// A Tx is the registry as one transaction sees it.
type Tx interface {
	// Deployment fails with ErrNotFound in a new registry.
	Deployment() (Deployment, error)
	PutDeployment(Deployment) error

	Tenants() Table[string, Tenant]                  // by name
	Tokens() Owned[postern.TokenID, Token]           // by id
	Members() MemberTable                            // by id
	Removed() Table[postern.IdentityPublic, Removed] // by identity
	Routes() Owned[string, Route]                    // by host
	Holds() Table[string, Hold]                      // by host

	// AppendAudit adds r, whose Seq is one more than the last one's.
	AppendAudit(r AuditRecord) error
	// Audit returns at most limit records with a Seq above after, in order.
	Audit(after uint64, limit int) ([]AuditRecord, error)
	// LastAudit returns the newest record, the zero one if there is none.
	LastAudit() (AuditRecord, error)
}

// A Table is rows by key. Get and Delete fail with ErrNotFound for a key that is
// not there; All is in the keys' order; Put adds a row or replaces it.
type Table[K, V any] interface {
	Get(K) (V, error)
	All() ([]V, error)
	Put(V) error
	Delete(K) error
}

// An Owned table's rows belong to tenants; In returns one tenant's, by key, and
// those that belong to no tenant for "".
type Owned[K, V any] interface {
	Table[K, V]
	In(tenant string) ([]V, error)
}

// A MemberTable is the members. No two have an identity, a WireGuard key, an
// address, or a tenant and a name in common.
type MemberTable interface {
	Owned[string, Member]
	ByIdentity(postern.IdentityPublic) (Member, error)
	ByWireGuard(postern.WireGuardPublic) (Member, error)
}

// A Deployment is the registry's one row about itself.
type Deployment struct {
	ID          string
	Prefix      netip.Prefix // the overlay's /48
	MapVersion  uint64       // newest one told to anybody
	NextTenant  uint32       // number of the next tenant
	NextGateway uint64       // number of the next gateway
	Created     time.Time
}

// A Tenant is a customer company.
type Tenant struct {
	Name     string
	Title    string
	Number   uint32 // its place in the overlay, never another's again
	NextNode uint64 // number of its next node
	Created  time.Time
}

// A Token is all of a token but the secret.
type Token struct {
	ID      postern.TokenID
	Kind    postern.TokenKind
	Public  postern.IdentityPublic
	Role    postern.Role // of a join token
	Tenant  string       // of a join token for nodes
	Uses    int          // left
	Created time.Time
	Expires time.Time
	Revoked time.Time // zero: not
	Note    string
}

// A Member is a node, which belongs to a tenant, or a gateway, which does not.
type Member struct {
	ID        string
	Role      postern.Role
	Tenant    string
	Name      string
	Address   netip.Addr
	Identity  postern.IdentityPublic
	WireGuard postern.WireGuardPublic
	Token     postern.TokenID // that it joined with
	Host      postern.Host
	Services  []postern.Service // nodes: what it publishes, by name
	Endpoint  string            // gateways: UDP, host:port
	Public    string            // gateways: HTTPS, host:port
	Joined    time.Time
	Seen      time.Time // control stream last seen open, as of late; zero: never
}

// A Removed is what is remembered of a member that was removed.
type Removed struct {
	Identity postern.IdentityPublic
	ID       string
	Time     time.Time
}

// A Route is a custom route: a host outside the base domain.
type Route struct {
	Host    string
	Tenant  string
	Service string
	Created time.Time
}

// A Hold keeps a released host name from others until a time.
type Hold struct {
	Host  string
	Owner uint32 // number of the tenant that had it
	Until time.Time
}

// An AuditRecord is an entry and the hash that chains it to all before it.
type AuditRecord struct {
	postern.AuditEntry
	Hash [32]byte
}
