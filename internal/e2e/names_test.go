//go:build e2e

package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/internal/dnscheck/dnstest"
)

// A nameServer is all of DNS to a coordinator.
type nameServer struct {
	*dnstest.Server
	zone string // records, a line each
}

func newNameServer(t testing.TB) *nameServer {
	t.Helper()
	return &nameServer{Server: dnstest.New(t, "")}
}

// add puts records into DNS, as a zone file has them.
func (s *nameServer) add(t testing.TB, records ...string) {
	t.Helper()
	s.zone += strings.Join(records, "\n") + "\n"
	s.SetZone(t, s.zone)
}

// prove has DNS show that host is tenant's, which added it.
func (d *deployment) prove(host, tenant string) {
	d.t.Helper()
	var routes []postern.RouteState
	d.cli(&routes, "routes", "list", "--tenant", tenant)
	for _, r := range routes {
		for _, v := range r.Records {
			if r.Host == host && v.Purpose == postern.PurposeProof {
				d.names.add(d.t, v.Name+". TXT "+v.Value)
			}
		}
	}
	eventually(d.t, 20*time.Second, func() error {
		d.try("routes", "check", host, "--tenant", tenant) // fails for what is no proof, too
		_, err := d.try("routes", "match", host)
		if err != nil {
			return errors.New("the proof was not seen: " + err.Error())
		}
		return nil
	})
}
