package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"postern"
	"postern/internal/systemd"
	"postern/node"
)

func nodeCommand() *cli.Command {
	data := dataFlag("data `DIR`ectory (/var/lib/postern/node for root)")
	config := configFlag()
	return &cli.Command{
		Name: "node", Usage: "the machine beside the application, where TLS ends",
		Subcommands: []*cli.Command{
			{
				Name: "join", Usage: "make this machine a node of a company, and run it", Action: joinNode,
				Description: publishHelp,
				UsageText: "postern node join --token-file acme.token --publish http://localhost:9000\n" +
					"postern node join --token-file t --publish http://localhost:9000 --access groups:accounting\n" +
					"postern node join --token-file - --publish unix:/run/books.sock < acme.token\n" +
					"postern node join --token-file t --publish http://localhost:9000 \\\n" +
					"    --publish docs=/srv/docs",
				Flags: append(append([]cli.Flag{
					tokenFlag(),
					&cli.StringFlag{Name: "name", Usage: "`NAME` in lists (made from the machine's if not given)"},
					config,
					&cli.BoolFlag{Name: "no-run", Usage: "only join; start it later with postern node run"},
				}, append(serviceFlags(), nodeFlags()...)...), append(logFlags(), data)...),
			},
			{
				Name: "run", Usage: "run this node until it is stopped", Action: runNodeCommand,
				Description: "It publishes what the file of --config says, or " + node.FileName + " in the data directory. " +
					"Without a file it publishes what --publish says, else what it was told last. " + publishHelp,
				UsageText: "postern node run\npostern node run --publish https://10.0.0.5:8443\n" +
					"postern node run --config /etc/postern.yaml",
				Flags: append(append([]cli.Flag{config}, append(serviceFlags(), nodeFlags()...)...), append(logFlags(), data)...),
			},
			{
				Name: "check", Usage: "check a configuration file without using it", Action: checkFile, ArgsUsage: "[FILE]",
				Description: "FILE is " + node.FileName + " in the data directory if not given.",
				UsageText:   "postern node check\npostern node check postern.yaml",
				Flags:       []cli.Flag{data},
			},
			{
				Name: "status", Usage: "show how the node on this machine does", Action: nodeStatus,
				UsageText: "postern node status\npostern node status -o json",
				Flags:     append([]cli.Flag{data}, outputFlags()...),
			},
			{
				Name: "renew", ArgsUsage: "HOST", Usage: "get a new certificate for a host name now, even if it is not due", Action: renewCertificate,
				Description: "The old one is shown until the new one is there. Public authorities bound how often: `postern node status` " +
					"shows what they say.",
				UsageText: "postern node renew acme.apps.example.com", Flags: []cli.Flag{data},
			},
			rotateKeyCommand("node", data, func(c *cli.Context) (string, error) {
				m, err := node.ReplaceKey(c.Context, nodeSocket(c))
				return m.WireGuard.String(), err
			}),
			nodeServiceCommand(data, config, systemService),
			nodePasskeysCommand(data),
			nodeTokensCommand(data),
		},
	}
}

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Usage: "configuration `FILE` that says what is published, followed while the node runs"}
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
	what, err := toPublish(c)
	if err != nil {
		return err
	}
	if _, err := parseMTU(c); err != nil {
		return err
	}
	token, err := joinToken(c)
	if err != nil {
		return err
	}
	if err := checkName(postern.RoleNode, c.String("name")); err != nil {
		return err
	}
	dir, err := node.Open(dataDir(c, postern.RoleNode))
	if err != nil {
		return err
	}
	defer dir.Close()
	who, err := dir.JoinThrough(c.Context, c.String("proxy"), token, cmp.Or(c.String("name"), what.name), programVersion())
	if errors.Is(err, node.ErrJoined) {
		return fail("`postern node run` starts it; to join anew, use another --data directory", fmt.Errorf("%s: %w", dir.Path("."), err))
	} else if err != nil {
		return err
	}
	if what.file == "" {
		if err := errors.Join(dir.Remember(what.services), dir.RememberAuthorities(what.authorities)); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.App.ErrWriter, "Joined %s as node %s.\n", who.Tenant, who.Name)
	if c.Bool("no-run") {
		fmt.Fprintln(c.App.ErrWriter, "Now run it: "+what.command()+withData(c))
		return nil
	}
	return runNode(c, dir, what, log)
}

func runNodeCommand(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	if _, err := parseMTU(c); err != nil {
		return err
	}
	if err := checkJoined(dataDir(c, postern.RoleNode)); err != nil {
		return err
	}
	dir, err := node.Open(dataDir(c, postern.RoleNode))
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := dir.Membership(); err != nil {
		return fmt.Errorf("%s: %w", dir.Path("."), err)
	}
	what, err := settleServices(c, dir)
	if err != nil {
		return err
	}
	return runNode(c, dir, what, log)
}

