//go:build e2e

package e2e

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"postern"
	"postern/coordinator"
	"postern/coordinator/sqlite"
)

// checkFiles looks at what a killed process left on disk.
func (o *operator) checkFiles(victim string) {
	o.t.Helper()
	var err error
	switch victim {
	case "coordinator":
		err = checkAudit(o.t.Context(), o.data(victim), o.scratch())
	case "gateway":
		_, err = loadIdentity(o.data(victim), postern.RoleGateway)
	default:
		_, err = loadIdentity(o.data(victim), postern.RoleNode)
	}
	if err != nil {
		o.t.Errorf("what %s left: %v", victim, err)
	}
}

func (o *operator) scratch() string {
	o.t.Helper()
	dir, err := os.MkdirTemp(o.dir, "copy")
	if err != nil {
		o.t.Fatal(err)
	}
	return dir
}

// checkAudit verifies the chain of the audit log of a coordinator that is dead,
// in a copy, so that its next start finds what it left and nothing better.
func checkAudit(ctx context.Context, data, scratch string) error {
	for _, name := range []string{"postern.db", "postern.db-wal"} {
		content, err := os.ReadFile(filepath.Join(data, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(scratch, name), content, 0o600); err != nil {
			return err
		}
	}
	store, err := sqlite.Open(ctx, filepath.Join(scratch, "postern.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	return coordinator.VerifyAudit(ctx, store)
}

// checkRegistry holds the coordinator's lists against what was acknowledged.
func (o *operator) checkRegistry() {
	o.t.Helper()
	var tenants []postern.Tenant
	o.cli(&tenants, "tenants", "list")
	has := map[string]bool{}
	for _, v := range tenants {
		has[v.Name] = true
	}
	for _, name := range append([]string{"acme", "globex"}, o.tenants...) {
		if !has[name] {
			o.t.Errorf("tenant %s is lost", name)
		}
	}

	var tokens []postern.IssuedToken
	o.cli(&tokens, "tokens", "list")
	states := map[postern.TokenID]string{}
	for _, v := range tokens {
		states[v.ID] = v.State
	}
	for id, want := range o.tokens {
		if got := states[id]; got != want {
			o.t.Errorf("token %s is %q, was acknowledged as %q", id, got, want)
		}
	}

	var nodes []postern.NodeState
	o.cli(&nodes, "nodes", "list")
	ids, members := map[string]string{}, map[string]string{}
	for _, v := range nodes {
		ids[v.Tenant+"/"+v.Name] = v.ID
		for _, own := range []string{v.Tenant + "/" + v.Name, v.ID, v.Address.String(), v.WireGuard.String(), v.Identity.String()} {
			if other, ok := members[own]; ok {
				o.t.Errorf("nodes %s and %s both have %s", other, v.ID, own)
			}
			members[own] = v.ID
		}
	}
	for name, want := range o.nodes {
		if got := ids[name]; got != want {
			o.t.Errorf("node %s has id %q, joined as %q", name, got, want)
		}
	}
	for _, name := range []string{"acme/acme-office", "globex/globex-office"} {
		if ids[name] == "" {
			o.t.Errorf("node %s is lost", name)
		}
	}
	o.checkRoutes()
	o.checkAuditList()
	o.checkVersion()
}

// checkVersion looks whether the gateway acts on a map that is no older than before.
func (o *operator) checkVersion() {
	o.t.Helper()
	var s struct {
		Map uint64 `json:"map_version"`
	}
	if err := o.gatewaySocket("/v1/status", &s); err != nil {
		o.t.Errorf("ask the gateway: %v", err)
	}
	if s.Map < o.version {
		o.t.Errorf("the gateway acts on version %d of the map, and has acted on %d", s.Map, o.version)
	}
	o.version = s.Map
}

func (o *operator) checkRoutes() {
	o.t.Helper()
	var routes []postern.RouteState
	o.cli(&routes, "routes", "list")
	owners := map[string]string{}
	for _, v := range routes {
		owners[v.Host] = v.Tenant
	}
	for _, tenant := range []string{"acme", "globex"} {
		if got := owners[tenant+"."+base]; got != tenant {
			o.t.Errorf("route %s.%s belongs to %q, want %q", tenant, base, got, tenant)
		}
	}
}

// checkAuditList looks for the acknowledged in the audit log, which has no gaps.
func (o *operator) checkAuditList() {
	o.t.Helper()
	var last uint64
	told := map[string]bool{}
	for {
		var page []postern.AuditEntry
		o.cli(&page, "audit", "list", "--after", strconv.FormatUint(last, 10), "--limit", "1000")
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			if e.Seq != last+1 {
				o.t.Errorf("audit entry %d follows entry %d", e.Seq, last)
			}
			last = e.Seq
			told[e.Action+" "+e.Tenant+" "+e.Target] = true
		}
	}
	missing := func(entry string) {
		if !told[entry] {
			o.t.Errorf("the audit log lacks %q", entry)
		}
	}
	for _, name := range o.tenants {
		missing("tenant.add " + name + " ")
	}
	for id, state := range o.tokens {
		if state == "revoked" {
			missing("token.revoke acme " + id.String())
		}
	}
}
