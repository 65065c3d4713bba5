package portal_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"postern/coordinator"
)

// A fakeDNS is a Resolver that has TXT records and nothing else.
type fakeDNS struct {
	mu  sync.Mutex
	txt map[string]string
}

// set makes text the TXT record of name.
func (f *fakeDNS) set(name, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.txt = map[string]string{name: text}
}

func (f *fakeDNS) TXT(_ context.Context, name string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if text, ok := f.txt[name]; ok {
		return []string{text}, nil
	}
	return nil, fmt.Errorf("TXT %s: %w", name, coordinator.ErrNoRecord)
}

func (f *fakeDNS) Addresses(_ context.Context, name string) ([]netip.Addr, []string, error) {
	return nil, nil, fmt.Errorf("%s does not exist: %w", name, coordinator.ErrNoRecord)
}

func (f *fakeDNS) CAA(context.Context, string) (coordinator.CAA, error) { return noCAA{}, nil }

// noCAA lets anybody issue.
type noCAA struct{}

func (noCAA) Grade(string) (string, string)        { return "none", "Anybody may issue." }
func (noCAA) Permits(string, string, string) error { return nil }
