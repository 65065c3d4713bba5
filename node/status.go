package node

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern"
	"postern/netstack"
)

// A Status is a node at a glance, as its local socket and `postern node status`
// show it.
type Status struct {
	Version  string    `json:"version"` // of the program
	Started  time.Time `json:"started,omitzero"`
	Draining bool      `json:"draining,omitempty"`

	Member      Membership     `json:"member"`
	Control     Control        `json:"control"`
	MapVersion  uint64         `json:"map_version"`
	Tunnels     []Tunnel       `json:"tunnels"`                // one a gateway of the map
	TunnelError string         `json:"tunnel_error,omitempty"` // why a tunnel cannot be set up
	Routes      []Route        `json:"routes"`                 // one a host name, sorted
	Services    []ServiceState `json:"services"`               // as configured
	Connections Connections    `json:"connections"`
	Sessions    int            `json:"sessions"`         // of people who are signed in
	Portal      string         `json:"portal,omitempty"` // where they do; empty: not known, so that nobody can
	Base        string         `json:"base,omitempty"`   // domain of the deployment

	// ConfigFile is what says what is published; empty: no file does. ConfigError
	// is why what it says now is not what is published.
	ConfigFile  string `json:"config_file,omitempty"`
	ConfigError string `json:"config_error,omitempty"`

	// AccessLogLost is how many lines of the access log its disk did not take.
	AccessLogLost uint64 `json:"access_log_lost,omitempty"`

	// PublishError says why the coordinator does not take what is published.
	PublishError string `json:"publish_error,omitempty"`
}

// A Membership says who the node is.
type Membership struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Tenant     string     `json:"tenant"`
	Address    netip.Addr `json:"address"` // on the overlay
	Deployment string     `json:"deployment"`

	// Identity is the node's key, which signs what it says of its certificates.
	Identity postern.IdentityPublic `json:"identity"`

	// WireGuard is the key of its tunnels, and KeySince since when it is used.
	WireGuard postern.WireGuardPublic `json:"wireguard"`
	KeySince  time.Time               `json:"key_since,omitzero"`
}

// A Control is the state of the stream from the coordinator.
type Control struct {
	Up    bool      `json:"up"`
	Since time.Time `json:"since,omitzero"`
	Error string    `json:"error,omitempty"` // why it is down

	// LeaseEnds is when this node stops serving if nothing comes from the coordinator
	// until then; zero: it does not. Lapsed says that it has.
	LeaseEnds time.Time `json:"lease_ends,omitzero"`
	Lapsed    bool      `json:"lapsed,omitempty"`

	// Skew is how much this machine's clock is ahead of the coordinator's, in nanoseconds;
	// zero: not known. Proxy is by what it and gateways are reached over TCP, without the
	// password; empty: by nothing.
	Skew  time.Duration `json:"skew,omitempty"`
	Proxy string        `json:"proxy,omitempty"`
}

// A Tunnel is the node's end of its tunnel to one gateway.
type Tunnel struct {
	ID        string    `json:"id"`
	Gateway   string    `json:"gateway"`            // its name
	Endpoint  string    `json:"endpoint,omitempty"` // where packets go; empty: not known yet
	Public    string    `json:"public,omitempty"`   // where browsers go
	Handshake time.Time `json:"handshake,omitzero"` // last one; zero: never
	Received  uint64    `json:"received"`           // bytes
	Sent      uint64    `json:"sent"`               // bytes
	Path      string    `json:"path"`               // what carries its datagrams: udp or tls-443

	// MTU is how long packets in it are at most, in bytes, and PathMTU how long its
	// datagrams then are, with the headers of UDP and IP: that much the path carries, by
	// UDP. MTUSet says that the tunnel's MTU was set, and is more than that.
	MTU     int `json:"mtu"`
	PathMTU int `json:"path_mtu,omitempty"` // 0: not measured yet
	MTUSet  int `json:"mtu_set,omitempty"`  // 0: it was not, or passes
}

// States of a route at its node.
const (
	RouteReady   = "ready"   // seen through a gateway with this node's certificate
	RouteWaiting = "waiting" // Error says for what
	RouteAlarm   = "alarm"   // a gateway showed a certificate that is not ours
	RouteClosed  = "closed"  // the tenant does not admit this machine's own address, so it cannot look
)

