package main

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/urfave/cli/v2"

	"postern"
)

func admissionCommand() *cli.Command {
	return &cli.Command{
		Name: "admission", ArgsUsage: "NAME [MODE]", Action: operate(tenantAdmission, "NAME", "[MODE]"),
		Usage: "show or say from where a company can be reached",
		Description: "MODE is open: from everywhere; admission: from where somebody signed in at the portal lately who may " +
			"open the company, and from what is allowed; or allow-list: from what is allowed alone. Who comes from " +
			"elsewhere gets a TLS error, and reaches nothing. It keeps scanners out, and says nothing of who anybody is. " +
			"What is said replaces what held before, for open connections too.",
		UsageText: "postern tenants admission acme\n" +
			"postern tenants admission acme admission --allow 203.0.113.0/24\n" +
			"postern tenants admission acme allow-list --allow 203.0.113.7 --allow 2001:db8:7::/48\n" +
			"postern tenants admission acme open",
		Flags: adminFlags(append([]cli.Flag{
			&cli.StringSliceFlag{Name: "allow", Usage: "`PREFIX` or address that is always let through; may be repeated"},
		}, outputFlags()...)...),
	}
}

func tenantAdmission(c *cli.Context, a *admin, words []string) error {
	path := "/tenants/" + url.PathEscape(words[0]) + "/admission"
	var state postern.AdmissionState
	if len(words) == 1 {
		if c.IsSet("allow") {
			return misuse("such as postern tenants admission "+words[0]+" admission --allow 203.0.113.0/24", "--allow says nothing without a MODE")
		}
		if err := a.call(c.Context, http.MethodGet, path, nil, &state); err != nil {
			return err
		}
		return show(c, state, admissionFields)
	}
	req := postern.AdmissionRequest{Mode: words[1]}
	for _, text := range c.StringSlice("allow") {
		p, err := parsePrefix(text)
		if err != nil {
			return misuse("such as --allow 203.0.113.0/24", "--allow %q is no prefix", text)
		}
		req.Allowed = append(req.Allowed, p)
	}
	switch req.Mode {
	case postern.AdmissionOpen, postern.AdmissionPortal, postern.AdmissionList:
	default:
		return misuse("choose one of open, admission, allow-list", "there is no admission %q", req.Mode)
	}
	if err := a.call(c.Context, http.MethodPut, path, req, &state); err != nil {
		return err
	}
	return show(c, state, admissionFields)
}

// parsePrefix reads a prefix, or an address, which is a prefix of all its bits.
func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return addr.Prefix(addr.BitLen())
}

func admissionFields(t *table, s postern.AdmissionState) {
	t.field("Mode", s.Mode)
	for i, p := range s.Allowed {
		t.field(first(i, "Allowed"), p.String())
	}
	for i, v := range s.Sources {
		t.field(first(i, "Admitted"), v.Prefix.String()+" until "+t.when(v.Until))
	}
}

// first returns name for the first of a table's lines that have it in common.
func first(i int, name string) string {
	if i == 0 {
		return name
	}
	return ""
}
