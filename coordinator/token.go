package coordinator

import (
	"net/http"

	"postern"
)

// maxTokenBody bounds what a node redeems at a time, in bytes.
const maxTokenBody = 16 << 10

// postToken lets nodes redeem what people brought them from the portal.
func (c *Coordinator) postToken(site Site) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		m, err := c.authenticate(r)
		switch {
		case err != nil:
		case m.Role != postern.RoleNode:
			err = forbidden("that is for nodes only", "")
		case !c.limits.redeem.allow(m.ID):
			err = tooMany()
		}
		if err != nil {
			writeProblem(w, c.problemOf(r.Context(), err))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxTokenBody)
		site.ServeToken(w, r, c.hostsOf(m))
	}
}

// hostsOf returns the host names that lead to m.
func (c *Coordinator) hostsOf(m *Member) []string {
	t := c.snapshot.Load().tenants[m.Tenant]
	if t == nil {
		return nil
	}
	var hosts []string
	for _, r := range t.routesOf(m) {
		hosts = append(hosts, r.Host)
	}
	return hosts
}
