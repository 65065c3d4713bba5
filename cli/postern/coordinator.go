package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"golang.org/x/net/publicsuffix"
	"golang.org/x/sync/errgroup"

	"postern"
	"postern/coordinator"
	"postern/coordinator/portal"
	"postern/internal/datadir"
	"postern/internal/dnscheck"
	"postern/internal/monitor"
	"postern/internal/systemd"
)

func coordinatorCommand() *cli.Command {
	return &cli.Command{
		Name: "coordinator", Usage: "the registry that tells nodes and gateways what they need to know",
		Subcommands: []*cli.Command{{
			Name: "run", Usage: "run a coordinator until it is stopped", Action: runCoordinator,
			Description: "The first start makes the deployment's keys and its registry in the data directory. The domain is " +
				"for ever: the names of all companies lie below it, and so does control.DOMAIN, by which gateways pass nodes " +
				"through to this coordinator.",
			UsageText: "postern coordinator run --domain apps.example.com\n" +
				"postern coordinator run --domain apps.example.com --listen :8443 \\\n" +
				"    --control-url https://203.0.113.7:8443",
			Flags: append(append([]cli.Flag{
				domainFlag(),
				&cli.StringFlag{Name: "listen", Value: ":8443", Usage: "`ADDRESS` of the control port"},
				&cli.UintFlag{Name: "https-port", Value: postern.HTTPSPort, Usage: "`PORT` at which gateways are reached by browsers"},
				&cli.StringSliceFlag{Name: "control-url", Usage: "`URL`: where tokens say the coordinator is; may be repeated (https://control.DOMAIN if not given)"},
				metricsFlag(),
				dataFlag("data `DIR`ectory (/var/lib/postern/coordinator for root)"),
			}, seatFlags()...), logFlags()...),
		}},
	}
}

func domainFlag() cli.Flag {
	return &cli.StringFlag{Name: "domain", Usage: "base `DOMAIN` of all names; needed at the first start only"}
}

// coordinatorOptions say how a coordinator runs.
type coordinatorOptions struct {
	dir       string
	domain    string   // empty: what the data directory remembers
	listen    string   // control port
	httpsPort uint16   // of gateways, for browsers
	urls      []string // for tokens; nil: control.DOMAIN
	portal    portalOptions
	certs     certificateOptions
	resolver  string        // DNS server; empty: the system's
	lease     time.Duration // coordinator.Config.Lease
	metrics   string        // TCP address; empty: none
	log       *slog.Logger
}

// seatFlags are what `coordinator run` and `up` have in common, besides the domain.
func seatFlags() []cli.Flag {
	return append(append([]cli.Flag{
		resolverFlag(),
		&cli.DurationFlag{Name: "lease", Value: 7 * 24 * time.Hour, Usage: "`TIME` for which gateways and nodes go on while the coordinator is away; 0: for ever"},
	}, portalFlags()...), certificateFlags()...)
}

// parseSeat reads what domainFlag and seatFlags say.
func parseSeat(c *cli.Context, log *slog.Logger) (coordinatorOptions, error) {
	o := coordinatorOptions{domain: c.String("domain"), log: log}
	var err error
	if o.portal, err = parsePortal(c); err != nil {
		return o, err
	}
	if o.certs, err = parseCertificates(c); err != nil {
		return o, err
	}
	if o.lease = c.Duration("lease"); o.lease == 0 {
		o.lease = -1 // for ever
	} else if o.lease < coordinator.MinLease {
		return o, misuse("such as --lease 168h, or --lease 0 for no end", "--lease %v: want at least %v", o.lease, coordinator.MinLease)
	}
	o.resolver, err = parseResolver(c)
	return o, err
}

func runCoordinator(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	port, err := parsePort(c.Uint("https-port"))
	if err != nil {
		return err
	}
	urls := c.StringSlice("control-url")
	for _, u := range urls {
		if err := postern.CheckControlURL(u); err != nil {
			return misuse("such as --control-url https://203.0.113.7:8443", "%w", err)
		}
	}
	o, err := parseSeat(c, log)
	if err != nil {
		return err
	}
	o.dir, o.listen, o.httpsPort = dataDir(c, postern.RoleCoordinator), c.String("listen"), port
	o.urls, o.metrics = urls, c.String("metrics")
	s, err := openSeat(c.Context, o)
	if err != nil {
		return err
	}
	if err := printFirstLink(c.Context, c.App.Writer, s.Coordinator); err != nil {
		s.close()
		return unlessStopped(c.Context, err)
	}
	g, ctx := errgroup.WithContext(c.Context)
	ctx, end := context.WithCancel(ctx)
	g.Go(func() error {
		defer end()
		return s.run(ctx)
	})
	g.Go(func() error { return systemd.Notify(ctx, s.alive) })
	return g.Wait()
}

