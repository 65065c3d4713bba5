package postern

import (
	"net/netip"
	"time"
)

// The admin API, version 1, between operators and the coordinator: JSON over
// HTTP, on a unix socket in the data directory (whoever may open it may use it)
// and on the control port under a bearer token of kind AdminToken. Its OpenAPI
// document is at /admin/v1/openapi.json; docs/protocol.md tells the rest,
// people.go what there is about people.
//
//	GET    /admin/v1/status                     Overview
//	GET    /admin/v1/tenants                    []Tenant
//	POST   /admin/v1/tenants                    TenantRequest -> Tenant
//	DELETE /admin/v1/tenants/{tenant}           with all that belongs to it
//	GET    /admin/v1/tenants/{tenant}/admission AdmissionState
//	PUT    /admin/v1/tenants/{tenant}/admission AdmissionRequest -> AdmissionState
//	GET    /admin/v1/tokens?tenant=             []IssuedToken
//	POST   /admin/v1/tokens                     TokenRequest -> CreatedToken
//	DELETE /admin/v1/tokens/{token}             revokes
//	GET    /admin/v1/nodes?tenant=              []NodeState
//	GET    /admin/v1/nodes/{node}               NodeState, by id or tenant/name
//	PATCH  /admin/v1/nodes/{node}               NodeChange -> NodeState, by id
//	DELETE /admin/v1/nodes/{node}               by id
//	GET    /admin/v1/gateways                   []GatewayState
//	PATCH  /admin/v1/gateways/{gateway}         GatewayChange -> GatewayState, by id
//	DELETE /admin/v1/gateways/{gateway}         by id
//	GET    /admin/v1/dns                        DNSState
//	GET    /admin/v1/routes?tenant=             []RouteState
//	POST   /admin/v1/routes                     RouteRequest -> RouteState
//	DELETE /admin/v1/routes/{host}?tenant=
//	GET    /admin/v1/routes/{host}/match        RouteState, as a gateway would see it
//	POST   /admin/v1/routes/{host}/check?tenant= RouteCheck, asks DNS now
//	GET    /admin/v1/audit?after=&limit=        []AuditEntry, oldest first; see its other filters there
const (
	PathAdmin = "/admin/v1"

	// AdminSocket is the admin API's unix socket in the coordinator's data directory.
	AdminSocket = "admin.sock"
)

// An Overview is the deployment at a glance.
type Overview struct {
	Deployment string   `json:"deployment"`
	Version    string   `json:"version" doc:"of the coordinator's program"`
	Base       string   `json:"base" doc:"base domain of the tenants' names"`
	Port       uint16   `json:"port" doc:"public HTTPS port"`
	Root       RootHash `json:"root" doc:"hash of the root key, as in tokens"`
	RootKey    bool     `json:"root_key" doc:"whether the root's private half is on this machine"`
	MapVersion uint64   `json:"map_version"`
	Tenants    int      `json:"tenants"`
	Nodes      int      `json:"nodes"`
	NodesReady int      `json:"nodes_ready"`
	Gateways   int      `json:"gateways"`
	Routes     int      `json:"routes"`

	// Of the portal, which all tenants' people have in common.
	Portal HostStatus `json:"portal" doc:"the portal's certificate; with state waiting, browsers are shown the private CA's meanwhile"`

	Started time.Time `json:"started"`
}

// A Tenant is a customer company.
type Tenant struct {
	Name    string       `json:"name"`
	Title   string       `json:"title"`
	Prefix  netip.Prefix `json:"prefix" doc:"its block of the overlay"`
	Nodes   int          `json:"nodes"`
	Created time.Time    `json:"created"`
}

// A TenantRequest makes a tenant.
type TenantRequest struct {
	Name  string `json:"name" doc:"DNS label"`
	Title string `json:"title,omitempty" doc:"for people; empty: the name"`
}

// A TokenRequest issues a token. A join token enrols nodes of Tenant, or, with
// Role gateway, a gateway.
type TokenRequest struct {
	Kind   TokenKind `json:"kind,omitempty" doc:"empty: pstjoin1"`
	Role   Role      `json:"role,omitempty" doc:"of a join token: node or gateway; empty: node"`
	Tenant string    `json:"tenant,omitempty" doc:"of a join token for nodes"`
	Uses   int       `json:"uses,omitempty" doc:"how many members a join token enrols; zero: 1"`
	TTL    Duration  `json:"ttl,omitzero" doc:"how long it is good; zero: 24h; at most 720h"`
	Note   string    `json:"note,omitempty" doc:"for people"`
}

