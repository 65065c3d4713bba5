package coordinator_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
)

// publicGateway is gateway with an address for browsers, whose stream is open.
func (d *deployment) publicGateway(name, public string) *member {
	d.t.Helper()
	g := d.gateway(name)
	must(d.t, g.call("PUT", postern.PathGateway, postern.Gateway{Public: public}, nil))
	g.watch().sync()
	return g
}

// reports says that the tunnels to nodes work.
func (m *member) reports(draining bool, nodes ...*member) {
	m.d.t.Helper()
	s := postern.Status{Draining: draining}
	for _, n := range nodes {
		s.Peers = append(s.Peers, postern.PeerStatus{ID: n.ID, Handshake: m.d.clock.now()})
	}
	must(m.d.t, m.call("POST", postern.PathStatus, s, nil))
}

func (d *deployment) askDNS() postern.DNSState {
	d.t.Helper()
	var s postern.DNSState
	eventually(d.t, "public names to be looked up", func() bool {
		s = postern.DNSState{}
		return d.operate("GET", "/dns", nil, &s) == nil
	})
	return s
}

// wantDNS fails the test unless these addresses are for DNS.
func (d *deployment) wantDNS(when string, kept bool, addrs ...string) {
	d.t.Helper()
	s := d.askDNS()
	var got []string
	for _, a := range slices.Concat(s.A, s.AAAA) {
		got = append(got, a.String())
	}
	if !slices.Equal(got, addrs) || s.Kept != kept {
		d.t.Errorf("%s: got %v, kept %v, want %v, %v: %+v", when, got, s.Kept, addrs, kept, s.Gateways)
	}
}

// wantGateway fails the test unless that is what is said of the gateway with that name.
func (d *deployment) wantGateway(name, state string, fit bool, reason string) {
	d.t.Helper()
	var all []postern.GatewayState
	must(d.t, d.operate("GET", "/gateways", nil, &all))
	for _, g := range all {
		if g.Name != name {
			continue
		}
		if g.State != state || g.Fit != fit || !strings.Contains(g.Reason, reason) || (reason == "") != (g.Reason == "") {
			d.t.Errorf("%s: got %s, fit %v, %q, want %s, %v, %q", name, g.State, g.Fit, g.Reason, state, fit, reason)
		}
		return
	}
	d.t.Errorf("there is no gateway %s", name)
}

func TestFitness(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.wantDNS("without gateways", false)
	one, two := d.publicGateway("one", "203.0.113.7:443"), d.publicGateway("two", "[2001:db8::8]:443")
	d.wantGateway("one", postern.StateReady, false, "not reported yet")
	d.wantDNS("before any report", false, "203.0.113.7", "2001:db8::8")
	if s := d.askDNS(); s.TTL != 60 || s.Base != base || !slices.Equal(s.Names, []string{"*." + base, "login.example.com"}) {
		t.Errorf("got %+v", s)
	}

	// Fresh deployment: nobody has tunnels.
	one.reports(false)
	two.reports(false)
	d.wantGateway("one", postern.StateReady, true, "no gateway has a live tunnel")
	d.wantDNS("without tunnels", false, "203.0.113.7", "2001:db8::8")

	nodes := []*member{d.node("acme", "a"), d.node("acme", "b"), d.node("acme", "c"), d.node("acme", "d")}
	one.reports(false, nodes...)
	d.wantGateway("one", postern.StateReady, true, "")
	d.wantGateway("two", postern.StateReady, false, "live tunnels to 0 nodes, another gateway to 4")
	d.wantDNS("tunnels to one alone", false, "203.0.113.7")
	two.reports(false, nodes[0])
	d.wantDNS("few tunnels to two", false, "203.0.113.7")
	two.reports(false, nodes[:2]...)
	d.wantDNS("half the tunnels to two", false, "203.0.113.7", "2001:db8::8")

	// One is stopping. What it has is nothing to be compared with.
	two.reports(false)
	one.reports(true, nodes...)
	d.wantGateway("one", postern.StateDraining, false, "stopping")
	d.wantGateway("two", postern.StateReady, true, "no gateway has a live tunnel")
	d.wantDNS("one is stopping", false, "2001:db8::8")
	two.reports(true)
	d.wantDNS("both are stopping", true, "2001:db8::8")
	one.reports(false, nodes...)
	d.wantDNS("one is back", false, "203.0.113.7")

	// Silence.
	two.reports(false, nodes...)
	d.clock.advance(15 * time.Second)
	two.reports(false, nodes...)
	d.wantDNS("one report is late", false, "203.0.113.7", "2001:db8::8")
	d.clock.advance(6 * time.Second)
	d.wantGateway("one", postern.StateOffline, false, "no report for more than 20s")
	d.wantDNS("one is silent", false, "2001:db8::8")
	two.reports(false, nodes...)
	d.clock.advance(time.Minute)
	d.wantDNS("both are silent", true, "2001:db8::8")
}

