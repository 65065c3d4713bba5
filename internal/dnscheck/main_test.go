package dnscheck

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/internal/dnscheck/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer returns a server of zone and a resolver that asks it.
func newServer(t *testing.T, zone string) (*dnstest.Server, *Resolver) {
	t.Helper()
	s := dnstest.New(t, zone)
	r, err := New(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

// impatient returns r with little time for each try.
func impatient(r *Resolver) *Resolver {
	return &Resolver{servers: r.servers, timeout: 50 * time.Millisecond}
}