func parsePort(n uint) (uint16, error) {
	if n == 0 || n > 65535 {
		return 0, misuse("ports are 1 to 65535", "--https-port %d is no port", n)
	}
	return uint16(n), nil
}

// A seat is a coordinator with all that it sits on: its data directory, its
// store and its listeners.
type seat struct {
	*coordinator.Coordinator
	portal  *portal.Portal
	domain  string
	acme    *postern.ACME    // what nodes are told; nil: the private CA signs
	public  *portalAuthority // nil: nobody gets the portal's certificate
	dir     *datadir.Dir
	store   store
	control net.Listener
	admin   net.Listener
	scrape  net.Listener // of metrics; nil: none
	log     *slog.Logger
}

// openSeat opens everything that a coordinator needs. The caller calls run or
// close.
func openSeat(ctx context.Context, o coordinatorOptions) (_ *seat, err error) {
	if err := checkBuild(); err != nil {
		return nil, err
	}
	s := &seat{log: o.log}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	domain, err := checkDomain(o.dir, o.domain)
	if err != nil {
		return nil, err
	}
	if domain != "" { // what makes no sense settles nothing
		if _, err := o.certs.settle(domain); err != nil {
			return nil, err
		}
	}
	if s.dir, err = datadir.Open(o.dir, postern.RoleCoordinator); err != nil {
		return nil, err
	}
	if s.domain, err = settleDomain(s.dir, domain); err != nil {
		return nil, err
	}
	if s.acme, err = o.certs.settle(s.domain); err != nil {
		return nil, err
	}
	if s.control, err = net.Listen("tcp", o.listen); err != nil {
		return nil, fmt.Errorf("control port: %w", err)
	}
	authority, err := coordinator.OpenAuthority(s.dir.Path("authority"), s.domain, nil)
	if err != nil {
		return nil, err
	}
	if s.store, err = openStore(ctx, s.dir.Path(registryFile)); err != nil {
		return nil, err
	}
	cfg := coordinator.Config{
		Store: s.store, Authority: authority, Base: s.domain, Port: o.httpsPort,
		Reserve: s.dir.Reserve(reserveSize), Lease: o.lease,
		URLs: o.urls, Version: programVersion(), Logger: o.log, ACME: s.acme,
		PortalHost: o.portal.host, PortalCert: o.portal.cert, PortalKey: o.portal.key,
	}
	if cfg.Resolver, err = dnscheck.New(o.resolver); err != nil {
		return nil, fmt.Errorf("DNS: %w", err)
	}
	if s.acme != nil && o.portal.cert == "" {
		if s.public, err = newPortalAuthority(s.dir.Path("acme"), s.acme, o.certs, s.awaitGateway, o.log); err != nil {
			return nil, err
		}
		cfg.PortalACME = s.public
	}
	s.Coordinator, err = coordinator.New(cfg)
	if err != nil {
		return nil, err
	}
	if s.public != nil {
		s.public.want(s.PortalHost())
	}
	if s.portal, err = newPortal(s.Coordinator, o.portal, o.log); err != nil {
		return nil, err
	}
	if s.scrape, err = monitor.Listen(o.metrics); err != nil {
		return nil, err
	}
	s.admin, err = listenSocket("admin socket", s.dir.Path(postern.AdminSocket))
	return s, err
}

