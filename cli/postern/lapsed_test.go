package main

import (
	"testing"

	"postern"
)

// When the lease has lapsed the coordinator's own names lead there still, and the others to
// nobody; the map that is held is left as it is.
func TestLapsed(t *testing.T) {
	m := postern.Map{Version: 7, Sections: map[string]postern.Section{
		"": {Deployment: &postern.Deployment{Names: []string{"control.apps.example.com"}}},
		"acme": {
			Tenant: "acme", Nodes: []postern.Node{{ID: "n1"}},
			Routes: []postern.Route{{Host: "acme.apps.example.com", Nodes: []string{"n1"}, Challenge: "n1"}},
		},
	}}
	got := lapsed(m)
	acme := got.Sections["acme"]
	if got.Version != 7 || got.Deployment() == nil || len(got.Deployment().Names) != 1 {
		t.Errorf("got %+v", got)
	}
	if len(acme.Nodes) != 0 || len(acme.Routes) != 1 || len(acme.Routes[0].Nodes) != 0 || acme.Routes[0].Challenge != "" {
		t.Errorf("got %+v", acme)
	}
	if held := m.Sections["acme"]; len(held.Nodes) != 1 || len(held.Routes[0].Nodes) != 1 {
		t.Errorf("the map that is held became %+v", held)
	}
}
