package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/urfave/cli/v2"

	"postern"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "who did what: list",
		Subcommands: []*cli.Command{{
			Name: "list", Aliases: []string{"ls"}, Usage: "list who did what, oldest first", Action: operate(listAudit),
			Description: "Entries are only ever added. Without --after it shows the newest.",
			UsageText:   "postern audit list\npostern audit list --after 0 --limit 1000 -o json",
			Flags: listFlags(
				&cli.Uint64Flag{Name: "after", Usage: "only those behind the entry number `N`"},
				&cli.IntFlag{Name: "limit", Value: 50, Usage: "at most `N` entries"},
			),
		}},
	}
}

func listAudit(c *cli.Context, a *admin, words []string) error {
	if c.Int("limit") < 1 {
		return misuse("such as --limit 100", "--limit %d makes no sense", c.Int("limit"))
	}
	get := func(ctx context.Context) ([]postern.AuditEntry, error) {
		if c.IsSet("after") {
			return auditAfter(ctx, a, c.Uint64("after"), c.Int("limit"))
		}
		return auditNewest(ctx, a, c.Int("limit"))
	}
	return list(c, get, auditRows)
}

func auditAfter(ctx context.Context, a *admin, after uint64, limit int) ([]postern.AuditEntry, error) {
	return fetch[postern.AuditEntry](a, fmt.Sprintf("/audit?after=%d&limit=%d", after, limit))(ctx)
}

// auditNewest returns the last limit entries; the API goes forward only.
func auditNewest(ctx context.Context, a *admin, limit int) ([]postern.AuditEntry, error) {
	const page = 1000
	var newest []postern.AuditEntry
	for after := uint64(0); ; {
		entries, err := auditAfter(ctx, a, after, page)
		if err != nil || len(entries) == 0 {
			return newest, err
		}
		after = entries[len(entries)-1].Seq
		newest = append(newest, entries...)
		newest = newest[max(0, len(newest)-limit):]
	}
}

func auditRows(t *table, entries []postern.AuditEntry) {
	t.head("SEQ", "TIME", "ACTOR", "ACTION", "TENANT", "TARGET", "DETAIL")
	for _, e := range entries {
		t.row(strconv.FormatUint(e.Seq, 10), t.ago(e.Time), e.Actor, e.Action, dash(e.Tenant), dash(e.Target), dash(e.Detail))
	}
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "the deployment at a glance", Action: operate(showStatus),
		UsageText: "postern status\npostern status -o json", Flags: adminFlags(outputFlags()...),
	}
}

func showStatus(c *cli.Context, a *admin, words []string) error {
	var o postern.Overview
	if err := a.call(c.Context, http.MethodGet, "/status", nil, &o); err != nil {
		return err
	}
	return show(c, o, overviewFields)
}

func overviewFields(t *table, o postern.Overview) {
	root := "elsewhere, as it should be"
	if o.RootKey {
		root = "here with the coordinator; move it to a safe place"
	}
	t.field("Deployment", o.Deployment)
	t.field("Domain", o.Base+", HTTPS on port "+strconv.Itoa(int(o.Port)))
	t.field("Coordinator", "postern "+o.Version+", up since "+t.when(o.Started))
	t.field("Tenants", strconv.Itoa(o.Tenants))
	t.field("Nodes", fmt.Sprintf("%d of %d ready", o.NodesReady, o.Nodes))
	t.field("Gateways", strconv.Itoa(o.Gateways))
	t.field("Routes", strconv.Itoa(o.Routes))
	t.field("Map version", strconv.FormatUint(o.MapVersion, 10))
	t.field("Root key", o.Root.String())
	t.field("", "private half "+root)
}
