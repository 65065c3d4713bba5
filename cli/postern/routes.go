package main

import (
	"net/http"
	"net/url"

	"github.com/urfave/cli/v2"

	"postern"
)

func routesCommand() *cli.Command {
	return &cli.Command{
		Name: "routes", Usage: "host names and what they lead to: list, add, check, remove, match",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the routes", Action: operate(listRoutes),
				Description: "STATE is that of the best of its nodes: ready, degraded or offline. It is unproven where DNS does not " +
					"show yet that the name is the company's: nothing is served there. CERTIFICATE is what the nodes tell of theirs; ALARM means that somebody in between showed another.",
				UsageText: "postern routes list --watch\npostern routes list --tenant acme -o json", Flags: listFlags(tenantFlag()),
			},
			{
				Name: "add", ArgsUsage: "HOST", Usage: "lead a host name of the customer's own to a service", Action: operate(addRoute, "HOST"),
				Description: "HOST lies outside the deployment's domain. It prints the records to put into its DNS: nothing is served " +
					"before the coordinator sees the one that proves whose the name is, for which it looks by itself. What is not " +
					"proven within 7 days is forgotten. Names below the domain follow from what nodes publish and need no adding.",
				UsageText: "postern routes add erp.acme.example --tenant acme --service books",
				Flags: adminFlags(append([]cli.Flag{
					&cli.StringFlag{Name: "tenant", Usage: "`TENANT` that it leads to"},
					&cli.StringFlag{Name: "service", Usage: "`SERVICE` that it leads to (default if not given)"},
				}, outputFlags()...)...),
			},
			{
				Name: "check", ArgsUsage: "HOST", Usage: "ask DNS what is missing for a host name of the customer's own", Action: operate(checkRoute, "HOST"),
				Description: "The coordinator asks DNS as certificate authorities do: for the proof, for where the name leads, for who " +
					"may issue certificates for it. The exit status is 1 if something is missing.",
				UsageText: "postern routes check erp.acme.example",
				Flags:     adminFlags(append(outputFlags(), ownerFlag())...),
			},
			{
				Name: "remove", Aliases: []string{"rm"}, ArgsUsage: "HOST", Usage: "remove a route that was added by hand", Action: operate(removeRoute, "HOST"),
				Description: "Where HOST led somewhere, other companies cannot have it for 30 days.",
				UsageText:   "postern routes remove erp.acme.example", Flags: adminFlags(ownerFlag()),
			},
			{
				Name: "match", ArgsUsage: "HOST", Usage: "show where a gateway would lead a host name", Action: operate(matchRoute, "HOST"),
				UsageText: "postern routes match acme.apps.example.com", Flags: adminFlags(outputFlags()...),
			},
		},
	}
}

// ownerFlag says whose route is meant.
func ownerFlag() cli.Flag {
	return &cli.StringFlag{Name: "tenant", Usage: "`TENANT` whose it is, where more than one wants the name"}
}

func listRoutes(c *cli.Context, a *admin, words []string) error {
	return list(c, fetch[postern.RouteState](a, query("/routes", c.String("tenant"))), routeRows)
}

func routeRows(t *table, routes []postern.RouteState) {
	t.head("HOST", "TENANT", "SERVICE", "NODES", "KIND", "STATE", "CERTIFICATE")
	for _, r := range routes {
		t.row(r.Host, r.Tenant, r.Service, commas(r.Nodes), r.Kind, r.State, certificateWord(t.now, r.Certificates))
	}
}

func routeFields(t *table, r postern.RouteState) {
	t.field("Host", r.Host)
	t.field("State", r.State)
	if r.Finding != "" {
		t.field("", r.Finding)
	}
	t.field("Tenant", r.Tenant)
	t.field("Service", r.Service)
	t.field("Nodes", commas(r.Nodes))
	t.field("Kind", r.Kind)
	t.field("URL", r.URL)
	for i, cert := range r.Certificates {
		t.field(first(i, "Certificate"), certificateLine(t, cert))
	}
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
	if isData(c) {
		return show(c, r, routeFields)
	}
	printRecords(c.App.Writer, r, nil)
	note(c, "\nAdded %s for %s. Nothing is served there until the proof is in its DNS and was seen:\n"+
		"the coordinator looks by itself for 7 days, and at once with `postern routes check %s`.", r.Host, r.Tenant, r.Host)
	return nil
}

func removeRoute(c *cli.Context, a *admin, words []string) error {
	host, err := parseHost(words[0])
	if err != nil {
		return err
	}
	if err := a.call(c.Context, http.MethodDelete, query("/routes/"+url.PathEscape(host), c.String("tenant")), nil, nil); err != nil {
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
