package coordinator_test

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// A restart of the coordinator throws nobody out.
func TestAdmissionAfterRestart(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	u := d.admitted()
	addr := netip.MustParseAddr("192.0.2.7")
	must(t, d.Admit(t.Context(), u.ID, addr))
	before, err := d.Local().Admission(t.Context(), "acme")
	must(t, err)
	d.stop()
	d.start()
	after, err := d.Local().Admission(t.Context(), "acme")
	must(t, err)
	if len(after.Sources) != 1 || !reflect.DeepEqual(after, before) {
		t.Errorf("got %+v, want %+v", after, before)
	}
}

// admitted has acme ask the portal, and returns a user who may open it.
func (d *deployment) admitted() coordinator.User {
	d.t.Helper()
	u, err := d.AddUser(d.t.Context(), postern.UserRequest{Login: "anna"})
	must(d.t, err)
	_, err = d.PutGrant(d.t.Context(), u.ID, "acme", postern.GrantRequest{})
	must(d.t, err)
	must(d.t, d.operate("PUT", "/tenants/acme/admission", postern.AdmissionRequest{Mode: postern.AdmissionPortal}, nil))
	return u
}

// Gateways are not told again what they were told, whatever people do: that is for nodes.
func TestPeopleAreNotForGateways(t *testing.T) {
	for _, mode := range []string{postern.AdmissionOpen, postern.AdmissionPortal} {
		t.Run(mode, func(t *testing.T) {
			d := deploy(t)
			d.addTenant("acme")
			u := d.admitted()
			must(t, d.Admit(t.Context(), u.ID, netip.MustParseAddr("192.0.2.7")))
			must(t, d.operate("PUT", "/tenants/acme/admission", postern.AdmissionRequest{Mode: mode}, nil))
			gone, err := d.AddUser(t.Context(), postern.UserRequest{Login: "gone"})
			must(t, err)
			node, door := d.node("acme", "a", postern.DefaultService), d.gateway("door")
			w, g := node.watch(), door.watch()
			w.sync()
			g.sync()
			told := g.m.Sections["acme"]
			_, err = d.PutGrant(t.Context(), gone.ID, "acme", postern.GrantRequest{})
			must(t, err)
			must(t, d.EndSessions(t.Context(), "local", gone.ID))
			must(t, d.SetName(t.Context(), "local", u.ID, "Anna B."))
			w.until("the node is told", func(m postern.Map) bool {
				people := m.Sections["acme"].People
				return slices.ContainsFunc(people, func(p postern.Person) bool { return p.NotBefore > 0 }) &&
					slices.ContainsFunc(people, func(p postern.Person) bool { return p.Name == "Anna B." })
			})
			d.addTenant("next")
			for {
				msg, ok := g.next()
				if !ok {
					t.Fatal("the gateway's stream ended")
				}
				if s := msg.Section; s != nil && s.Tenant == "acme" {
					t.Fatalf("the gateway is told of %+v again", s)
				}
				if _, ok := g.m.Sections["next"]; ok {
					break
				}
			}
			// What is for gateways they are told, also that there is less to it.
			for _, to := range []postern.AdmissionRequest{{Mode: postern.AdmissionList, Allowed: prefixes("10.0.0.0/8")}, {Mode: postern.AdmissionOpen}} {
				must(t, d.operate("PUT", "/tenants/acme/admission", to, nil))
				g.until("the gateway is told that it is "+to.Mode, func(m postern.Map) bool {
					a := m.Sections["acme"].Admission
					return (a == nil) == (to.Mode == postern.AdmissionOpen) && (a == nil || a.Mode == to.Mode)
				})
			}
			if now := g.m.Sections["acme"]; now.Version <= told.Version || !reflect.DeepEqual(now.Routes, told.Routes) {
				t.Errorf("got %+v after %+v", now, told)
			}
		})
	}
}

