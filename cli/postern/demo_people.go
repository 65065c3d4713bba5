package main

import (
	"context"
	"net/http"
	"net/url"

	"postern"
)

// Groups and services of the demo.
const (
	demoAuditors  = "auditors"
	demoDocuments = "documents"
)

// A demoPerson is somebody whom the demo invites.
type demoPerson struct {
	login, name string
	operator    bool
	grants      map[string]postern.GrantRequest // by tenant
	sees        string                          // in words, for whoever plays them
}

// demoPeople have different rights, so that there is something to see.
var demoPeople = []demoPerson{
	{
		login: "owner", name: "Olga Winter", operator: true,
		grants: map[string]postern.GrantRequest{"acme": {Role: postern.TenantOwner}, "globex": {Role: postern.TenantOwner}},
		sees:   "owns both companies and operates the deployment: sees all there is",
	},
	{
		login: "accountant", name: "Aino Koski",
		grants: map[string]postern.GrantRequest{"acme": {}},
		sees:   "keeps Acme Joinery's books: sees those, and nothing of Globex",
	},
	{
		login: "auditor", name: "Ravi Patel",
		grants: map[string]postern.GrantRequest{"globex": {Groups: []string{demoAuditors}, Services: []string{demoDocuments}}},
		sees:   "audits Globex Trading: sees its documents, and not its books",
	},
}

// demoProgram is on nobody's desk: the demo itself signs in as it, to show what
// programs do.
var demoProgram = demoPerson{
	login: "reports", name: "Monthly reports", grants: map[string]postern.GrantRequest{"acme": {}},
}

// invite makes the demo's people and their links.
func (d *demo) invite(ctx context.Context) error {
	for _, p := range append(demoPeople[:len(demoPeople):len(demoPeople)], demoProgram) {
		user := "/users/" + url.PathEscape(p.login)
		req := postern.UserRequest{Login: p.login, Name: p.name, Operator: p.operator}
		if err := d.admin.call(ctx, http.MethodPost, "/users", req, nil); err != nil {
			return err
		}
		for tenant, grant := range p.grants {
			if err := d.admin.call(ctx, http.MethodPut, user+"/grants/"+tenant, grant, nil); err != nil {
				return err
			}
		}
		var invite postern.Invite
		if err := d.admin.call(ctx, http.MethodPost, user+"/invite", nil, &invite); err != nil {
			return err
		}
		d.invites[p.login] = invite.URL
	}
	// The owner operates all this: nobody needs the link that the coordinator prints.
	return d.admin.call(ctx, http.MethodDelete, "/users/operator", nil, nil)
}
