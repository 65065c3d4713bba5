//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern"
)

// olderSchema is a registry of an earlier release, of which the store's tests have a dump.
const olderSchema = "schema-3"

// age makes the registry at path what that release would have kept of it: the tables are
// that release's, and what is in them is what is there now, as far as it had a place.
func age(t *testing.T, path string) {
	t.Helper()
	dump, err := os.ReadFile(filepath.Join("..", "..", "coordinator", "sqlite", "testdata", olderSchema+".sql"))
	if err != nil {
		t.Fatal(err)
	}
	old := path + ".old"
	do := func(script string) string {
		t.Helper()
		out, err := run(t, script, "sqlite3", "-batch", "-bail", old)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	do(string(dump))
	// What keeps the audit log from being changed is put aside meanwhile.
	triggers := do(`SELECT sql || ';' FROM sqlite_master WHERE type = 'trigger';`)
	script := fmt.Sprintf("PRAGMA foreign_keys = OFF;\nATTACH '%s' AS live;\n", path)
	script += do(`SELECT 'DROP TRIGGER ' || name || ';' FROM sqlite_master WHERE type = 'trigger';`)
	script += do(`
		SELECT 'DELETE FROM main.' || t.name || '; INSERT INTO main.' || t.name || ' (' || group_concat(c.name) || ') SELECT '
			|| group_concat(c.name) || ' FROM live.' || t.name || ';'
		FROM sqlite_master t, pragma_table_info(t.name) c
		WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name <> 'goose_db_version'
		GROUP BY t.name;`)
	do(script + triggers)
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(old, path); err != nil {
		t.Fatal(err)
	}
}

// A coordinator is replaced by a newer one, whose registry is another, while visitors come:
// it is away for less than five seconds, the registry is migrated where it is, behind a
// backup, nobody is turned away, and all is there afterwards (R20).
func TestSurviveCoordinatorUpgrade(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	v := p.visitors(ctx)
	before := p.registry()

	begin := time.Now()
	p.d.coordinator.stop()
	away := time.Since(begin)
	age(t, filepath.Join(p.d.data("coordinator"), "postern.db"))

	begin = time.Now()
	p.d.coordinator = p.startCoordinator()
	away += time.Since(begin)
	recovered(t, "R20", "the coordinator is upgraded, its registry migrated: it answers", 5*time.Second, survivePatience, away)

	backups, err := filepath.Glob(filepath.Join(p.d.data("coordinator"), "backups", "*-"+olderSchema+".db"))
	if err != nil || len(backups) != 1 {
		t.Errorf("backups of before the migration: %v, %v", backups, err)
	}
	if after := p.registry(); after != before {
		t.Errorf("the registry has %s, want %s", after, before)
	}
	eventually(t, 45*time.Second, func() error {
		var nodes []postern.NodeState
		p.d.cli(&nodes, "nodes", "list")
		if len(nodes) != 1 || nodes[0].State != postern.StateReady || len(nodes[0].Tunnels) != 2 {
			return fmt.Errorf("nodes are %+v", nodes)
		}
		return nil
	})
	recovered(t, "R3", "the coordinator is back: the node is ready, by both gateways", 35*time.Second, survivePatience, time.Since(begin))
	if got := p.resolve(); len(got) != 2 {
		t.Errorf("in DNS are %v", got)
	}
	eventually(t, survivePatience, func() error {
		if n := v.count(natGateway) + v.count(secondGateway); n < 25 {
			return fmt.Errorf("%d have come", n)
		}
		return nil
	})
	leave()
	v.leave(t)
	noteFigure(t, "survive", "R20 new connections meanwhile", float64(v.count(natGateway)+v.count(secondGateway)), "")
}

// registry returns who is in the registry.
func (l *lab) registry() string {
	l.t.Helper()
	var all strings.Builder
	var tenants []postern.Tenant
	l.d.cli(&tenants, "tenants", "list")
	for _, tenant := range tenants {
		fmt.Fprintf(&all, "tenant %s %s ", tenant.Name, tenant.Prefix)
	}
	var nodes []postern.NodeState
	l.d.cli(&nodes, "nodes", "list")
	for _, n := range nodes {
		fmt.Fprintf(&all, "node %s %s %s ", n.ID, n.Address, n.WireGuard)
	}
	var gateways []postern.GatewayState
	l.d.cli(&gateways, "gateways", "list")
	for _, g := range gateways {
		fmt.Fprintf(&all, "gateway %s %s %s ", g.ID, g.Endpoint, g.Public)
	}
	return all.String()
}
