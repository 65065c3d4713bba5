package sqlite

import (
	"path/filepath"
	"reflect"
	"testing"

	"postern/coordinator"
)

// Gateways and nodes from when none could be drained, nor weighed, are not, and the next
// ones that are stay so.
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
		nodes, err := tx.Members().In("acme")
		must(t, err)
		if len(nodes) != 1 || nodes[0].Weight != 0 || nodes[0].Draining {
			t.Fatalf("nodes: got %+v", nodes)
		}
		nodes[0].Weight, nodes[0].Draining = 50, true
		must(t, tx.Members().Put(nodes[0]))
		got, err := tx.Members().Get(nodes[0].ID)
		if !reflect.DeepEqual(got, nodes[0]) {
			t.Errorf("got %+v, want %+v", got, nodes[0])
		}
		return err
	}))
}
