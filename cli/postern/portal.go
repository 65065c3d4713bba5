package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/coordinator"
	"postern/coordinator/portal"
)

// portalFlags say what the portal is like.
func portalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "portal-host", Usage: "`HOST` name at which people sign in (portal.DOMAIN if not given)"},
		&cli.StringFlag{Name: "portal-name", Usage: "`NAME` of this deployment, for people"},
		&cli.StringFlag{Name: "portal-logo", Usage: "`FILE` with a logo, SVG or PNG"},
		&cli.StringFlag{Name: "portal-cert", Usage: "`FILE` with the portal's certificate chain, PEM, for that name alone; followed when it changes (what --certificates says if not given)"},
		&cli.StringFlag{Name: "portal-key", Usage: "`FILE` with its key, PEM"},
	}
}

// portalOptions say what the portal is like.
type portalOptions struct {
	host      string // empty: portal.DOMAIN
	name      string
	logo      []byte
	cert, key string // paths; empty: the private CA
}

func parsePortal(c *cli.Context) (portalOptions, error) {
	o := portalOptions{name: c.String("portal-name"), cert: c.String("portal-cert"), key: c.String("portal-key")}
	if (o.cert == "") != (o.key == "") {
		return o, misuse("give both, or neither for the deployment's private CA", "--portal-cert and --portal-key belong together")
	}
	if o.cert != "" {
		if _, err := tls.LoadX509KeyPair(o.cert, o.key); err != nil {
			return o, fail("name files in PEM that belong together", fmt.Errorf("--portal-cert %s, --portal-key %s: %w", o.cert, o.key, err))
		}
	}
	if asked := c.String("portal-host"); asked != "" {
		host, err := postern.ParseHost(asked)
		if err != nil {
			return o, misuse("want a name such as login.example.com", "--portal-host: %w", err)
		}
		o.host = host
	}
	if file := c.String("portal-logo"); file != "" {
		f, err := os.Open(file)
		if err != nil {
			return o, fail("name a file with an SVG or PNG picture", fmt.Errorf("--portal-logo: %w", err))
		}
		defer f.Close()
		if o.logo, err = io.ReadAll(io.LimitReader(f, portal.MaxLogo+1)); err != nil {
			return o, fmt.Errorf("--portal-logo: %w", err)
		}
		if len(o.logo) > portal.MaxLogo {
			return o, fail("use a smaller picture", fmt.Errorf("--portal-logo %s: it has more than %d bytes", file, portal.MaxLogo))
		}
	}
	return o, nil
}

// newPortal returns the portal of c.
func newPortal(c *coordinator.Coordinator, o portalOptions, logger *slog.Logger) (*portal.Portal, error) {
	// The OpenID library logs to the default logger, and knows no other. What it
	// says of strangers' requests is in the audit log already.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	log.SetOutput(os.Stderr) // which the default logger took over
	return portal.New(portal.Config{Coordinator: c, Name: o.name, Logo: o.logo, Logger: logger})
}

// printFirstLink prints the link that lets the first person in, until somebody used
// it. Each start makes another, and those before are void.
func printFirstLink(ctx context.Context, w io.Writer, c *coordinator.Coordinator) error {
	secret, ok, err := c.FirstInvitation(ctx)
	if err != nil {
		return fmt.Errorf("invite the first person: %w", err)
	}
	if ok {
		fmt.Fprintf(w, "Nobody can sign in yet. This link lets the first person in, once, within 72 hours:\n\n  %s/invite/%s\n\n", c.PortalURL(), secret)
	}
	return nil
}
