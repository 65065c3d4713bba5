package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"postern"
	"postern/gateway"
	"postern/internal/accesslog"
	"postern/internal/datadir"
	"postern/internal/member"
	"postern/internal/monitor"
	"postern/internal/netwatch"
	"postern/internal/relay"
	"postern/internal/systemd"
	"postern/netstack"
)

func gatewayCommand() *cli.Command {
	data := dataFlag("data `DIR`ectory (/var/lib/postern/gateway for root)")
	return &cli.Command{
		Name: "gateway", Usage: "the public door: moves ciphertext between browsers and nodes",
		Subcommands: []*cli.Command{
			{
				Name: "join", Usage: "make this machine a gateway of a deployment", Action: joinGateway,
				UsageText: "postern gateway join --token-file gateway.token\n" +
					"postern gateway join --token-file - --coordinator https://203.0.113.7:8443 \\\n" +
					"    < gateway.token",
				Flags: append([]cli.Flag{
					tokenFlag(),
					&cli.StringFlag{Name: "name", Usage: "`NAME` in lists (made from the machine's if not given)"},
					&cli.StringFlag{Name: "coordinator", Usage: "`URL` of the coordinator in place of the token's"},
					data,
				}, logFlags()...),
			},
			{
				Name: "status", Usage: "show how the gateway on this machine does", Action: gatewayStatus,
				UsageText: "postern gateway status\npostern gateway status -o json",
				Flags:     append([]cli.Flag{data}, outputFlags()...),
			},
			rotateKeyCommand("gateway", data, func(c *cli.Context) (string, error) {
				s, err := askDoor(c.Context, doorSocket(c), http.MethodPost, pathDoorKey)
				return s.WireGuard.String(), err
			}),
			{
				Name: "run", Usage: "run this gateway until it is stopped", Action: runGatewayCommand,
				Description: "When it is stopped it tells the coordinator, which takes it out of DNS (see `postern gateways dns`), and " +
					"goes on for --drain-delay. Then it takes no new connections and lets open ones end, for 30 s at most. A second " +
					"signal ends it at once. It comes up without the coordinator, with the routes that it knew last.",
				UsageText: "postern gateway run\n" +
					"postern gateway run --advertise gw1.example.com:51820 --public gw1.example.com:443",
				Flags: append(append(gatewayFlags(), data), logFlags()...),
			},
		},
	}
}

// gatewayFlags are what `gateway run` and `up` have in common.
func gatewayFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "listen", Value: ":443", Usage: "`ADDRESS` for browsers"},
		&cli.StringFlag{Name: "http", Value: ":80", Usage: "`ADDRESS` that sends browsers on to https; empty for none"},
		&cli.StringFlag{Name: "udp", Value: ":51820", Usage: "`:PORT`: UDP port of the nodes' tunnels"},
		&cli.StringFlag{Name: "advertise", Usage: "`HOST:PORT`: where nodes find the UDP port, if it is not this machine's address"},
		&cli.StringFlag{Name: "public", Usage: "`HOST:PORT`: where browsers find this gateway, if it is not this machine's address"},
		&cli.StringSliceFlag{Name: "proxy-from", Usage: "`PREFIX`: addresses of load balancers that send PROXY v2 headers; may be repeated"},
		&cli.IntFlag{Name: "source-rate", Usage: "`N`: new connections a second from one address (20 if not given, -1: any)"},
		&cli.IntFlag{Name: "source-conns", Usage: "`N`: open connections of one address (200 if not given, -1: any)"},
		&cli.IntFlag{Name: "tenant-rate", Usage: "`N`: new connections a second to one tenant (100 if not given, -1: any)"},
		&cli.IntFlag{Name: "tenant-conns", Usage: "`N`: open connections to one tenant (2000 if not given, -1: any, and any that wait for a node)"},
		&cli.StringFlag{Name: "bandwidth", Usage: "`RATE` of this gateway's line, such as 500mbit; when it is full, tenants get equal parts (any if not given)"},
		&cli.StringFlag{Name: "tenant-bandwidth", Usage: "`RATE` that one tenant has at most, such as 100mbit (any if not given)"},
		hideLossFlag(),
		mtuFlag(),
		&cli.DurationFlag{Name: "drain-delay", Usage: "`TIME` that it goes on taking new connections once it is to stop; 90s lets DNS lead them to another gateway"},
		accessLogFlag("connection"),
		metricsFlag(),
	}
}