// run serves until ctx is done and then closes everything.
func (s *seat) run(ctx context.Context) error {
	defer s.close()
	s.log.Info("coordinator up", "domain", s.domain, "control", s.control.Addr().String(),
		"admin", s.admin.Addr().String(), "portal", s.PortalURL(), "certificates", s.certificates(), "version", programVersion())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Serve(ctx, s.control, s.portal) })
	g.Go(func() error { return s.ServeAdmin(ctx, s.admin, s.localHandler()) })
	g.Go(func() error {
		return monitor.ServeMetrics(ctx, s.scrape, monitor.Metrics(s.collectors()...), nil, s.log)
	})
	g.Go(func() error { return s.store.KeepBackups(ctx, s.log) })
	if s.public != nil {
		g.Go(func() error { return s.public.Run(ctx) })
	}
	err := g.Wait()
	s.log.Info("coordinator down")
	return err
}

// collectors tell all that the coordinator's metrics say.
func (s *seat) collectors() []prometheus.Collector {
	return []prometheus.Collector{s.Collector(), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postern_coordinator_backup_time_seconds",
		Help: "When the last backup of the registry was made, in Unix seconds; zero: never.",
	}, func() float64 {
		at, err := lastBackup(s.dir.Path(registryFile))
		if err != nil || at.IsZero() {
			return 0
		}
		return float64(at.Unix())
	})}
}

// localHandler answers at the admin socket what is not the admin API's.
func (s *seat) localHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+monitor.PathMetrics, monitor.Metrics(s.collectors()...))
	mux.Handle("GET "+monitor.PathProfiles, monitor.Profiles())
	return mux
}

// alive returns if nothing that serves hangs.
func (s *seat) alive() { s.Local().Status(context.Background()) }

// awaitGateway waits until browsers, and authorities, have a gateway to come by.
func (s *seat) awaitGateway(ctx context.Context) error { return s.AwaitGateway(ctx) }

// certificates says who signs them.
func (s *seat) certificates() string {
	if s.acme == nil {
		return "private CA"
	}
	return authorities(s.acme)
}

func (s *seat) close() {
	for _, ln := range []net.Listener{s.control, s.admin, s.scrape} {
		if ln != nil {
			ln.Close()
		}
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("close the registry", "err", err)
		}
	}
	if s.dir != nil {
		s.dir.Close()
	}
}

// config is what a coordinator's data directory remembers of the command line.
type config struct {
	Domain string `json:"domain"`
}

const configFile = "config.json"

// reserveSize is what is set aside on the disk, in bytes: some thousand sign-ins.
const reserveSize = 4 << 20

// registryFile is the registry in the data directory.
const registryFile = "postern.db"

// checkDomain returns the domain asked for in its wire form, empty if it is for the
// directory at path to say, which nothing is written to.
func checkDomain(path, asked string) (string, error) {
	_, err := os.Stat(filepath.Join(path, configFile))
	first := errors.Is(err, fs.ErrNotExist)
	if asked == "" {
		if first {
			return "", misuse("the first start needs --domain, such as --domain apps.example.com", "%s: no domain yet", absolute(path))
		}
		return "", nil
	}
	host, err := postern.ParseHost(asked)
	if err != nil {
		return "", misuse("want a domain such as apps.example.com", "--domain: %w", err)
	}
	// What was settled before stays settled.
	if suffix, icann := publicsuffix.PublicSuffix(host); first && icann && suffix == host && isPublic(host) {
		return "", misuse("want a domain such as apps.example.com", "--domain %s: that is nobody's alone, but for all who register names below it", host)
	}
	return host, nil
}

// settleDomain returns the domain for ever: the one that dir remembers, else
// the one asked for, as checkDomain returned it, which it then remembers.
func settleDomain(dir *datadir.Dir, asked string) (string, error) {
	var cfg config
	err := dir.ReadJSON(configFile, &cfg)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return asked, dir.WriteJSON(configFile, config{Domain: asked})
	case err != nil:
		return "", err
	case asked != "" && asked != cfg.Domain:
		return "", fail("a deployment keeps its domain for ever: leave --domain away, or use another --data directory for another deployment",
			fmt.Errorf("--domain %s: this deployment's domain is %s", asked, cfg.Domain))
	}
	return cfg.Domain, nil
}

// maxSocketPath is how long a unix socket's path can be on the systems we know.
const maxSocketPath = 103

// listenSocket opens a unix socket for this user alone; what it is called is for errors.
// The data directory's lock is held, so that a socket found there is a dead one's.
func listenSocket(what, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fail("use a shorter --data directory",
			fmt.Errorf("%s %s: its path has %d characters, more than the %d that fit", what, path, len(path), maxSocketPath))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}
