package main

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/urfave/cli/v2"

	"postern"
)

func routesCommand() *cli.Command {
	return &cli.Command{
		Name: "routes", Usage: "host names and what they lead to: list, add, remove, match",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the routes", Action: operate(listRoutes),
				Description: "STATE is that of the best of its nodes: ready, else no-control, which carries traffic too, else no-path, " +
					"else offline. CERTIFICATE is what its nodes say of theirs: valid, late if it should have been renewed, waiting, " +
					"expired, or alarm if a gateway showed another.",
				UsageText: "postern routes list --watch\npostern routes list --tenant acme -o json", Flags: listFlags(tenantFlag()),
			},
			{
				Name: "add", ArgsUsage: "HOST", Usage: "lead a host name of the customer's own to a service", Action: operate(addRoute, "HOST"),
				Description: "HOST lies outside the deployment's domain, and its DNS has to lead to the gateway. Names below the " +
					"domain follow from what nodes publish and need no adding.",
				UsageText: "postern routes add books.acme.example --tenant acme",
				Flags: adminFlags(append([]cli.Flag{
					&cli.StringFlag{Name: "tenant", Usage: "`TENANT` that it leads to"},
					&cli.StringFlag{Name: "service", Usage: "`SERVICE` that it leads to (default if not given)"},
				}, outputFlags()...)...),
			},
			{
				Name: "remove", Aliases: []string{"rm"}, ArgsUsage: "HOST", Usage: "remove a route that was added by hand", Action: operate(removeRoute, "HOST"),
				UsageText: "postern routes remove books.acme.example", Flags: adminFlags(),
			},
			{
				Name: "match", ArgsUsage: "HOST", Usage: "show where a gateway would lead a host name", Action: operate(matchRoute, "HOST"),
				UsageText: "postern routes match acme.apps.example.com", Flags: adminFlags(outputFlags()...),
			},
		},
	}
}

func listRoutes(c *cli.Context, a *admin, words []string) error {
	return list(c, fetch[postern.RouteState](a, query("/routes", c.String("tenant"))), routeRows)
}

func routeRows(t *table, routes []postern.RouteState) {
	t.head("HOST", "TENANT", "SERVICE", "NODES", "KIND", "STATE", "CERTIFICATE")
	for _, r := range routes {
		t.row(r.Host, r.Tenant, r.Service, commas(r.Nodes), r.Kind, r.State, worstCertificate(r.Certificates))
	}
}

func routeFields(t *table, r postern.RouteState) {
	t.field("Host", r.Host)
	t.field("State", r.State)
	t.field("Tenant", r.Tenant)
	t.field("Service", r.Service)
	t.field("Nodes", commas(r.Nodes))
	t.field("Kind", r.Kind)
	t.field("URL", r.URL)
	for _, cert := range r.Certificates {
		t.field("Certificate", "node "+cert.Node)
		for _, line := range certificateLines(t, cert.HostStatus, false) {
			t.field("", line)
		}
	}
}

// worstCertificate returns the state of the one that does worst by browsers, alarm if one
// of them is alarming.
func worstCertificate(all []postern.RouteCertificate) string {
	states := []string{
		"", postern.CertificateValid, postern.CertificateLate, postern.CertificateWaiting, postern.CertificateExpired, "alarm",
	}
	worst := 0
	for _, cert := range all {
		if cert.Alarm != "" {
			cert.State = "alarm"
		}
		worst = max(worst, slices.Index(states, cert.State))
	}
	return dash(states[worst])
}

// parseHost returns word in the form that a gateway looks for.
func parseHost(word string) (string, error) {
	host, err := postern.ParseHost(word)
	if err != nil {
		return "", misuse("want a name such as books.acme.example, without https:// and path", "%w", err)
	}
	return host, nil
}

func addRoute(c *cli.Context, a *admin, words []string) error {
	host, err := parseHost(words[0])
	if err != nil {
		return err
	}
	req := postern.RouteRequest{Host: host, Tenant: c.String("tenant"), Service: c.String("service")}
	if req.Tenant == "" {
		return misuse("name the company with --tenant NAME", "%s: --tenant is missing", c.Command.HelpName)
	}
	if req.Service != "" {
		if err := postern.CheckLabel("service", req.Service); err != nil {
			return misuse("`postern nodes show` lists the services of a node", "%w", err)
		}
	}
	var r postern.RouteState
	if err := a.call(c.Context, http.MethodPost, "/routes", req, &r); err != nil {
		return err
	}
	return show(c, r, routeFields)
}

func removeRoute(c *cli.Context, a *admin, words []string) error {
	host, err := parseHost(words[0])
	if err != nil {
		return err
	}
	if err := a.call(c.Context, http.MethodDelete, "/routes/"+url.PathEscape(host), nil, nil); err != nil {
		return err
	}
	note(c, "Removed %s.", host)
	return nil
}

func matchRoute(c *cli.Context, a *admin, words []string) error {
	host, err := parseHost(words[0])
	if err != nil {
		return err
	}
	var r postern.RouteState
	if err := a.call(c.Context, http.MethodGet, "/routes/"+url.PathEscape(host)+"/match", nil, &r); err != nil {
		return err
	}
	return show(c, r, routeFields)
}
