package coordinator_test

import (
	"testing"

	"postern"
)

// boot returns what a node is told that the gateway's run is called.
func boot(m postern.Map) string {
	d := m.Deployment()
	if d == nil || len(d.Gateways) != 1 {
		return "no gateway"
	}
	return d.Gateways[0].Boot
}

// Nodes are told when a gateway was started anew, and of nothing when only the
// coordinator was.
func TestBoot(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	n, g := d.node("acme", "office"), d.gateway("door")
	report := func(boot string) {
		t.Helper()
		must(t, g.call("POST", postern.PathStatus, postern.Status{Boot: boot}, nil))
	}
	w := n.watch()
	w.sync()
	if got := boot(w.m); got != "" {
		t.Errorf("got %q before the gateway said anything", got)
	}
	report("one")
	w.until("the first run", func(m postern.Map) bool { return boot(m) == "one" })

	// The same one, or none, is no news; and other changes do not undo it.
	version := d.mapVersion()
	report("one")
	report("")
	if got := d.mapVersion(); got != version {
		t.Errorf("the map went from version %d to %d", version, got)
	}
	must(t, g.call("PUT", postern.PathGateway, postern.Gateway{Endpoint: "192.0.2.1:51820"}, nil))
	w.until("another endpoint", func(m postern.Map) bool { return m.Deployment().Gateways[0].Endpoint != "" })
	if got := boot(w.m); got != "one" {
		t.Errorf("got %q after another change", got)
	}
	report("two")
	w.until("the second run", func(m postern.Map) bool { return boot(m) == "two" })
	if own := g.watch(); own != nil {
		own.sync()
		if got := boot(own.m); got != "" {
			t.Errorf("the gateway is told of its own run %q", got)
		}
		own.cancel()
	}
	wantProblem(t, g.call("POST", postern.PathStatus, postern.Status{Boot: "a\nb"}, nil), 422, postern.CodeInvalid)
	w.cancel()

	d.stop()
	d.start()
	n.client, g.client = d.clientFor(n.certificate()), d.clientFor(g.certificate())
	w = n.watch()
	w.sync()
	if got := boot(w.m); got != "" {
		t.Errorf("got %q from a coordinator that just started", got)
	}
	report("two")
	w.until("the run that it was", func(m postern.Map) bool { return boot(m) == "two" })
}
