package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"postern"
)

func tenantsCommand() *cli.Command {
	return &cli.Command{
		Name: "tenants", Aliases: []string{"tenant"}, Usage: "customer companies: add, list, admission, remove",
		Subcommands: []*cli.Command{
			{
				Name: "add", ArgsUsage: "NAME", Action: operate(addTenant, "NAME"),
				Usage: "add a company and print a join token for its first node",
				Description: "NAME becomes the first label of the company's address, NAME.DOMAIN. The token goes to " +
					"standard output and is shown once; it is good for one node and 24 hours.",
				UsageText: "postern tenants add acme --title \"Acme Joinery\" > acme.token\n" +
					"postern tenants add acme --no-token",
				Flags: adminFlags(append([]cli.Flag{
					&cli.StringFlag{Name: "title", Usage: "the company's `NAME` for people"},
					&cli.BoolFlag{Name: "no-token", Usage: "make no join token"},
				}, outputFlags()...)...),
			},
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the companies", Action: operate(listTenants),
				UsageText: "postern tenants list\npostern tenants list -o json", Flags: listFlags(),
			},
			admissionCommand(),
			{
				Name: "remove", Aliases: []string{"rm"}, ArgsUsage: "NAME", Action: operate(removeTenant, "NAME"),
				Usage: "remove a company with all that belongs to it",
				Description: "Its nodes, tokens, routes and issuers go, and what people may open of it; they themselves stay. " +
					"Its nodes are cut off within seconds. Its name rests for 30 days before anybody can have it. " +
					"A company that has nodes is removed with --yes only.",
				UsageText: "postern tenants remove acme --yes",
				Flags:     adminFlags(&cli.BoolFlag{Name: "yes", Usage: "also if it has nodes"}),
			},
		},
	}
}

// An addedTenant is what `tenants add` shows a program.
type addedTenant struct {
	Tenant postern.Tenant        `json:"tenant"`
	Token  *postern.CreatedToken `json:"token,omitempty"`
}

func addTenant(c *cli.Context, a *admin, words []string) error {
	if err := postern.CheckTenant(words[0]); err != nil {
		hint := "a name is a DNS label such as acme: letters a to z, digits and hyphens"
		if slices.Contains(postern.Reserved, words[0]) {
			hint = "choose another name"
		}
		return misuse(hint, "%w", err)
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	var added addedTenant
	req := postern.TenantRequest{Name: words[0], Title: c.String("title")}
	if err := a.call(c.Context, http.MethodPost, "/tenants", req, &added.Tenant); err != nil {
		return err
	}
	if !c.Bool("no-token") {
		added.Token = new(postern.CreatedToken)
		if err := a.call(c.Context, http.MethodPost, "/tokens", postern.TokenRequest{Tenant: req.Name}, added.Token); err != nil {
			return fail("make it yourself: postern tokens create --tenant "+req.Name,
				fmt.Errorf("tenant %q is added, its join token is not: %w", req.Name, err))
		}
	}
	if format != "table" {
		return write(c.App.Writer, format, added, nil)
	}
	note(c, "Added %s.", added.Tenant.Name)
	if added.Token != nil {
		return showToken(c, *added.Token)
	}
	return nil
}

func listTenants(c *cli.Context, a *admin, words []string) error {
	return list(c, fetch[postern.Tenant](a, "/tenants"), tenantRows)
}

func tenantRows(t *table, tenants []postern.Tenant) {
	t.head("NAME", "TITLE", "NODES", "PREFIX", "CREATED")
	for _, v := range tenants {
		t.row(v.Name, dash(v.Title), strconv.Itoa(v.Nodes), v.Prefix.String(), t.ago(v.Created))
	}
}

func removeTenant(c *cli.Context, a *admin, words []string) error {
	if !c.Bool("yes") {
		var nodes []postern.NodeState
		if err := a.call(c.Context, http.MethodGet, query("/nodes", words[0]), nil, &nodes); err != nil {
			return err
		}
		if len(nodes) > 0 {
			return misuse("to remove it with all that belongs to it: postern tenants remove "+words[0]+" --yes",
				"tenant %q has %s", words[0], count(len(nodes), "node"))
		}
	}
	if err := a.call(c.Context, http.MethodDelete, "/tenants/"+url.PathEscape(words[0]), nil, nil); err != nil {
		return err
	}
	note(c, "Removed %s.", words[0])
	return nil
}

// count returns "1 node" or "2 nodes".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
