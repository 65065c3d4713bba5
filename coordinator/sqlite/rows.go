package sqlite

import (
	"database/sql"
	"errors"
	"fmt"

	"postern"
	"postern/coordinator"
)

func plain(s string) []any { return []any{s} }

var tenants = schema[string, coordinator.Tenant]{
	table:   "tenants",
	columns: []string{"name", "title", "number", "next_node", "created", "admission"},
	key:     plain,
	fields: func(t *coordinator.Tenant) []any {
		return []any{&t.Name, &t.Title, &t.Number, &t.NextNode, timeField{&t.Created}, jsonField{&t.Admission}}
	},
	values: func(t *coordinator.Tenant) []any {
		return []any{t.Name, t.Title, t.Number, t.NextNode, nanos(t.Created), jsonText(t.Admission)}
	},
}.prepared()

var tokens = schema[postern.TokenID, coordinator.Token]{
	table:   "tokens",
	columns: []string{"id", "kind", "public", "role", "tenant", "uses", "created", "expires", "revoked", "note"},
	key:     func(id postern.TokenID) []any { return []any{text(id)} },
	fields: func(t *coordinator.Token) []any {
		return []any{
			textField{&t.ID}, &t.Kind, textField{&t.Public}, &t.Role, emptyField{&t.Tenant}, &t.Uses,
			timeField{&t.Created}, timeField{&t.Expires}, timeField{&t.Revoked}, &t.Note,
		}
	},
	values: func(t *coordinator.Token) []any {
		return []any{
			text(t.ID), string(t.Kind), text(t.Public), string(t.Role), orNull(t.Tenant), t.Uses,
			nanos(t.Created), nanos(t.Expires), nanos(t.Revoked), t.Note,
		}
	},
}.prepared()

var members = schema[string, coordinator.Member]{
	table: "members",
	columns: []string{
		"id", "role", "tenant", "name", "address", "identity", "wireguard", "token",
		"host", "services", "endpoint", "public", "weight", "draining", "joined", "seen",
	},
	key: plain,
	fields: func(m *coordinator.Member) []any {
		return []any{
			&m.ID, &m.Role, emptyField{&m.Tenant}, &m.Name, textField{&m.Address}, textField{&m.Identity},
			textField{&m.WireGuard}, textField{&m.Token}, jsonField{&m.Host}, jsonField{&m.Services},
			&m.Endpoint, &m.Public, &m.Weight, &m.Draining, timeField{&m.Joined}, timeField{&m.Seen},
		}
	},
	values: func(m *coordinator.Member) []any {
		return []any{
			m.ID, string(m.Role), orNull(m.Tenant), m.Name, text(m.Address), text(m.Identity),
			text(m.WireGuard), text(m.Token), jsonText(m.Host), jsonText(m.Services),
			m.Endpoint, m.Public, m.Weight, m.Draining, nanos(m.Joined), nanos(m.Seen),
		}
	},
}.prepared()

var removed = schema[postern.IdentityPublic, coordinator.Removed]{
	table:   "removed",
	columns: []string{"identity", "id", "time"},
	key:     func(k postern.IdentityPublic) []any { return []any{text(k)} },
	fields: func(r *coordinator.Removed) []any {
		return []any{textField{&r.Identity}, &r.ID, timeField{&r.Time}}
	},
	values: func(r *coordinator.Removed) []any { return []any{text(r.Identity), r.ID, nanos(r.Time)} },
}.prepared()

var claims = schema[coordinator.ClaimKey, coordinator.Claim]{
	table:   "claims",
	columns: []string{"host", "tenant", "service", "secret", "created", "proven", "checked", "finding"},
	keys:    2,
	key:     func(k coordinator.ClaimKey) []any { return []any{k.Host, k.Tenant} },
	fields: func(c *coordinator.Claim) []any {
		return []any{
			&c.Host, &c.Tenant, &c.Service, &c.Secret,
			timeField{&c.Created}, timeField{&c.Proven}, timeField{&c.Checked}, &c.Finding,
		}
	},
	values: func(c *coordinator.Claim) []any {
		return []any{
			c.Host, c.Tenant, c.Service, c.Secret,
			nanos(c.Created), nanos(c.Proven), nanos(c.Checked), c.Finding,
		}
	},
}.prepared()

var holds = schema[string, coordinator.Hold]{
	table:   "holds",
	columns: []string{"host", "owner", "until"},
	key:     plain,
	fields:  func(h *coordinator.Hold) []any { return []any{&h.Host, &h.Owner, timeField{&h.Until}} },
	values:  func(h *coordinator.Hold) []any { return []any{h.Host, h.Owner, nanos(h.Until)} },
}.prepared()

var audit = schema[uint64, coordinator.AuditRecord]{
	table:   "audit",
	columns: []string{"seq", "time", "actor", "action", "tenant", "target", "detail", "hash"},
	key:     func(seq uint64) []any { return []any{int64(seq)} },
	fields: func(r *coordinator.AuditRecord) []any {
		return []any{&r.Seq, timeField{&r.Time}, &r.Actor, &r.Action, &r.Tenant, &r.Target, &r.Detail, hashField{&r.Hash}}
	},
	values: func(r *coordinator.AuditRecord) []any {
		return []any{int64(r.Seq), nanos(r.Time), r.Actor, r.Action, r.Tenant, r.Target, r.Detail, r.Hash[:]}
	},
}.prepared()

