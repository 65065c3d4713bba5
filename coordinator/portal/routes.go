package portal

import (
	"net/http"
	"net/url"

	"postern"
	"postern/coordinator"
	"postern/internal/accept"
)

// A routes is what the routes' page is made from.
type routes struct {
	live
	Tenants []postern.Tenant
	Form    postern.RouteRequest
	Problem *postern.Problem
}

// A routeTable is the routes' page's live part.
type routeTable struct {
	Titles titles
	Routes []postern.RouteState
	Alarms []alarm
}

// An alarm is that somebody showed another certificate in a node's place.
type alarm struct{ Host, Node, Text string }

func alarmsIn(all ...postern.RouteState) []alarm {
	var found []alarm
	for _, r := range all {
		for _, c := range r.Certificates {
			if c.Alarm != "" {
				found = append(found, alarm{r.Host, c.Node, c.Alarm})
			}
		}
	}
	return found
}

func (p *Portal) viewRoutes(r *http.Request, u coordinator.User, _ url.Values) (any, error) {
	o, err := p.operator(r, u)
	if err != nil {
		return nil, err
	}
	tenants, err := o.Tenants(r.Context())
	if err != nil {
		return nil, err
	}
	all, err := o.Routes(r.Context(), "")
	return routeTable{titlesOf(tenants), all, alarmsIn(all...)}, err
}

func (p *Portal) routesPage(w http.ResponseWriter, r *http.Request, u coordinator.User, o *coordinator.Operator) {
	p.showRoutes(w, r, u, o, postern.RouteRequest{}, nil)
}

func (p *Portal) showRoutes(w http.ResponseWriter, r *http.Request, u coordinator.User, o *coordinator.Operator, form postern.RouteRequest, problem *postern.Problem) {
	v := routes{Form: form, Problem: problem}
	var err error
	if v.Tenants, err = o.Tenants(r.Context()); err != nil {
		p.fail(w, r, err)
		return
	}
	if v.live, err = p.newLive(r, "routes", u, url.Values{}); err != nil {
		p.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if problem != nil {
		status = problem.Status
	}
	p.render(w, r, status, "routes", v)
}

func (p *Portal) addRoute(w http.ResponseWriter, r *http.Request, u coordinator.User, o *coordinator.Operator) {
	form := postern.RouteRequest{Host: r.PostFormValue("host"), Tenant: r.PostFormValue("tenant"), Service: r.PostFormValue("service")}
	added, err := o.AddRoute(r.Context(), form)
	switch problem := problemIn(err); {
	case err == nil:
		p.done(w, r, routePath(added.Tenant, added.Host), "route")
	case problem != nil && accept.HTML(r):
		p.showRoutes(w, r, u, o, form, problem)
	default:
		p.fail(w, r, err)
	}
}

func (p *Portal) removeRoute(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	if err := o.RemoveRoute(r.Context(), r.PathValue("host"), r.PathValue("tenant")); err != nil {
		p.fail(w, r, err)
		return
	}
	p.done(w, r, "/admin/routes", "unrouted")
}
