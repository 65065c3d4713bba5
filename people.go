package postern

import (
	"net/netip"
	"time"
)

// What the admin API says of people:
//
//	GET    /admin/v1/users?tenant=                    []UserState
//	POST   /admin/v1/users                            UserRequest -> UserState
//	GET    /admin/v1/users/{user}                     UserState, by id or login
//	DELETE /admin/v1/users/{user}
//	POST   /admin/v1/users/{user}/invite              Invite; earlier ones are void
//	POST   /admin/v1/users/{user}/disable             UserState; signs out everywhere
//	POST   /admin/v1/users/{user}/enable              UserState
//	PUT    /admin/v1/users/{user}/grants/{tenant}     GrantRequest -> UserState
//	DELETE /admin/v1/users/{user}/grants/{tenant}     UserState
//	GET    /admin/v1/issuers                          []IssuerState
//	PUT    /admin/v1/issuers/{issuer}                 IssuerRequest -> IssuerState
//	DELETE /admin/v1/issuers/{issuer}
//
// Who operates only some tenants sees the users who were granted one of them, and
// of their grants those alone.

// States of a user.
const (
	UserActive   = "active"
	UserInvited  = "invited"  // has no password, passkey or external issuer yet
	UserDisabled = "disabled" // cannot sign in
)

// A UserState is a person as operators see them.
type UserState struct {
	ID       string      `json:"id"`
	Login    string      `json:"login"`
	Name     string      `json:"name,omitempty"`
	State    string      `json:"state" enum:"active,invited,disabled"`
	Operator bool        `json:"operator,omitempty" doc:"of the whole deployment"`
	Grants   []UserGrant `json:"grants"`
	Password bool        `json:"password" doc:"whether there is one"`
	Passkeys int         `json:"passkeys"`
	Created  time.Time   `json:"created"`
	SignedIn time.Time   `json:"signed_in,omitzero" doc:"last"`
	Invited  time.Time   `json:"invited,omitzero" doc:"until when the open invitation is good"`
}

// A UserGrant lets a person open a tenant.
type UserGrant struct {
	Tenant   string   `json:"tenant"`
	Role     string   `json:"role" enum:"owner,admin,member"`
	Groups   []string `json:"groups,omitempty"`
	Services []string `json:"services,omitempty" doc:"empty: all that members may open"`
	Issuer   string   `json:"issuer,omitempty" doc:"external issuer that gave it"`
}

// A UserRequest makes a user.
type UserRequest struct {
	Login    string `json:"login" doc:"e-mail address, or a name without spaces"`
	Name     string `json:"name,omitempty" doc:"for people"`
	Operator bool   `json:"operator,omitempty" doc:"of the whole deployment"`
}

// A GrantRequest grants a tenant, in place of what was granted of it before.
type GrantRequest struct {
	Role     string   `json:"role,omitempty" doc:"owner, admin or member; empty: member"`
	Groups   []string `json:"groups,omitempty" doc:"DNS labels"`
	Services []string `json:"services,omitempty" doc:"empty: all that members may open"`
}

// An Invite is the one answer that has an invitation's link.
type Invite struct {
	User    UserState `json:"user"`
	URL     string    `json:"url" doc:"to be opened once, in a browser"`
	Expires time.Time `json:"expires"`
}

// An IssuerState is an external OpenID issuer as operators see it: not the secret.
type IssuerState struct {
	Name        string                `json:"name"`
	Title       string                `json:"title"`
	URL         string                `json:"url"`
	ClientID    string                `json:"client_id"`
	Tenant      string                `json:"tenant"`
	GroupsClaim string                `json:"groups_claim"`
	Roles       map[string]IssuerRole `json:"roles"`
	Callback    string                `json:"callback" doc:"redirect URI to register there"`
	Created     time.Time             `json:"created"`
}

// An IssuerRequest makes an external issuer, or changes it.
type IssuerRequest struct {
	Title        string                `json:"title,omitempty" doc:"for people; empty: the name"`
	URL          string                `json:"url" doc:"https, as its discovery document says"`
	ClientID     string                `json:"client_id"`
	ClientSecret string                `json:"client_secret,omitempty" doc:"empty: the one held, or none"`
	Tenant       string                `json:"tenant" doc:"whose people it signs in"`
	GroupsClaim  string                `json:"groups_claim,omitempty" doc:"of its ID tokens; empty: groups"`
	Roles        map[string]IssuerRole `json:"roles" doc:"by value of the claim; * is everybody"`
}

// An IssuerRole is what a group at an external issuer is worth in the tenant.
type IssuerRole struct {
	Role   string   `json:"role,omitempty" doc:"owner, admin or member; empty: member"`
	Groups []string `json:"groups,omitempty" doc:"DNS labels"`
}

// An AdmissionRequest says from where a tenant can be reached.
type AdmissionRequest struct {
	Mode    string         `json:"mode" enum:"open,admission,allow-list"`
	Allowed []netip.Prefix `json:"allowed,omitempty" doc:"always let through"`
}

// An AdmissionState is from where a tenant can be reached.
type AdmissionState struct {
	AdmissionRequest
	Sources []Source `json:"sources,omitempty" doc:"mode admission: signed in at the portal lately"`
}
