//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"slices"
	"testing"

	"postern"
)

// I8: on the wire, a node's map is itself, its own routes and the gateways: to
// the byte what it should be, while everything around it changes.
func TestIsolationI8Map(t *testing.T) {
	s := newStreet(t)
	mallory := newStranger(s.deployment, s.token("acme")).mustJoin("mallory")
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+loopback(s.control)+postern.PathMap, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := mallory.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, postern.MaxMapLine)
	raw, m := s.readMap(lines, func(msg postern.MapMessage, _ postern.Map) bool { return msg.Synced })
	// Things happen to others, and at last to mallory.
	s.cli(nil, "routes", "add", "shop.example.com", "--tenant", "globex")
	s.prove("shop.example.com", "globex")
	s.cli(nil, "tenants", "add", "initech", "--no-token")
	newStranger(s.deployment, s.token("globex")).mustJoin("globex-spare")
	newStranger(s.deployment, s.token("acme")).mustJoin("acme-spare")
	s.do("tenants", "remove", "initech", "--yes")
	p := postern.Publication{Services: []postern.Service{{Name: "mine"}}}
	if err := mallory.ask("PUT", postern.PathServices, p, nil); err != nil {
		t.Fatal(err)
	}
	more, now := s.readMap(lines, func(_ postern.MapMessage, m postern.Map) bool { return len(m.Sections["acme"].Routes) > 0 })
	raw = append(raw, more...)
	maps := map[string]postern.Section{"": m.Sections[""], "acme": now.Sections["acme"]}

	for _, name := range []string{"acme-office", "globex-office"} {
		s.secretsIn("the map stream", raw, s.nodeState(name))
	}
	for _, word := range []string{"globex", "initech", "office", "spare", "shop.example.com", "books", "names", "control." + base, mallory.token.ID.String()} {
		if bytes.Contains(raw, []byte(word)) {
			t.Errorf("the map stream has %q in it:\n%s", word, raw)
		}
	}
	ca, err := os.ReadFile(s.caFile())
	if err != nil {
		t.Fatal(err)
	}
	g, e := s.gatewayState(), mallory.enrollment
	d := maps[""].Deployment
	portal := s.publicPortal(d.Portal)
	var boot string // what the gateway calls this run of its, at random
	if len(d.Gateways) == 1 {
		boot = d.Gateways[0].Boot
	}
	want := map[string]postern.Section{
		"": {Version: maps[""].Version, Deployment: &postern.Deployment{
			ID: e.Deployment, Base: base, Port: uint16(s.https), CA: ca, Portal: portal, Lease: d.Lease,
			Gateways: []postern.Gateway{{ID: g.ID, Name: g.Name, Address: g.Address, WireGuard: g.WireGuard, Endpoint: g.Endpoint, Public: g.Public, Identity: g.Identity, Boot: boot}},
		}},
		"acme": {
			Tenant: "acme", Version: maps["acme"].Version,
			Nodes:  []postern.Node{{ID: e.ID, Name: "mallory", Address: e.Address, WireGuard: mallory.wireguard.Public(), Identity: mallory.key.Public()}},
			Routes: []postern.Route{{Host: "mine.acme." + base, Service: "mine", Nodes: []string{e.ID}}},
		},
	}
	if !reflect.DeepEqual(maps, want) {
		t.Errorf("the map is\n%+v\nwant\n%+v", maps, want)
	}
	passed(t, "I8 bytes of a node's map, none of another's", len(raw))
}

// publicPortal returns p once it is what everybody may know: where people sign in, and
// the public halves of its keys.
func (s *street) publicPortal(p *postern.Portal) *postern.Portal {
	s.t.Helper()
	if p == nil || p.Issuer != fmt.Sprintf("https://portal.%s:%d", base, s.https) {
		s.t.Fatalf("the portal is %+v", p)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(p.Keys, &set); err != nil || len(set.Keys) == 0 {
		s.t.Fatalf("the portal's keys are %s: %v", p.Keys, err)
	}
	for _, key := range set.Keys {
		for field := range key {
			if !slices.Contains([]string{"use", "kty", "kid", "crv", "alg", "x", "y"}, field) {
				s.t.Errorf("a key of the portal tells its %s", field)
			}
		}
	}
	return p
}

// readMap reads lines of a map stream until enough, and returns the bytes and
// the map that they make. A field that the protocol does not name fails.
func (s *street) readMap(lines *bufio.Scanner, enough func(postern.MapMessage, postern.Map) bool) ([]byte, postern.Map) {
	s.t.Helper()
	var raw []byte
	var m postern.Map
	for lines.Scan() {
		raw = append(append(raw, lines.Bytes()...), '\n')
		var msg postern.MapMessage
		strict := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		strict.DisallowUnknownFields()
		err := strict.Decode(&msg)
		if err == nil {
			err = m.Apply(msg)
		}
		if err != nil {
			s.t.Fatalf("%v in %s", err, lines.Bytes())
		}
		if msg.Section != nil && msg.Section.Tenant != "" && msg.Section.Tenant != "acme" || msg.Removed != "" {
			s.t.Errorf("a section of another tenant: %s", lines.Bytes())
		}
		if enough(msg, m) {
			return raw, m
		}
	}
	s.t.Fatalf("the map stream ended: %v", errors.Join(lines.Err(), io.ErrUnexpectedEOF, fmt.Errorf("after %s", raw)))
	return nil, m
}
