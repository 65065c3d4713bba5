package coordinator_test

import (
	"fmt"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

const shared = "erp.acme." + base

// awaits has m say that it awaits an authority at host, or no longer does.
func (m *member) awaits(host string, done bool) error {
	return m.call("POST", postern.PathChallenges, postern.ChallengeRequest{Host: host, Done: done}, nil)
}

// challenged returns who awaits an authority at host, as a gateway's map says.
func challenged(m postern.Map, host string) string {
	for _, s := range m.Sections {
		for _, r := range s.Routes {
			if r.Host == host {
				return r.Challenge
			}
		}
	}
	return ""
}

// Gateways are told who awaits an authority, and the node is answered when they act on
// it. Nodes are told nothing.
func TestChallenge(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, b, g := d.node("acme", "a", "erp", "own"), d.node("acme", "b", "erp"), d.gateway("door")
	nw, gw := a.watch(), g.watch()
	nw.sync()
	gw.sync()
	before := gw.m.Sections["acme"].Version

	done := make(chan error, 1)
	go func() { done <- a.awaits(shared, false) }()
	gw.until("a awaits an authority", func(m postern.Map) bool { return challenged(m, shared) == a.ID })
	select {
	case err := <-done:
		t.Fatalf("it was answered before the gateway acts on it: %v", err)
	default:
	}
	if v := gw.m.Sections["acme"].Version; v <= before {
		t.Errorf("section version %d after %d", v, before)
	}
	must(t, g.call("POST", postern.PathStatus, postern.Status{Map: gw.m.Version}, nil))
	must(t, <-done)

	// It outlives other changes of the section, and does not spread.
	b.publish("erp", "more")
	gw.until("b publishes more", func(m postern.Map) bool { return len(m.Sections["acme"].Routes) == 3 })
	if challenged(gw.m, shared) != a.ID || challenged(gw.m, "own.acme."+base) != "" || challenged(gw.m, "more.acme."+base) != "" {
		t.Errorf("got routes %+v", gw.m.Sections["acme"].Routes)
	}
	must(t, b.awaits(shared, true)) // it does not have it
	must(t, a.awaits("own.acme."+base, true))
	a.publish("erp", "own", "last")
	gw.until("a publishes more", func(m postern.Map) bool { return len(m.Sections["acme"].Routes) == 4 })
	if challenged(gw.m, shared) != a.ID {
		t.Error("another node ended it")
	}
	nw.until("a is told of its routes", func(m postern.Map) bool { return len(m.Sections["acme"].Routes) == 3 })
	if by := challenged(nw.m, shared); by != "" {
		t.Errorf("the node is told that %q awaits an authority", by)
	}

	must(t, a.awaits(shared, true))
	gw.until("a is done", func(m postern.Map) bool { return challenged(m, shared) == "" })
	must(t, a.awaits(shared, true)) // again is as good
}

func TestChallengeRefused(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	a, g := d.node("acme", "a", "erp"), d.gateway("door")
	d.node("acme", "b", "other")
	d.node("rival", "r", "erp")
	must(t, d.operate("POST", "/routes", postern.RouteRequest{Host: "books.example.com", Tenant: "rival", Service: "erp"}, nil))
	for _, host := range []string{"erp.rival." + base, "other.acme." + base, "books.example.com", "none.acme." + base, portalHost, control} {
		wantProblem(t, a.awaits(host, false), 403, postern.CodeForbidden)
		must(t, a.awaits(host, true)) // says nothing about it
	}
	wantProblem(t, a.awaits("ERP.acme."+base, false), 422, postern.CodeInvalid)
	wantProblem(t, g.awaits(shared, false), 403, postern.CodeForbidden)
	must(t, a.awaits(shared, false)) // no gateway is connected: there is nobody to wait for
}

// How a challenge ends by itself.
func TestChallengeEnds(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, b, g := d.node("acme", "a", "erp"), d.node("acme", "b", "erp"), d.gateway("door")
	by := func() string {
		w := g.watch()
		defer w.cancel()
		w.sync()
		return challenged(w.m, shared)
	}
	take := func(m *member) {
		t.Helper()
		must(t, m.awaits(shared, false))
		if got := by(); got != m.ID {
			t.Fatalf("got %q, want %q", got, m.ID)
		}
	}
	take(a)
	a.publish()
	if got := by(); got != "" {
		t.Errorf("after its route went: got %q", got)
	}
	a.publish("erp")
	if got := by(); got != "" {
		t.Errorf("after its route came back: got %q", got)
	}
	take(a)
	d.clock.advance(11 * time.Minute)
	d.SweepChallenges(t.Context())
	if got := by(); got != "" {
		t.Errorf("after its time: got %q", got)
	}
	take(a)
	d.clock.advance(11 * time.Minute)
	take(b) // before anybody swept
	take(b) // once more
	must(t, d.operate("DELETE", "/nodes/"+b.ID, nil, nil))
	if got := by(); got != "" {
		t.Errorf("after its node was removed: got %q", got)
	}
	take(a)
	d.stop()
	d.start()
	g.client = d.clientFor(g.certificate())
	if got := by(); got != "" {
		t.Errorf("after a restart: got %q", got)
	}
}

// Of two nodes that renew at the same moment the second waits until the first is done.
func TestChallengeTurns(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, b := d.node("acme", "a", "erp"), d.node("acme", "b", "erp")
	must(t, a.awaits(shared, false))
	done := make(chan error, 1)
	go func() { done <- b.awaits(shared, false) }()
	c := d.node("acme", "c", "erp") // some change that is none of theirs
	select {
	case err := <-done:
		t.Fatalf("b was answered: %v", err)
	default:
	}
	must(t, a.awaits(shared, true))
	must(t, <-done)
	must(t, b.awaits(shared, true))

	d.stop()
	d.start()
	d.ShortWaits()
	for _, m := range []*member{b, c} {
		m.client = d.clientFor(m.certificate())
	}
	must(t, b.awaits(shared, false))
	wantProblem(t, c.awaits(shared, false), 503, postern.CodeUnavailable)
	must(t, b.awaits(shared, true))
	must(t, c.awaits(shared, false))
}

// A gateway that does not say that it acts on the map holds nobody up for ever.
func TestChallengeOfSlowGateway(t *testing.T) {
	d := deploy(t)
	d.ShortWaits()
	d.addTenant("acme")
	a, g := d.node("acme", "a", "erp"), d.gateway("door")
	g.watch().sync()
	must(t, a.awaits(shared, false))
}

// A tenant's challenges are bounded, and those of another are not the fewer for it.
func TestChallengesAreBounded(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	var services []string
	for i := range 60 {
		services = append(services, fmt.Sprintf("s%d", i))
	}
	a, b, r := d.node("acme", "a", services...), d.node("acme", "b", "x1", "x2", "x3", "x4", "x5"), d.node("rival", "r", "erp")
	for _, s := range services {
		must(t, a.awaits(s+".acme."+base, false))
		d.clock.advance(time.Second)
	}
	for i := range 4 {
		must(t, b.awaits(fmt.Sprintf("x%d.acme.%s", i+1, base), false))
	}
	wantProblem(t, b.awaits("x5.acme."+base, false), 429, postern.CodeTooMany)
	must(t, b.awaits("x1.acme."+base, false)) // that it has
	must(t, r.awaits("erp.rival."+base, false))
	must(t, a.awaits("s0.acme."+base, true))
	must(t, b.awaits("x5.acme."+base, false))
}

// The portal's own challenge waits for a gateway by which an authority can come.
func TestAwaitGateway(t *testing.T) {
	d := deploy(t)
	g := d.gateway("door")
	done := make(chan error, 1)
	go func() { done <- d.AwaitGateway(t.Context()) }()
	w := g.watch()
	w.sync()
	select {
	case err := <-done:
		t.Fatalf("it returned before the gateway acts on the map: %v", err)
	default:
	}
	must(t, g.call("POST", postern.PathStatus, postern.Status{Map: w.m.Version}, nil))
	must(t, <-done)
}

// Nodes are told of the authorities, gateways are not.
func TestACMEInMap(t *testing.T) {
	want := &postern.ACME{Email: "ops@example.com", Issuers: []postern.ACMEIssuer{
		{Directory: "https://ca.example.com/directory", Profile: "shortlived"}, {Directory: "https://ca2.example.com/"},
	}}
	d := &deployment{t: t, dir: t.TempDir(), clock: &clock{}}
	d.change = func(cfg *coordinator.Config) { cfg.ACME = want }
	d.start()
	t.Cleanup(func() { d.stop() })
	d.addTenant("acme")
	for _, m := range []*member{d.node("acme", "a", "erp"), d.gateway("door")} {
		w := m.watch()
		w.sync()
		got := w.m.Deployment().ACME
		if m.role == postern.RoleGateway && got != nil || m.role == postern.RoleNode && fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v", m.role, got)
		}
	}
}
