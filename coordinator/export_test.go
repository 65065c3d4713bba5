package coordinator

import (
	"context"
	"net/http"
	"time"

	"postern"
)

// What operators do to people, for tests that know the coordinator from outside.

func (c *Coordinator) AddTenant(ctx context.Context, name string) error {
	return c.update(ctx, actorLocal, func(ch *change) error {
		_, err := ch.addTenant(postern.TenantRequest{Name: name})
		return err
	})
}

func (c *Coordinator) RemoveTenant(ctx context.Context, name string) error {
	return c.update(ctx, actorLocal, func(ch *change) error { return ch.removeTenant(name) })
}

func (c *Coordinator) AddUser(ctx context.Context, req postern.UserRequest) (u User, err error) {
	err = c.update(ctx, actorLocal, func(ch *change) (err error) {
		u, err = ch.addUser(req)
		return err
	})
	return u, err
}

func (c *Coordinator) onUser(ctx context.Context, id string, fn func(*change, User) error) error {
	return c.update(ctx, actorLocal, func(ch *change) error {
		u, err := ch.Users().Get(id)
		if err != nil {
			return err
		}
		return fn(ch, u)
	})
}

func (c *Coordinator) RemoveUser(ctx context.Context, id string) error {
	return c.onUser(ctx, id, (*change).removeUser)
}

func (c *Coordinator) DisableUser(ctx context.Context, id string) error {
	return c.onUser(ctx, id, (*change).disableUser)
}

func (c *Coordinator) EnableUser(ctx context.Context, id string) error {
	return c.onUser(ctx, id, (*change).enableUser)
}

func (c *Coordinator) PutGrant(ctx context.Context, id, tenant string, req postern.GrantRequest) (g Grant, err error) {
	err = c.onUser(ctx, id, func(ch *change, u User) (err error) {
		g, err = ch.putGrant(u, tenant, req, "")
		return err
	})
	return g, err
}

func (c *Coordinator) DeleteGrant(ctx context.Context, id, tenant string) error {
	return c.onUser(ctx, id, func(ch *change, u User) error { return ch.deleteGrant(u, tenant) })
}

func (c *Coordinator) Invite(ctx context.Context, id string) (secret string, err error) {
	err = c.onUser(ctx, id, func(ch *change, u User) (err error) {
		secret, _, err = ch.invite(u)
		return err
	})
	return secret, err
}

func (c *Coordinator) PutIssuer(ctx context.Context, name string, req postern.IssuerRequest) (i Issuer, err error) {
	err = c.update(ctx, actorLocal, func(ch *change) (err error) {
		i, err = ch.putIssuer(name, req)
		return err
	})
	return i, err
}

func (c *Coordinator) RemoveIssuer(ctx context.Context, name string) error {
	return c.update(ctx, actorLocal, func(ch *change) error { return ch.removeIssuer(name) })
}

func (c *Coordinator) SweepSessions(ctx context.Context) { c.sweepSessions(ctx) }
func (c *Coordinator) SweepSources(ctx context.Context)  { c.sweepSources(ctx) }

// ShortWaits has nodes that await an authority be made to wait for next to nothing.
func (c *Coordinator) ShortWaits() {
	c.waits = challengeWaits{turn: 50 * time.Millisecond, gateways: 50 * time.Millisecond}
}

func (c *Coordinator) SweepChallenges(ctx context.Context) { c.sweepChallenges(ctx) }

func (c *Coordinator) Rehash(ctx context.Context, u User, password string) {
	c.rehash(ctx, u, password)
}

// CheapPasswords makes hashing cost next to nothing, but for a parameter or two of
// today's.
func (c *Coordinator) CheapPasswords(iterations uint32) {
	c.passwords.params.Memory, c.passwords.params.Iterations = 64, iterations
}

// Bounds of what is remembered of a user.
const (
	MaxSessions = maxSessions
	MaxEnded    = maxEnded
	KeepSession = keepSession
	MaxPasskeys = maxPasskeys

	MaxSources     = maxSources
	MaxUserSources = maxUserSources
)

// AdminAs returns the admin API as o sees it.
func (c *Coordinator) AdminAs(o *Operator) http.Handler { return as(o, c.adminHandler()) }

// LookRound looks for the proofs that are due, and returns when to do so again.
func (c *Coordinator) LookRound(ctx context.Context) (time.Duration, error) { return c.lookRound(ctx) }

// KeepKeys returns what keeps the key that a node shows at host, by the map as it was when
// KeepKeys was called.
func (c *Coordinator) KeepKeys(tenant, node, host, spki string) func(context.Context) error {
	snap := c.snapshot.Load()
	now := told{hosts: map[string]postern.HostStatus{host: {SPKI: spki}}}
	return func(ctx context.Context) error {
		return c.keepKeys(ctx, snap.tenants[tenant], snap.byID[node], now)
	}
}

// Bounds of claims.
const (
	MaxUnproven = maxUnproven
	MaxLooks    = maxLooks
	MaxOwnLooks = maxOwnLooks
	ClaimLife   = claimLife
)

// What is said of certificates that nodes tell of.
var (
	CertificateFindings = certificateFindings
	CAAFinding          = caaFinding
	CAARecords          = caaRecords
)

// ProveClaims looks for proofs until ctx is done.
func (c *Coordinator) ProveClaims(ctx context.Context) error { return c.proveClaims(ctx) }
