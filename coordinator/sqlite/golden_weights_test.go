package sqlite

import (
	"path/filepath"
	"reflect"
	"testing"

	"postern/coordinator"
)

// Nodes from before there were weights have the usual one, and take connections; a gateway
// that was drained still is.
func TestGoldenWeights(t *testing.T) {
	s := openDump(t, filepath.Join(t.TempDir(), "registry.db"), "testdata/schema-4.sql")
	must(t, coordinator.VerifyAudit(t.Context(), s))
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		nodes, err := tx.Members().In("acme")
		must(t, err)
		if len(nodes) != 1 || nodes[0].Name != "office" || nodes[0].Weight != 0 || nodes[0].Draining {
			t.Fatalf("nodes: got %+v", nodes)
		}
		gateways, err := tx.Members().In("")
		must(t, err)
		if len(gateways) != 1 || !gateways[0].Draining {
			t.Errorf("gateways: got %+v", gateways)
		}
		if d, err := tx.Deployment(); err != nil || len(d.Fit) != 1 {
			t.Errorf("deployment: got %+v, %v", d, err)
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
