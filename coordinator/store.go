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
	Claims() ClaimTable                              // by host and tenant
	Holds() Table[string, Hold]                      // by host

	Users() UserTable                                 // by id
	Grants() GrantTable                               // by tenant and user
	Passkeys() PersonalTable[string, Passkey]         // by id
	Invitations() PersonalTable[[32]byte, Invitation] // by hash
	Sessions() SessionTable                           // by hash
	Issuers() Owned[string, Issuer]                   // by name
	Links() LinkTable                                 // by issuer and subject
	Favourites() FavouriteTable                       // by all they are
	Sources() SourceTable                             // by tenant, user and prefix

	// AppendAudit adds r, whose Seq is one more than the last one's.
	AppendAudit(r AuditRecord) error
	// Audit returns the first records that q picks, in its order, at most q.Limit:
	// of the tenants among or, if that is nil, of all and of none.
	Audit(q AuditQuery, among []string) ([]AuditRecord, error)
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

// A ClaimTable is who wants which host outside the base domain. At most one claim on a
// host is proven.
type ClaimTable interface {
	Owned[ClaimKey, Claim]
	At(host string) ([]Claim, error)   // by tenant
	Proven(host string) (Claim, error) // the one that is
	Unproven() ([]Claim, error)        // the oldest first
}

// A PersonalTable's rows belong to users.
type PersonalTable[K, V any] interface {
	Table[K, V]
	Of(user string) ([]V, error) // one user's, by key
}

// A UserTable is the people. No two have a login in common.
type UserTable interface {
	Table[string, User]
	ByLogin(login string) (User, error)
	Granted(tenant string) ([]User, error) // who have a grant of it, by id
	// Credentials returns by what the users with these ids sign in, by id.
	Credentials(ids ...string) (map[string]Credentials, error)
}

// A GrantTable says who may open which tenant.
type GrantTable interface {
	Owned[GrantKey, Grant]
	Of(users ...string) ([]Grant, error) // by tenant, then user
}

// A LinkTable says who the people at external issuers are.
type LinkTable interface {
	PersonalTable[LinkKey, Link]
	From(issuer string) ([]Link, error) // by subject
}

// A FavouriteTable is what users want to see first.
type FavouriteTable interface {
	Owned[Favourite, Favourite]
	Of(user string) ([]Favourite, error)
}

// A SessionTable is who is signed in at the portal.
type SessionTable interface {
	PersonalTable[[32]byte, Session]
	ByID(id string) (Session, error)
	// Expired returns at most limit sessions whose Expires is before t, the oldest first.
	Expired(t time.Time, limit int) ([]Session, error)
	// Ended returns the sessions that were ended after t, of users with a grant of
	// tenant, by id.
	Ended(tenant string, t time.Time) ([]Session, error)
}

// A SourceTable says where people were who came to tenants in mode admission. Its
// rows outlive what they refer to.
type SourceTable interface {
	Owned[SourceKey, Source]
	Of(user string) ([]Source, error) // by tenant and prefix
	// Unseen returns at most limit sources whose Seen is before t, the oldest first.
	Unseen(t time.Time, limit int) ([]Source, error)
}

// A Deployment is the registry's one row about itself.
type Deployment struct {
	ID          string
	Prefix      netip.Prefix // the overlay's /48
	MapVersion  uint64       // newest one told to anybody
	NextTenant  uint32       // number of the next tenant
	NextGateway uint64       // number of the next gateway
	Fit         []string     // ids of the gateways that were fit for DNS last
	Created     time.Time
}

// A Tenant is a customer company.
type Tenant struct {
	Name      string
	Title     string
	Number    uint32 // its place in the overlay, never another's again
	NextNode  uint64 // number of its next node
	Created   time.Time
	Admission postern.AdmissionRequest // an empty Mode is open
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
	Weight    int               // nodes: as postern.Node has it; zero: postern.DefaultWeight
	Endpoint  string            // gateways: UDP, host:port
	Public    string            // gateways: HTTPS, host:port
	Draining  bool              // by an operator
	Joined    time.Time
	Seen      time.Time // control stream last seen open, as of late; zero: never
}

