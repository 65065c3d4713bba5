package main

import (
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"
)

// resolverFlag is what a coordinator and `doctor` have in common about DNS.
func resolverFlag() cli.Flag {
	return &cli.StringFlag{Name: "resolver", Usage: "`ADDRESS` of the DNS server to ask in place of the system's; for closed networks"}
}

// parseResolver returns what --resolver says: IP or IP:PORT, empty if it is not given.
func parseResolver(c *cli.Context) (string, error) {
	s := c.String("resolver")
	if s == "" {
		return "", nil
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return s, nil
	}
	if _, err := netip.ParseAddrPort(s); err == nil {
		return s, nil
	}
	return "", misuse("such as --resolver 192.0.2.53 or --resolver [2001:db8::53]:5353", "--resolver %q is no address of a DNS server", s)
}
