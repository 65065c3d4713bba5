package portal

import (
	"net/http"
	"slices"
	"strings"

	"postern"
	"postern/coordinator"
	"postern/internal/accept"
)

// A people is what the page of all people is made from.
type people struct {
	All     bool // who looks operates the whole deployment
	Tenants []postern.Tenant
	Titles  titles
	Tenant  string // only its people are shown; empty: all
	Users   []postern.UserState
	Form    personForm
	Problem *postern.Problem
}

// A personForm is what was filled in to add somebody.
type personForm struct {
	Login, Name, Tenant, Role, Groups, Services string
	Operator                                    bool
}

func (p *Portal) peoplePage(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	p.showPeople(w, r, o, personForm{}, nil)
}

func (p *Portal) showPeople(w http.ResponseWriter, r *http.Request, o *coordinator.Operator, f personForm, problem *postern.Problem) {
	v := people{All: o.All(), Tenant: r.URL.Query().Get("tenant"), Form: f, Problem: problem}
	var err error
	if v.Tenants, err = o.Tenants(r.Context()); err != nil {
		p.fail(w, r, err)
		return
	}
	v.Titles = titlesOf(v.Tenants)
	if v.Users, err = o.Users(r.Context(), v.Tenant); err != nil {
		p.fail(w, r, err)
		return
	}
	slices.SortFunc(v.Users, func(a, b postern.UserState) int { return strings.Compare(a.Login, b.Login) })
	if v.Form.Tenant == "" {
		v.Form.Tenant = v.Tenant
	}
	status := http.StatusOK
	if problem != nil {
		status = problem.Status
	}
	p.render(w, r, status, "people", v)
}

func (p *Portal) addPerson(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator) {
	f := personForm{
		Login: r.PostFormValue("login"), Name: r.PostFormValue("name"), Tenant: r.PostFormValue("tenant"),
		Role: r.PostFormValue("role"), Groups: r.PostFormValue("groups"), Services: r.PostFormValue("services"),
		Operator: r.PostFormValue("operator") != "",
	}
	req := postern.UserRequest{Login: f.Login, Name: f.Name, Operator: f.Operator}
	var u postern.UserState
	var err error
	if f.Tenant == "" {
		u, err = o.AddUser(r.Context(), req)
	} else {
		u, err = o.AddMember(r.Context(), f.Tenant, req, postern.GrantRequest{Role: f.Role, Groups: labels(f.Groups), Services: labels(f.Services)})
	}
	if err != nil {
		if problem := problemIn(err); problem != nil {
			p.showPeople(w, r, o, f, problem)
			return
		}
		p.fail(w, r, err)
		return
	}
	r.SetPathValue("id", u.ID) // it is about them from here on
	switch {
	case u.State != postern.UserInvited: // they can sign in already
		p.done(w, r, "/admin/people/"+u.ID, "granted")
	case !u.Invited.IsZero(): // another invitation would make void what they hold
		p.done(w, r, "/admin/people/"+u.ID, "waiting")
	default:
		p.invitePerson(w, r, me, o)
	}
}

// An invited is what the page is made from that shows an invitation's link, once.
type invited struct {
	postern.Invite
	Void bool // an earlier link, by this one
}

func (p *Portal) invitePerson(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator) {
	id := r.PathValue("id")
	before, err := o.User(r.Context(), id)
	var i postern.Invite
	if err == nil {
		i, err = o.InviteUser(r.Context(), id)
	}
	if err != nil {
		p.settlePerson(w, r, me, o, "", err)
		return
	}
	p.render(w, r, http.StatusOK, "invited", invited{i, !before.Invited.IsZero()})
}

// A person is what a person's page is made from.
type person struct {
	postern.UserState
	All     bool             // who looks operates the whole deployment
	Self    bool             // who looks is the one
	May     []personGrant    // the grants
	Others  []postern.Tenant // without a grant
	Problem *postern.Problem
}

// A personGrant is a grant as its person's page shows it.
type personGrant struct {
	postern.UserGrant
	Title string // the tenant's
	By    string // title of the issuer that decides about it; empty: people do
}

func (p *Portal) personPage(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator) {
	p.showPerson(w, r, me, o, nil)
}

func (p *Portal) showPerson(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator, problem *postern.Problem) {
	u, err := o.User(r.Context(), r.PathValue("id"))
	if err != nil {
		p.fail(w, r, err)
		return
	}
	v := person{UserState: u, All: o.All(), Self: u.ID == me.ID, Problem: problem}
	tenants, err := o.Tenants(r.Context())
	if err != nil {
		p.fail(w, r, err)
		return
	}
	issuers, err := p.c.Issuers(r.Context())
	if err != nil {
		p.fail(w, r, err)
		return
	}
	for _, g := range u.Grants {
		may := personGrant{UserGrant: g, Title: titlesOf(tenants).Of(g.Tenant), By: g.Issuer}
		for _, i := range issuers {
			if i.Name == g.Issuer {
				may.By = i.Title
			}
		}
		v.May = append(v.May, may)
	}
	for _, t := range tenants {
		if !slices.ContainsFunc(u.Grants, func(g postern.UserGrant) bool { return g.Tenant == t.Name }) {
			v.Others = append(v.Others, t)
		}
	}
	status := http.StatusOK
	if problem != nil {
		status = problem.Status
	}
	p.render(w, r, status, "person", v)
}

// settlePerson goes on after a change of r's person, or shows why there was none.
func (p *Portal) settlePerson(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator, what string, err error) {
	switch problem := problemIn(err); {
	case err == nil:
		p.done(w, r, "/admin/people/"+r.PathValue("id"), what)
	case problem != nil && problem.Code != postern.CodeNotFound && accept.HTML(r):
		p.showPerson(w, r, me, o, problem)
	default:
		p.fail(w, r, err)
	}
}

func (p *Portal) disablePerson(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator) {
	_, err := o.DisableUser(r.Context(), r.PathValue("id"))
	p.settlePerson(w, r, me, o, "disabled", err)
}

func (p *Portal) enablePerson(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator) {
	_, err := o.EnableUser(r.Context(), r.PathValue("id"))
	p.settlePerson(w, r, me, o, "enabled", err)
}

func (p *Portal) removePerson(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator) {
	if err := o.RemoveUser(r.Context(), r.PathValue("id")); err != nil {
		p.settlePerson(w, r, me, o, "", err)
		return
	}
	p.done(w, r, "/admin/people", "person")
}

func (p *Portal) grant(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator) {
	_, err := o.Grant(r.Context(), r.PathValue("id"), r.PostFormValue("tenant"), postern.GrantRequest{
		Role: r.PostFormValue("role"), Groups: labels(r.PostFormValue("groups")), Services: labels(r.PostFormValue("services")),
	})
	p.settlePerson(w, r, me, o, "granted", err)
}

// revoke takes a grant away. Who operates tenants alone may not see the person any
// more after that.
func (p *Portal) revoke(w http.ResponseWriter, r *http.Request, me coordinator.User, o *coordinator.Operator) {
	u, err := o.Revoke(r.Context(), r.PathValue("id"), r.PathValue("tenant"))
	if err == nil && !o.All() && len(u.Grants) == 0 {
		p.done(w, r, "/admin/people", "revoked")
		return
	}
	p.settlePerson(w, r, me, o, "revoked", err)
}
