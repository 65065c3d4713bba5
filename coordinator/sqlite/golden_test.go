package sqlite

import (
	"path/filepath"
	"reflect"
	"testing"

	"postern"
	"postern/coordinator"
)

// What earlier releases kept is all there after the migration, and says no more than
// it did: no stranger may open what was published before there were people.
func TestGolden(t *testing.T) {
	dir := t.TempDir()
	s := openDump(t, filepath.Join(dir, "registry.db"), "testdata/schema-1.sql")
	must(t, coordinator.VerifyAudit(t.Context(), s))
	if backups, err := filepath.Glob(filepath.Join(dir, backupDir, "*-schema-1.db")); err != nil || len(backups) != 1 {
		t.Errorf("backups before the migration: %v, %v, want 1", backups, err)
	}
	var broken int
	must(t, s.writer.QueryRowContext(t.Context(), `SELECT count(*) FROM pragma_foreign_key_check`).Scan(&broken))
	if broken > 0 {
		t.Errorf("%d rows refer to none", broken)
	}
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		d, err := tx.Deployment()
		if err != nil || d.ID != "issyltvzcvzz6elm" || d.NextTenant != 65537 || d.MapVersion == 0 {
			t.Errorf("deployment: got %+v, %v", d, err)
		}
		tenant, err := tx.Tenants().Get("acme")
		must(t, err)
		if want := (coordinator.Tenant{
			Name: "acme", Title: "Acme & Sons", Number: 65536, NextNode: 2, Created: tenant.Created,
			Admission: postern.AdmissionRequest{Mode: postern.AdmissionOpen},
		}); tenant.Created.IsZero() || !reflect.DeepEqual(tenant, want) {
			t.Errorf("tenant: got %+v, want %+v", tenant, want)
		}
		nodes, err := tx.Members().In("acme")
		must(t, err)
		if len(nodes) != 1 || nodes[0].Name != "office" || len(nodes[0].Services) != 1 {
			t.Fatalf("nodes: got %+v", nodes)
		}
		service := nodes[0].Services[0]
		for who, p := range map[string]*postern.Person{"a stranger": nil, "somebody else's": {Role: "guest"}} {
			for _, a := range service.AccessAt("/") {
				if a.Allows(p, service.Name) {
					t.Errorf("%s may open %+v", who, service)
				}
			}
		}
		if tokens, err := tx.Tokens().All(); err != nil || len(tokens) != 1 || tokens[0].Note != "door" {
			t.Errorf("tokens: got %+v, %v", tokens, err)
		}
		if users, err := tx.Users().All(); err != nil || len(users) != 0 {
			t.Errorf("users: got %+v, %v", users, err)
		}
		must(t, tx.Users().Put(person("u1")))
		return tx.Grants().Put(grant("acme", "u1"))
	}))
}
