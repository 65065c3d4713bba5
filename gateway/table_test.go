package gateway

import (
	"reflect"
	"testing"

	"postern"
)

func TestTable(t *testing.T) {
	at := func(version uint64, s postern.Section) postern.Section {
		s.Version = version
		return s
	}
	node := func(id string) Node { return Node{ID: id, Addr: addr443(id)} }
	acme := section("acme", "acme.example", "fd00::1", "fd00::2")
	acme.Routes = append(acme.Routes,
		postern.Route{Host: "shop.acme.example", Service: "shop", Nodes: []string{"fd00::2"}},
		postern.Route{Host: "empty.acme.example", Service: "empty"},
		postern.Route{Host: "new.acme.example", Service: "new", Nodes: []string{"fd00::1", "fd00::2"}, Challenge: "fd00::2"})
	for _, tt := range []struct {
		name string
		m    postern.Map
		host string
		want Target
		ok   bool
	}{
		{"default service", mapOf(acme), "acme.example", Target{Tenant: "acme", Service: "default", Nodes: []Node{node("fd00::1"), node("fd00::2")}}, true},
		{"other service", mapOf(acme), "shop.acme.example", Target{Tenant: "acme", Service: "shop", Nodes: []Node{node("fd00::2")}}, true},
		{"nobody at present", mapOf(acme), "empty.acme.example", Target{Tenant: "acme", Service: "empty"}, true},
		{"a certificate is on its way", mapOf(acme), "new.acme.example",
			Target{Tenant: "acme", Service: "new", Nodes: []Node{node("fd00::1"), node("fd00::2")}, Challenge: node("fd00::2")}, true},
		{"unknown", mapOf(acme), "b.example", Target{}, false},
		{"no wildcard", mapOf(acme), "x.acme.example", Target{}, false},
		{"empty map", postern.Map{}, "acme.example", Target{}, false},
		{"the coordinator's", mapOf(acme, deployment("portal.example")), "portal.example", Target{}, true},
		{"the coordinator's, claimed by a tenant", mapOf(acme, deployment("acme.example")), "acme.example", Target{}, true},
		{"claimed twice, the later change", mapOf(at(2, section("b", "x.example", "fd00::2")), at(1, section("a", "x.example", "fd00::1"))),
			"x.example", Target{Tenant: "b", Service: "default", Nodes: []Node{node("fd00::2")}}, true},
		{"claimed twice at once", mapOf(at(2, section("b", "x.example", "fd00::2")), at(2, section("a", "x.example", "fd00::1")),
			at(2, section("c", "x.example", "fd00::3"))), "x.example", Target{}, false},
		{"claimed twice at once, then by one", mapOf(at(2, section("b", "x.example", "fd00::2")), at(2, section("a", "x.example", "fd00::1")),
			at(3, section("c", "x.example", "fd00::3"))), "x.example", Target{Tenant: "c", Service: "default", Nodes: []Node{node("fd00::3")}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 20 { // the map's order is another each time
				got, ok := NewTable(tt.m).Lookup(tt.host)
				if ok != tt.ok || !reflect.DeepEqual(got, tt.want) {
					t.Fatalf("got %+v, %v; want %+v, %v", got, ok, tt.want, tt.ok)
				}
			}
		})
	}
}