// hashField reads 32 bytes.
type hashField struct{ hash *[32]byte }

func (f hashField) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(f.hash) {
		return fmt.Errorf("a hash is %T", v)
	}
	copy(f.hash[:], b)
	return nil
}

func (t tx) Tenants() coordinator.Table[string, coordinator.Tenant] { return in(t, tenants) }

func (t tx) Tokens() coordinator.Owned[postern.TokenID, coordinator.Token] { return in(t, tokens) }

func (t tx) Members() coordinator.MemberTable { return memberTable{in(t, members)} }

func (t tx) Removed() coordinator.Table[postern.IdentityPublic, coordinator.Removed] {
	return in(t, removed)
}

func (t tx) Claims() coordinator.ClaimTable { return claimTable{in(t, claims)} }

func (t tx) Holds() coordinator.Table[string, coordinator.Hold] { return in(t, holds) }

func in[K, V any](t tx, s *schema[K, V]) table[K, V] { return table[K, V]{t, s} }

type claimTable struct {
	table[coordinator.ClaimKey, coordinator.Claim]
}

var (
	claimsAt       = claims.where("host = ? ORDER BY tenant")
	claimsProven   = claims.where("host = ? AND proven <> 0")
	claimsUnproven = claims.where("proven = 0 ORDER BY created, host, tenant")
)

func (t claimTable) At(host string) ([]coordinator.Claim, error) { return t.many(claimsAt, host) }

func (t claimTable) Proven(host string) (coordinator.Claim, error) { return t.one(claimsProven, host) }

func (t claimTable) Unproven() ([]coordinator.Claim, error) { return t.many(claimsUnproven) }

type memberTable struct {
	table[string, coordinator.Member]
}

var (
	memberByIdentity  = members.where("identity = ?")
	memberByWireGuard = members.where("wireguard = ?")
)

func (t memberTable) ByIdentity(k postern.IdentityPublic) (coordinator.Member, error) {
	return t.one(memberByIdentity, text(k))
}

func (t memberTable) ByWireGuard(k postern.WireGuardPublic) (coordinator.Member, error) {
	return t.one(memberByWireGuard, text(k))
}

func (t tx) AppendAudit(r coordinator.AuditRecord) error {
	_, err := t.ExecContext(t.ctx, auditAppend, audit.values(&r)...)
	if err != nil {
		return fmt.Errorf("append to the audit log: %w", err)
	}
	return nil
}

const auditAppend = `INSERT INTO audit (seq, time, actor, action, tenant, target, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`

var auditLast = audit.where("seq = (SELECT max(seq) FROM audit)")

func (t tx) Audit(q coordinator.AuditQuery, among []string) ([]coordinator.AuditRecord, error) {
	condition, args := "seq > ?", []any{int64(q.After)}
	add := func(c string, arg any) { condition, args = condition+" AND "+c, append(args, arg) }
	if q.Before > 0 {
		add("seq < ?", int64(q.Before))
	}
	if among != nil {
		add("tenant IN (SELECT value FROM json_each(?))", jsonText(among))
	}
	if q.Tenant != "" {
		add("tenant = ?", q.Tenant)
	}
	if q.Actor != "" {
		add("actor = ?", q.Actor)
	}
	if q.Action != "" {
		add("instr(action, ?) = 1", q.Action)
	}
	order := ""
	if q.Newest {
		order = "DESC"
	}
	return in(t, audit).many(audit.where(condition+" ORDER BY seq "+order+" LIMIT ?"), append(args, q.Limit)...)
}

func (t tx) LastAudit() (coordinator.AuditRecord, error) {
	rows, err := in(t, audit).many(auditLast)
	if err != nil || len(rows) == 0 {
		return coordinator.AuditRecord{}, err
	}
	return rows[0], nil
}

func (t tx) Deployment() (coordinator.Deployment, error) {
	var d coordinator.Deployment
	err := t.QueryRowContext(t.ctx, `SELECT id, prefix, map_version, next_tenant, next_gateway, fit, created FROM deployment`).
		Scan(&d.ID, textField{&d.Prefix}, &d.MapVersion, &d.NextTenant, &d.NextGateway, jsonField{&d.Fit}, timeField{&d.Created})
	if errors.Is(err, sql.ErrNoRows) {
		err = coordinator.ErrNotFound
	}
	if err != nil {
		return d, fmt.Errorf("get the deployment: %w", err)
	}
	return d, nil
}

func (t tx) PutDeployment(d coordinator.Deployment) error {
	_, err := t.ExecContext(t.ctx,
		`INSERT INTO deployment (one, id, prefix, map_version, next_tenant, next_gateway, fit, created) VALUES (1, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (one) DO UPDATE SET id = excluded.id, prefix = excluded.prefix, map_version = excluded.map_version,
			next_tenant = excluded.next_tenant, next_gateway = excluded.next_gateway, fit = excluded.fit, created = excluded.created`,
		d.ID, text(d.Prefix), int64(d.MapVersion), d.NextTenant, int64(d.NextGateway), jsonText(d.Fit), nanos(d.Created))
	if err != nil {
		return fmt.Errorf("put the deployment: %w", err)
	}
	return nil
}
