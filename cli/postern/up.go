package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"postern"
	"postern/internal/datadir"
	"postern/internal/member"
)

func upCommand() *cli.Command {
	return &cli.Command{
		Name: "up", Usage: "run a coordinator and a gateway on this one public host", Action: up,
		Description: "This is all that the cloud side needs. One DNS record leads to it: *.DOMAIN, an A or AAAA record with this " +
			"host's address. The first start makes the deployment's keys in the data directory. Below a public name, certificates come " +
			"from Let's Encrypt, or from the authority of --acme-directory; elsewhere the deployment's private CA signs them.",
		UsageText: "postern up --domain apps.example.com --email ops@example.com\n" +
			"postern tenants add acme > acme.token",
		Flags: append(append(append(append([]cli.Flag{domainFlag()}, gatewayFlags()...),
			&cli.StringFlag{Name: "control", Value: "127.0.0.1:8443", Usage: "`ADDRESS` of the control port; nodes come through the gateway"},
			dataFlag("data `DIR`ectory of both (/var/lib/postern for root)"),
		), seatFlags()...), logFlags()...),
	}
}

func up(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	door, err := parseGateway(c, log)
	if err != nil {
		return err
	}
	o, err := parseSeat(c, log)
	if err != nil {
		return err
	}
	base := dataDir(c, "")
	o.dir, o.listen, o.httpsPort = filepath.Join(base, string(postern.RoleCoordinator)), c.String("control"), door.httpsPort
	s, err := openSeat(c.Context, o)
	if err != nil {
		return err
	}
	door.beside, door.alive = s.collectors(), s.alive
	// The wildcard record leads to this host.
	if strings.HasPrefix(door.advertise, ":") {
		door.advertise = "control." + s.domain + door.advertise
	}
	if strings.HasPrefix(door.public, ":") {
		door.public = "control." + s.domain + door.public
	}
	// The coordinator outlives the gateway, which may drain for long.
	g, life := errgroup.WithContext(context.WithoutCancel(c.Context))
	life, end := context.WithCancel(life)
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	defer context.AfterFunc(life, stop)()
	g.Go(func() error {
		defer end()
		return s.run(life)
	})
	g.Go(func() error {
		defer end()
		dir, err := datadir.Open(filepath.Join(base, string(postern.RoleGateway)), postern.RoleGateway)
		if err != nil {
			return err
		}
		defer dir.Close()
		if err := enrolGateway(ctx, s, dir); err != nil {
			return err
		}
		door.opened = func(ctx context.Context) error {
			printUp(c.App.Writer, s, c.String("data"), door)
			return printFirstLink(ctx, c.App.Writer, s.Coordinator)
		}
		return runGateway(ctx, dir, door)
	})
	return unlessStopped(c.Context, g.Wait())
}

// unlessStopped returns err, unless that is only that ctx ended what was still starting.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// enrolGateway makes this process' gateway a member of the deployment that s
// serves, if it is not one yet.
func enrolGateway(ctx context.Context, s *seat, dir *datadir.Dir) error {
	_, err := member.LoadIdentity(dir)
	if !errors.Is(err, member.ErrNotJoined) {
		return err
	}
	created, err := s.IssueToken(ctx, postern.TokenRequest{Role: postern.RoleGateway, Note: "postern up"})
	if err != nil {
		return fmt.Errorf("token for the gateway: %w", err)
	}
	token, err := postern.ParseToken(created.Secret)
	if err != nil {
		return err
	}
	// Not through the gateway that it is about to be.
	token.URLs = []string{"https://" + loopback(s.control.Addr())}
	_, err = join(ctx, dir, token, postern.RoleGateway, "")
	return err
}

// loopback returns where this machine itself reaches a listener at addr.
func loopback(addr net.Addr) string {
	tcp := addr.(*net.TCPAddr)
	if tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return tcp.String()
}

// printUp says what comes next; data is what --data says.
func printUp(w io.Writer, s *seat, data string, o gatewayOptions) {
	if data != "" {
		data = " --data " + data
	}
	fmt.Fprintf(w, `Postern is up for %[1]s.

It needs, and `+"`postern doctor`"+` looks at most of it:

  DNS           *.%[1]s has to lead to this host
  Firewall      TCP %[2]s and UDP %[3]d have to be open
  Certificates  %[5]s

Next, for a customer called acme:

  postern tenants add acme%[4]s > acme.token
  postern node join --token-file acme.token --publish http://localhost:9000

The second command is for the machine beside the application.

`, s.domain, tcpPorts(o), o.udp, data, strings.Join(certificateNotes(s.acme, o.httpsPort), "\n                "))
}

func tcpPorts(o gatewayOptions) string {
	_, https, _ := net.SplitHostPort(o.listen)
	if _, http, err := net.SplitHostPort(o.http); err == nil {
		return https + ", " + http
	}
	return https
}
