package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"postern/coordinator"
)

// Routes that were added before they had to be proven go on to lead somewhere, and
// nobody else can prove that they have the host.
func TestGoldenClaims(t *testing.T) {
	tests := []struct {
		name string
		want []coordinator.Claim
	}{
		{"schema-1", []coordinator.Claim{{ClaimKey: coordinator.ClaimKey{Host: "erp.example.com", Tenant: "acme"}, Service: "default"}}},
		{"schema-2", []coordinator.Claim{
			{ClaimKey: coordinator.ClaimKey{Host: "books.globex.example", Tenant: "globex"}, Service: "books"},
			{ClaimKey: coordinator.ClaimKey{Host: "erp.example.com", Tenant: "acme"}, Service: "default"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openDump(t, filepath.Join(t.TempDir(), "registry.db"), "testdata/"+tt.name+".sql")
			must(t, coordinator.VerifyAudit(t.Context(), s))
			must(t, s.View(t.Context(), func(tx coordinator.Tx) error {
				all, err := tx.Claims().All()
				must(t, err)
				if len(all) != len(tt.want) {
					t.Fatalf("got %+v", all)
				}
				for i, got := range all {
					if got.Proven.IsZero() || got.Created.IsZero() || !got.Proven.After(got.Created) {
						t.Errorf("%s: made %v, proven %v", got.Host, got.Created, got.Proven)
					}
					want := tt.want[i]
					want.Created, want.Proven = got.Created, got.Proven
					if got != want {
						t.Errorf("got %+v, want %+v", got, want)
					}
				}
				unproven, err := tx.Claims().Unproven()
				if len(unproven) != 0 {
					t.Errorf("not proven: %+v", unproven)
				}
				return err
			}))
			other := tt.want[0]
			other.Tenant, other.Created, other.Proven = "other", noon, noon
			err := s.Update(t.Context(), func(tx coordinator.Tx) error {
				must(t, addTenant(tx, "other", 70000))
				return tx.Claims().Put(other)
			})
			if err == nil {
				t.Error("two tenants have one host")
			}
		})
	}
}

// openDump opens a new registry at path as an older program left it, see sqlite3's .dump.
func openDump(t *testing.T, path, file string) *Store {
	t.Helper()
	dump, err := os.ReadFile(file)
	must(t, err)
	old, err := connect(path, 1, durable)
	must(t, err)
	_, err = old.ExecContext(t.Context(), string(dump))
	must(t, err)
	must(t, old.Close())
	return openStore(t, path)
}

// Many may claim a host, and one has it.
func TestClaims(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "registry.db"))
	claim := func(host, tenant string) coordinator.Claim {
		return coordinator.Claim{ClaimKey: coordinator.ClaimKey{Host: host, Tenant: tenant}, Service: "erp", Secret: tenant, Created: noon}
	}
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		must(t, addTenant(tx, "acme", 65536))
		must(t, addTenant(tx, "rival", 65537))
		first, second, old := claim("a.example", "acme"), claim("a.example", "rival"), claim("b.example", "rival")
		old.Created = noon.Add(-1)
		for _, c := range []coordinator.Claim{second, first, old} {
			must(t, tx.Claims().Put(c))
		}
		if all, err := tx.Claims().At("a.example"); err != nil || len(all) != 2 || all[0] != first || all[1] != second {
			t.Errorf("at the host: got %+v, %v", all, err)
		}
		if all, err := tx.Claims().Unproven(); err != nil || len(all) != 3 || all[0] != old {
			t.Errorf("unproven: got %+v, %v", all, err)
		}
		if _, err := tx.Claims().Proven("a.example"); !errors.Is(err, coordinator.ErrNotFound) {
			t.Errorf("proven: got %v, want ErrNotFound", err)
		}
		second.Proven = noon
		must(t, tx.Claims().Put(second))
		if got, err := tx.Claims().Proven("a.example"); err != nil || got != second {
			t.Errorf("proven: got %+v, %v", got, err)
		}
		if all, err := tx.Claims().In("acme"); err != nil || len(all) != 1 || all[0] != first {
			t.Errorf("acme's: got %+v, %v", all, err)
		}
		return nil
	}))
	err := s.Update(t.Context(), func(tx coordinator.Tx) error {
		c := claim("a.example", "acme")
		c.Proven = noon
		return tx.Claims().Put(c)
	})
	if err == nil {
		t.Error("two tenants have one host")
	}
	err = s.Update(t.Context(), func(tx coordinator.Tx) error { return tx.Claims().Put(claim("c.example", "nobody")) })
	if err == nil {
		t.Error("nobody has a claim")
	}
}
