package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/urfave/cli/v2"

	"postern"
)

func gatewaysCommand() *cli.Command {
	return &cli.Command{
		Name: "gateways", Usage: "the public doors: list, drain, DNS, remove",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the gateways", Action: operate(listGateways),
				Description: "STATE is ready, draining if new connections are to go elsewhere, or offline if the gateway has no stream " +
					"to the coordinator or has not reported for 20 s. DNS says whether it is fit for DNS, and REASON why not.",
				UsageText: "postern gateways list --watch", Flags: listFlags(),
			},
			{
				Name: "drain", ArgsUsage: "ID|NAME", Action: operate(drainGateway(true), "ID or NAME"),
				Usage: "have new connections go to other gateways",
				Description: "It is fit for DNS no longer, until `postern gateways undrain`, over restarts too. It goes on taking what " +
					"comes by DNS of before, and nodes keep their tunnels to it: no connection fails.",
				UsageText: "postern gateways drain vps-1", Flags: adminFlags(),
			},
			{
				Name: "undrain", ArgsUsage: "ID|NAME", Action: operate(drainGateway(false), "ID or NAME"),
				Usage:     "have new connections come to a gateway again",
				UsageText: "postern gateways undrain vps-1", Flags: adminFlags(),
			},
			dnsCommand(),
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
	t.head("NAME", "STATE", "PUBLIC", "ENDPOINT", "TUNNELS", "JOINED", "DNS", "REASON")
	for _, g := range gateways {
		reason := g.Reason
		if g.Fit && g.State == postern.StateReady {
			reason = "" // what `gateways dns` has to say
		}
		t.row(g.Name, g.State, dash(g.Public), dash(g.Endpoint), strconv.Itoa(g.Tunnels), t.ago(g.Joined), fitness(g.Fit), dash(reason))
	}
}

// fitness returns in a word whether a gateway is fit for DNS.
func fitness(fit bool) string {
	if fit {
		return "fit"
	}
	return "unfit"
}

// getGateway finds a gateway by its id or name.
func getGateway(ctx context.Context, a *admin, name string) (postern.GatewayState, error) {
	all, err := fetch[postern.GatewayState](a, "/gateways")(ctx)
	if err != nil {
		return postern.GatewayState{}, err
	}
	for _, g := range all {
		if g.ID == name || g.Name == name {
			return g, nil
		}
	}
	return postern.GatewayState{}, fail("`postern gateways list` shows what there is", fmt.Errorf("no gateway %q", name))
}

func drainGateway(draining bool) func(*cli.Context, *admin, []string) error {
	return func(c *cli.Context, a *admin, words []string) error {
		g, err := getGateway(c.Context, a, words[0])
		if err != nil {
			return err
		}
		change := postern.GatewayChange{Draining: &draining}
		if err := a.call(c.Context, http.MethodPatch, "/gateways/"+url.PathEscape(g.ID), change, &g); err != nil {
			return err
		}
		if draining {
			note(c, "%s is draining. `postern gateways dns` shows what is in DNS now; browsers hold on to what was for %d s.", g.Name, postern.DNSTTL)
		} else {
			note(c, "%s is %s.", g.Name, g.State)
		}
		return nil
	}
}

func removeGateway(c *cli.Context, a *admin, words []string) error {
	g, err := getGateway(c.Context, a, words[0])
	if err != nil {
		return err
	}
	if err := a.call(c.Context, http.MethodDelete, "/gateways/"+url.PathEscape(g.ID), nil, nil); err != nil {
		return err
	}
	note(c, "Removed %s.", g.Name)
	return nil
}
