package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/urfave/cli/v2"

	"postern"
)

func gatewaysCommand() *cli.Command {
	return &cli.Command{
		Name: "gateways", Usage: "the public doors: list, remove",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the gateways", Action: operate(listGateways),
				UsageText: "postern gateways list --watch", Flags: listFlags(),
			},
			{
				Name: "remove", Aliases: []string{"rm"}, ArgsUsage: "ID|NAME", Action: operate(removeGateway, "ID or NAME"),
				Usage:     "cut a gateway off, for good",
				UsageText: "postern gateways remove vps-1", Flags: adminFlags(),
			},
		},
	}
}

func listGateways(c *cli.Context, a *admin, words []string) error {
	return list(c, fetch[postern.GatewayState](a, "/gateways"), gatewayRows)
}

func gatewayRows(t *table, gateways []postern.GatewayState) {
	t.head("NAME", "STATE", "PUBLIC", "ENDPOINT", "TUNNELS", "JOINED")
	for _, g := range gateways {
		t.row(g.Name, g.State, dash(g.Public), dash(g.Endpoint), strconv.Itoa(g.Tunnels), t.ago(g.Joined))
	}
}

func removeGateway(c *cli.Context, a *admin, words []string) error {
	all, err := fetch[postern.GatewayState](a, "/gateways")(c.Context)
	if err != nil {
		return err
	}
	for _, g := range all {
		if g.ID == words[0] || g.Name == words[0] {
			if err := a.call(c.Context, http.MethodDelete, "/gateways/"+url.PathEscape(g.ID), nil, nil); err != nil {
				return err
			}
			note(c, "Removed %s.", g.Name)
			return nil
		}
	}
	return fail("`postern gateways list` shows what there is", fmt.Errorf("no gateway %q", words[0]))
}
