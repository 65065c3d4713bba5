package portal

import (
	"net/http"
	"net/url"
	"strings"

	"postern"
	"postern/coordinator"
)

// A route is what the page of a company's own host name is made from.
type route struct {
	live
	Host, Tenant string
	Checked      bool
	Findings     []postern.Finding
}

// A routeView is its live part.
type routeView struct {
	postern.RouteState
	Title     string // of the company
	Alarms    []alarm
	Proof     []record
	Addresses []record
	Alias     []record
	CAA       []record
}

// A record is a DNS record as the forms of DNS providers take it.
type record struct{ Type, Name, Value string }

// recordsOf returns those in all for purpose that are, or are not, an alias.
func recordsOf(all []postern.DNSRecord, purpose string, alias bool) []record {
	var out []record
	for _, r := range all {
		if r.Purpose != purpose || (r.Type == "CNAME") != alias {
			continue
		}
		v := r.Value
		switch r.Type {
		case "TXT":
			v = strings.Trim(v, `"`) // which the forms add
		case "CNAME":
			v = strings.TrimSuffix(v, ".")
		}
		out = append(out, record{r.Type, r.Name, v})
	}
	return out
}

// routePath is the page of a company's own host name.
func routePath(tenant, host string) string {
	return "/admin/routes/" + url.PathEscape(tenant) + "/" + url.PathEscape(host)
}

func (p *Portal) viewRoute(r *http.Request, u coordinator.User, q url.Values) (any, error) {
	o, err := p.operator(r, u)
	if err != nil {
		return nil, err
	}
	state, err := o.Route(r.Context(), q.Get("host"), q.Get("tenant"))
	if err != nil {
		return nil, err
	}
	tenants, err := o.Tenants(r.Context())
	if err != nil {
		return nil, err
	}
	return routeView{
		RouteState: state, Title: titlesOf(tenants).Of(state.Tenant), Alarms: alarmsIn(state),
		Proof:     recordsOf(state.Records, postern.PurposeProof, false),
		Addresses: recordsOf(state.Records, postern.PurposeAddress, false),
		Alias:     recordsOf(state.Records, postern.PurposeAddress, true),
		CAA:       recordsOf(state.Records, postern.PurposeCAA, false),
	}, nil
}

func (p *Portal) routePage(w http.ResponseWriter, r *http.Request, u coordinator.User, _ *coordinator.Operator) {
	p.showRoute(w, r, u, route{Host: r.PathValue("host"), Tenant: r.PathValue("tenant")})
}

// showRoute answers with v, which names the host and has what was found in its DNS.
func (p *Portal) showRoute(w http.ResponseWriter, r *http.Request, u coordinator.User, v route) {
	var err error
	if v.live, err = p.newLive(r, "route", u, url.Values{"host": {v.Host}, "tenant": {v.Tenant}}); err != nil {
		p.fail(w, r, err)
		return
	}
	p.render(w, r, http.StatusOK, "route", v)
}

func (p *Portal) checkRoute(w http.ResponseWriter, r *http.Request, u coordinator.User, o *coordinator.Operator) {
	v := route{Host: r.PathValue("host"), Tenant: r.PathValue("tenant"), Checked: true}
	check, err := o.CheckRoute(r.Context(), v.Host, v.Tenant)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	v.Findings = check.Findings
	p.showRoute(w, r, u, v)
}
