package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
)

func nodesCommand() *cli.Command {
	return &cli.Command{
		Name: "nodes", Usage: "the machines beside the applications: list, show, set, drain, remove",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the nodes and how they are reached", Action: operate(listNodes),
				Description: "STATE is ready if the node has contact with the coordinator and answers the gateways; degraded if one " +
					"of these is missing, as `nodes show` explains; offline if nothing is heard of it. PATH is what carries the " +
					"tunnel: udp, or tls-443 where UDP does not pass. PROBE is when the node last answered through it, and RTT " +
					"how long that took. -o wide has more columns.",
				UsageText: "postern nodes list --watch\npostern nodes list --tenant acme -o json", Flags: listFlags(tenantFlag()),
			},
			{
				Name: "show", ArgsUsage: "ID|TENANT/NAME", Usage: "show all that is known of a node", Action: operate(showNode, "ID or TENANT/NAME"),
				UsageText: "postern nodes show acme/office", Flags: adminFlags(outputFlags()...),
			},
			{
				Name: "set", ArgsUsage: "ID|TENANT/NAME", Action: operate(setNode, "ID or TENANT/NAME"),
				Usage: "say how much of a service's traffic a node takes",
				Description: "Where several nodes have the same service, a weight says how many of its visitors go to this one, beside " +
					"the weights of the others, which are 100 unless they were set. A visitor goes to the same node each time.",
				UsageText: "postern nodes set acme/office --weight 50",
				Flags: adminFlags(append([]cli.Flag{
					&cli.IntFlag{Name: "weight", Usage: "`N` from 1 to 1000"},
				}, outputFlags()...)...),
			},
			{
				Name: "drain", ArgsUsage: "ID|TENANT/NAME", Action: operate(drainNode(true, "%s/%s is drained: while other nodes answer, new connections go to them."), "ID or TENANT/NAME"),
				Usage: "keep new connections from a node, such as before maintenance",
				Description: "New connections go to the other nodes that have its services, while there are some that answer. What is " +
					"open goes on. It stays so until `nodes undrain`.",
				UsageText: "postern nodes drain acme/office", Flags: adminFlags(outputFlags()...),
			},
			{
				Name: "undrain", ArgsUsage: "ID|TENANT/NAME", Action: operate(drainNode(false, "New connections come to %s/%s again."), "ID or TENANT/NAME"),
				Usage:     "let new connections come to a node again that was drained",
				UsageText: "postern nodes undrain acme/office", Flags: adminFlags(outputFlags()...),
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
	more := []string{"WEIGHT", "ENDPOINT", "TRAFFIC", "REASON"}
	t.head(append([]string{"TENANT", "NAME", "STATE", "SERVICES", "PATH", "RTT", "LAST HANDSHAKE", "PROBE"}, t.ifWide(more)...)...)
	for _, n := range nodes {
		var services []string
		for _, s := range n.Services {
			services = append(services, s.Name)
		}
		best, traffic := postern.Tunnel{}, uint64(0)
		for _, u := range n.Tunnels {
			if betterTunnel(u, best) {
				best = u
			}
			traffic += u.Received + u.Sent
		}
		state := n.State
		if n.Draining {
			state += ", draining"
		}
		rtt, probe := t.probe(best.Probe)
		more := []string{strconv.Itoa(n.Weight), dash(best.Endpoint), size(traffic), dash(n.Reason)}
		t.row(append([]string{
			n.Tenant, n.Name, state, commas(services), dash(best.Path), rtt, t.ago(best.Handshake), probe,
		}, t.ifWide(more)...)...)
	}
}

// betterTunnel reports whether a does better than b: it answers, or else its handshake is
// fresher.
func betterTunnel(a, b postern.Tunnel) bool {
	answers := func(u postern.Tunnel) bool { return u.Probe != nil && u.Probe.Error == "" }
	if answers(a) != answers(b) {
		return answers(a)
	}
	return a.Handshake.After(b.Handshake)
}

// probe returns how long an answer to a probe took, and when it came or that there is
// none now.
func (t *table) probe(p *postern.ProbeStatus) (rtt, probe string) {
	switch {
	case p == nil:
		return "-", "-"
	case p.Error != "":
		return "-", "no answer"
	}
	return roundTrip(p.RTT), t.ago(p.Time)
}

// roundTrip returns d with as many digits as matter.
func roundTrip(d postern.Duration) string {
	ms := time.Duration(d).Seconds() * 1000
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
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
	if n.Reason != "" {
		t.field("", n.Reason)
	}
	if n.Draining {
		t.field("Draining", "new connections go to other nodes, while there are some")
	}
	t.field("Weight", strconv.Itoa(n.Weight))
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
		switch p := u.Probe; {
		case p == nil:
		case p.Error != "" && p.Time.IsZero():
			t.field("", "does not answer: "+p.Error)
		case p.Error != "":
			t.field("", "does not answer: "+p.Error+"; last did "+t.ago(p.Time))
		default:
			t.field("", "answered "+t.ago(p.Time)+", in "+roundTrip(p.RTT))
		}
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

// changeNode changes the node that words name and returns it. It says what was done, with
// its tenant and name, or shows the node to a program.
func changeNode(c *cli.Context, a *admin, words []string, req postern.NodeChange, done string) (postern.NodeState, error) {
	n, err := getNode(c.Context, a, words[0])
	if err != nil {
		return n, err
	}
	if err := a.call(c.Context, http.MethodPatch, "/nodes/"+url.PathEscape(n.ID), req, &n); err != nil {
		return n, err
	}
	if isData(c) {
		return n, show(c, n, nil)
	}
	note(c, done, n.Tenant, n.Name)
	return n, nil
}

func setNode(c *cli.Context, a *admin, words []string) error {
	weight := c.Int("weight")
	switch {
	case !c.IsSet("weight"):
		return misuse("such as postern nodes set "+words[0]+" --weight 50", "--weight is missing")
	case weight < 1 || weight > postern.MaxWeight:
		return misuse("`postern nodes drain` keeps new connections from a node", "--weight %d: a weight is 1 to %d", weight, postern.MaxWeight)
	}
	_, err := changeNode(c, a, words, postern.NodeChange{Weight: &weight}, fmt.Sprintf("The weight of %%s/%%s is %d.", weight))
	return err
}

// drainNode returns what drains a node or ends that.
func drainNode(on bool, done string) func(c *cli.Context, a *admin, words []string) error {
	return func(c *cli.Context, a *admin, words []string) error {
		n, err := changeNode(c, a, words, postern.NodeChange{Draining: &on}, done)
		if err != nil || !on || isData(c) {
			return err
		}
		nodes, err := fetch[postern.NodeState](a, query("/nodes", n.Tenant))(c.Context)
		if err != nil {
			return nil // it is drained, whoever else there is
		}
		if services := alone(n, nodes); len(services) > 0 {
			note(c, "None answers now for %s: what comes for that still comes to it.", commas(services))
		}
		return nil
	}
}

// alone returns the services of n that none of nodes takes over while n drains.
func alone(n postern.NodeState, nodes []postern.NodeState) []string {
	var out []string
	for _, s := range n.Services {
		if !slices.ContainsFunc(nodes, func(other postern.NodeState) bool {
			return other.ID != n.ID && other.Reached && !other.Draining &&
				slices.ContainsFunc(other.Services, func(o postern.Service) bool { return o.Name == s.Name })
		}) {
			out = append(out, s.Name)
		}
	}
	return out
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