// hideLossFlag is what gateways and nodes have in common about the tunnel's way.
func hideLossFlag() cli.Flag {
	return &cli.BoolFlag{Name: "hide-loss", Usage: "send again what the line loses before connections slow down for it; for lines that lose packets by chance"}
}

// gatewayOptions say how a gateway runs.
type gatewayOptions struct {
	listen, http string // TCP addresses; http may be empty
	udp          uint16
	advertise    string // host:port; nodes find the UDP port there
	public       string // host:port; browsers find the gateway there
	httpsPort    uint16 // in public
	proxyFrom    []netip.Prefix
	limits       gateway.Limits
	hideLoss     bool                   // of what it sends
	drainDelay   time.Duration          // from a stop to the last new connection
	mtu          int                    // of the tunnels; 0: the default
	accessLog    string                 // file, - for standard output; empty: none
	metrics      string                 // TCP address; empty: none
	beside       []prometheus.Collector // shown at metrics, too
	alive        func()                 // asked by the watchdog, too; nil: nothing

	// opened is called once all listens that the gateway needs; nil: nothing.
	opened func(context.Context) error
	log    *slog.Logger
}

// parseGateway reads what gatewayFlags say.
func parseGateway(c *cli.Context, log *slog.Logger) (gatewayOptions, error) {
	o := gatewayOptions{
		listen: c.String("listen"), http: c.String("http"),
		advertise: c.String("advertise"), public: c.String("public"),
		accessLog: c.String("access-log"), metrics: c.String("metrics"),
		limits: gateway.Limits{
			SourceRate: c.Int("source-rate"), SourceBurst: 5 * c.Int("source-rate"), SourceConns: c.Int("source-conns"),
			TenantRate: c.Int("tenant-rate"), TenantConns: c.Int("tenant-conns"), TenantDials: min(c.Int("tenant-conns"), 0),
		},
		hideLoss: c.Bool("hide-loss"), drainDelay: c.Duration("drain-delay"), log: log,
	}
	if o.drainDelay < 0 {
		return o, misuse("such as --drain-delay 90s", "--drain-delay %v is no time", o.drainDelay)
	}
	var err error
	if o.mtu, err = parseMTU(c); err != nil {
		return o, err
	}
	if o.limits.Bandwidth, err = parseRate("bandwidth", c.String("bandwidth")); err != nil {
		return o, err
	}
	if o.limits.TenantBandwidth, err = parseRate("tenant-bandwidth", c.String("tenant-bandwidth")); err != nil {
		return o, err
	}
	host, port, err := splitAddress("udp", c.String("udp"))
	if err != nil {
		return o, err
	}
	if host != "" {
		return o, misuse("leave the host away, as in --udp :51820", "--udp %s: the tunnels' port is open on all addresses", c.String("udp"))
	}
	o.udp = port
	if o.advertise == "" {
		o.advertise = ":" + strconv.Itoa(int(o.udp))
	} else if _, _, err := splitAddress("advertise", o.advertise); err != nil {
		return o, err
	}
	_, port, err = splitAddress("listen", o.listen)
	if err != nil {
		return o, err
	}
	if o.public == "" {
		o.public = ":" + strconv.Itoa(int(port))
	}
	if _, o.httpsPort, err = splitAddress("public", o.public); err != nil {
		return o, err
	}
	for _, text := range c.StringSlice("proxy-from") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return o, misuse("such as --proxy-from 10.0.0.0/8", "--proxy-from %q is no prefix", text)
		}
		o.proxyFrom = append(o.proxyFrom, prefix)
	}
	return o, nil
}

// splitAddress takes HOST:PORT apart for the option called name.
func splitAddress(name, text string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(text)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil {
		return "", 0, misuse("want HOST:PORT or :PORT with a port from 0 to 65535", "--%s %q is no address", name, text)
	}
	return host, uint16(n), nil
}

