package postern

import (
	"cmp"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The control protocol, version 1, between members and the coordinator.
//
// It is JSON over HTTP over TLS 1.3. The coordinator shows a chain that ends at
// the deployment's root key, whose hash the join token carries; a member shows
// the certificate of its Ed25519 identity, except while it enrols:
//
//	GET  /v1/enroll        Challenge                        no certificate yet
//	POST /v1/enroll        EnrollRequest -> Enrollment      signed, see EnrollMessage
//	GET  /v1/map           MapMessage, one a line, for ever
//	POST /v1/renew         nothing -> Enrollment            a new certificate, same identity
//	GET  /v1/key           Challenge
//	POST /v1/key           KeyRequest -> nothing            another WireGuard key, see KeyMessage
//	PUT  /v1/services      Publication -> Published         nodes
//	POST /v1/certificates  CertificateRequest -> Certificate nodes, private CA
//	POST /v1/challenges    ChallengeRequest -> nothing      nodes, ACME
//	PUT  /v1/gateway       Gateway -> nothing               gateways: where they are reached
//	POST /v1/status        Status -> nothing
//	POST /v1/token         RFC 6749, section 4.1.3    nodes, redeem sign-ins at their host names
//
// Any other outcome than 200 is a Problem. Unknown fields are ignored on both
// sides; what absence means is said at each field. The same TLS port speaks the
// edge pipe when ALPN chooses EdgeProtocol: a PROXY v2 header, then the bytes of
// one browser connection to one of the coordinator's own names.
//
// History: 1, the first.
const ProtocolVersion = 1

const (
	PathEnroll       = "/v1/enroll"
	PathMap          = "/v1/map"
	PathRenew        = "/v1/renew"
	PathKey          = "/v1/key"
	PathServices     = "/v1/services"
	PathCertificates = "/v1/certificates"
	PathChallenges   = "/v1/challenges"
	PathGateway      = "/v1/gateway"
	PathStatus       = "/v1/status"
	PathToken        = "/v1/token"
)

// EdgeProtocol is the ALPN name of the edge pipe, gateways only.
const EdgeProtocol = "postern-edge/1"

// ACMEProtocol is the ALPN name that a certificate authority offers, alone, to see whose
// a host is (RFC 8737, section 3).
const ACMEProtocol = "acme-tls/1"

// RelayProtocol is the ALPN name of the relay: a gateway's second carrier of WireGuard's
// datagrams, on its public HTTPS port, for networks that block UDP. The gateway shows a
// certificate of its identity, which the map names. Inside is one WebSocket (RFC 6455)
// at RelayPath, and in it:
//
//	gateway  RelayNonce   a binary message of that many random bytes
//	node     RelayProof   as text
//	gateway  RelayWelcome as text, or it closes
//	both     datagrams    binary: one or more of length (16 bits, big-endian) and datagram
const (
	RelayProtocol = "postern-relay/1"
	RelayPath     = "/v1/relay"
	RelayNonce    = 32
)

// A RelayProof says which node opened a relay.
type RelayProof struct {
	Node      string `json:"node"`      // id
	Signature []byte `json:"signature"` // Ed25519 by the node's identity over RelayMessage
}

// A RelayWelcome says that the node was let in. It has nothing in it yet.
type RelayWelcome struct{}

// RelayMessage returns what the signature of a RelayProof is made over: a context string,
// the gateway's nonce, the connection's ChannelBinding, both of 32 bytes, and the
// gateway's id.
func RelayMessage(nonce, binding []byte, gateway string) []byte {
	return slices.Concat([]byte("postern relay v1\x00"), nonce, binding, []byte(gateway))
}

// HTTPSPort is the port of every node's HTTPS listener on its virtual address.
const HTTPSPort = 443

// ProbeAnswer is what a node says to a gateway's PROXY v2 header with the command LOCAL,
// before it closes the connection: all of it, if it takes connections, and else nothing.
const ProbeAnswer = "postern node v1\n"

// ChannelBinding is the TLS exporter label of RFC 9266, taken with no context
// and 32 bytes.
const ChannelBinding = "EXPORTER-Channel-Binding"

// A Role says what a member or a data directory is for.
type Role string

const (
	RoleNode        Role = "node"
	RoleGateway     Role = "gateway"
	RoleCoordinator Role = "coordinator"
)

// A Challenge is the coordinator's half of the WireGuard proof of possession.
// It is good on the connection that it came over and on no other.
type Challenge struct {
	WireGuard WireGuardPublic `json:"wireguard"` // ephemeral
}

// An EnrollRequest asks for membership. Its proofs travel as the HeaderXxx
// headers, over the exact bytes of the body.
type EnrollRequest struct {
	Token     TokenID         `json:"token"`
	Role      Role            `json:"role"`
	Name      string          `json:"name,omitempty"` // wish; empty: made from the host name
	Identity  IdentityPublic  `json:"identity"`
	WireGuard WireGuardPublic `json:"wireguard"`
	Host      Host            `json:"host"`
}

// A Host is what a member says of the machine it runs on; for people to read.
type Host struct {
	Name    string `json:"name,omitempty"`
	OS      string `json:"os,omitempty"`   // GOOS
	Arch    string `json:"arch,omitempty"` // GOARCH
	Version string `json:"version,omitempty"`
}

// Headers that carry the proofs of an enrolment, in standard base64.
const (
	HeaderTokenSignature    = "Postern-Token-Signature"    // Ed25519 by Token.Key
	HeaderIdentitySignature = "Postern-Identity-Signature" // Ed25519 by the identity
	HeaderWireGuardProof    = "Postern-Wireguard-Proof"    // HMAC-SHA256 keyed with X25519(member, Challenge)
)

// EnrollMessage returns what each proof of an enrolment is made over: a context
// string, the connection's ChannelBinding and the request's body.
func EnrollMessage(binding, body []byte) []byte {
	return slices.Concat([]byte("postern enroll v1\x00"), binding, body)
}

// A KeyRequest has a member's WireGuard key replaced by another. Its proof travels as
// HeaderWireGuardProof, over the exact bytes of the body. The answer comes once every
// gateway that is there has the key, after some seconds in any case; the same request again
// gets the same answer. The member's own map says which key counts.
type KeyRequest struct {
	WireGuard WireGuardPublic `json:"wireguard"`

	// Now says that the tunnels are of no use with the old key. Otherwise the request is
	// CodeUnavailable while a gateway is away, which would not learn of the new one.
	Now bool `json:"now,omitempty"`
}

// KeyMessage returns what the proof of a KeyRequest is made over, as EnrollMessage does.
func KeyMessage(binding, body []byte) []byte {
	return slices.Concat([]byte("postern key v1\x00"), binding, body)
}

// An Enrollment is a member's identity as the coordinator sees it.
type Enrollment struct {
	Deployment  string     `json:"deployment"`       // random id of the deployment
	ID          string     `json:"id"`               // the member's, for ever
	Name        string     `json:"name"`             // unique among the tenant's nodes, or among the gateways
	Tenant      string     `json:"tenant,omitempty"` // gateways have none
	Address     netip.Addr `json:"address"`          // virtual IPv6 address
	Certificate []byte     `json:"certificate"`      // PEM: the member's, then the control CA's
}

// A MapMessage is one line of the map stream. Each replaces one section whole;
// a section comes again when it changed, whole again, and never an older one
// after a newer. A message with neither Section nor Removed is a heartbeat.
type MapMessage struct {
	Version uint64    `json:"version"`           // the map's as it was sent; never falls
	Section *Section  `json:"section,omitempty"` // replaces the one of the same tenant
	Removed string    `json:"removed,omitempty"` // tenant whose section is gone
	Synced  bool      `json:"synced,omitempty"`  // all sections have been sent once: forget the others
	Time    time.Time `json:"time,omitzero"`     // the coordinator's clock
}

// A Section is all that a member need know of one tenant, or, with an empty
// Tenant, of the deployment. A node is told of itself and its own routes only.
type Section struct {
	Tenant     string      `json:"tenant,omitempty"`
	Version    uint64      `json:"version"`              // the map's when this section last changed
	Deployment *Deployment `json:"deployment,omitempty"` // iff Tenant is empty
	Nodes      []Node      `json:"nodes,omitempty"`
	Routes     []Route     `json:"routes,omitempty"`
	People     []Person    `json:"people,omitempty"`    // nodes: all who were granted the tenant and are not disabled, by ID
	Ended      []string    `json:"ended,omitempty"`     // nodes: ids of sessions that were ended before their time, sorted
	Admission  *Admission  `json:"admission,omitempty"` // gateways; nil: open to all
}

// An Admission says from where gateways splice connections to a tenant. It keeps
// drive-by scanners out; it does not say who anybody is.
type Admission struct {
	Mode    string         `json:"mode"`              // AdmissionXxx but open; one that is not known is AdmissionList
	Allowed []netip.Prefix `json:"allowed,omitempty"` // always
	Sources []Source       `json:"sources,omitempty"` // mode admission: who signed in at the portal lately, by prefix
}

// Modes of admission.
const (
	AdmissionOpen   = "open"       // from anywhere
	AdmissionPortal = "admission"  // from where somebody signed in at the portal lately, and the allowed prefixes
	AdmissionList   = "allow-list" // from the allowed prefixes alone
)

// AdmissionWindow is how long a source is admitted that nobody uses: at the portal,
// or at a node through the gateway that admits it.
const AdmissionWindow = 15 * time.Minute

// A Source is where somebody came from who signed in at the portal.
type Source struct {
	Prefix netip.Prefix `json:"prefix"` // an IPv4 /32 or an IPv6 /64
	Until  time.Time    `json:"until"`  // by the coordinator's clock
}

// A Deployment is what all tenants have in common.
type Deployment struct {
	ID       string    `json:"id"`
	Base     string    `json:"base"`               // base domain of all tenants' names
	Port     uint16    `json:"port,omitempty"`     // of the public HTTPS address; zero: 443
	Names    []string  `json:"names,omitempty"`    // the coordinator's own, for the edge pipe; gateways only
	Gateways []Gateway `json:"gateways,omitempty"` // nodes: all; a gateway: itself
	CA       []byte    `json:"ca,omitempty"`       // PEM of the private CA
	Portal   *Portal   `json:"portal,omitempty"`   // nodes; nil: nobody signs in
	ACME     *ACME     `json:"acme,omitempty"`     // nodes; nil: the private CA is the default

	// Lease is for how long a member goes on with the map that it holds when nothing
	// comes from the coordinator, no heartbeat either, in seconds. Zero: for ever.
	Lease int64 `json:"lease,omitempty"`
}

// An ACME says from which public authorities nodes get the certificates of services
// that do not say otherwise (RFC 8555). It has no secrets: nodes have accounts of
// their own.
type ACME struct {
	Issuers []ACMEIssuer `json:"issuers"`         // at least one, in the order in which they are tried
	Email   string       `json:"email,omitempty"` // contact of nodes' accounts; empty: none
}

// An ACMEIssuer is a certificate authority.
type ACMEIssuer struct {
	Directory string `json:"directory"`         // https URL (RFC 8555, section 7.1.1)
	Roots     []byte `json:"roots,omitempty"`   // PEM, of the directory's own certificate; empty: the system's
	Profile   string `json:"profile,omitempty"` // of certificates; empty: the authority's default
}

// A Portal is where people sign in: an OpenID Provider (OpenID Connect Core 1.0).
type Portal struct {
	Issuer string          `json:"issuer"` // https URL without path
	Keys   json.RawMessage `json:"keys"`   // JWK set (RFC 7517) that its tokens are verified with
}

// A Node is a node as a gateway needs to know it.
type Node struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Address   netip.Addr      `json:"address"`
	WireGuard WireGuardPublic `json:"wireguard"`
	Identity  IdentityPublic  `json:"identity,omitzero"` // zero: not said, so that the node has no relay

	// Where a route has several nodes:
	Weight   int  `json:"weight,omitempty"`   // its share of new connections beside the others'; zero: DefaultWeight
	Draining bool `json:"draining,omitempty"` // it is to get no new ones while another takes them
}

