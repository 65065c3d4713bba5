package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"postern"
	"postern/internal/datadir"
	"postern/internal/member"
	"postern/node"
)

func nodeCommand() *cli.Command {
	data := dataFlag("data `DIR`ectory (/var/lib/postern/node for root)")
	return &cli.Command{
		Name: "node", Usage: "the machine beside the application, where TLS ends",
		Subcommands: []*cli.Command{
			{
				Name: "join", Usage: "make this machine a node of a company, and run it", Action: joinNode,
				Description: publishHelp,
				UsageText: "postern node join --token-file acme.token --publish http://localhost:9000\n" +
					"postern node join --token-file - --publish unix:/run/books.sock < acme.token\n" +
					"postern node join --token-file t --publish http://localhost:9000 \\\n" +
					"    --publish docs=/srv/docs",
				Flags: append(append([]cli.Flag{
					tokenFlag(),
					&cli.StringFlag{Name: "name", Usage: "`NAME` in lists (made from the machine's if not given)"},
					&cli.BoolFlag{Name: "no-run", Usage: "only join; start it later with postern node run"},
				}, serviceFlags()...), append(logFlags(), data)...),
			},
			{
				Name: "run", Usage: "run this node until it is stopped", Action: runNodeCommand,
				Description: "It publishes what it was told last. " + publishHelp,
				UsageText:   "postern node run\npostern node run --publish https://10.0.0.5:8443",
				Flags:       append(serviceFlags(), append(logFlags(), data)...),
			},
			{
				Name: "status", Usage: "show how the node on this machine does", Action: nodeStatus,
				UsageText: "postern node status\npostern node status -o json",
				Flags:     append([]cli.Flag{data}, outputFlags()...),
			},
		},
	}
}

const publishHelp = "UPSTREAM is http://…, https://…, unix:/PATH or a folder. Without NAME= it answers at the company's own " +
	"address, else one label below it. What --publish says replaces all that was published before."

func serviceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "publish", Usage: "`SERVICE` to publish, [NAME=]UPSTREAM; may be repeated"},
		&cli.StringSliceFlag{Name: "cert", Usage: "`FILE` with a certificate of your own, [NAME=]FILE"},
		&cli.StringSliceFlag{Name: "key", Usage: "`FILE` with its key, [NAME=]FILE"},
	}
}

func joinNode(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	// All that can be wrong here is found before the token is used.
	services, err := parseServices(c, nil)
	if err != nil {
		return err
	}
	token, err := joinToken(c)
	if err != nil {
		return err
	}
	dir, err := datadir.Open(dataDir(c, postern.RoleNode), postern.RoleNode)
	if err != nil {
		return err
	}
	defer dir.Close()
	id, err := join(c.Context, dir, token, postern.RoleNode, c.String("name"))
	if errors.Is(err, member.ErrJoined) {
		return fail("`postern node run` starts it; to join anew, use another --data directory", fmt.Errorf("%s: %w", dir.Path("."), err))
	} else if err != nil {
		return err
	}
	if err := dir.WriteJSON(servicesFile, services); err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "Joined %s as node %s.\n", id.Enrollment.Tenant, id.Enrollment.Name)
	if c.Bool("no-run") {
		fmt.Fprintln(c.App.ErrWriter, "Now run it: postern node run")
		return nil
	}
	return runNode(c.Context, dir, services, log, c.App.Writer)
}

func runNodeCommand(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	dir, err := datadir.Open(dataDir(c, postern.RoleNode), postern.RoleNode)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := member.LoadIdentity(dir); err != nil {
		return fmt.Errorf("%s: %w", dir.Path("."), err)
	}
	services, err := settleServices(c, dir)
	if err != nil {
		return err
	}
	return runNode(c.Context, dir, services, log, c.App.Writer)
}

// servicesFile keeps what a node publishes.
const servicesFile = "services.json"

// settleServices returns what the options say on top of what dir remembers, and
// makes dir remember it.
func settleServices(c *cli.Context, dir *datadir.Dir) ([]node.Service, error) {
	var saved []node.Service
	if err := dir.ReadJSON(servicesFile, &saved); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !c.IsSet("publish") && !c.IsSet("cert") && !c.IsSet("key") {
		return saved, nil
	}
	services, err := parseServices(c, saved)
	if err != nil {
		return nil, err
	}
	return services, dir.WriteJSON(servicesFile, services)
}