// After a restart at which public names lead nowhere, DNS has no use for a gateway that is
// drained, though its address is all that is known.
func TestDNSAfterRestartWithoutNames(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	n := d.node("acme", "a")
	d.dns.lead("gw2.example.com", "203.0.113.8")
	one, two := d.publicGateway("one", "203.0.113.7:443"), d.publicGateway("two", "gw2.example.com:443")
	one.reports(false, n)
	two.reports(false, n)
	yes := true
	must(t, d.operate("PATCH", "/gateways/"+one.ID, postern.GatewayChange{Draining: &yes}, nil))
	eventually(t, "the name to be looked up", func() bool { return len(d.askDNS().A) == 1 })
	d.wantDNS("one is drained", false, "203.0.113.8")
	d.stop()
	d.dns.change(func() { d.dns.err = errors.New("no answer") })
	d.start()
	d.wantDNS("nothing is known of two", false)
	d.wantGateway("two", postern.StateOffline, true, "leads nowhere: no answer")
}

// What an operator drains is not fit, until they end it; it is told so, and nodes are not.
func TestDrainGateway(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	n := d.node("acme", "a")
	one, two := d.publicGateway("one", "203.0.113.7:443"), d.publicGateway("two", "203.0.113.8:443")
	one.reports(false, n)
	two.reports(false, n)
	before := d.askDNS()
	yes, no := true, false
	for range 2 { // the second time it is nothing new
		var g postern.GatewayState
		must(t, d.operate("PATCH", "/gateways/"+one.ID, postern.GatewayChange{Draining: &yes}, &g))
		if g.State != postern.StateDraining || !g.Draining || g.Fit {
			t.Errorf("got %+v", g)
		}
	}
	d.wantGateway("one", postern.StateDraining, false, "drained by an operator")
	d.wantDNS("one is drained", false, "203.0.113.8")
	must(t, d.operate("PATCH", "/gateways/"+one.ID, postern.GatewayChange{}, nil))
	d.wantGateway("one", postern.StateDraining, false, "drained by an operator")
	for _, tt := range []struct {
		member *member
		want   bool
	}{{one, true}, {two, false}, {n, false}} {
		w := tt.member.watch()
		w.sync()
		for _, g := range w.m.Deployment().Gateways {
			if g.Draining != (tt.want && g.ID == one.ID) {
				t.Errorf("%s is told of %+v", tt.member.Name, g)
			}
		}
	}

	// It stays over a restart, and so does who was fit.
	d.stop()
	d.start()
	d.wantGateway("one", postern.StateOffline, false, "drained by an operator")
	d.wantGateway("two", postern.StateOffline, true, "was fit when the coordinator started")
	d.wantDNS("after a restart", false, "203.0.113.8")
	d.clock.advance(time.Minute)
	d.wantDNS("nobody came back", true, "203.0.113.8")
	d.wantGateway("two", postern.StateOffline, false, "not connected")

	must(t, d.operate("PATCH", "/gateways/"+one.ID, postern.GatewayChange{Draining: &no}, nil))
	for _, g := range []*member{one, two} {
		g.client = d.clientFor(g.certificate())
		g.reports(false, n)
	}
	if after := d.askDNS(); !slices.Equal(after.A, before.A) {
		t.Errorf("got %v, want %v as before", after.A, before.A)
	}
	var audit []postern.AuditEntry
	must(t, d.operate("GET", "/audit?action=gateway.", nil, &audit))
	var actions []string
	for _, e := range audit {
		if strings.HasSuffix(e.Action, "drain") {
			actions = append(actions, fmt.Sprint(e.Action, " ", e.Target == one.ID))
		}
	}
	if want := []string{"gateway.drain true", "gateway.undrain true"}; !slices.Equal(actions, want) {
		t.Errorf("audit: got %q, want %q", actions, want)
	}
	wantProblem(t, d.operate("PATCH", "/gateways/"+n.ID, postern.GatewayChange{Draining: &yes}, nil), 404, postern.CodeNotFound)
}

// A public name counts for what DNS says, unless it is one of those that are to be told.
func TestFitnessByName(t *testing.T) {
	d := deploy(t)
	d.dns.mu.Lock()
	d.dns.addrs = map[string][]netip.Addr{"gw.example.com": {netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("203.0.113.9")}}
	d.dns.mu.Unlock()
	named, nowhere := d.publicGateway("named", "gw.example.com:443"), d.publicGateway("nowhere", "gone.example.com:443")
	below, silent := d.publicGateway("below", "control."+base+":443"), d.gateway("silent")
	for _, g := range []*member{named, nowhere, below, silent} {
		g.reports(false)
	}
	eventually(t, "a lookup", func() bool { return len(d.askDNS().A) > 0 })
	d.wantDNS("by name", false, "203.0.113.9", "2001:db8::9")
	d.wantGateway("nowhere", postern.StateReady, true, "gone.example.com leads nowhere")
	d.wantGateway("below", postern.StateReady, true, "lead to all gateways")
	d.wantGateway("silent", postern.StateOffline, true, "has not told where")
}
