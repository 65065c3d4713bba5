package sqlite

import (
	"fmt"
	"time"

	"postern/coordinator"
)

var users = schema[string, coordinator.User]{
	table:   "users",
	columns: []string{"id", "login", "name", "password", "operator", "created", "signed_in", "disabled", "not_before"},
	key:     plain,
	fields: func(u *coordinator.User) []any {
		return []any{
			&u.ID, &u.Login, &u.Name, &u.Password, &u.Operator,
			timeField{&u.Created}, timeField{&u.SignedIn}, timeField{&u.Disabled}, timeField{&u.NotBefore},
		}
	},
	values: func(u *coordinator.User) []any {
		return []any{
			u.ID, u.Login, u.Name, u.Password, u.Operator,
			nanos(u.Created), nanos(u.SignedIn), nanos(u.Disabled), nanos(u.NotBefore),
		}
	},
}.prepared()

var grants = schema[coordinator.GrantKey, coordinator.Grant]{
	table:   "grants",
	columns: []string{"tenant", "user", "role", "groups", "services", "issuer", "created"},
	keys:    2,
	key:     func(k coordinator.GrantKey) []any { return []any{k.Tenant, k.User} },
	fields: func(g *coordinator.Grant) []any {
		return []any{&g.Tenant, &g.User, &g.Role, jsonField{&g.Groups}, jsonField{&g.Services}, &g.Issuer, timeField{&g.Created}}
	},
	values: func(g *coordinator.Grant) []any {
		return []any{g.Tenant, g.User, g.Role, jsonText(g.Groups), jsonText(g.Services), g.Issuer, nanos(g.Created)}
	},
}.prepared()

var passkeys = schema[string, coordinator.Passkey]{
	table:   "passkeys",
	columns: []string{"id", "user", "name", "credential", "created", "used"},
	key:     plain,
	fields: func(k *coordinator.Passkey) []any {
		return []any{&k.ID, &k.User, &k.Name, &k.Credential, timeField{&k.Created}, timeField{&k.Used}}
	},
	values: func(k *coordinator.Passkey) []any {
		return []any{k.ID, k.User, k.Name, k.Credential, nanos(k.Created), nanos(k.Used)}
	},
}.prepared()

var invitations = schema[[32]byte, coordinator.Invitation]{
	table:   "invitations",
	columns: []string{"hash", "user", "by", "created", "expires"},
	key:     hashKey,
	fields: func(i *coordinator.Invitation) []any {
		return []any{hashField{&i.Hash}, &i.User, &i.By, timeField{&i.Created}, timeField{&i.Expires}}
	},
	values: func(i *coordinator.Invitation) []any {
		return []any{i.Hash[:], i.User, i.By, nanos(i.Created), nanos(i.Expires)}
	},
}.prepared()

var sessions = schema[[32]byte, coordinator.Session]{
	table:   "sessions",
	columns: []string{"hash", "id", "user", "device", "methods", "agent", "remote", "signed", "seen", "expires", "ended"},
	key:     hashKey,
	fields: func(s *coordinator.Session) []any {
		return []any{
			hashField{&s.Hash}, &s.ID, &s.User, &s.Device, jsonField{&s.Methods}, &s.Agent, &s.Remote,
			timeField{&s.Signed}, timeField{&s.Seen}, timeField{&s.Expires}, timeField{&s.Ended},
		}
	},
	values: func(s *coordinator.Session) []any {
		return []any{
			s.Hash[:], s.ID, s.User, s.Device, jsonText(s.Methods), s.Agent, s.Remote,
			nanos(s.Signed), nanos(s.Seen), nanos(s.Expires), nanos(s.Ended),
		}
	},
}.prepared()

var issuers = schema[string, coordinator.Issuer]{
	table:   "issuers",
	columns: []string{"name", "title", "url", "client_id", "client_secret", "tenant", "groups_claim", "roles", "created"},
	key:     plain,
	fields: func(i *coordinator.Issuer) []any {
		return []any{
			&i.Name, &i.Title, &i.URL, &i.ClientID, &i.ClientSecret, &i.Tenant, &i.GroupsClaim,
			jsonField{&i.Roles}, timeField{&i.Created},
		}
	},
	values: func(i *coordinator.Issuer) []any {
		secret := i.ClientSecret
		if secret == nil {
			secret = []byte{} // NULL is no BLOB
		}
		return []any{
			i.Name, i.Title, i.URL, i.ClientID, secret, i.Tenant, i.GroupsClaim, jsonText(i.Roles), nanos(i.Created),
		}
	},
}.prepared()

var links = schema[coordinator.LinkKey, coordinator.Link]{
	table:   "links",
	columns: []string{"issuer", "subject", "user", "created"},
	keys:    2,
	key:     func(k coordinator.LinkKey) []any { return []any{k.Issuer, k.Subject} },
	fields: func(l *coordinator.Link) []any {
		return []any{&l.Issuer, &l.Subject, &l.User, timeField{&l.Created}}
	},
	values: func(l *coordinator.Link) []any { return []any{l.Issuer, l.Subject, l.User, nanos(l.Created)} },
}.prepared()

