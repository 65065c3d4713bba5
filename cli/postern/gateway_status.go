package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"postern"
	"postern/gateway"
	"postern/internal/monitor"
)

// gatewaySocket is a gateway's socket in its data directory, for whoever may open it:
//
//	GET /v1/status     doorStatus
//	POST /v1/key       doorStatus, with another key of the tunnels; connections go on
//	GET /metrics       metrics, as Prometheus reads them
//	GET /debug/pprof/  profiles, as go tool pprof reads them
const gatewaySocket = "gateway.sock"

const (
	pathDoorStatus = "/v1/status"
	pathDoorKey    = "/v1/key"
)

// A doorStatus is a gateway at a glance.
type doorStatus struct {
	Gateway    string                  `json:"gateway"` // name
	ID         string                  `json:"id"`
	State      string                  `json:"state"`   // postern.StateReady or StateDraining
	Address    netip.Addr              `json:"address"` // on the overlay
	Version    string                  `json:"version"` // of the program
	Started    time.Time               `json:"started"`
	HTTPS      string                  `json:"https"`              // where it listens
	UDPPort    uint16                  `json:"udp_port"`           // of the tunnels
	Advertise  string                  `json:"advertise"`          // what nodes are told
	Public     string                  `json:"public"`             // what browsers are told
	WireGuard  postern.WireGuardPublic `json:"wireguard"`          // key of its tunnels
	KeySince   time.Time               `json:"key_since,omitzero"` // that it is used
	Control    doorControl             `json:"control"`
	MapVersion uint64                  `json:"map_version"`     // zero: no map was applied yet
	Tunnels    []doorTunnel            `json:"tunnels"`         // one a node of the map
	MTU        int                     `json:"mtu"`             // of the tunnels
	Room       int                     `json:"room"`            // for connections
	Files      int                     `json:"files,omitempty"` // that may be open; zero: not known here
	Limits     doorLimits              `json:"limits"`
	Counts     gateway.Stats           `json:"counts"`
	AccessLog  *doorAccessLog          `json:"access_log,omitempty"`
}

type doorControl struct {
	Up    bool      `json:"up"`
	Since time.Time `json:"since,omitzero"`
	Error string    `json:"error,omitempty"` // why it is down

	// LeaseEnds is when this gateway stops serving if nothing comes from the coordinator
	// until then; zero: it does not. Lapsed says that it has.
	LeaseEnds time.Time `json:"lease_ends,omitzero"`
	Lapsed    bool      `json:"lapsed,omitempty"`

	// Skew is how much this machine's clock is ahead of the coordinator's, in nanoseconds;
	// zero: not known.
	Skew time.Duration `json:"skew,omitempty"`
}

type doorTunnel struct {
	Node      string    `json:"node"` // id
	Up        bool      `json:"up"`   // a handshake vouches for it
	Endpoint  string    `json:"endpoint,omitempty"`
	Path      string    `json:"path,omitempty"` // udp or tls-443
	Handshake time.Time `json:"handshake,omitzero"`
	Received  uint64    `json:"received"` // bytes
	Sent      uint64    `json:"sent"`
	MTU       int       `json:"mtu"` // how long packets to it may be

	Probe *postern.ProbeStatus `json:"probe,omitempty"` // nil: nothing came of one yet
}

type doorAccessLog struct {
	File string `json:"file"`
	Lost uint64 `json:"lost"` // lines
}

// glance returns the gateway's state.
func (d *door) glance() doorStatus {
	link := d.client.Link()
	s := doorStatus{
		Gateway: d.id.Enrollment.Name, ID: d.id.Enrollment.ID, State: d.state(), Address: d.id.Enrollment.Address, Version: programVersion(),
		Started: d.started, HTTPS: d.https.Addr().String(), UDPPort: d.net.Port(), Advertise: d.opts.advertise, Public: d.opts.public,
		Control: doorControl{Up: link.Up, Since: link.Since, Skew: d.client.Skew()},
		MTU:     d.net.MTU(), Room: d.gw.Room(), Files: fileLimit(),
		MapVersion: d.acting.Load(), Tunnels: []doorTunnel{}, Limits: d.limits(), Counts: d.gw.Stats(),
	}
	s.Control.Lapsed = d.client.Lapsed()
	if left, ok := d.client.Lease(); ok {
		s.Control.LeaseEnds = time.Now().Add(left)
	}
	key, since := d.client.WireGuard()
	s.WireGuard, s.KeySince = key.Public(), since
	if link.Err != nil {
		s.Control.Error = link.Err.Error()
	}
	if d.access != nil {
		s.AccessLog = &doorAccessLog{File: d.opts.accessLog, Lost: d.access.Lost()}
	}
	now := time.Now()
	for _, p := range d.status().Peers {
		s.Tunnels = append(s.Tunnels, doorTunnel{
			Node: p.ID, Up: now.Sub(p.Handshake) < fresh, Endpoint: p.Endpoint, Path: p.Path,
			Handshake: p.Handshake, Received: p.Received, Sent: p.Sent, MTU: p.MTU, Probe: p.Probe,
		})
	}
	slices.SortFunc(s.Tunnels, func(a, b doorTunnel) int { return cmp.Compare(a.Node, b.Node) })
	return s
}

