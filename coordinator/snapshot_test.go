package coordinator

import (
	"fmt"
	"strings"
	"testing"

	"postern"
)

// A section that gateways could not read is refused before it is told to them,
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
	if n := section(fits).size(); n > maxSection || n < fits*50 {
		t.Errorf("a section of %d routes has %d bytes", fits, n)
	}
}
