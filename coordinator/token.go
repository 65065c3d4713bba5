package coordinator

import (
	"context"
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
			writeProblem(w, c.Problem(r.Context(), err))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxTokenBody)
		site.ServeToken(w, r.WithContext(context.WithValue(r.Context(), askerKey{}, actorMember(m))), c.hostsOf(m))
	}
}

type askerKey struct{}

// Asker returns the actor that a Site's request is from: the node that redeems, or
// ActorStranger if the coordinator does not know.
func Asker(ctx context.Context) string {
	if actor, ok := ctx.Value(askerKey{}).(string); ok {
		return actor
	}
	return ActorStranger
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
