package portal

import (
	"cmp"
	"net/http"
	"strings"

	"postern"
	"postern/coordinator"
)

func (p *Portal) operatorRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /admin/people", p.operates(p.peoplePage))
	mux.HandleFunc("POST /admin/people", p.operates(p.addPerson))
	mux.HandleFunc("GET /admin/people/{id}", p.operates(p.personPage))
	mux.HandleFunc("POST /admin/people/{id}/invite", p.operates(p.invitePerson))
	mux.HandleFunc("POST /admin/people/{id}/disable", p.operates(p.disablePerson))
	mux.HandleFunc("POST /admin/people/{id}/enable", p.operates(p.enablePerson))
	mux.HandleFunc("POST /admin/people/{id}/remove", p.operates(p.removePerson))
	mux.HandleFunc("POST /admin/people/{id}/grants", p.operates(p.grant))
	mux.HandleFunc("POST /admin/people/{id}/grants/{tenant}/revoke", p.operates(p.revoke))

	mux.HandleFunc("GET /admin/nodes", p.operates(p.nodesPage))
	mux.HandleFunc("POST /admin/nodes/{id}/remove", p.operates(p.removeNode))
	mux.HandleFunc("POST /admin/gateways/{id}/remove", p.operates(p.removeGateway))

	mux.HandleFunc("GET /admin/routes", p.operates(p.routesPage))
	mux.HandleFunc("POST /admin/routes", p.operates(p.addRoute))
	mux.HandleFunc("GET /admin/routes/{tenant}/{host}", p.operates(p.routePage))
	mux.HandleFunc("POST /admin/routes/{tenant}/{host}/check", p.operates(p.checkRoute))
	mux.HandleFunc("POST /admin/routes/{tenant}/{host}/remove", p.operates(p.removeRoute))

	mux.HandleFunc("GET /admin/tokens", p.operates(p.tokensPage))
	mux.HandleFunc("POST /admin/companies", p.operates(p.addCompany))
	mux.HandleFunc("POST /admin/tokens", p.operates(p.createToken))
	mux.HandleFunc("POST /admin/tokens/{id}/revoke", p.operates(p.revokeToken))

	mux.HandleFunc("GET /admin/audit", p.operates(p.auditPage))
	mux.HandleFunc("GET /admin/audit/export", p.operates(p.exportAudit))
}

// An operatorHandler answers who operates a tenant or more, as o.
type operatorHandler func(w http.ResponseWriter, r *http.Request, u coordinator.User, o *coordinator.Operator)

// operates lets only those who operate something get to next. What o may see and
// do there is up to o.
func (p *Portal) operates(next operatorHandler) http.HandlerFunc {
	return p.signedIn(func(w http.ResponseWriter, r *http.Request, _ coordinator.Session, u coordinator.User) {
		o, err := p.operator(r, u)
		if err != nil {
			p.fail(w, r, err)
			return
		}
		next(w, r, u, o)
	})
}

// operator returns what u operates; it fails with a Problem if that is nothing.
func (p *Portal) operator(r *http.Request, u coordinator.User) (*coordinator.Operator, error) {
	o, err := p.c.Operator(r.Context(), u.ID)
	if err == nil && o == nil {
		err = postern.NewProblem(http.StatusForbidden, postern.CodeForbidden,
			"this page is for those who manage a company", "if you should, ask an owner of the company to make you an admin")
	}
	return o, err
}

// label returns what somebody typed for a name as the DNS label that they mean.
func label(s string) string {
	return strings.Join(strings.Fields(strings.ToLower(s)), "-")
}

// labels returns the labels in s, between commas; nil if there are none.
func labels(s string) []string {
	var all []string
	for part := range strings.SplitSeq(s, ",") {
		if l := label(part); l != "" {
			all = append(all, l)
		}
	}
	return all
}

// titles are what people call tenants, by name.
type titles map[string]string

func titlesOf(tenants []postern.Tenant) titles {
	all := make(titles, len(tenants))
	for _, t := range tenants {
		all[t.Name] = t.Title
	}
	return all
}

// Of returns the title of the tenant called name, or the name of one that is there no
// more.
func (all titles) Of(name string) string { return cmp.Or(all[name], name) }
