package coordinator_test

import (
	"fmt"
	"testing"
	"time"

	"postern"
)

// A node is not told again what it knows, when another of its tenant changed: it would
// write it to disk, and so would all of a company, for each that joins.
func TestOthersChanges(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a", postern.DefaultService)
	w := a.watch()
	w.sync()
	for i := range 3 {
		d.node("acme", fmt.Sprintf("other-%d", i)).publish(fmt.Sprintf("service-%d", i))
	}
	a.publish(postern.DefaultService, "erp")
	for {
		msg, ok := w.next()
		if !ok {
			t.Fatal("the stream ended")
		}
		if msg.Section == nil {
			continue // a heartbeat
		}
		if msg.Section.Tenant == "acme" && len(msg.Section.Routes) == 2 {
			return
		}
		t.Errorf("told of %+v, which it knew", msg.Section)
	}
}

// A gateway may tell of as many tunnels as its map has nodes, and a node of no more than
// a node has to tell.
func TestStatusSize(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a"), d.gateway("door")
	s := postern.Status{Peers: []postern.PeerStatus{{ID: a.ID, Handshake: d.clock.now(), Received: 1}}}
	for i := range 20_000 {
		s.Peers = append(s.Peers, postern.PeerStatus{
			ID: fmt.Sprintf("node%012d", i), Endpoint: "198.51.100.100:50000", Handshake: time.Now(), Received: 1 << 40, Sent: 1 << 40, Path: postern.CarrierUDP,
		})
	}
	must(t, g.call("POST", postern.PathStatus, s, nil))
	var n postern.NodeState
	must(t, d.operate("GET", "/nodes/"+a.ID, nil, &n))
	if len(n.Tunnels) != 1 || n.Tunnels[0].Received != 1 {
		t.Errorf("tunnels: got %+v", n.Tunnels)
	}
	if err := a.call("POST", postern.PathStatus, s, nil); err == nil {
		t.Error("a node told as much as a gateway may")
	}
}