// A Removed is what is remembered of a member that was removed.
type Removed struct {
	Identity postern.IdentityPublic
	ID       string
	Time     time.Time
}

// A ClaimKey names a claim.
type ClaimKey struct{ Host, Tenant string }

// A Claim is a tenant's on a host outside the base domain. Once it is proven, it is a
// custom route; before that, nothing is served there.
type Claim struct {
	ClaimKey
	Service string
	Secret  string // that DNS has to show; empty: it was proven without
	Created time.Time
	Proven  time.Time // zero: not
	Checked time.Time // when DNS was asked last; zero: never
	Finding string    // why it was not proven then, for people
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

// A User is somebody who may sign in at the portal. Without a grant, and not an
// operator, they see an empty catalogue.
type User struct {
	ID        string // "u" and 16 of a to z and 2 to 7, for ever
	Login     string // lower case; an e-mail address or a name without spaces
	Name      string // for people
	Password  string // argon2id in PHC form; empty: there is none
	Operator  bool   // operates the whole deployment
	Created   time.Time
	SignedIn  time.Time // last; zero: never
	Disabled  time.Time // zero: not
	NotBefore time.Time // sign-ins before it count no longer; whole seconds
}

// Credentials are by what a user signs in, besides a password.
type Credentials struct {
	Passkeys int
	Links    int       // at external issuers
	Invited  time.Time // when the last invitation expires; zero: there is none
}

// A GrantKey names a grant.
type GrantKey struct{ Tenant, User string }

// A Grant lets a user open a tenant.
type Grant struct {
	GrantKey
	Role     string   // one of postern.TenantRoles
	Groups   []string // labels, sorted
	Services []string // names, sorted; nil: all that members may open
	Issuer   string   // that gave it and may take it back; empty: a person did
	Created  time.Time
}

// A Passkey is a WebAuthn credential of a user.
type Passkey struct {
	ID         string // credential id in base64url without padding
	User       string
	Name       string // for people
	Credential []byte // JSON, as the portal keeps it
	Created    time.Time
	Used       time.Time // last; zero: never
}

// An Invitation lets whoever has its secret set a user's first password or
// passkey, once.
type Invitation struct {
	Hash    [32]byte // SHA-256 of the secret
	User    string
	By      string // actor
	Created time.Time
	Expires time.Time
}

// A Session is somebody who is signed in: a browser at the portal or, with Device,
// a program that was let in there.
type Session struct {
	Hash    [32]byte // SHA-256 of the secret
	ID      string   // the sid of ID tokens; no secret
	User    string
	Device  bool
	Methods []string  // RFC 8176: pwd, hwk, fed
	Agent   string    // User-Agent, or the device's name
	Remote  string    // address that it came from
	Signed  time.Time // auth_time; whole seconds
	Seen    time.Time
	Expires time.Time
	Ended   time.Time // zero: it goes on; kept until nodes have no use for knowing
}

// An Issuer is an external OpenID issuer that people may sign in with.
type Issuer struct {
	Name         string // label
	Title        string // on the button
	URL          string
	ClientID     string
	ClientSecret []byte                        // sealed, see Authority.Seal
	Tenant       string                        // whose people it signs in
	GroupsClaim  string                        // of the ID token; empty: groups
	Roles        map[string]postern.IssuerRole // by value of the claim; "*": everybody
	Created      time.Time
}

// A LinkKey names a person at an external issuer.
type LinkKey struct{ Issuer, Subject string }

// A Link says which user a person at an external issuer is.
type Link struct {
	LinkKey
	User    string
	Created time.Time
}

// A SourceKey names a source.
type SourceKey struct {
	Tenant, User string
	Prefix       netip.Prefix // an IPv4 /32 or an IPv6 /64
}

// A Source is where a user was who came to a tenant in mode admission.
type Source struct {
	SourceKey
	Seen time.Time // there at the portal, last
}

// A Favourite is what a user wants to see first.
type Favourite struct{ User, Tenant, Service, Entry string }
