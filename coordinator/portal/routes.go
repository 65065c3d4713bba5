package portal

import (
	"net/http"

	"postern"
	"postern/coordinator"
)

// A routes is what the routes' page is made from.
type routes struct {
	Tenants []postern.Tenant
	Routes  []postern.RouteState
	Form    postern.RouteRequest
	Problem *postern.Problem
}

func (p *Portal) routesPage(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	p.showRoutes(w, r, o, postern.RouteRequest{}, nil)
}

func (p *Portal) showRoutes(w http.ResponseWriter, r *http.Request, o *coordinator.Operator, form postern.RouteRequest, problem *postern.Problem) {
	v := routes{Form: form, Problem: problem}
	var err error
	if v.Tenants, err = o.Tenants(r.Context()); err != nil {
		p.fail(w, r, err)
		return
	}
	if v.Routes, err = o.Routes(r.Context(), ""); err != nil {
		p.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if problem != nil {
		status = problem.Status
	}
	p.render(w, r, status, "routes", v)
}

func (p *Portal) addRoute(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	form := postern.RouteRequest{Host: r.PostFormValue("host"), Tenant: r.PostFormValue("tenant"), Service: r.PostFormValue("service")}
	_, err := o.AddRoute(r.Context(), form)
	switch problem := problemIn(err); {
	case err == nil:
		p.done(w, r, "/admin/routes", "route")
	case problem != nil && wantsHTML(r):
		p.showRoutes(w, r, o, form, problem)
	default:
		p.fail(w, r, err)
	}
}

func (p *Portal) removeRoute(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	if err := o.RemoveRoute(r.Context(), r.PathValue("host")); err != nil {
		p.fail(w, r, err)
		return
	}
	p.done(w, r, "/admin/routes", "unrouted")
}
