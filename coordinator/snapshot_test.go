package coordinator

import (
	"fmt"
	"strings"
	"testing"

	"postern"
)

// A section that members could not read is refused before it is told to them,
// and can still be made smaller.
func TestCheckSize(t *testing.T) {
	section := func(routes int) *tenantMap {
		s := &postern.Section{Tenant: "acme", Version: 1}
		for n := range routes {
			s.Routes = append(s.Routes, postern.Route{Host: fmt.Sprintf("%s-%d.acme.apps.test", strings.Repeat("x", 50), n), Service: "x"})
		}
		return &tenantMap{Tenant: Tenant{Name: "acme"}, section: s}
	}
	const fits, over = 10_000, 100_000
	tests := []struct {
		name       string
		prev, next *tenantMap
		ok         bool
	}{
		{"new", nil, section(fits), true},
		{"removed", section(over), nil, true},
		{"too large", section(fits), section(over), false},
		{"too large and new", nil, section(over), false},
		{"smaller, and still too large", section(over), section(over - 1), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := checkSize(tt.prev, tt.next); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
	people := func(n int) *tenantMap {
		t := &tenantMap{Tenant: Tenant{Name: "acme"}, section: &postern.Section{Tenant: "acme"}}
		for range n {
			t.people = append(t.people, postern.Person{ID: "u0123456789abcdef", Login: "somebody@acme.example", Role: postern.TenantMember})
		}
		return t
	}
	const crowd, throng = 5_000, 20_000
	peopleTests := []struct {
		name       string
		prev, next *tenantMap
		ok         bool
	}{
		{"many people", nil, people(crowd), true},
		{"too many people", people(crowd), people(throng), false},
		{"fewer, and still too many", people(throng), people(throng - 1), true},
	}
	for _, tt := range peopleTests {
		t.Run(tt.name, func(t *testing.T) {
			if err := checkSize(tt.prev, tt.next); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
	// Nobody is kept from signing out everywhere.
	before, after := people(throng), people(throng)
	for i := range after.people {
		after.people[i].NotBefore = 1_800_000_000
	}
	if err := checkSize(before, after); err != nil {
		t.Errorf("%d people who signed out: got %v", throng, err)
	}
	// Whatever people do, what their nodes are told fits a line.
	full := &postern.Section{People: people(maxPeople / people(1).peopleSize()).people}
	for i := range full.People {
		full.People[i].NotBefore = 1_800_000_000
	}
	for range maxEnded * len(full.People) {
		full.Ended = append(full.Ended, postern.NewID())
	}
	if n := jsonSize(full); n > postern.MaxMapLine-maxSection {
		t.Errorf("%d people have %d bytes", len(full.People), n)
	}
	if n := section(fits).size(); n > maxSection || n < fits*50 {
		t.Errorf("a section of %d routes has %d bytes", fits, n)
	}
}
