package main

import (
	"net/http"
	"net/netip"
	"net/url"

	"github.com/urfave/cli/v2"

	"postern"
)

func admissionCommand() *cli.Command {
	return &cli.Command{
		Name: "admission", ArgsUsage: "NAME", Action: operate(admission, "NAME"),
		Usage: "show or say from where a company can be reached",
		Description: "open lets everybody through to the company's nodes, who then have to sign in. admission lets only those " +
			"addresses through from where somebody signed in at the portal lately, allow-list none but those named with " +
			"--allow. Both keep scanners out; neither takes the place of signing in.",
		UsageText: "postern tenants admission acme\n" +
			"postern tenants admission acme --mode admission --allow 203.0.113.0/24\n" +
			"postern tenants admission acme --mode open",
		Flags: adminFlags(append([]cli.Flag{
			&cli.StringFlag{Name: "mode", Usage: "`MODE`: open, admission or allow-list"},
			&cli.StringSliceFlag{Name: "allow", Usage: "`NETWORK` that is always let through, such as 203.0.113.0/24; may be repeated"},
		}, outputFlags()...)...),
	}
}

func admission(c *cli.Context, a *admin, words []string) error {
	path := "/tenants/" + url.PathEscape(words[0]) + "/admission"
	var state postern.AdmissionState
	if !c.IsSet("mode") {
		if c.IsSet("allow") {
			return misuse("say which: --mode admission or --mode allow-list", "--allow goes with --mode")
		}
		if err := a.call(c.Context, http.MethodGet, path, nil, &state); err != nil {
			return err
		}
		return show(c, state, admissionFields)
	}
	req := postern.AdmissionRequest{Mode: c.String("mode")}
	switch req.Mode {
	case postern.AdmissionOpen, postern.AdmissionPortal, postern.AdmissionList:
	default:
		return misuse("choose one of open, admission and allow-list", "--mode: there is no mode %q", req.Mode)
	}
	for _, text := range c.StringSlice("allow") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return misuse("such as --allow 203.0.113.0/24; one address alone is 203.0.113.7/32", "--allow %s is no network", text)
		}
		req.Allowed = append(req.Allowed, p)
	}
	if err := a.call(c.Context, http.MethodPut, path, req, &state); err != nil {
		return err
	}
	return show(c, state, admissionFields)
}

func admissionFields(t *table, s postern.AdmissionState) {
	t.field("Mode", s.Mode)
	for _, p := range s.Allowed {
		t.field("Allowed", p.String())
	}
	for _, source := range s.Sources {
		t.field("Signed in", source.Prefix.String()+", admitted until "+t.when(source.Until))
	}
}