// localHandler answers at the gateway's socket.
func (d *door) localHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathDoorStatus, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(d.glance()) // the reader's trouble if it fails
	})
	mux.HandleFunc("POST "+pathDoorKey, monitor.Slow(func(w http.ResponseWriter, r *http.Request) {
		if err := d.key.Replace(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(d.glance())
	}))
	mux.Handle("GET "+monitor.PathMetrics, monitor.Metrics(d.collectors()...))
	mux.Handle("GET "+monitor.PathProfiles, monitor.Profiles())
	return mux
}

// collectors tell all that the gateway's metrics say.
func (d *door) collectors() []prometheus.Collector {
	all := []prometheus.Collector{d.gw.Collector(), doorCollector{d.glance}}
	if d.access != nil {
		all = append(all, lostLines("gateway", d.access))
	}
	return all
}

// Metrics of what a gateway stands on. As in package gateway, no label has a value that
// comes from a tenant.
var (
	metricDoorInfo    = prometheus.NewDesc("postern_gateway_info", "The gateway.", []string{"version"}, nil)
	metricDoorDrain   = prometheus.NewDesc("postern_gateway_draining", "Whether new connections are to go elsewhere.", nil, nil)
	metricDoorControl = prometheus.NewDesc("postern_gateway_control_up", "Whether the coordinator's stream is up.", nil, nil)
	metricDoorLease   = prometheus.NewDesc("postern_gateway_lease_left_seconds", "For how long the gateway goes on without news of the coordinator; zero: it serves nobody.", nil, nil)
	metricDoorMap     = prometheus.NewDesc("postern_gateway_map_version", "Version of the map that it acts on.", nil, nil)
	metricDoorTunnels = prometheus.NewDesc("postern_gateway_tunnels", "Tunnels to nodes, by whether a handshake within 3 minutes vouches for them.", []string{"state"}, nil)
	metricDoorLimits  = prometheus.NewDesc("postern_gateway_tunnel_limit_hits_total", "How often a limit on what is to become a tunnel was reached: handshakes that got a cookie or nothing, relays that were turned away.", []string{"limit"}, nil)
	metricDoorTraffic = prometheus.NewDesc("postern_gateway_tunnel_bytes", "Bytes of the tunnels there are, with all that WireGuard adds.", []string{"direction"}, nil)
)

// A doorCollector tells a doorStatus as metrics.
type doorCollector struct{ status func() doorStatus }

// Describe implements prometheus.Collector.
func (doorCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricDoorInfo, metricDoorDrain, metricDoorControl, metricDoorLease, metricDoorMap, metricDoorTunnels, metricDoorLimits, metricDoorTraffic} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c doorCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.status()
	for name, n := range s.Limits.byName() {
		ch <- prometheus.MustNewConstMetric(metricDoorLimits, prometheus.CounterValue, float64(n), name)
	}
	control, draining := 0.0, 0.0
	if s.Control.Up {
		control = 1
	}
	if s.State == postern.StateDraining {
		draining = 1
	}
	up, received, sent := 0, uint64(0), uint64(0)
	for _, t := range s.Tunnels {
		if t.Up {
			up++
		}
		received, sent = received+t.Received, sent+t.Sent
	}
	gauge(metricDoorInfo, 1, s.Version)
	gauge(metricDoorDrain, draining)
	gauge(metricDoorControl, control)
	if ends := s.Control.LeaseEnds; !ends.IsZero() {
		gauge(metricDoorLease, max(time.Until(ends).Seconds(), 0))
	}
	gauge(metricDoorMap, float64(s.MapVersion))
	gauge(metricDoorTunnels, float64(up), "up")
	gauge(metricDoorTunnels, float64(len(s.Tunnels)-up), "down")
	gauge(metricDoorTraffic, float64(received), "received")
	gauge(metricDoorTraffic, float64(sent), "sent")
}