func joinGateway(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	token, err := joinToken(c)
	if err != nil {
		return err
	}
	if u := c.String("coordinator"); u != "" {
		if err := postern.CheckControlURL(u); err != nil {
			return misuse("such as --coordinator https://203.0.113.7:8443", "%w", err)
		}
		token.URLs = []string{u}
	}
	dir, err := datadir.Open(dataDir(c, postern.RoleGateway), postern.RoleGateway)
	if err != nil {
		return err
	}
	defer dir.Close()
	id, err := join(c.Context, dir, token, postern.RoleGateway, c.String("name"))
	if errors.Is(err, member.ErrUnreachable) && !c.IsSet("coordinator") {
		return fail("give the coordinator's own address, as --coordinator https://HOST:8443: the token's leads through a gateway, and there may be none yet", err)
	} else if err != nil {
		return err
	}
	note(c, "Joined as gateway %s. Now run it: postern gateway run%s", id.Enrollment.Name, withData(c))
	return nil
}

// withData returns what a command needs to find the directory that this one was given.
func withData(c *cli.Context) string {
	if dir := c.String("data"); dir != "" {
		return " --data " + dir
	}
	return ""
}

// join is member.Join for this machine.
func join(ctx context.Context, dir *datadir.Dir, token postern.Token, role postern.Role, name string) (*member.Identity, error) {
	if err := checkName(role, name); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = string(role)
	}
	return member.Join(ctx, dir, nil, token, role, name, member.ThisHost(host, programVersion()))
}

// checkName reports what is wrong with the name that a member wishes for.
func checkName(role postern.Role, name string) error {
	if name == "" {
		return nil
	}
	if err := postern.CheckLabel(string(role), name); err != nil {
		return misuse("a name is a DNS label such as office-1: letters a to z, digits and hyphens", "%w", err)
	}
	return nil
}

func runGatewayCommand(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	o, err := parseGateway(c, log)
	if err != nil {
		return err
	}
	if err := checkJoined(dataDir(c, postern.RoleGateway)); err != nil {
		return needJoin(err)
	}
	dir, err := datadir.Open(dataDir(c, postern.RoleGateway), postern.RoleGateway)
	if err != nil {
		return err
	}
	defer dir.Close()
	return runGateway(c.Context, dir, o)
}

// absolute returns path for people, who may be elsewhere later.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// checkJoined fails with member.ErrNotJoined if that is so in the directory at path: who
// opened it would make it a member's of that role.
func checkJoined(path string) error {
	path = absolute(path)
	if err := member.CheckJoined(path); errors.Is(err, member.ErrNotJoined) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil // what else there is is told by who opens it
}

// needJoin adds to member.ErrNotJoined what a gateway needs.
func needJoin(err error) error {
	if !errors.Is(err, member.ErrNotJoined) {
		return err
	}
	return fail("join first: postern gateway join --token-file FILE (`postern tokens create --gateway` makes the token)", err)
}

// runGateway serves as the gateway that joined in dir until ctx is done and open
// connections have drained.
func runGateway(ctx context.Context, dir *datadir.Dir, o gatewayOptions) error {
	id, err := member.LoadIdentity(dir)
	if err != nil {
		return needJoin(err)
	}
	d, err := openDoor(dir, id, o)
	if err != nil {
		return err
	}
	if o.opened != nil {
		if err := o.opened(ctx); err != nil {
			d.close()
			return err
		}
	}
	return d.run(ctx)
}

// A door is a gateway with all that it stands on: its membership, its tunnels
// and its listeners.
type door struct {
	opts   gatewayOptions
	dir    *datadir.Dir
	id     *member.Identity
	seen   member.Endpoints // as of the last run
	client *member.Client
	net    *netstack.Net
	key    *member.TunnelKey
	gw     *gateway.Gateway
	relays *relay.Server
	https  net.Listener
	http   net.Listener   // nil: none
	local  net.Listener   // gatewaySocket
	scrape net.Listener   // of metrics; nil: none
	access *accesslog.Log // nil: none
	looks  looks          // at the tunnels
	log    *slog.Logger

	started time.Time
	boot    string // postern.Status.Boot

	applying sync.Mutex
	latest   postern.Map // that the coordinator told; guarded by applying
	greeted  bool        // the same

	nodes   atomic.Pointer[map[string]postern.Node] // of the map, by id
	ids     atomic.Pointer[map[netip.Addr]string]   // of the map's nodes
	acting  atomic.Uint64                           // version of the map that is applied
	awaited atomic.Uint64                           // version that somebody waits to hear of
	news    chan struct{}                           // there is something to tell at once

	stopping atomic.Bool   // it is to stop
	drained  atomic.Bool   // an operator drains it
	parted   chan struct{} // closed by tell when the coordinator has heard that it is to stop
}