// runNode serves as the node that joined in dir until ctx is done and what was
// under way has ended. It tells out of every address that can be used.
func runNode(c *cli.Context, dir *node.Dir, what publication, log *slog.Logger) error {
	mtu, err := parseMTU(c)
	if err != nil {
		return err
	}
	n, err := node.New(node.Config{
		Dir: dir, Services: what.services, Authorities: what.authorities, Remember: true, File: what.file,
		HideLoss: c.Bool("hide-loss"), MTU: mtu, Proxy: c.String("proxy"), Metrics: c.String("metrics"), AccessLog: c.String("access-log"),
		Version: programVersion(), Logger: log,
	})
	if err != nil {
		return err
	}
	if len(n.Services()) == 0 {
		log.Warn("this node publishes nothing; see --publish")
	}
	g, ctx := errgroup.WithContext(c.Context)
	ctx, end := context.WithCancel(ctx)
	g.Go(func() error {
		defer end()
		return n.Run(ctx)
	})
	g.Go(func() error { announce(ctx, n.Status, c.App.Writer); return nil })
	g.Go(func() error { return systemd.Notify(ctx, func() { n.Status() }) })
	g.Go(func() error { return reopening(ctx, c.String("access-log"), n.ReopenAccessLog) })
	return g.Wait()
}

const (
	// announceInterval is how often a node is asked for news of its addresses.
	announceInterval = 500 * time.Millisecond

	// patience is how long an address may take before out hears why.
	patience = 15 * time.Second
)

// announce writes a line for every address once it is ready, or not to be seen from
// here, and once, after patience, what an address waits for.
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
			case r.State == node.RouteClosed, r.Error != "" && time.Since(start) > patience:
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
	s, err := node.QueryStatus(c.Context, nodeSocket(c))
	if err != nil {
		return err
	}
	return show(c, s, nodeStatusFields)
}

func nodeStatusFields(t *table, s node.Status) {
	t.field("Node", s.Member.Tenant+"/"+s.Member.Name+", "+s.Member.Address.String())
	t.field("Identity", s.Member.Identity.String())
	t.field("Up since", t.when(s.Started))
	if s.Control.Up {
		t.field("Control", "up since "+t.when(s.Control.Since))
	} else {
		t.field("Control", "down since "+t.when(s.Control.Since))
		t.field("", dash(s.Control.Error))
	}
	t.lease(s.Control.LeaseEnds, s.Control.Lapsed, s.Control.Up)
	for _, u := range s.Tunnels {
		t.tunnel(u.Gateway, u.Path, u.Endpoint, u.Handshake, u.Received, u.Sent)
		t.field("", mtuText(u))
	}
	if s.ConfigFile != "" {
		t.field("File", s.ConfigFile)
	}
	if s.ConfigError != "" {
		t.field("", "config error: "+s.ConfigError)
	}
	if s.PublishError != "" {
		t.field("", "the coordinator refuses what is published: "+s.PublishError)
	}
	for _, v := range s.Services {
		line := v.Name + ", " + v.Upstream + ", " + accessText(v.Access, v.Groups, len(v.Exceptions), v.Require) + ", " + v.State
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
			certificateFields(t, *r.Certificate)
		}
	}
	t.field("Sessions", fmt.Sprintf("%d, signed in at %s", s.Sessions, dash(s.Portal)))
	t.field("Connections", fmt.Sprintf("%d open, %d pre-dialed, %d accepted, %d refused",
		s.Connections.Open, s.Connections.Waiting, s.Connections.Accepted, s.Connections.Refused))
}

// certificateFields tells of the certificate of the address before it.
func certificateFields(t *table, c node.Certificate) {
	if c.SHA256 != "" {
		line := "certificate: " + c.Source
		if c.Issuer != "" {
			line += " (" + c.Issuer + ")"
		}
		line += ", good until " + c.NotAfter.Local().Format(time.DateOnly)
		if !c.Renewal.IsZero() {
			line += ", renewal " + t.ago(c.Renewal)
		}
		t.field("", line)
		t.field("", "SHA-256 "+c.SHA256+" of the certificate")
		t.field("", "SHA-256 "+c.SPKI+" of its key")
	} else {
		t.field("", "certificate: "+c.Source+", none yet")
	}
	if c.Waiting != "" {
		t.field("", "waiting for "+c.Waiting)
	}
	if c.Error != "" {
		t.field("", c.Error)
	}
	if c.Account != "" {
		t.field("", "account "+c.Account)
	}
	for i, r := range c.Records {
		if i == 0 {
			t.field("", "records that let no other account get one:")
		}
		t.field("", "  "+r)
	}
}

func renewCertificate(c *cli.Context) error {
	words, err := operands(c, "HOST")
	if err != nil {
		return err
	}
	host, err := parseHost(words[0])
	if err != nil {
		return err
	}
	if _, err := node.RenewCertificate(c.Context, nodeSocket(c), host); err != nil {
		return err
	}
	note(c, "A new certificate for %s is being got. `postern node status` shows how it goes.", host)
	return nil
}
