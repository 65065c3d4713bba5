package coordinator_test

import (
	"slices"
	"testing"

	"postern"
)

// keysOf returns the keys of other nodes at host, as the map tells them.
func keysOf(m postern.Map, host string) []string {
	for _, r := range m.Sections["acme"].Routes {
		if r.Host == host {
			return r.Keys
		}
	}
	return nil
}

// Nodes that share a route know each other's keys, and nobody else does.
func TestKeysOfSharedRoutes(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, b := d.node("acme", "a", "erp", "own"), d.node("acme", "b", "erp")
	g := d.gateway("door")
	own := "own.acme." + base
	seen := a.watch()
	expect := func(what string, want ...string) {
		t.Helper()
		seen.until(what, func(m postern.Map) bool { return slices.Equal(keysOf(m, shared), want) })
		if got := keysOf(seen.m, own); got != nil {
			t.Errorf("%s: keys of a route that is a's alone: %q", what, got)
		}
	}
	expect("b's key is not known", "")
	b.tells(nil, valid(shared))
	expect("b said", sumB)
	before := d.mapVersion()
	b.tells(nil, valid(shared))
	if got := d.mapVersion(); got != before {
		t.Errorf("the map went from version %d to %d, and nothing changed", before, got)
	}
	renewed := valid(shared)
	renewed.SPKI = sumA
	b.tells(nil, renewed)
	expect("b has another key", sumA)
	a.publish("erp")
	expect("a publishes something else, and b's key is still known", sumA)
	theirs := g.watch()
	theirs.sync()
	if got := keysOf(theirs.m, shared); got != nil {
		t.Errorf("a gateway is told of keys: %q", got)
	}
	must(t, d.operate("DELETE", "/nodes/"+b.ID, nil, nil))
	expect("b is gone")
}

// A key that a node tells of while it is removed, or its tenant, changes no map.
func TestKeysOfWhoIsGone(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.node("acme", "a", "erp")
	remove := func(node, path string) {
		t.Helper()
		keep := d.KeepKeys("acme", node, shared, sumB)
		must(t, d.operate("DELETE", path, nil, nil))
		before := d.mapVersion()
		must(t, keep(t.Context()))
		if got := d.mapVersion(); got != before {
			t.Errorf("DELETE %s: the map went from version %d to %d", path, before, got)
		}
	}
	b := d.node("acme", "b", "erp")
	remove(b.ID, "/nodes/"+b.ID)
	c := d.node("acme", "c", "erp")
	remove(c.ID, "/tenants/acme")
}
