package portal

import (
	"net/http"
	"net/url"

	"postern"
	"postern/coordinator"
)

// A nodes is what the nodes' page is made from.
type nodes struct {
	All      bool // who looks operates the whole deployment
	Nodes    []postern.NodeState
	Gateways []postern.GatewayState
	Titles   titles
	Marks    []mark // all that is shown can have
}

func (p *Portal) viewNodes(r *http.Request, u coordinator.User, _ url.Values) (any, error) {
	o, err := p.operator(r, u)
	if err != nil {
		return nil, err
	}
	tenants, err := o.Tenants(r.Context())
	if err != nil {
		return nil, err
	}
	v := nodes{All: o.All(), Titles: titlesOf(tenants), Marks: []mark{ready, degraded, interrupted, offline}}
	if v.Nodes, err = o.Nodes(r.Context(), ""); err != nil {
		return nil, err
	}
	if v.All {
		v.Marks = append(v.Marks, draining) // only gateways' own state
		v.Gateways, err = o.Gateways(r.Context())
	}
	return v, err
}

func (p *Portal) nodesPage(w http.ResponseWriter, r *http.Request, u coordinator.User, _ *coordinator.Operator) {
	p.renderLive(w, r, http.StatusOK, "nodes", u, url.Values{})
}

func (p *Portal) removeNode(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	if err := o.RemoveNode(r.Context(), r.PathValue("id")); err != nil {
		p.fail(w, r, err)
		return
	}
	p.done(w, r, "/admin/nodes", "node")
}

func (p *Portal) removeGateway(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	if err := o.RemoveGateway(r.Context(), r.PathValue("id")); err != nil {
		p.fail(w, r, err)
		return
	}
	p.done(w, r, "/admin/nodes", "gateway")
}
