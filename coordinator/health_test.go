package coordinator_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern"
)

// state waits until what is known of a node is as want says.
func (d *deployment) state(id, what string, want func(postern.NodeState) bool) postern.NodeState {
	d.t.Helper()
	var n postern.NodeState
	eventually(d.t, what, func() bool {
		n = postern.NodeState{}
		must(d.t, d.operate("GET", "/nodes/"+id, nil, &n))
		return want(n)
	})
	return n
}

// What a node is said to be, by the probes of two gateways, the last handshakes and the
// control channel together, and why.
func TestStatesByProbes(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, one, two := d.node("acme", "a", postern.DefaultService), d.gateway("one"), d.gateway("two")
	check := func(what, state string, reached bool, reason string) {
		t.Helper()
		n := d.state(a.ID, what, func(n postern.NodeState) bool {
			return n.State == state && n.Reached == reached && strings.Contains(n.Reason, reason)
		})
		if (n.Reason == "") != (state == postern.StateReady) || n.Weight != postern.DefaultWeight || n.Draining {
			t.Errorf("%s: got %+v", what, n)
		}
	}
	report := func(g *member, handshake time.Duration, probe *postern.ProbeStatus) {
		t.Helper()
		now := d.clock.now()
		peer := postern.PeerStatus{ID: a.ID, Probe: probe}
		if handshake > 0 {
			peer.Handshake = now.Add(-handshake)
		}
		must(t, g.call("POST", postern.PathStatus, postern.Status{Time: now, Peers: []postern.PeerStatus{peer}}, nil))
	}
	answered := func(ago time.Duration) *postern.ProbeStatus {
		return &postern.ProbeStatus{Time: d.clock.now().Add(-ago), RTT: postern.Duration(12 * time.Millisecond)}
	}
	missed := func(why string) *postern.ProbeStatus { return &postern.ProbeStatus{Error: why} }

	check("nothing", postern.StateOffline, false, "switched off")
	wa := a.watch()
	wa.sync()
	check("control alone", postern.StateDegraded, false, "no gateway is connected")
	wone, wtwo := one.watch(), two.watch()
	wone.sync()
	wtwo.sync()
	check("gateways that say nothing", postern.StateDegraded, false, "neither UDP nor TLS")
	report(one, time.Second, nil)
	check("an older gateway", postern.StateReady, true, "")
	report(one, time.Second, answered(time.Second))
	check("an answer", postern.StateReady, true, "")
	d.clock.advance(comesFor)
	report(two, 0, missed("no answer within 2 s\x1b[31m"))
	check("one of two", postern.StateDegraded, true, "not reached from gateway two: no answer within 2 s [31m")
	report(one, time.Second, missed("no answer within 2 s"))
	check("a tunnel that nobody serves", postern.StateDegraded, false, "its tunnel is up, but it serves nobody: no answer")
	report(one, 4*time.Minute, missed("no answer within 2 s"))
	check("no tunnel", postern.StateDegraded, false, "neither UDP nor TLS")
	report(one, time.Second, answered(time.Second))
	wtwo.cancel()
	check("the other gateway is gone", postern.StateReady, true, "")

	n := d.state(a.ID, "tunnels", func(n postern.NodeState) bool { return len(n.Tunnels) == 2 })
	if p := n.Tunnels[0].Probe; p == nil || p.RTT != postern.Duration(12*time.Millisecond) || p.Error != "" || !n.Connected {
		t.Errorf("got %+v", n)
	}

	// It is started again: that it was away is no reason to turn people away now.
	wa.cancel()
	report(one, time.Second, missed("no answer within 2 s"))
	check("away", postern.StateOffline, false, "switched off")
	wa = a.watch()
	wa.sync()
	check("just back", postern.StateReady, true, "")
	d.clock.advance(comesFor)
	report(one, time.Second, missed("no answer within 2 s"))
	check("not really", postern.StateDegraded, false, "its tunnel is up, but it serves nobody: no answer")
	report(one, time.Second, answered(time.Second))

	wa.cancel()
	check("the node may be switched off", postern.StateOffline, false, "switched off")
	d.clock.advance(time.Second)
	report(one, time.Second, answered(2*time.Second)) // from before
	check("an answer from before", postern.StateOffline, false, "switched off")
	report(one, time.Second, answered(0))
	check("an answer since", postern.StateDegraded, true, "no contact with the coordinator")
	d.clock.advance(freshFor)
	check("nothing for long", postern.StateOffline, false, "switched off")
}

