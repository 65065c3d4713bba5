package coordinator

import (
	"context"
	"errors"
	"slices"

	"postern"
)

func (o *Operator) Tokens(ctx context.Context, tenant string) ([]postern.IssuedToken, error) {
	all := []postern.IssuedToken{}
	err := o.c.cfg.Store.View(ctx, func(tx Tx) error {
		read := tx.Tokens().All
		if tenant != "" {
			read = func() ([]Token, error) { return tx.Tokens().In(tenant) }
		}
		rows, err := read()
		for _, t := range rows {
			if o.sees(t.Tenant) {
				all = append(all, issuedToken(t, o.c.cfg.Now()))
			}
		}
		return err
	})
	slices.SortFunc(all, func(a, b postern.IssuedToken) int { return a.Created.Compare(b.Created) })
	return all, err
}

// CreateToken issues a token. Who operates tenants only issues join tokens for
// their nodes.
func (o *Operator) CreateToken(ctx context.Context, req postern.TokenRequest) (postern.CreatedToken, error) {
	var created postern.CreatedToken
	err := o.update(ctx, req.Tenant, func(ch *change) error {
		if req.Tenant != "" && !o.sees(req.Tenant) {
			return noTenant(ErrNotFound, req.Tenant)
		}
		row, err := ch.checkTokenRequest(req)
		if err == nil && row.Tenant == "" {
			err = o.whole()
		}
		if err == nil {
			err = o.charge()
		}
		if err != nil {
			return err
		}
		token := o.c.cfg.newToken(row.Kind)
		row.ID, row.Public = token.ID, token.Public()
		created = postern.CreatedToken{IssuedToken: issuedToken(row, ch.now), Secret: token.Secret()}
		return errors.Join(ch.Tokens().Put(row), ch.audit("token.create", row.Tenant, row.ID.String(), row.describe()))
	})
	return created, err
}

func (o *Operator) RevokeToken(ctx context.Context, id postern.TokenID) error {
	return o.update(ctx, id.String(), func(ch *change) error {
		t, err := ch.Tokens().Get(id)
		if err == nil && !o.sees(t.Tenant) {
			err = ErrNotFound
		}
		if err != nil {
			return notFound(err, "token", id.String(), "")
		}
		return ch.revokeToken(t)
	})
}