// Weights of nodes.
const (
	DefaultWeight = 100
	MaxWeight     = 1000 // at least 1
)

// A Gateway is a gateway as a node needs to know it.
type Gateway struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Address   netip.Addr      `json:"address"`
	WireGuard WireGuardPublic `json:"wireguard"`
	Endpoint  string          `json:"endpoint,omitempty"` // UDP, host:port; empty: not known yet
	Public    string          `json:"public,omitempty"`   // HTTPS, host:port; empty: not known yet
	Identity  IdentityPublic  `json:"identity,omitzero"`  // zero: not said, so that there is no relay
	Draining  bool            `json:"draining,omitempty"` // by an operator; told to the gateway itself only

	// Boot is what the gateway's present run is called; see Status. Another than before
	// says that it lost its sessions. Empty: not known, which says nothing. Nodes only.
	Boot string `json:"boot,omitempty"`
}

// A Route is a host name and who serves it.
type Route struct {
	Host    string   `json:"host"` // wire form, see CheckHost
	Service string   `json:"service"`
	Nodes   []string `json:"nodes,omitempty"` // ids; empty: nobody at present

	// Keys are SHA-256 hashes, in hex, of the SubjectPublicKeyInfos that the route's
	// other nodes show browsers, sorted; an empty one is not known yet. Nodes only.
	Keys []string `json:"keys,omitempty"`

	// Challenge is the id of the one of Nodes that awaits an ACME authority's
	// handshakes (RFC 8737); empty: they go where all go. Gateways only.
	Challenge string `json:"challenge,omitempty"`
}

