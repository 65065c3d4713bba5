package coordinator_test

import (
	"testing"
	"time"

	"postern"
)

// A node that was switched off for a year comes back, with a certificate that ended long ago,
// and so does one whose clock, or the coordinator's, is wrong by a year.
func TestMemberOfAnotherYear(t *testing.T) {
	for _, tt := range []struct {
		name string
		by   time.Duration
	}{{"a year later", 365 * 24 * time.Hour}, {"a year earlier", -365 * 24 * time.Hour}} {
		t.Run(tt.name, func(t *testing.T) {
			d := deploy(t)
			d.addTenant("acme")
			n := d.node("acme", "office", "erp")
			d.stop()
			d.clock.advance(tt.by)
			d.start() // shows certificates of its own time
			n.client = d.clientFor(n.certificate())
			w := n.watch()
			w.sync()
			if got := w.m.Sections["acme"].Nodes; len(got) != 1 || got[0].ID != n.ID {
				t.Errorf("got nodes %+v", got)
			}
			w.cancel()
			next := postern.NewWireGuardPrivate()
			must(t, n.rekey(postern.KeyRequest{WireGuard: next.Public()}, next, nil))
			must(t, n.call("POST", postern.PathRenew, nil, &n.Enrollment))
			n.client = d.clientFor(n.certificate())
			n.publish("erp")
		})
	}
}