var errNoGateway = errors.New("no gateway answers")

// queryDoor asks the gateway behind a socket how it does. It fails with errNoGateway if
// there is none.
func queryDoor(ctx context.Context, socket string) (s doorStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return askDoor(ctx, socket, http.MethodGet, pathDoorStatus)
}

// askDoor does a request that a gateway answers with its status.
func askDoor(ctx context.Context, socket, method, path string) (s doorStatus, err error) {
	t := &http.Transport{DialContext: dialSocket(socket)}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, nil)
	if err != nil {
		return s, err
	}
	resp, err := t.RoundTrip(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return s, fmt.Errorf("%s: %w", socket, errNoGateway)
	}
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return s, fmt.Errorf("%s %s of the gateway: %s: %s", method, path, resp.Status, strings.TrimSpace(string(why)))
	}
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// doorSocket returns the path of the gateway's socket in the directory that c names, or,
// if that is where `up` keeps its roles, in the gateway's part of it.
func doorSocket(c *cli.Context) string {
	return rolePath(c.String("data"), postern.RoleGateway, gatewaySocket)
}

func gatewayStatus(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	s, err := queryDoor(c.Context, doorSocket(c))
	if err != nil {
		return err
	}
	return show(c, s, doorFields)
}

// refusals are gateway.Reasons for people, as docs/operator.md has them.
var refusals = map[gateway.Reason]string{
	gateway.SourceRate:   "too many new connections from one address",
	gateway.SourceConns:  "too many open connections from one address",
	gateway.SourceHellos: "too many hellos not whole yet from one address",
	gateway.HelloShed:    "too many hellos not whole yet in all",
	gateway.HelloTimeout: "no whole hello in time",
	gateway.HelloGone:    "left before the hello was whole",
	gateway.Garbage:      "neither TLS nor HTTP",
	gateway.PlainHTTP:    "HTTP without TLS",
	gateway.BadHello:     "TLS, but no well-formed hello",
	gateway.ProxyHeader:  "no PROXY header from where one has to come",
	gateway.UnknownName:  "no server name, or one that nobody has",
	gateway.NotAdmitted:  "from where the company admits nobody",
	gateway.TenantRate:   "too many new connections to one company",
	gateway.TenantConns:  "too many open connections to one company",
	gateway.TenantDials:  "too many that wait for one company's nodes",
	gateway.Offline:      "no node answered",
}

func doorFields(t *table, s doorStatus) {
	t.field("Gateway", s.Gateway+", "+s.Address.String())
	t.field("State", s.State)
	t.field("Up since", t.when(s.Started))
	state := "down"
	if s.Control.Up {
		state = "up"
	}
	t.field("Control", state+" since "+t.when(s.Control.Since))
	if s.Control.Error != "" {
		t.field("", s.Control.Error)
	}
	t.lease(s.Control.LeaseEnds, s.Control.Lapsed, s.Control.Up)
	t.field("Map", strconv.FormatUint(s.MapVersion, 10))
	t.field("Browsers", s.HTTPS+", told as "+s.Public)
	up := 0
	for _, u := range s.Tunnels {
		if u.Up {
			up++
		}
	}
	t.field("Tunnels", fmt.Sprintf("%d of %d up, UDP port %d, told as %s", up, len(s.Tunnels), s.UDPPort, s.Advertise))
	p := s.Counts.Probes
	t.field("Nodes", fmt.Sprintf("%d answer, %d do not; %d probes sent, %d missed", p.Healthy, p.Unhealthy, p.Sent, p.Missed))
	for _, u := range s.Tunnels {
		if u.Probe != nil && u.Probe.Error != "" {
			t.field("", u.Node+": "+u.Probe.Error)
		}
	}
	t.field("Connections", fmt.Sprintf("%d open, %d pre-dialed, %d accepted, %d spliced", s.Counts.Open, s.Counts.Spares, s.Counts.Accepted, s.Counts.Spliced))
	t.field("Bytes", size(uint64(s.Counts.UpBytes))+" from browsers, "+size(uint64(s.Counts.DownBytes))+" to them")
	label := "Refused"
	for _, r := range slices.Sorted(maps.Keys(s.Counts.Refused)) {
		t.field(label, fmt.Sprintf("%d: %s", s.Counts.Refused[r], cmp.Or(refusals[r], r.String())))
		label = ""
	}
	if s.AccessLog != nil {
		t.field("Access log", fmt.Sprintf("%s, %d lines lost", s.AccessLog.File, s.AccessLog.Lost))
	}
}