const (
	freshFor = 3 * time.Minute  // how long an answer counts
	comesFor = 10 * time.Second // and how long what was missed does not, of a node that has come
)

// A gateway's clock says how old its probes' answers are, and nothing more.
func TestProbesWhereClocksDiffer(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a"), d.gateway("door")
	for _, lead := range []time.Duration{time.Hour, -time.Hour} {
		now := d.clock.now().Add(lead)
		for age, reached := range map[time.Duration]bool{time.Minute: true, 10 * time.Minute: false} {
			must(t, g.call("POST", postern.PathStatus, postern.Status{Time: now, Peers: []postern.PeerStatus{
				{ID: a.ID, Probe: &postern.ProbeStatus{Time: now.Add(-age)}},
			}}, nil))
			n := d.state(a.ID, "it was said", func(n postern.NodeState) bool { return len(n.Tunnels) == 1 })
			if n.Reached != reached {
				t.Errorf("clock %v ahead, %v ago: reached is %v", lead, age, n.Reached)
			}
		}
	}
}

// Gateways are told of weights and of who is drained; the node's own connections to the
// coordinator go on, and each change is in the audit log once.
func TestChangeNode(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a", postern.DefaultService), d.gateway("door")
	w := g.watch()
	w.sync()
	told := func(weight int, draining bool) {
		t.Helper()
		w.until("the gateway is told", func(m postern.Map) bool {
			n := m.Sections["acme"].Nodes[0]
			return n.Weight == weight && n.Draining == draining
		})
	}
	told(0, false)
	var n postern.NodeState
	must(t, d.operate("PATCH", "/nodes/"+a.ID, postern.NodeChange{Weight: new(50), Draining: new(true)}, &n))
	if n.Weight != 50 || !n.Draining {
		t.Errorf("got %+v", n)
	}
	told(50, true)
	before := d.version()
	must(t, d.operate("PATCH", "/nodes/"+a.ID, postern.NodeChange{Weight: new(50), Draining: new(true)}, nil))
	must(t, d.operate("PATCH", "/nodes/"+a.ID, postern.NodeChange{}, nil))
	if d.version() != before {
		t.Error("what changes nothing makes another map")
	}
	d.stop()
	d.start()
	w = g.watch()
	w.sync()
	must(t, d.operate("PATCH", "/nodes/"+a.ID, postern.NodeChange{Draining: new(false)}, &n))
	if n.Weight != 50 || n.Draining {
		t.Errorf("after a restart: got %+v", n)
	}
	told(50, false)
	for _, weight := range []int{0, -1, postern.MaxWeight + 1} {
		var p *postern.Problem
		if err := d.operate("PATCH", "/nodes/"+a.ID, postern.NodeChange{Weight: &weight}, nil); !errors.As(err, &p) || p.Status != 422 {
			t.Errorf("weight %d: got %v", weight, err)
		}
	}
	wantProblem(t, d.operate("PATCH", "/nodes/"+g.ID, postern.NodeChange{}, nil), 404, postern.CodeNotFound)
	var entries []postern.AuditEntry
	must(t, d.operate("GET", "/audit?action=node.", nil, &entries))
	var got []string
	for _, e := range entries {
		if e.Target != a.ID || e.Tenant != "acme" {
			t.Errorf("got %+v", e)
		}
		got = append(got, e.Action+" "+e.Detail)
	}
	if want := "node.weight a 50, node.drain a, node.undrain a"; !strings.HasSuffix(strings.Join(got, ", "), want) {
		t.Errorf("recorded: got %q, want %q at the end", got, want)
	}
}

// version returns the map's.
func (d *deployment) version() uint64 {
	d.t.Helper()
	var o postern.Overview
	must(d.t, d.operate("GET", "/status", nil, &o))
	return o.MapVersion
}