func openDoor(dir *datadir.Dir, id *member.Identity, o gatewayOptions) (_ *door, err error) {
	d := &door{
		opts: o, dir: dir, id: id, log: o.log, boot: rand.Text(), started: time.Now(),
		news: make(chan struct{}, 1), parted: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.seen, err = member.LoadEndpoints(dir); err != nil {
		d.log.Warn("where nodes were is not known; they come by themselves", "err", err)
	}
	if d.https, err = systemd.Listen("https", o.listen); err != nil {
		return nil, err
	}
	if o.http != "" {
		if d.http, err = systemd.Listen("http", o.http); err != nil {
			return nil, err
		}
	}
	if d.local, err = listenSocket("gateway's socket", dir.Path(gatewaySocket)); err != nil {
		return nil, err
	}
	if d.scrape, err = monitor.Listen(o.metrics); err != nil {
		return nil, err
	}
	if d.client, err = member.NewClient(dir, id, nil, o.log); err != nil {
		return nil, err
	}
	key, _ := d.client.WireGuard()
	d.net, err = netstack.New(netstack.Config{
		PrivateKey: key, Address: id.Enrollment.Address, Port: o.udp, MTU: o.mtu, HideLoss: o.hideLoss, Logger: o.log,
	})
	if err != nil {
		return nil, err
	}
	d.key = member.NewTunnelKey(d.client, func(key postern.WireGuardPrivate) error { return d.net.SetPrivateKey(key) }, nil)
	// Last, as it is run that closes it.
	if d.access, err = accesslog.Open(o.accessLog, os.Stdout, o.log); err != nil {
		return nil, err
	}
	cert, err := id.Certificate()
	if err != nil {
		return nil, err
	}
	d.relays = relay.NewServer(relay.ServerConfig{
		Gateway: id.Enrollment.ID, Certificate: *cert, Identity: d.identity, Attach: d.attach, Logger: o.log,
	})
	cfg := gateway.Config{
		Dial:            d.net.DialContext,
		Behind:          d.net.Behind,
		DialCoordinator: d.client.DialEdge,
		Relay:           d.relays.Serve,
		HTTPSPort:       o.httpsPort, ProxyFrom: o.proxyFrom, Limits: o.limits, Logger: o.log,
		Now: d.client.Now,
	}
	if d.access != nil {
		cfg.Access = func(a gateway.Access) { d.access.Add(a) }
	}
	d.gw = gateway.New(cfg)
	return d, nil
}

func (d *door) close() {
	for _, ln := range []net.Listener{d.https, d.http, d.local, d.scrape} {
		if ln != nil {
			ln.Close()
		}
	}
	if d.net != nil {
		d.net.Close()
	}
	if d.client != nil {
		d.client.Close()
	}
}

// run serves until ctx is done, and drains then; until that is over the map is
// followed and the tunnels stay.
func (d *door) run(ctx context.Context) error {
	defer d.close()
	// First, as somebody may be at the door already: systemd holds it open.
	held := d.client.Resume(d.apply)
	d.log.Info("gateway up", "gateway", d.id.Enrollment.Name, "https", d.https.Addr().String(),
		"udp_port", d.net.Port(), "address", d.id.Enrollment.Address, "version", programVersion())
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, life := errgroup.WithContext(life)
	serve, stop := context.WithCancel(life) // whatever fails ends the serving too
	defer stop()

	g.Go(func() error { d.drain(ctx, life); stop(); return nil })
	g.Go(func() error { return d.client.Follow(life, held, d.apply) })
	g.Go(func() error { return d.client.FollowLease(life, d.lease) })
	g.Go(func() error { return d.key.Run(life) })
	g.Go(func() error { return d.roam(life) })
	g.Go(func() error { return systemd.Notify(serve, d.alive) })
	g.Go(func() error { d.tell(life); return nil })
	g.Go(func() error { d.gw.Probe(life); return nil })
	g.Go(func() error { d.remember(life); return nil })
	g.Go(func() error { d.logLimits(life); return nil })
	g.Go(func() error { return d.access.Run(life) })
	g.Go(func() error { return reopening(life, d.opts.accessLog, d.access.Reopen) })
	g.Go(func() error { return monitor.Serve(life, d.local, d.localHandler(), d.log) })
	g.Go(func() error {
		return monitor.ServeMetrics(life, d.scrape, monitor.Metrics(append(d.collectors(), d.opts.beside...)...), d.ready, d.log)
	})
	if d.http != nil {
		g.Go(func() error { return d.gw.ServeRedirect(serve, d.http) })
	}
	g.Go(func() error {
		defer end()
		return d.gw.Serve(serve, d.https)
	})
	err := g.Wait()
	d.log.Info("gateway down")
	return err
}

// roam has the coordinator hear at once from a gateway that got another address, or slept:
// it tells the nodes where the gateway is. Nodes then see to the tunnels.
func (d *door) roam(ctx context.Context) error {
	return netwatch.Run(ctx, netwatch.Config{Logger: d.log, Changed: func(_ context.Context, why string) {
		d.log.Info("this machine moved on the network", "reason", why)
		d.client.Reconnect()
	}})
}

// alive returns if nothing that serves hangs.
func (d *door) alive() {
	d.glance()
	if d.opts.alive != nil {
		d.opts.alive()
	}
}

// apply works a map in.
func (d *door) apply(m postern.Map) {
	d.key.Told(m)
	d.applying.Lock()
	defer d.applying.Unlock()
	d.latest = m
	d.work()
}

// lease works the newest map in again when the lease has lapsed, or was renewed.
func (d *door) lease() {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.latest.Version > 0 {
		d.work()
	}
}

// lapsed returns what is left of m when the lease has lapsed: the coordinator's own names,
// by which nodes may find it again, and the others with nobody to serve them.
func lapsed(m postern.Map) postern.Map {
	m = m.Clone()
	for tenant, s := range m.Sections {
		s.Nodes, s.Routes = nil, slices.Clone(s.Routes)
		for i := range s.Routes {
			s.Routes[i].Nodes, s.Routes[i].Challenge = nil, ""
		}
		m.Sections[tenant] = s
	}
	return m
}

// work works the newest map in: tunnels first, so that no route leads into nowhere.
func (d *door) work() {
	m := d.latest
	if d.client.Lapsed() {
		m = lapsed(m)
	}
	peers := member.NodePeers(m)
	for i := range peers {
		peers[i].Endpoint = d.seen[peers[i].PublicKey]
	}
	err := d.greet(peers)
	if err == nil {
		err = d.net.SetPeers(peers)
	}
	if err != nil {
		d.log.Error("set tunnels; going on with those held", "err", err, "map_version", m.Version)
		return
	}
	ids, nodes := make(map[netip.Addr]string), make(map[string]postern.Node)
	rekeyed := false
	for _, s := range m.Sections {
		for _, n := range s.Nodes {
			ids[n.Address], nodes[n.ID] = n.ID, n
			before, ok := d.node(n.ID)
			rekeyed = rekeyed || ok && before.WireGuard != n.WireGuard
		}
	}
	d.ids.Store(&ids)
	d.nodes.Store(&nodes)
	d.relays.Retain()
	d.gw.SetRoutes(gateway.NewTable(m))
	if all := m.Deployment(); all != nil {
		d.drained.Store(slices.ContainsFunc(all.Gateways, func(g postern.Gateway) bool { return g.ID == d.id.Enrollment.ID && g.Draining }))
	}
	before := d.acting.Swap(m.Version)
	d.log.Debug("map applied", "map_version", m.Version)
	for _, s := range m.Sections {
		if s.Version > before && (rekeyed || awaited(s)) {
			d.awaited.Store(m.Version)
			select {
			case d.news <- struct{}{}:
			default:
			}
			return
		}
	}
}

// awaited reports whether somebody waits to hear that a gateway acts on s: who signed in
// at the portal, or a node that asked a certificate authority. So does a node that has
// another key.
func awaited(s postern.Section) bool {
	return s.Admission != nil || slices.ContainsFunc(s.Routes, func(r postern.Route) bool { return r.Challenge != "" })
}