// A ChallengeRequest says that the asking node awaits, or no longer awaits, an ACME
// authority's handshakes at one of its hosts (RFC 8737). When it does, the answer comes
// once every gateway that is there knows; while another node awaits them at that host it
// is CodeUnavailable, after some seconds.
type ChallengeRequest struct {
	Host string `json:"host"`
	Done bool   `json:"done,omitempty"`
}

// A CertificateRequest asks the private CA for a certificate.
type CertificateRequest struct {
	CSR []byte `json:"csr"` // DER (RFC 2986), one DNS name, routed to the asking node
}

// A Certificate is what the private CA gave.
type Certificate struct {
	Chain []byte `json:"chain"` // PEM, leaf first, without the root
}

// A Status is what a member tells the coordinator about its tunnels, every
// StatusInterval and when it changed much.
type Status struct {
	Version string       `json:"version,omitempty"` // of the program
	Time    time.Time    `json:"time,omitzero"`     // by the member's clock, as Handshake is; zero: the same as the coordinator's
	Map     uint64       `json:"map,omitempty"`     // version of the map that it acts on; zero: not said
	Peers   []PeerStatus `json:"peers,omitempty"`

	// Gateways only. Boot is what this run of the program is called, at random; empty: not
	// said. Draining: it takes no new connections, or is about to.
	Boot     string `json:"boot,omitempty"`
	Draining bool   `json:"draining,omitempty"`

	// Nodes only.
	Hosts     []HostStatus `json:"hosts,omitempty"`     // one a route, sorted
	Statement *Statement   `json:"statement,omitempty"` // the keys of those that have a certificate
}