// A Route is a host name that leads to this node.
type Route struct {
	Host        string       `json:"host"`
	URL         string       `json:"url"`
	Service     string       `json:"service"`
	State       string       `json:"state"` // one of the RouteXxx
	Certificate *Certificate `json:"certificate,omitempty"`
	SeenTLS     string       `json:"seen_tls,omitempty"`    // version, such as "TLS 1.3", through a gateway
	SeenSHA256  string       `json:"seen_sha256,omitempty"` // of the certificate that was shown there
	SeenAt      time.Time    `json:"seen_at,omitzero"`
	Keys        []string     `json:"keys,omitempty"` // of other nodes, as in postern.Route
	Note        string       `json:"note,omitempty"`
	Error       string       `json:"error,omitempty"`
}

// Sources of certificates.
const (
	SourceACME = postern.SourceACME
	SourceCA   = postern.SourcePrivate
	SourceFile = postern.SourceFile
)

// A Certificate is what browsers are shown at one host name, or are to be shown: there
// is none yet if SHA256 is empty.
type Certificate struct {
	Source      string    `json:"source"`                // one of the SourceXxx
	Issuer      string    `json:"issuer,omitempty"`      // who signed it
	SHA256      string    `json:"sha256,omitempty"`      // of the leaf, in hex
	SPKI        string    `json:"spki,omitempty"`        // SHA-256 of its SubjectPublicKeyInfo, in hex
	NotAfter    time.Time `json:"not_after,omitzero"`    // its end
	Renewal     time.Time `json:"renewal,omitzero"`      // when the next is to be got; zero: not by us
	Waiting     string    `json:"waiting,omitempty"`     // for what, while the next is being got
	Error       string    `json:"error,omitempty"`       // why there is none, or it could not be renewed or reloaded
	Account     string    `json:"account,omitempty"`     // SourceACME: URL of the node's account
	Records     []string  `json:"records,omitempty"`     // SourceACME: CAA records that let nobody but that account get one
	Authorities []string  `json:"authorities,omitempty"` // SourceACME: by which CAA records know who has the account
}

// States of the application behind a service.
const (
	UpstreamUp      = "up"
	UpstreamDown    = "down"
	UpstreamUnknown = "unknown" // not asked yet
)

// A ServiceState is a service and how its application does.
type ServiceState struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	Upstream string    `json:"upstream"` // without user and password; "handler" for a Go handler
	State    string    `json:"state"`    // UpstreamUp, UpstreamDown or UpstreamUnknown
	Since    time.Time `json:"since,omitzero"`
	Error    string    `json:"error,omitempty"`

	Access     string      `json:"access"` // as in Service, and so are the rest
	Groups     []string    `json:"groups,omitempty"`
	Exceptions []Exception `json:"exceptions,omitempty"`
	Require    string      `json:"require,omitempty"`
}

// Connections counts what came to the HTTPS listener.
type Connections struct {
	Open     int    `json:"open"`
	Waiting  int    `json:"waiting"` // that gateways dialed before they need them
	Accepted uint64 `json:"accepted"`
	Refused  uint64 `json:"refused"` // not from a gateway, or without a right PROXY header
}