// Gateways are told from where, and not who; nodes are told nothing of it, not
// even that their section is another.
func TestAdmissionInMap(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	u := d.admitted()
	node, door := d.node("acme", "a", postern.DefaultService), d.gateway("door")
	w := node.watch()
	w.sync()
	g := door.watch()
	g.sync()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Admit(ctx, u.ID, netip.MustParseAddr("192.0.2.7")) }()
	admission := func(m postern.Map) *postern.Admission { return m.Sections["acme"].Admission }
	g.until("the source is there", func(m postern.Map) bool { return admission(m) != nil && len(admission(m).Sources) == 1 })
	cancel() // the gateway does not say that it acts on it
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the waiting was given up", err)
	}
	a := admission(g.m)
	if left := a.Sources[0].Until.Sub(d.clock.now()); a.Mode != "admission" || a.Sources[0].Prefix.String() != "192.0.2.7/32" ||
		left > 15*time.Minute || left < 14*time.Minute {
		t.Errorf("got %+v", a)
	}
	node.publish(postern.DefaultService, "erp") // the next that the node is told
	for told := false; !told; {
		msg, _ := w.next()
		if s := msg.Section; s != nil && s.Tenant == "acme" {
			if told = true; len(s.Routes) != 2 || s.Admission != nil {
				t.Errorf("the node is told of %+v", s)
			}
		}
	}
	g.until("the gateway is told", func(m postern.Map) bool { return len(m.Sections["acme"].Routes) == 2 })
	if a := admission(g.m); a == nil || len(a.Sources) != 1 {
		t.Errorf("after another change: got %+v", a)
	}
	must(t, d.operate("PUT", "/tenants/acme/admission", postern.AdmissionRequest{Mode: postern.AdmissionOpen}, nil))
	g.until("acme is open", func(m postern.Map) bool { return admission(m) == nil })
}

// Admit waits for every gateway that is connected, and for no other.
func TestAdmitWaits(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	u := d.admitted()
	one, two, away, old := d.gateway("one"), d.gateway("two"), d.gateway("away"), d.gateway("old")
	acts := func(g *member, version uint64) {
		t.Helper()
		must(t, g.call("POST", postern.PathStatus, postern.Status{Map: version}, nil))
	}
	first, second := one.watch(), two.watch()
	for _, g := range []*watcher{first, second, old.watch()} {
		g.sync()
	}
	acts(old, 0) // a program that does not say
	acts(away, 1)

	next := byte(0)
	admit := func() <-chan error {
		next++
		done := make(chan error, 1)
		addr := netip.AddrFrom4([4]byte{192, 0, 2, next})
		go func() { done <- d.Admit(t.Context(), u.ID, addr) }()
		first.until("the source is there", func(m postern.Map) bool {
			return slices.ContainsFunc(m.Sections["acme"].Admission.Sources, func(s postern.Source) bool { return s.Prefix.Addr() == addr })
		})
		return done
	}
	waits := func(done <-chan error, why string) {
		t.Helper()
		select {
		case err := <-done:
			t.Fatalf("%s: it returned %v", why, err)
		default:
		}
	}
	done := admit()
	version := first.m.Sections["acme"].Version
	waits(done, "nobody acts on it")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Admit(ctx, u.ID, netip.AddrFrom4([4]byte{192, 0, 2, next})); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who comes a moment later does not wait, and gets %v", err)
	}
	acts(one, version)
	waits(done, "two does not act on it")
	acts(two, version-1)
	waits(done, "two acts on the one before")
	acts(two, version)
	must(t, <-done)

	done = admit()
	acts(one, first.m.Version)
	waits(done, "two does not act on it")
	second.cancel() // it is gone
	must(t, <-done)

	done = admit()
	acts(one, first.m.Version)
	must(t, <-done)

	second = two.watch() // it is back, and acts on nobody knows what
	second.sync()
	done = admit()
	acts(one, first.m.Version)
	waits(done, "two has not said what it acts on")
	acts(two, first.m.Version+1)
	must(t, <-done)

	acts(two, first.m.Version+100)
	two.watch().sync() // in place of the other, which has not ended yet
	done = admit()
	acts(one, first.m.Version)
	waits(done, "two has not said what it acts on now")
	acts(two, first.m.Version)
	must(t, <-done)

	done = admit()
	d.clock.advance(21 * time.Second) // two and old are silent, and their streams are not found dead yet
	acts(one, first.m.Version)
	must(t, <-done)

	acts(two, 1)
	acts(old, 0)
	done = admit()
	acts(one, first.m.Version)
	waits(done, "two speaks again")
	must(t, d.operate("DELETE", "/gateways/"+two.ID, nil, nil))
	must(t, <-done)
}
