package postern_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"postern"
)

func testSection(version uint64) *postern.Section {
	return &postern.Section{
		Tenant: "acme", Version: version,
		Nodes: []postern.Node{
			{ID: "n1", Name: "office", Address: netip.MustParseAddr("fd00:1:2:1::1"), WireGuard: postern.WireGuardPublic{1}},
			{ID: "n2", Name: "spare", Address: netip.MustParseAddr("fd00:1:2:1::2"), WireGuard: postern.WireGuardPublic{2}},
		},
		Routes: []postern.Route{
			{Host: "acme.apps.example.com", Service: "default", Nodes: []string{"n1", "n2"}},
			{Host: "books.acme.apps.example.com", Service: "books"},
		},
	}
}

func testDeployment(version uint64) *postern.Section {
	return &postern.Section{Version: version, Deployment: &postern.Deployment{
		ID: "d", Base: "apps.example.com", Names: []string{"control.apps.example.com"},
		Gateways: []postern.Gateway{{
			ID: "g1", Name: "gw1", Address: netip.MustParseAddr("fd00:1:2::1"), WireGuard: postern.WireGuardPublic{3},
			Endpoint: "gw1.example.com:51820", Public: "203.0.113.7:443",
		}},
	}}
}

func TestMapApply(t *testing.T) {
	var m postern.Map
	apply := func(msg postern.MapMessage) error {
		t.Helper()
		before := m.Clone()
		err := m.Apply(msg)
		if err != nil && !reflect.DeepEqual(m, before) {
			t.Errorf("a refused message changed the map to %+v", m)
		}
		return err
	}
	for _, msg := range []postern.MapMessage{
		{Version: 3, Section: testDeployment(1)},
		{Version: 3, Section: testSection(3), Synced: true},
		{Version: 3},
		{Version: 5, Section: testSection(5)},
	} {
		if err := apply(msg); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.Deployment().Base; got != "apps.example.com" {
		t.Errorf("base is %q", got)
	}
	if err := apply(postern.MapMessage{Version: 4, Section: testSection(4)}); !errors.Is(err, postern.ErrOldMap) {
		t.Errorf("an older map: got %v, want ErrOldMap", err)
	}
	if err := apply(postern.MapMessage{Version: 6, Section: testSection(4)}); !errors.Is(err, postern.ErrOldMap) {
		t.Errorf("an older section: got %v, want ErrOldMap", err)
	}
	kept := m.Clone()
	if err := apply(postern.MapMessage{Version: 7, Removed: "acme"}); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.Sections["acme"]; ok || m.Version != 7 {
		t.Errorf("after the removal: version %d, sections %v", m.Version, m.Sections)
	}
	if _, ok := kept.Sections["acme"]; !ok {
		t.Error("a clone changed with its original")
	}
}

func TestDecodeMapMessageRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(acme, deployment *postern.Section)
	}{
		{"a host twice", "twice", func(a, _ *postern.Section) { a.Routes[1].Host = a.Routes[0].Host }},
		{"a host that is none", "host name", func(a, _ *postern.Section) { a.Routes[0].Host = "ACME.example" }},
		{"a route to another's node", "not in the section", func(a, _ *postern.Section) { a.Routes[0].Nodes[0] = "n9" }},
		{"a weight below zero", "weight -1", func(a, _ *postern.Section) { a.Nodes[0].Weight = -1 }},
		{"a weight too great", "weight 1001", func(a, _ *postern.Section) { a.Nodes[0].Weight = postern.MaxWeight + 1 }},
		{"a key twice", "twice", func(a, _ *postern.Section) { a.Nodes[1].WireGuard = a.Nodes[0].WireGuard }},
		{"no key", "no WireGuard key", func(a, _ *postern.Section) { a.Nodes[1].WireGuard = postern.WireGuardPublic{} }},
		{"an address twice", "twice", func(a, _ *postern.Section) { a.Nodes[1].Address = a.Nodes[0].Address }},
		{"an id twice", "twice", func(a, _ *postern.Section) { a.Nodes[1].ID = a.Nodes[0].ID }},
		{"no id", "no id", func(a, _ *postern.Section) { a.Nodes[1].ID = "" }},
		{"an address of the Internet", "unique local", func(a, _ *postern.Section) { a.Nodes[1].Address = netip.MustParseAddr("2001:db8::1") }},
		{"a zone", "unique local", func(a, _ *postern.Section) { a.Nodes[1].Address = netip.MustParseAddr("fd00::1%eth0") }},
		{"an IPv4 address", "unique local", func(a, _ *postern.Section) { a.Nodes[1].Address = netip.MustParseAddr("10.0.0.1") }},
		{"no address", "unique local", func(a, _ *postern.Section) { a.Nodes[1].Address = netip.Addr{} }},
		{"a tenant that is no label", "tenant name", func(a, _ *postern.Section) { a.Tenant = "a.b" }},
		{"neither tenant nor deployment", "either", func(a, _ *postern.Section) { a.Tenant = "" }},
		{"both", "either", func(a, d *postern.Section) { a.Deployment = d.Deployment }},
		{"a section newer than its map", "version", func(a, _ *postern.Section) { a.Version = 10 }},
		{"the base is none", "host name", func(_, d *postern.Section) { d.Deployment.Base = "" }},
		{"a name twice", "twice", func(_, d *postern.Section) { d.Deployment.Names = []string{"a.b", "a.b"} }},
		{"a gateway without a key", "no WireGuard key", func(_, d *postern.Section) { d.Deployment.Gateways[0].WireGuard = postern.WireGuardPublic{} }},
		{"nodes of nobody", "no tenant", func(a, d *postern.Section) { d.Nodes = a.Nodes }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			acme, deployment := testSection(9), testDeployment(9)
			tt.change(acme, deployment)
			failed := 0
			for _, s := range []*postern.Section{acme, deployment} {
				line, err := json.Marshal(postern.MapMessage{Version: 9, Section: s})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := postern.DecodeMapMessage(line); err != nil {
					failed++
					if !strings.Contains(err.Error(), tt.want) {
						t.Errorf("got %q, want it to say %q", err, tt.want)
					}
				}
			}
			if failed != 1 {
				t.Errorf("%d of the two sections were refused, want 1", failed)
			}
		})
	}
}

