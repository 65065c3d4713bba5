package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"postern/coordinator"
	"postern/internal/dnscheck"
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

// dns is dnscheck's resolver as the coordinator knows it.
type dns struct{ *dnscheck.Resolver }

func openResolver(server string) (coordinator.Resolver, error) {
	r, err := dnscheck.New(server)
	if err != nil {
		return nil, fmt.Errorf("DNS: %w", err)
	}
	return dns{r}, nil
}

func (d dns) TXT(ctx context.Context, name string) ([]string, error) {
	texts, err := d.Resolver.TXT(ctx, name)
	return texts, noRecord(err)
}

func (d dns) Addresses(ctx context.Context, name string) ([]netip.Addr, []string, error) {
	a, err := d.Resolver.Addresses(ctx, name)
	return a.Addrs, a.Via, noRecord(err)
}

func (d dns) CAA(ctx context.Context, name string) (coordinator.CAA, error) {
	set, err := d.Resolver.CAA(ctx, name)
	return caaSet{set}, noRecord(err)
}

// noRecord has errors say in the coordinator's terms that there is no record.
func noRecord(err error) error {
	if errors.Is(err, dnscheck.ErrNone) {
		return absent{err}
	}
	return err
}

// absent is an error that keeps its words.
type absent struct{ error }

func (absent) Is(target error) bool { return target == coordinator.ErrNoRecord }

// caaSet is dnscheck's as the coordinator knows it.
type caaSet struct{ dnscheck.CAASet }

func (s caaSet) Grade(base string) (grade, why string) {
	g, why := s.CAASet.Grade(base)
	return string(g), why
}

func (s caaSet) Permits(authority, account, method string) error {
	return s.CAASet.Permits(dnscheck.Wish{Authority: authority, Account: account, Method: method})
}
