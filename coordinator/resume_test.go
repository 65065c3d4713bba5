package coordinator_test

import (
	"strings"
	"testing"
	"time"

	"postern"
)

// A coordinator that was restarted says of no node that it is offline before the node and
// a gateway had the time to come back; one that does not is offline then.
func TestResume(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, gone, g := d.node("acme", "a"), d.node("acme", "gone"), d.gateway("door")
	d.stop()
	d.start()
	check := func(m *member, what, state string, reached bool, reason string) {
		t.Helper()
		d.state(m.ID, what, func(n postern.NodeState) bool {
			return n.State == state && n.Reached == reached && strings.Contains(n.Reason, reason)
		})
	}
	const started = "has just started"
	check(a, "nobody has come back", postern.StateDegraded, true, started)
	a.client, g.client = d.clientFor(a.certificate()), d.clientFor(g.certificate())
	wa := a.watch()
	wa.sync()
	check(a, "the node has", postern.StateDegraded, true, started)
	wg := g.watch()
	wg.sync()
	now := d.clock.now()
	must(t, g.call("POST", postern.PathStatus, postern.Status{Time: now, Peers: []postern.PeerStatus{{ID: a.ID, Handshake: now}}}, nil))
	check(a, "the gateway has", postern.StateReady, true, "")
	check(gone, "another node has not", postern.StateDegraded, true, started)
	late := d.node("acme", "late")
	check(late, "one that was not there before", postern.StateOffline, false, "")
	d.clock.advance(time.Minute)
	check(gone, "and will not", postern.StateOffline, false, "switched off")
}