// A coordinator that knows more than its members does not lose them: what they do not
// know is the least to them.
func TestDecodeMapMessageOfLaterVersion(t *testing.T) {
	line := []byte(`{"version":9,"section":{"tenant":"acme","version":9,"later":[1],
		"people":[{"id":"u1","login":"anna","role":"auditor"},{"id":"u2","login":"ben","role":""}],
		"admission":{"mode":"by-moonlight","allowed":["192.0.2.0/24"]}}}`)
	msg, err := postern.DecodeMapMessage(line)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range msg.Section.People {
		if (postern.Access{}).Allows(&p, "books") || !(postern.Access{Who: postern.AccessPublic}).Allows(&p, "books") {
			t.Errorf("%s may open something, or not what is public", p.Login)
		}
	}
	if a := msg.Section.Admission; len(msg.Section.People) != 2 || a.Mode != "by-moonlight" || len(a.Allowed) != 1 {
		t.Errorf("got %+v and %+v", msg.Section.People, a)
	}
}

func FuzzDecodeMapMessage(f *testing.F) {
	for _, msg := range []postern.MapMessage{
		{Version: 9, Section: testSection(9)}, {Version: 9, Section: testDeployment(3), Synced: true},
		{Version: 9, Removed: "acme"}, {},
	} {
		line, err := json.Marshal(msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Add([]byte(`{"version":1,"section":{"tenant":"a","version":2}}`))
	f.Add([]byte(`{"version":-1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		msg, err := postern.DecodeMapMessage(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(msg)
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		back, err := postern.DecodeMapMessage(again)
		if err != nil {
			t.Fatalf("%s is refused after %s was taken: %v", again, line, err)
		}
		if last, _ := json.Marshal(back); string(last) != string(again) {
			t.Errorf("%s became %s", again, last)
		}
		var m postern.Map
		if err := m.Apply(msg); err != nil {
			t.Errorf("an empty map refuses %s: %v", line, err)
		}
	})
}