// An IssuedToken is a token as the coordinator remembers it: not the secret.
type IssuedToken struct {
	ID      TokenID   `json:"id"`
	Kind    TokenKind `json:"kind"`
	Role    Role      `json:"role,omitempty" doc:"of a join token"`
	Tenant  string    `json:"tenant,omitempty"`
	Uses    int       `json:"uses" doc:"left"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Revoked time.Time `json:"revoked,omitzero"`
	Note    string    `json:"note,omitempty"`
	State   string    `json:"state" enum:"usable,used,expired,revoked"`
}

// A CreatedToken is the one answer that has the secret.
type CreatedToken struct {
	IssuedToken
	Secret string `json:"secret" doc:"the token's text; shown once"`
}

// States of a member: of a node, from its control stream, from gateways' probes of it and
// from its tunnels' handshakes, all together; of a gateway, from its control stream.
const (
	StateReady    = "ready"    // all is well
	StateDegraded = "degraded" // nodes: something is not; NodeState.Reason says what
	StateOffline  = "offline"  // nothing is heard of it
	StateDraining = "draining" // gateways: open connections go on, and new ones are to go elsewhere
)

// A NodeState is a node as operators see it.
type NodeState struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Tenant    string          `json:"tenant"`
	Address   netip.Addr      `json:"address"`
	State     string          `json:"state" enum:"ready,degraded,offline"`
	Reached   bool            `json:"reached" doc:"whether browsers get through to it, which they may do while it is degraded"`
	Reason    string          `json:"reason,omitempty" doc:"why it is not ready, for a person"`
	Connected bool            `json:"connected" doc:"whether its control stream is open"`
	Weight    int             `json:"weight" doc:"its share of new connections beside a service's other nodes; 1 to 1000"`
	Draining  bool            `json:"draining" doc:"whether it gets no new connections while another node has the service"`
	Host      Host            `json:"host"`
	Services  []Service       `json:"services"`
	Tunnels   []Tunnel        `json:"tunnels" doc:"one a gateway that reported it"`
	Control   time.Time       `json:"control,omitzero" doc:"control stream last seen open"`
	Identity  IdentityPublic  `json:"identity"`
	WireGuard WireGuardPublic `json:"wireguard"`
	Joined    time.Time       `json:"joined"`
}

// A NodeChange changes how connections come to a node. What is absent stays as it is.
type NodeChange struct {
	Weight   *int  `json:"weight,omitempty" minimum:"1" maximum:"1000"`
	Draining *bool `json:"draining,omitempty"`
}

// A Tunnel is a node's tunnel as a gateway reported it.
type Tunnel struct {
	Gateway   string    `json:"gateway" doc:"its name"`
	Endpoint  string    `json:"endpoint,omitempty" doc:"the node's address and port as the gateway sees them"`
	Handshake time.Time `json:"handshake,omitzero"`
	Received  uint64    `json:"received" doc:"bytes, from the node"`
	Sent      uint64    `json:"sent" doc:"bytes, to the node"`
	Reported  time.Time `json:"reported"`
	Path      string    `json:"path,omitempty" enum:"udp,tls-443" doc:"what carries its datagrams; empty if the gateway does not say"`

	Probe *ProbeStatus `json:"probe,omitempty" doc:"what came of the gateway's probes of the node; absent if it has sent none yet, or is of an older version"`
}

// A GatewayState is a gateway as operators see it.
type GatewayState struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Address   netip.Addr      `json:"address"`
	State     string          `json:"state" enum:"ready,draining,offline"`
	Draining  bool            `json:"draining,omitempty" doc:"by an operator, until one ends it"`
	Endpoint  string          `json:"endpoint" doc:"UDP, as told to nodes"`
	Public    string          `json:"public" doc:"HTTPS, as told to nodes"`
	Host      Host            `json:"host"`
	Tunnels   int             `json:"tunnels" doc:"whose nodes it gets through to"`
	Control   time.Time       `json:"control,omitzero"`
	Identity  IdentityPublic  `json:"identity"`
	WireGuard WireGuardPublic `json:"wireguard"`
	Joined    time.Time       `json:"joined"`
	Fitness
}

// A Fitness says whether a gateway's addresses are for DNS.
type Fitness struct {
	Fit       bool         `json:"fit" doc:"for DNS"`
	Reason    string       `json:"reason,omitempty" doc:"why it is not, or what else there is to say; for a person"`
	Addresses []netip.Addr `json:"addresses" doc:"where browsers reach it, none if that is not known"`
}

// A GatewayChange changes what operators say of a gateway. What is absent stays.
type GatewayChange struct {
	Draining *bool `json:"draining,omitempty" doc:"whether new connections are to go elsewhere"`
}

// A DNSState says which addresses of gateways are to be in DNS, for a program that puts
// them there.
type DNSState struct {
	Base     string       `json:"base" doc:"base domain of the tenants' names"`
	Names    []string     `json:"names" doc:"that are to have the addresses; a wildcard is for all names below it (RFC 4592)"`
	TTL      int          `json:"ttl" doc:"of the records, in seconds"`
	A        []netip.Addr `json:"a" doc:"sorted; these and aaaa are not both empty, once a gateway has told its address"`
	AAAA     []netip.Addr `json:"aaaa" doc:"sorted"`
	Kept     bool         `json:"kept,omitempty" doc:"no gateway is fit: the addresses are of those that were last"`
	Gateways []DNSGateway `json:"gateways" doc:"all, by name"`
}

// A DNSGateway is a gateway as DNS is concerned with it.
type DNSGateway struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Fitness
}

// DNSTTL is that of the records of gateways, in seconds: how long browsers that look
// names up go on coming to a gateway that is not fit any more.
const DNSTTL = 60

// StateUnproven is that of a custom route whose host is not shown yet to be the
// tenant's. Nothing is served there.
const StateUnproven = "unproven"

// A RouteState is a route as operators see it.
type RouteState struct {
	Host    string   `json:"host"`
	Tenant  string   `json:"tenant"`
	Service string   `json:"service"`
	Kind    string   `json:"kind" enum:"auto,custom" doc:"auto: follows from what is published; custom: added by hand"`
	Nodes   []string `json:"nodes" doc:"names of the nodes that serve it"`
	State   string   `json:"state" enum:"ready,degraded,offline,unproven" doc:"the best of its nodes'; unproven: the proof that the host is the tenant's is missing"`
	Reached bool     `json:"reached" doc:"whether browsers get through to one of the nodes"`
	URL     string   `json:"url"`

	Certificates []RouteCertificate `json:"certificates" doc:"of each node that serves it and told of one, by name"`
	Proven       time.Time          `json:"proven,omitzero" doc:"custom: when the host was shown to be the tenant's"`
	Records      []DNSRecord        `json:"records,omitempty" doc:"custom: what has to be in DNS"`
	Checked      time.Time          `json:"checked,omitzero" doc:"unproven: when DNS was asked for the proof last"`
	Finding      string             `json:"finding,omitempty" doc:"unproven: why it is, for a person"`
}

// A RouteCertificate is what one node says of a route's certificate.
type RouteCertificate struct {
	Node     string         `json:"node" doc:"its name"`
	Identity IdentityPublic `json:"identity" doc:"its key, which signs the statement"`
	Reported time.Time      `json:"reported"`
	HostStatus
	Statement *Statement `json:"statement,omitempty" doc:"of all that the node holds; not in lists"`
}

// A DNSRecord is one that has to be in DNS.
type DNSRecord struct {
	Name    string `json:"name" doc:"without trailing dot"`
	Type    string `json:"type" enum:"A,AAAA,CNAME,TXT,CAA"`
	Value   string `json:"value" doc:"as in a zone file"`
	Purpose string `json:"purpose" enum:"proof,address,caa" doc:"proof: that the host is the tenant's; address: leads to a gateway, any of those will do; caa: keeps others from getting a certificate, recommended"`
}

// A RouteCheck is what DNS says of a custom route at one moment.
type RouteCheck struct {
	Route    RouteState `json:"route"`
	Findings []Finding  `json:"findings"`
}

// Results of what was looked at in DNS.
const (
	FindingOK      = "ok"
	FindingWarning = "warning" // it works, but not as well as it could
	FindingMissing = "missing" // it does not work until it is there
	FindingError   = "error"   // nobody knows, or somebody has to look into it
)

// Purposes of a DNSRecord.
const (
	PurposeProof   = "proof"
	PurposeAddress = "address"
	PurposeCAA     = "caa"
)

// A Finding is one thing that was looked at.
type Finding struct {
	Subject string `json:"subject" doc:"such as proof, address, caa or certificate"`
	Result  string `json:"result" enum:"ok,warning,missing,error"`
	Detail  string `json:"detail" doc:"what was found, for a person"`
	Hint    string `json:"hint,omitempty" doc:"what to do about it"`
}

// A RouteRequest adds a custom route. It is unproven until its TXT record is seen.
type RouteRequest struct {
	Host    string `json:"host" doc:"outside the base domain"`
	Tenant  string `json:"tenant"`
	Service string `json:"service,omitempty" doc:"empty: default"`
}

// An AuditEntry says who did what. Entries are only ever added.
type AuditEntry struct {
	Seq    uint64    `json:"seq"`
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor" doc:"local, coordinator, token:ID, user:ID, issuer:NAME, node:ID, gateway:ID or stranger"`
	Action string    `json:"action" doc:"such as tenant.add or enroll.refused"`
	Tenant string    `json:"tenant,omitempty"`
	Target string    `json:"target,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// A Duration is a time.Duration that JSON sees as text, such as "24h0m0s".
type Duration time.Duration

// MarshalText returns what time.Duration prints.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText takes what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}