var favourites = schema[coordinator.Favourite, coordinator.Favourite]{
	table:   "favourites",
	columns: []string{"user", "tenant", "service", "entry"},
	keys:    4,
	key:     func(f coordinator.Favourite) []any { return []any{f.User, f.Tenant, f.Service, f.Entry} },
	fields: func(f *coordinator.Favourite) []any {
		return []any{&f.User, &f.Tenant, &f.Service, &f.Entry}
	},
	values: func(f *coordinator.Favourite) []any { return []any{f.User, f.Tenant, f.Service, f.Entry} },
}.prepared()

var sources = schema[coordinator.SourceKey, coordinator.Source]{
	table:   "sources",
	columns: []string{"tenant", "user", "prefix", "seen"},
	keys:    3,
	key:     func(k coordinator.SourceKey) []any { return []any{k.Tenant, k.User, text(k.Prefix)} },
	fields: func(s *coordinator.Source) []any {
		return []any{&s.Tenant, &s.User, textField{&s.Prefix}, timeField{&s.Seen}}
	},
	values: func(s *coordinator.Source) []any { return []any{s.Tenant, s.User, text(s.Prefix), nanos(s.Seen)} },
}.prepared()

func hashKey(h [32]byte) []any { return []any{h[:]} }

func (t tx) Users() coordinator.UserTable { return userTable{in(t, users)} }

func (t tx) Grants() coordinator.GrantTable { return grantTable{in(t, grants)} }

func (t tx) Passkeys() coordinator.PersonalTable[string, coordinator.Passkey] { return in(t, passkeys) }

func (t tx) Invitations() coordinator.PersonalTable[[32]byte, coordinator.Invitation] {
	return in(t, invitations)
}

func (t tx) Sessions() coordinator.SessionTable { return sessionTable{in(t, sessions)} }

func (t tx) Issuers() coordinator.Owned[string, coordinator.Issuer] { return in(t, issuers) }

func (t tx) Links() coordinator.LinkTable { return linkTable{in(t, links)} }

func (t tx) Favourites() coordinator.FavouriteTable { return in(t, favourites) }

func (t tx) Sources() coordinator.SourceTable { return sourceTable{in(t, sources)} }

type userTable struct {
	table[string, coordinator.User]
}

var (
	userByLogin  = users.where("login = ?")
	usersGranted = users.where("id IN (SELECT user FROM grants WHERE tenant = ?) ORDER BY id")
)

func (t userTable) ByLogin(login string) (coordinator.User, error) { return t.one(userByLogin, login) }

func (t userTable) Granted(tenant string) ([]coordinator.User, error) {
	return t.many(usersGranted, tenant)
}

const credentials = `
	SELECT u.id,
		(SELECT count(*) FROM passkeys WHERE user = u.id),
		(SELECT count(*) FROM links WHERE user = u.id),
		(SELECT ifnull(max(expires), 0) FROM invitations WHERE user = u.id)
	FROM users AS u WHERE u.id IN (SELECT value FROM json_each(?))`

func (t userTable) Credentials(ids ...string) (map[string]coordinator.Credentials, error) {
	rows, err := t.QueryContext(t.ctx, credentials, jsonText(ids))
	if err != nil {
		return nil, fmt.Errorf("list credentials: %w", err)
	}
	defer rows.Close()
	all := make(map[string]coordinator.Credentials, len(ids))
	for rows.Next() {
		var id string
		var c coordinator.Credentials
		if err := rows.Scan(&id, &c.Passkeys, &c.Links, timeField{&c.Invited}); err != nil {
			return nil, fmt.Errorf("list credentials: %w", err)
		}
		all[id] = c
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list credentials: %w", err)
	}
	return all, nil
}

type grantTable struct {
	table[coordinator.GrantKey, coordinator.Grant]
}

var grantsOf = grants.where("user IN (SELECT value FROM json_each(?)) ORDER BY tenant, user")

func (t grantTable) Of(users ...string) ([]coordinator.Grant, error) {
	return t.many(grantsOf, jsonText(users))
}

type sessionTable struct {
	table[[32]byte, coordinator.Session]
}

var (
	sessionByID     = sessions.where("id = ?")
	sessionsExpired = sessions.where("expires < ? ORDER BY expires LIMIT ?")
	sessionsEnded   = sessions.where("ended > ? AND user IN (SELECT user FROM grants WHERE tenant = ?) ORDER BY id")
)

func (t sessionTable) ByID(id string) (coordinator.Session, error) { return t.one(sessionByID, id) }

func (t sessionTable) Expired(before time.Time, limit int) ([]coordinator.Session, error) {
	return t.many(sessionsExpired, nanos(before), limit)
}

func (t sessionTable) Ended(tenant string, after time.Time) ([]coordinator.Session, error) {
	return t.many(sessionsEnded, nanos(after), tenant)
}

type linkTable struct {
	table[coordinator.LinkKey, coordinator.Link]
}

var linksFrom = links.where("issuer = ? ORDER BY subject")

func (t linkTable) From(issuer string) ([]coordinator.Link, error) { return t.many(linksFrom, issuer) }

type sourceTable struct {
	table[coordinator.SourceKey, coordinator.Source]
}

var sourcesUnseen = sources.where("seen < ? ORDER BY seen LIMIT ?")

func (t sourceTable) Unseen(before time.Time, limit int) ([]coordinator.Source, error) {
	return t.many(sourcesUnseen, nanos(before), limit)
}