// A HostStatus is a host name of a node and the certificate that browsers get there.
type HostStatus struct {
	Host      string    `json:"host"`
	State     string    `json:"state"`               // one of the CertificateXxx
	Source    string    `json:"source,omitempty"`    // one of the SourceXxx
	Issuer    string    `json:"issuer,omitempty"`    // who signed it, for people
	SHA256    string    `json:"sha256,omitempty"`    // of the certificate, in hex
	SPKI      string    `json:"spki,omitempty"`      // SHA-256 of its SubjectPublicKeyInfo, in hex
	NotAfter  time.Time `json:"not_after,omitzero"`  // its end
	Renewal   time.Time `json:"renewal,omitzero"`    // when the next is to be got; zero: not ours to do
	Account   string    `json:"account,omitempty"`   // URL of the ACME account
	Authority string    `json:"authority,omitempty"` // who has it, by its name in CAA records
	Error     string    `json:"error,omitempty"`     // why there is none, or no newer one; an authority's own words
	Alarm     string    `json:"alarm,omitempty"`     // what a gateway showed in its place
}

// IssuerName returns who signed leaf, for people: as in HostStatus.
func IssuerName(leaf *x509.Certificate) string {
	i := leaf.Issuer
	if len(i.Organization) > 0 && i.CommonName != "" && !strings.Contains(i.CommonName, i.Organization[0]) {
		return i.Organization[0] + " " + i.CommonName
	}
	return cmp.Or(i.CommonName, i.String())
}

// States of a host's certificate.
const (
	CertificateValid   = "valid"   // browsers get it
	CertificateWaiting = "waiting" // there is none yet; Error says for what it waits
	CertificateLate    = "late"    // browsers get it, but it could not be renewed in time; see Error
	CertificateExpired = "expired" // browsers get it, and refuse it; see Error
)

// Sources of certificates.
const (
	SourceACME    = "acme"
	SourcePrivate = "private-ca"
	SourceFile    = "file"
)

