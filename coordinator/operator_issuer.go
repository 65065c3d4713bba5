package coordinator

import (
	"cmp"
	"context"

	"postern"
)

// Issuers returns the external issuers that sign in the people of o's tenants.
func (o *Operator) Issuers(ctx context.Context) ([]postern.IssuerState, error) {
	all := []postern.IssuerState{}
	rows, err := o.c.Issuers(ctx)
	for _, i := range rows {
		if o.sees(i.Tenant) {
			all = append(all, o.c.issuerState(i))
		}
	}
	return all, err
}

// PutIssuer makes an external issuer, or changes it. An issuer says who somebody is, so
// that is for the operator of the deployment.
func (o *Operator) PutIssuer(ctx context.Context, name string, req postern.IssuerRequest) (postern.IssuerState, error) {
	var i Issuer
	err := o.update(ctx, name, func(ch *change) error {
		err := o.whole()
		if err == nil {
			i, err = ch.putIssuer(name, req)
		}
		return err
	})
	return o.c.issuerState(i), err
}

// RemoveIssuer removes an external issuer, with what it granted; its people are
// signed out.
func (o *Operator) RemoveIssuer(ctx context.Context, name string) error {
	return o.update(ctx, name, func(ch *change) error {
		if err := o.whole(); err != nil {
			return err
		}
		return ch.removeIssuer(name)
	})
}

func (c *Coordinator) issuerState(i Issuer) postern.IssuerState {
	return postern.IssuerState{
		Name: i.Name, Title: i.Title, URL: i.URL, ClientID: i.ClientID, Tenant: i.Tenant,
		GroupsClaim: cmp.Or(i.GroupsClaim, "groups"), Roles: i.Roles,
		Callback: c.PortalURL() + "/sign-in/callback/" + i.Name, Created: i.Created,
	}
}
