package main

import (
	"path/filepath"

	"github.com/urfave/cli/v2"

	"postern/node"
)

// nodeFlags are the options of everything that runs a node, besides what it publishes.
func nodeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "acme-directory", Usage: "`URL` of the certificate authority to ask in place of the deployment's; empty to forget it"},
		acmeRootFlag(),
		&cli.StringFlag{Name: "acme-email", Usage: "`ADDRESS` that the authority is told"},
		acmeProfileFlag(),
		&cli.StringFlag{Name: "acme-eab-key-id", Usage: "`ID` of an account at the authority (external account binding)"},
		&cli.StringFlag{Name: "acme-eab-hmac-file", Usage: "`FILE` with the account's HMAC key, base64url"},
		hideLossFlag(),
		mtuFlag(),
		&cli.StringFlag{Name: "proxy", EnvVars: []string{"POSTERN_PROXY"},
			Usage: "`URL` of the HTTP proxy to the Internet, such as http://USER:PASSWORD@HOST:3128, or direct (HTTPS_PROXY if not given)"},
		accessLogFlag("request"),
		metricsFlag(),
	}
}

func authorityFlagsSet(c *cli.Context) bool {
	for _, name := range []string{"directory", "root", "email", "profile", "eab-key-id", "eab-hmac-file"} {
		if c.IsSet("acme-" + name) {
			return true
		}
	}
	return false
}

// parseAuthorities returns what the options say; without them, saved.
func parseAuthorities(c *cli.Context, saved []node.Authority) ([]node.Authority, error) {
	if !authorityFlagsSet(c) {
		return saved, nil
	}
	a := node.Authority{
		Directory: c.String("acme-directory"), Root: c.String("acme-root"), Email: c.String("acme-email"),
		Profile: c.String("acme-profile"), KeyID: c.String("acme-eab-key-id"), HMACFile: c.String("acme-eab-hmac-file"),
	}
	if a.Directory == "" {
		if a != (node.Authority{}) {
			return nil, misuse("name the authority with --acme-directory URL", "the --acme options say nothing without --acme-directory")
		}
		return nil, nil
	}
	for _, file := range []*string{&a.Root, &a.HMACFile} {
		if *file == "" {
			continue
		}
		path, err := filepath.Abs(*file) // the node may run elsewhere next time
		if err != nil {
			return nil, err
		}
		*file = path
	}
	return []node.Authority{a}, nil
}

// settleAuthorities returns what the options say, which dir remembers then, else what
// dir remembers.
func settleAuthorities(c *cli.Context, dir *node.Dir) ([]node.Authority, error) {
	saved, err := dir.Authorities()
	if err != nil || !authorityFlagsSet(c) {
		return saved, err
	}
	authorities, err := parseAuthorities(c, saved)
	if err != nil {
		return nil, err
	}
	return authorities, dir.RememberAuthorities(authorities)
}