// parseServices reads what serviceFlags say. Without --publish the certificates
// go to saved.
func parseServices(c *cli.Context, saved []node.Service) ([]node.Service, error) {
	services := saved
	if c.IsSet("publish") {
		services = nil
	}
	for _, spec := range c.StringSlice("publish") {
		s, err := node.ParseService(spec)
		if err != nil {
			return nil, misuse("such as --publish http://localhost:9000 or --publish docs=/srv/docs", "--publish: %w", err)
		}
		for _, other := range services {
			if other.Name == s.Name {
				return nil, misuse("give each a name of its own, such as --publish docs=/srv/docs", "--publish: service %q is there twice", s.Name)
			}
		}
		services = append(services, s)
	}
	for _, option := range []string{"cert", "key"} {
		for _, spec := range c.StringSlice(option) {
			if err := setFile(services, option, spec); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range services {
		if (s.CertFile == "") != (s.KeyFile == "") {
			return nil, misuse("give both, --cert FILE and --key FILE", "service %q has only one of certificate and key", s.Name)
		}
	}
	return services, nil
}

// setFile gives the service in spec, [NAME=]FILE, its certificate or key.
func setFile(services []node.Service, option, spec string) error {
	name, file, ok := strings.Cut(spec, "=")
	if !ok || strings.ContainsAny(name, `/\`) {
		name, file = postern.DefaultService, spec
	}
	file, err := filepath.Abs(file) // the node may run elsewhere next time
	if err != nil {
		return err
	}
	for i := range services {
		if services[i].Name == name {
			if option == "cert" {
				services[i].CertFile = file
			} else {
				services[i].KeyFile = file
			}
			return nil
		}
	}
	return misuse("publish it first: --publish "+name+"=UPSTREAM", "--%s %s: no service %q", option, spec, name)
}

// runNode serves as the node that joined in dir until ctx is done and what was
// under way has ended. It tells out of every address that can be used.
func runNode(ctx context.Context, dir *datadir.Dir, services []node.Service, log *slog.Logger, out io.Writer) error {
	n, err := node.New(node.Config{Dir: dir, Services: services, Version: programVersion(), Logger: log})
	if err != nil {
		return err
	}
	if len(services) == 0 {
		log.Warn("this node publishes nothing; see --publish")
	}
	g, ctx := errgroup.WithContext(ctx)
	ctx, end := context.WithCancel(ctx)
	g.Go(func() error {
		defer end()
		return n.Run(ctx)
	})
	g.Go(func() error { announce(ctx, n.Status, out); return nil })
	return g.Wait()
}

const (
	// announceInterval is how often a node is asked for news of its addresses.
	announceInterval = 500 * time.Millisecond

	// patience is how long an address may take before out hears why.
	patience = 15 * time.Second
)

// announce writes a line for every address once it is ready, and once, after
// patience, what an address waits for.
func announce(ctx context.Context, status func() node.Status, out io.Writer) {
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	start, told := time.Now(), make(map[string]string)
	for {
		for _, r := range status().Routes {
			line := ""
			switch {
			case r.State == node.RouteReady:
				line = readyLine(r)
			case r.Error != "" && time.Since(start) > patience:
				line = r.URL + "  " + strings.ToUpper(r.State) + "   " + r.Error
			}
			if line != "" && told[r.Host] != line {
				told[r.Host] = line
				fmt.Fprintln(out, line)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func readyLine(r node.Route) string {
	return fmt.Sprintf("%s  READY   seen from the gateway: %s, certificate SHA-256 %s, %s",
		r.URL, r.SeenTLS, shortHash(r.SeenSHA256), cmp.Or(r.Note, "key on this machine"))
}

// shortHash returns enough of a hash for the eye.
func shortHash(hash string) string {
	if len(hash) > 16 {
		return hash[:16] + "…"
	}
	return hash
}

func nodeStatus(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	s, err := node.QueryStatus(c.Context, filepath.Join(dataDir(c, postern.RoleNode), node.Socket))
	if err != nil {
		return err
	}
	return show(c, s, nodeStatusFields)
}

func nodeStatusFields(t *table, s node.Status) {
	t.field("Node", s.Member.Tenant+"/"+s.Member.Name+", "+s.Member.Address.String())
	t.field("Up since", t.when(s.Started))
	if s.Control.Up {
		t.field("Control", "up since "+t.when(s.Control.Since))
	} else {
		t.field("Control", "down since "+t.when(s.Control.Since))
		t.field("", dash(s.Control.Error))
	}
	for _, u := range s.Tunnels {
		t.tunnel(u.Gateway, u.Endpoint, u.Handshake, u.Received, u.Sent)
	}
	for _, v := range s.Services {
		line := v.Name + ", " + v.Upstream + ", " + v.State
		if v.Error != "" {
			line += ": " + v.Error
		}
		t.field("Service", line)
	}
	for _, r := range s.Routes {
		t.field("Address", r.URL+", "+r.Service+", "+r.State)
		if r.SeenTLS != "" {
			t.field("", "seen from the gateway with "+r.SeenTLS+" "+t.ago(r.SeenAt))
		}
		if r.Note != "" {
			t.field("", r.Note)
		}
		if r.Error != "" {
			t.field("", r.Error)
		}
		if r.Certificate != nil {
			t.field("", "certificate from "+r.Certificate.Source+", good until "+r.Certificate.NotAfter.Local().Format(time.DateOnly))
			t.field("", r.Certificate.SHA256)
			if r.Certificate.Error != "" {
				t.field("", r.Certificate.Error)
			}
		}
	}
	t.field("Connections", fmt.Sprintf("%d open, %d accepted, %d refused", s.Connections.Open, s.Connections.Accepted, s.Connections.Refused))
}
