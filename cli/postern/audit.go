package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"postern"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "who did what: list",
		Subcommands: []*cli.Command{{
			Name: "list", Aliases: []string{"ls"}, Usage: "list who did what, oldest first", Action: operate(listAudit),
			Description: "Entries are only ever added. Without --after it shows the newest.",
			UsageText: "postern audit list\npostern audit list --action signin.refused --limit 20\n" +
				"postern audit list --tenant acme --after 0 --limit 1000 -o json",
			Flags: listFlags(
				tenantFlag(),
				&cli.StringFlag{Name: "actor", Usage: "only what this `ACTOR` did, such as local or user:ID"},
				&cli.StringFlag{Name: "action", Usage: "only actions that begin with `WORD`, such as signin or user.grant"},
				&cli.Uint64Flag{Name: "after", Usage: "only those behind the entry number `N`"},
				&cli.IntFlag{Name: "limit", Value: 50, Usage: "at most `N` entries"},
			),
		}},
	}
}

func listAudit(c *cli.Context, a *admin, words []string) error {
	limit := c.Int("limit")
	if limit < 1 {
		return misuse("such as --limit 100", "--limit %d makes no sense", limit)
	}
	filter := url.Values{}
	for _, name := range []string{"tenant", "actor", "action"} {
		if v := c.String(name); v != "" {
			filter.Set(name, v)
		}
	}
	if c.IsSet("after") {
		filter.Set("after", strconv.FormatUint(c.Uint64("after"), 10))
		return list(c, auditPages(a, filter, limit, "after"), auditRows)
	}
	filter.Set("newest", "true")
	newest := auditPages(a, filter, limit, "before")
	return list(c, func(ctx context.Context) ([]postern.AuditEntry, error) {
		entries, err := newest(ctx)
		slices.Reverse(entries)
		return entries, err
	}, auditRows)
}

// auditPages returns a func that gets limit entries that filter picks, a page at a
// time: next is the option that turns it.
func auditPages(a *admin, filter url.Values, limit int, next string) func(context.Context) ([]postern.AuditEntry, error) {
	const page = 1000
	return func(ctx context.Context) ([]postern.AuditEntry, error) {
		var all []postern.AuditEntry
		q := maps.Clone(filter)
		for len(all) < limit {
			want := min(limit-len(all), page)
			q.Set("limit", strconv.Itoa(want))
			entries, err := fetch[postern.AuditEntry](a, "/audit?"+q.Encode())(ctx)
			all = append(all, entries...)
			if err != nil || len(entries) < want {
				return all, err
			}
			q.Set(next, strconv.FormatUint(entries[want-1].Seq, 10))
		}
		return all, nil
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
	t.field("Portal", o.Portal.Host)
	for _, line := range certificateLines(t, o.Portal, strings.HasSuffix(o.Portal.Host, "."+o.Base)) {
		t.field("", line)
	}
	t.field("Map version", strconv.FormatUint(o.MapVersion, 10))
	t.field("Root key", o.Root.String())
	t.field("", "private half "+root)
}
