package sqlite

import (
	"path/filepath"
	"testing"

	"postern/coordinator"
)

// Gateways from when none could be drained are not, and the next one that is stays so.
func TestGoldenGateways(t *testing.T) {
	s := openDump(t, filepath.Join(t.TempDir(), "registry.db"), "testdata/schema-3.sql")
	must(t, coordinator.VerifyAudit(t.Context(), s))
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		gateways, err := tx.Members().In("")
		must(t, err)
		if len(gateways) != 1 || gateways[0].Name != "door" || gateways[0].Draining {
			t.Fatalf("gateways: got %+v", gateways)
		}
		if d, err := tx.Deployment(); err != nil || len(d.Fit) != 0 {
			t.Errorf("deployment: got %+v, %v", d, err)
		}
		gateways[0].Draining = true
		must(t, tx.Members().Put(gateways[0]))
		if g, err := tx.Members().Get(gateways[0].ID); err != nil || !g.Draining {
			t.Errorf("drained: got %+v, %v", g, err)
		}
		return nil
	}))
}