// Status returns how the node does. It waits for nothing.
func (n *Node) Status() Status {
	s := Status{
		Version:  n.cfg.Version,
		Draining: n.server.draining.Load(),
		Member:   n.membership(),
		Tunnels:  n.tunnels(),
		Routes:   []Route{}, Services: []ServiceState{},
		Connections: n.server.entrance.counts(),
		Sessions:    n.server.gate.sessions.count(),

		AccessLogLost: n.accessLog().Lost(),
	}
	if p := n.server.table.Load().portal; p != nil {
		s.Portal = p.issuer
	}
	if t := n.started.Load(); t != nil {
		s.Started = *t
	}
	if run := n.running.Load(); run != nil {
		if err := run.peers.Load(); err != nil && *err != nil {
			s.TunnelError = (*err).Error()
		}
	}
	if err := n.refused.Load(); err != nil && *err != nil {
		s.PublishError = (*err).Error()
	}
	s.ConfigFile = n.cfg.File
	if err := n.fileErr.Load(); err != nil && *err != nil {
		s.ConfigError = (*err).Error()
	}
	link := n.client.Link()
	s.Control = Control{Up: link.Up, Since: link.Since, Skew: n.client.Skew(), Lapsed: n.client.Lapsed()}
	if left, ok := n.client.Lease(); ok {
		s.Control.LeaseEnds = time.Now().Add(left)
	}
	if link.Err != nil {
		s.Control.Error = link.Err.Error()
	}
	if m := n.latest.Load(); m != nil {
		s.MapVersion = m.Version
		if d := m.Deployment(); d != nil {
			s.Base = d.Base
			for _, g := range d.Gateways {
				s.Control.Proxy = cmp.Or(s.Control.Proxy, n.proxyFor(g.Public))
			}
		}
		for _, r := range n.routes(*m) {
			s.Routes = append(s.Routes, n.route(r, m.Deployment(), time.Now()))
		}
		slices.SortFunc(s.Routes, func(a, b Route) int { return strings.Compare(a.Host, b.Host) })
	}
	for _, svc := range n.published.Load().order {
		s.Services = append(s.Services, svc.status())
	}
	return s
}

// tunnels returns the tunnels to the gateways of the newest map.
func (n *Node) tunnels() []Tunnel {
	tunnels := []Tunnel{}
	run, m := n.running.Load(), n.latest.Load()
	if run == nil || m == nil || m.Deployment() == nil {
		return tunnels
	}
	live := map[postern.WireGuardPublic]netstack.PeerStatus{}
	for _, p := range run.net.Peers() {
		live[p.PublicKey] = p
	}
	for _, g := range m.Deployment().Gateways {
		p := live[g.WireGuard]
		t := Tunnel{
			ID: g.ID, Gateway: g.Name, Public: g.Public,
			Handshake: p.Handshake, Received: p.Received, Sent: p.Sent,
			Path: run.steerer.path(g.ID), MTU: p.MTU,
		}
		if p.Endpoint.IsValid() {
			t.Endpoint = p.Endpoint.String()
		}
		if mtu := run.steerer.mtu(g.ID); mtu > 0 {
			t.PathMTU = mtu + netstack.Headers(p.Endpoint.Addr())
			if mtu < n.cfg.MTU {
				t.MTUSet = n.cfg.MTU
			}
		}
		tunnels = append(tunnels, t)
	}
	return tunnels
}

// route returns how r, one of our routes, does.
func (n *Node) route(r postern.Route, d *postern.Deployment, now time.Time) Route {
	v := n.lookout.get(r.Host)
	out := Route{
		Host: r.Host, URL: siteURL(r.Host, d), Service: r.Service, State: RouteWaiting, Keys: r.Keys,
		SeenTLS: v.tls, SeenSHA256: v.sha256, SeenAt: v.at, Note: v.note,
	}
	svc := n.published.Load().byName[r.Service]
	if svc == nil {
		out.Error = "this node does not publish the service " + strconv.Quote(r.Service)
		return out
	}
	src := n.source(r.Host, svc)
	cert, err := n.shown(src, r.Host, now)
	if err != nil {
		out.Error = "no certificate: " + err.Error()
		var p *postern.Problem
		if errors.As(err, &p) && p.Hint != "" {
			out.Error += "; " + p.Hint
		}
		out.Certificate = &Certificate{}
		src.describe(r.Host, out.Certificate, now)
		return out
	}
	if v.state != "" {
		out.State = v.state
	}
	if v.err != nil {
		out.Error = v.err.Error()
	}
	out.Certificate = cert.status()
	src.describe(r.Host, out.Certificate, now)
	return out
}

// siteURL returns where browsers find host.
func siteURL(host string, d *postern.Deployment) string {
	if d == nil {
		return originOf(host, 0)
	}
	return originOf(host, d.Port)
}

// originOf returns the origin of host at port; zero: 443.
func originOf(host string, port uint16) string {
	if port == 0 || port == 443 {
		return "https://" + host
	}
	return "https://" + host + ":" + strconv.Itoa(int(port))
}
