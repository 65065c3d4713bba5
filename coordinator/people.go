package coordinator

import (
	"context"
	"net/netip"
	"time"

	"postern"
)

// User returns the user with id. It fails with ErrNotFound, also for a disabled one.
func (c *Coordinator) User(ctx context.Context, id string) (User, error) { panic("stub") }

// Grants returns what u may open. An operator has only what was granted to them.
func (c *Coordinator) Grants(ctx context.Context, user string) ([]Grant, error) { panic("stub") }

// SetName changes what a user is called.
func (c *Coordinator) SetName(ctx context.Context, actor, user, name string) error { panic("stub") }

// CheckPassword returns the user whom login and password are right for. Attempts
// are limited by login and by source, and cost the same whether or not there is
// such a user. Refusals are Problems: CodeUnauthorized, CodeTooMany.
func (c *Coordinator) CheckPassword(ctx context.Context, login, password string, remote netip.Addr) (User, error) {
	panic("stub")
}

// SetPassword sets a user's password, of 10 to 256 characters. All sessions of the user but
// the one with id keep end.
func (c *Coordinator) SetPassword(ctx context.Context, actor, user, password, keep string) error {
	panic("stub")
}

// Passkeys returns a user's passkeys.
func (c *Coordinator) Passkeys(ctx context.Context, user string) ([]Passkey, error) { panic("stub") }

// Passkey returns a passkey and whose it is.
func (c *Coordinator) Passkey(ctx context.Context, id string) (Passkey, User, error) { panic("stub") }

// PutPasskey adds a passkey, or replaces it after it was used.
func (c *Coordinator) PutPasskey(ctx context.Context, actor string, k Passkey) error { panic("stub") }

// RemovePasskey removes a passkey, but not a user's last way to sign in.
func (c *Coordinator) RemovePasskey(ctx context.Context, actor, user, id string) error {
	panic("stub")
}

// Invitation returns the invitation with that secret, and whom it is for. It
// fails with a Problem once it is used or expired.
func (c *Coordinator) Invitation(ctx context.Context, secret string) (Invitation, User, error) {
	panic("stub")
}

// Accept uses an invitation up: the user gets the name, if not empty, and either the
// password or the passkey.
func (c *Coordinator) Accept(ctx context.Context, secret, name, password string, k *Passkey) (User, error) {
	panic("stub")
}

// A SignIn is somebody who just proved who they are.
type SignIn struct {
	User    string
	Methods []string // RFC 8176
	Device  bool
	Agent   string
	Remote  netip.Addr
}

// Lifetimes of sessions at the portal.
const (
	SessionIdle = 30 * time.Minute
	SessionMax  = 12 * time.Hour
	DeviceMax   = 30 * 24 * time.Hour // of a device's, without idle limit
)

// StartSession starts a session and returns its secret.
func (c *Coordinator) StartSession(ctx context.Context, in SignIn) (string, Session, error) {
	panic("stub")
}

// Session returns the session with that secret, and whose it is; ErrNotFound for one
// that ended. It notes that the session is in use.
func (c *Coordinator) Session(ctx context.Context, secret string) (Session, User, error) {
	panic("stub")
}

// SessionByID is Session by its id, without noting its use.
func (c *Coordinator) SessionByID(ctx context.Context, id string) (Session, User, error) {
	panic("stub")
}

// Sessions returns a user's sessions that go on, the newest first.
func (c *Coordinator) Sessions(ctx context.Context, user string) ([]Session, error) { panic("stub") }

// EndSession ends one of a user's sessions, at the portal and at all nodes.
func (c *Coordinator) EndSession(ctx context.Context, actor, user, id string) error { panic("stub") }

// EndSessions ends all sessions of a user, at the portal and at all nodes.
func (c *Coordinator) EndSessions(ctx context.Context, actor, user string) error { panic("stub") }

// Issuers returns the external issuers, by name.
func (c *Coordinator) Issuers(ctx context.Context) ([]Issuer, error) { panic("stub") }

// An External is somebody whom an external issuer vouches for.
type External struct {
	Issuer  string // name
	Subject string
	Login   string // e-mail address, if it is verified, or preferred user name
	Name    string
	Groups  []string // values of the groups claim
}

// SignInExternal returns the user whom e is, makes them if need be, and brings what
// the issuer grants up to date. It fails with a Problem for who has no role there.
func (c *Coordinator) SignInExternal(ctx context.Context, e External) (User, error) { panic("stub") }

// SetFavourite says whether a user wants to see something first.
func (c *Coordinator) SetFavourite(ctx context.Context, f Favourite, on bool) error { panic("stub") }

// Note records in the audit log what became of an attempt to sign in or to open
// something. Refusals are limited.
func (c *Coordinator) Note(ctx context.Context, actor, action, tenant, target, detail string) {
	panic("stub")
}

// ActorUser is the actor of a user.
func ActorUser(id string) string { return "user:" + id }

var _ postern.Person
