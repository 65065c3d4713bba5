package main

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
)

func nodesCommand() *cli.Command {
	return &cli.Command{
		Name: "nodes", Usage: "the machines beside the applications: list, show, remove",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the nodes and how they are reached", Action: operate(listNodes),
				Description: "STATE is ready if the node's control stream is open and its tunnel answers, no-path if only " +
					"the control stream is, no-control if only the tunnel does, else offline. PATH is what carries the " +
					"tunnel: udp, or tls-443 where UDP does not pass.",
				UsageText: "postern nodes list --watch\npostern nodes list --tenant acme -o json", Flags: listFlags(tenantFlag()),
			},
			{
				Name: "show", ArgsUsage: "ID|TENANT/NAME", Usage: "show all that is known of a node", Action: operate(showNode, "ID or TENANT/NAME"),
				UsageText: "postern nodes show acme/office", Flags: adminFlags(outputFlags()...),
			},
			{
				Name: "remove", Aliases: []string{"rm"}, ArgsUsage: "ID|TENANT/NAME", Action: operate(removeNode, "ID or TENANT/NAME"),
				Usage:       "cut a node off, for good",
				Description: "It is cut off within seconds and can only come back with a new token.",
				UsageText:   "postern nodes remove acme/office", Flags: adminFlags(),
			},
		},
	}
}

func listNodes(c *cli.Context, a *admin, words []string) error {
	return list(c, fetch[postern.NodeState](a, query("/nodes", c.String("tenant"))), nodeRows)
}

func nodeRows(t *table, nodes []postern.NodeState) {
	t.head("TENANT", "NAME", "STATE", "SERVICES", "PATH", "ENDPOINT", "HANDSHAKE", "TRAFFIC")
	for _, n := range nodes {
		var services []string
		for _, s := range n.Services {
			services = append(services, s.Name)
		}
		var best postern.Tunnel // the freshest
		traffic := uint64(0)
		for _, u := range n.Tunnels {
			if u.Handshake.After(best.Handshake) {
				best = u
			}
			traffic += u.Received + u.Sent
		}
		t.row(n.Tenant, n.Name, n.State, commas(services), dash(best.Path), dash(best.Endpoint), t.ago(best.Handshake), size(traffic))
	}
}

func showNode(c *cli.Context, a *admin, words []string) error {
	n, err := getNode(c.Context, a, words[0])
	if err != nil {
		return err
	}
	return show(c, n, nodeFields)
}

// getNode finds a node by its id or by tenant/name.
func getNode(ctx context.Context, a *admin, name string) (postern.NodeState, error) {
	var n postern.NodeState
	return n, a.call(ctx, http.MethodGet, "/nodes/"+url.PathEscape(name), nil, &n)
}

func nodeFields(t *table, n postern.NodeState) {
	t.field("Node", n.Tenant+"/"+n.Name)
	t.field("State", n.State)
	t.field("ID", n.ID)
	t.field("Address", n.Address.String())
	for _, s := range n.Services {
		name := s.Name
		if s.Title != "" && s.Title != s.Name {
			name += " (" + s.Title + ")"
		}
		t.field("Service", name)
	}
	for _, u := range n.Tunnels {
		t.tunnel(u.Gateway, u.Path, u.Endpoint, u.Handshake, u.Received, u.Sent)
	}
	t.field("Control", t.when(n.Control))
	t.field("Machine", machine(n.Host))
	t.field("Joined", t.when(n.Joined))
	t.field("Identity", n.Identity.String())
	t.field("WireGuard", n.WireGuard.String())
}

// tunnel adds what one end knows of a tunnel to or by way of gateway.
func (t *table) tunnel(gateway, path, endpoint string, handshake time.Time, received, sent uint64) {
	t.field("Tunnel", "gateway "+gateway+", "+dash(endpoint)+", path "+dash(path))
	t.field("", "handshake "+t.ago(handshake)+", "+size(received)+" in, "+size(sent)+" out")
}

// machine describes the computer that a member runs on.
func machine(h postern.Host) string {
	line := dash(h.Name)
	if h.OS != "" {
		line += ", " + h.OS + "/" + h.Arch
	}
	if h.Version != "" {
		line += ", postern " + h.Version
	}
	return line
}

func removeNode(c *cli.Context, a *admin, words []string) error {
	n, err := getNode(c.Context, a, words[0])
	if err != nil {
		return err
	}
	if err := a.call(c.Context, http.MethodDelete, "/nodes/"+url.PathEscape(n.ID), nil, nil); err != nil {
		return err
	}
	note(c, "Removed %s/%s.", n.Tenant, n.Name)
	return nil
}