// A Statement is what a node says of the keys that it holds, so that nobody on the way,
// the coordinator included, can say otherwise.
type Statement struct {
	Payload   []byte `json:"payload"`   // JSON of Holdings
	Signature []byte `json:"signature"` // Ed25519 by the node's identity over StatementMessage(Payload)
}

// StatementMessage returns what the signature of a Statement is made over.
func StatementMessage(payload []byte) []byte {
	return slices.Concat([]byte("postern statement v1\x00"), payload)
}

// Open returns what s says, if the node with identity signed it.
func (s *Statement) Open(identity IdentityPublic) (Holdings, error) {
	var h Holdings
	if !ed25519.Verify(identity.Key(), StatementMessage(s.Payload), s.Signature) {
		return h, errors.New("the node's statement is not signed by its identity")
	}
	if err := json.Unmarshal(s.Payload, &h); err != nil {
		return h, fmt.Errorf("the node's statement: %w", err)
	}
	return h, nil
}

// Holdings are the certificates that a node holds.
type Holdings struct {
	Node  string    `json:"node"` // id
	Time  time.Time `json:"time"` // by the node's clock
	Hosts []Holding `json:"hosts"`
}

// A Holding is the certificate that a node holds for one host.
type Holding struct {
	Host     string    `json:"host"`
	SHA256   string    `json:"sha256"` // as in HostStatus, and so are the rest
	SPKI     string    `json:"spki"`
	NotAfter time.Time `json:"not_after"`
}

// StatusInterval is how often members report while nothing special happens.
const StatusInterval = 10 * time.Second

// A PeerStatus is one tunnel as one of its ends sees it.
type PeerStatus struct {
	ID        string    `json:"id"`                 // the other member's
	Endpoint  string    `json:"endpoint,omitempty"` // its address and port on the Internet
	Handshake time.Time `json:"handshake,omitzero"` // last one; zero: never
	Received  uint64    `json:"received,omitempty"` // bytes
	Sent      uint64    `json:"sent,omitempty"`     // bytes
	Path      string    `json:"path,omitempty"`     // one of the CarrierXxx; empty: not known
	MTU       int       `json:"mtu,omitempty"`      // longest packets to it in the tunnel, in bytes; zero: not told

	Probe *ProbeStatus `json:"probe,omitempty"` // gateways; nil: it probes none, or has yet to
}

// A ProbeStatus is what came of a gateway's probes of a node, see ProbeAnswer.
type ProbeStatus struct {
	Time  time.Time `json:"time,omitzero"`   // when the node answered last; zero: never
	RTT   Duration  `json:"rtt,omitzero"`    // how long that took
	Error string    `json:"error,omitempty"` // why it counts as one that does not answer now; empty: it answers
}

// Carriers of a tunnel's datagrams.
const (
	CarrierUDP   = "udp"
	CarrierRelay = "tls-443" // see RelayProtocol
)

// A Problem is an error in JSON (RFC 9457, media type application/problem+json)
// and a Go error. Code is what programs branch on.
type Problem struct {
	Type   string `json:"type,omitempty"` // "about:blank"
	Title  string `json:"title"`          // the status in words
	Status int    `json:"status"`         // HTTP
	Detail string `json:"detail"`         // what is wrong, for a person
	Code   string `json:"code"`           // one of the CodeXxx
	Hint   string `json:"hint,omitempty"` // what to do about it
}

// Codes of problems. They are part of the protocol: none changes its meaning.
const (
	CodeInvalid      = "invalid"       // the request is not well-formed
	CodeUnauthorized = "unauthorized"  // no or unknown credential
	CodeForbidden    = "forbidden"     // a known credential that may not
	CodeNotFound     = "not_found"     // no such thing, or not yours
	CodeTaken        = "taken"         // a name, key or identity that another has
	CodeQuarantined  = "quarantined"   // a name that was released lately
	CodeTokenUnknown = "token_unknown" // this deployment never issued it
	CodeTokenUsed    = "token_used"
	CodeTokenExpired = "token_expired"
	CodeTokenRevoked = "token_revoked"
	CodeProof        = "proof"   // a signature or proof of possession is wrong
	CodeRevoked      = "revoked" // the member was removed
	CodeTooMany      = "too_many"
	CodeUnavailable  = "unavailable" // try again
	CodeInternal     = "internal"
)

// NewProblem returns a Problem with the status' own title.
func NewProblem(status int, code, detail, hint string) *Problem {
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Code: code, Detail: detail, Hint: hint,
	}
}

func (p *Problem) Error() string { return p.Detail }
