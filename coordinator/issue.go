package coordinator

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"postern"
)

const (
	defaultTTL   = 24 * time.Hour
	maxTTL       = 30 * 24 * time.Hour
	maxTokenUses = 10_000
)

// IssueToken issues a token as the admin API does, for the program that the
// coordinator runs in. Its errors that are Problems are for the operator.
func (c *Coordinator) IssueToken(ctx context.Context, req postern.TokenRequest) (postern.CreatedToken, error) {
	return c.Local().CreateToken(ctx, req)
}

func (t *Token) describe() string {
	if t.Kind == postern.AdminToken {
		return fmt.Sprintf("%s until %s", t.Kind, t.Expires.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s for %s, good for %d, until %s", t.Kind, t.Role, t.Uses, t.Expires.UTC().Format(time.RFC3339))
}

// checkTokenRequest returns the row that req asks for, without id and key.
func (ch *change) checkTokenRequest(req postern.TokenRequest) (Token, error) {
	t := Token{Kind: req.Kind, Role: req.Role, Tenant: req.Tenant, Uses: req.Uses, Note: req.Note, Created: ch.now}
	ttl := time.Duration(req.TTL)
	if ttl == 0 {
		ttl = defaultTTL
	}
	t.Expires = ch.now.Add(ttl)
	switch {
	case ttl < 0 || ttl > maxTTL:
		return t, invalid(fmt.Errorf("a token cannot be good for %v", ttl), fmt.Sprintf("give a time up to %v", maxTTL))
	case checkText("note", req.Note) != nil:
		return t, invalid(checkText("note", req.Note), "")
	}
	switch t.Kind {
	case "":
		t.Kind = postern.JoinToken
	case postern.JoinToken:
	case postern.AdminToken:
		if t.Role != "" || t.Tenant != "" || t.Uses != 0 {
			return t, invalid(errors.New("an admin token has no role, tenant or number of uses"), "")
		}
		return t, nil
	default:
		return t, invalid(fmt.Errorf("unknown kind of token %q", t.Kind), fmt.Sprintf("one of %s and %s", postern.JoinToken, postern.AdminToken))
	}
	if t.Uses == 0 {
		t.Uses = 1
	}
	if t.Uses < 0 || t.Uses > maxTokenUses {
		return t, invalid(fmt.Errorf("a join token cannot be for %d members", t.Uses), fmt.Sprintf("give 1 to %d", maxTokenUses))
	}
	switch t.Role {
	case "", postern.RoleNode:
		t.Role = postern.RoleNode
		if t.Tenant == "" {
			return t, invalid(errors.New("a join token for nodes needs a tenant"), "name the tenant that the node will belong to")
		}
		_, err := ch.Tenants().Get(t.Tenant)
		return t, noTenant(err, t.Tenant)
	case postern.RoleGateway:
		if t.Tenant != "" {
			return t, invalid(errors.New("gateways belong to no tenant"), "leave the tenant out")
		}
		return t, nil
	}
	return t, invalid(fmt.Errorf("nobody joins as %q", t.Role), fmt.Sprintf("one of %s and %s", postern.RoleNode, postern.RoleGateway))
}

func (ch *change) revokeToken(t Token) error {
	if !t.Revoked.IsZero() {
		return nil
	}
	t.Revoked = ch.now
	return errors.Join(ch.Tokens().Put(t), ch.audit("token.revoke", t.Tenant, t.ID.String(), t.Note))
}

// States of a token, as the admin API tells them.
const (
	tokenUsable  = "usable"
	tokenUsed    = "used"
	tokenExpired = "expired"
	tokenRevoked = "revoked"
)

func (t *Token) state(now time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return tokenRevoked
	case t.Kind == postern.JoinToken && t.Uses <= 0:
		return tokenUsed
	case !now.Before(t.Expires):
		return tokenExpired
	}
	return tokenUsable
}

func issuedToken(t Token, now time.Time) postern.IssuedToken {
	return postern.IssuedToken{
		ID: t.ID, Kind: t.Kind, Role: t.Role, Tenant: t.Tenant, Uses: t.Uses,
		Created: t.Created, Expires: t.Expires, Revoked: t.Revoked, Note: t.Note, State: t.state(now),
	}
}

// admin returns the id of the usable admin token that secret is.
func (c *Coordinator) admin(ctx context.Context, secret string) (postern.TokenID, error) {
	const hint = "make one on the coordinator's machine: postern tokens create --admin"
	token, err := postern.ParseToken(secret)
	if err != nil {
		return token.ID, unauthorized(err.Error(), hint)
	}
	var row Token
	err = c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		row, err = tx.Tokens().Get(token.ID)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return token.ID, err
	}
	public := token.Public()
	// Kind is not part of what the key signs for, so it is compared on both sides.
	if err != nil || token.Kind != postern.AdminToken || row.Kind != postern.AdminToken ||
		subtle.ConstantTimeCompare(public[:], row.Public[:]) != 1 {
		return token.ID, unauthorized("this deployment never issued that admin token", hint)
	}
	if state := row.state(c.cfg.Now()); state != tokenUsable {
		return token.ID, unauthorized("the admin token is "+state, hint)
	}
	return token.ID, nil
}
