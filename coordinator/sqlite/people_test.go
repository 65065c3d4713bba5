package sqlite

import (
	"errors"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// person returns a user with all fields set.
func person(id string) coordinator.User {
	return coordinator.User{
		ID: id, Login: id + "@acme.example", Name: "Änne", Password: "$argon2id$", Operator: true,
		Created: noon, SignedIn: noon.Add(1), Disabled: noon.Add(2), NotBefore: noon.Add(time.Hour),
	}
}

func grant(tenant, user string) coordinator.Grant {
	return coordinator.Grant{
		GrantKey: coordinator.GrantKey{Tenant: tenant, User: user}, Role: "admin",
		Groups: []string{"a", "b"}, Services: []string{"erp"}, Issuer: "login", Created: noon,
	}
}

func session(n byte, user string) coordinator.Session {
	return coordinator.Session{
		Hash: [32]byte{n, 1}, ID: "s" + string('0'+rune(n)), User: user, Device: true, Methods: []string{"pwd", "hwk"},
		Agent: "a", Remote: "192.0.2.1", Signed: noon, Seen: noon.Add(1), Expires: noon.Add(2), Ended: noon.Add(3),
	}
}

// withPeople runs fn in a registry with tenants acme and other, users u1 and u2, and
// an issuer.
func withPeople(t *testing.T, fn func(*testing.T, coordinator.Tx)) {
	t.Helper()
	s := openStore(t, filepath.Join(t.TempDir(), "registry.db"))
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		must(t, addTenant(tx, "acme", 1))
		must(t, addTenant(tx, "other", 2))
		must(t, tx.Users().Put(person("u1")))
		must(t, tx.Users().Put(person("u2")))
		must(t, tx.Issuers().Put(issuer("login")))
		fn(t, tx)
		return nil
	}))
}

func issuer(name string) coordinator.Issuer {
	return coordinator.Issuer{
		Name: name, Title: "T", URL: "https://login.example", ClientID: "c", ClientSecret: []byte{0, 1}, Tenant: "acme",
		GroupsClaim: "g", Roles: map[string]postern.IssuerRole{"*": {Role: "member", Groups: []string{"a"}}}, Created: noon,
	}
}

func TestPeopleRows(t *testing.T) {
	withPeople(t, func(t *testing.T, tx coordinator.Tx) {
		roundTrip(t, tx.Users(), "u3", person("u3"))
		roundTrip(t, tx.Users(), "u3", coordinator.User{ID: "u3", Login: "x", Created: noon})
		g := grant("other", "u2")
		roundTrip(t, tx.Grants(), g.GrantKey, g)
		g.Groups, g.Services, g.Issuer = nil, nil, ""
		roundTrip(t, tx.Grants(), g.GrantKey, g)
		roundTrip(t, tx.Passkeys(), "k", coordinator.Passkey{ID: "k", User: "u1", Name: "n", Credential: []byte("{}"), Created: noon, Used: noon.Add(1)})
		roundTrip(t, tx.Invitations(), [32]byte{9}, coordinator.Invitation{Hash: [32]byte{9}, User: "u1", By: "local", Created: noon, Expires: noon.Add(1)})
		s := session(1, "u1")
		roundTrip(t, tx.Sessions(), s.Hash, s)
		roundTrip(t, tx.Issuers(), "x", issuer("x"))
		without := issuer("x")
		without.ClientSecret, without.Roles = []byte{}, nil
		roundTrip(t, tx.Issuers(), "x", without)
		l := coordinator.Link{LinkKey: coordinator.LinkKey{Issuer: "login", Subject: "1"}, User: "u1", Created: noon}
		roundTrip(t, tx.Links(), l.LinkKey, l)
		f := coordinator.Favourite{User: "u1", Tenant: "acme", Service: "erp", Entry: "y2026"}
		roundTrip(t, tx.Favourites(), f, f)
		src := source("acme", "u1", "2001:db8:0:1::/64", noon)
		roundTrip(t, tx.Sources(), src.SourceKey, src)
	})
}

func TestPeopleOf(t *testing.T) {
	withPeople(t, func(t *testing.T, tx coordinator.Tx) {
		for _, key := range []coordinator.GrantKey{{Tenant: "other", User: "u1"}, {Tenant: "acme", User: "u2"}, {Tenant: "acme", User: "u1"}} {
			must(t, tx.Grants().Put(grant(key.Tenant, key.User)))
		}
		if got, err := tx.Grants().Of("u1"); err != nil || !reflect.DeepEqual(got, []coordinator.Grant{grant("acme", "u1"), grant("other", "u1")}) {
			t.Errorf("grants of u1: got %+v, %v", got, err)
		}
		if got, err := tx.Grants().Of("u2", "u1", "none"); err != nil || !reflect.DeepEqual(got, []coordinator.Grant{grant("acme", "u1"), grant("acme", "u2"), grant("other", "u1")}) {
			t.Errorf("grants of both: got %+v, %v", got, err)
		}
		if got, err := tx.Grants().In("acme"); err != nil || !reflect.DeepEqual(got, []coordinator.Grant{grant("acme", "u1"), grant("acme", "u2")}) {
			t.Errorf("grants in acme: got %+v, %v", got, err)
		}
		for tenant, want := range map[string][]coordinator.User{"acme": {person("u1"), person("u2")}, "other": {person("u1")}, "none": nil} {
			if got, err := tx.Users().Granted(tenant); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("granted %q: got %+v, %v, want %+v", tenant, got, err, want)
			}
		}
		if got, err := tx.Users().ByLogin("u2@acme.example"); err != nil || got.ID != "u2" {
			t.Errorf("by login: got %+v, %v", got, err)
		}
		if _, err := tx.Users().ByLogin("none"); !errors.Is(err, coordinator.ErrNotFound) {
			t.Errorf("by an unknown login: got %v, want ErrNotFound", err)
		}
		link := coordinator.Link{LinkKey: coordinator.LinkKey{Issuer: "login", Subject: "1"}, User: "u1", Created: noon}
		must(t, tx.Links().Put(link))
		for what, get := range map[string]func() ([]coordinator.Link, error){
			"of u1":      func() ([]coordinator.Link, error) { return tx.Links().Of("u1") },
			"from login": func() ([]coordinator.Link, error) { return tx.Links().From("login") },
		} {
			if got, err := get(); err != nil || !slices.Equal(got, []coordinator.Link{link}) {
				t.Errorf("links %s: got %+v, %v", what, got, err)
			}
		}
		if got, err := tx.Issuers().In("acme"); err != nil || len(got) != 1 {
			t.Errorf("issuers in acme: got %+v, %v", got, err)
		}
		f := coordinator.Favourite{User: "u2", Tenant: "acme", Service: "erp"}
		must(t, tx.Favourites().Put(f))
		if of, err := tx.Favourites().Of("u2"); err != nil || !slices.Equal(of, []coordinator.Favourite{f}) {
			t.Errorf("favourites of u2: got %+v, %v", of, err)
		}
		if in, err := tx.Favourites().In("other"); err != nil || len(in) != 0 {
			t.Errorf("favourites in other: got %+v, %v", in, err)
		}
	})
}

func TestCredentials(t *testing.T) {
	withPeople(t, func(t *testing.T, tx coordinator.Tx) {
		must(t, tx.Users().Put(person("u3")))
		for n, user := range []string{"u1", "u1", "u3"} {
			id := string('a' + rune(n))
			must(t, tx.Passkeys().Put(coordinator.Passkey{ID: id, User: user, Name: "n", Credential: []byte("{}"), Created: noon}))
			must(t, tx.Invitations().Put(coordinator.Invitation{Hash: [32]byte{byte(n)}, User: user, Created: noon, Expires: noon.Add(time.Duration(9 - n))}))
		}
		must(t, tx.Links().Put(coordinator.Link{LinkKey: coordinator.LinkKey{Issuer: "login", Subject: "1"}, User: "u1", Created: noon}))
		got, err := tx.Users().Credentials("u1", "u2", "none")
		want := map[string]coordinator.Credentials{"u1": {Passkeys: 2, Links: 1, Invited: noon.Add(9)}, "u2": {}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if got, err := tx.Users().Credentials(); err != nil || len(got) != 0 {
			t.Errorf("of nobody: got %+v, %v", got, err)
		}
	})
}

func source(tenant, user, prefix string, seen time.Time) coordinator.Source {
	return coordinator.Source{
		SourceKey: coordinator.SourceKey{Tenant: tenant, User: user, Prefix: netip.MustParsePrefix(prefix)}, Seen: seen,
	}
}

func TestSources(t *testing.T) {
	withPeople(t, func(t *testing.T, tx coordinator.Tx) {
		first := source("acme", "u1", "192.0.2.1/32", noon.Add(1))
		second := source("acme", "u2", "192.0.2.1/32", noon)
		third := source("other", "u1", "192.0.2.1/32", noon.Add(2))
		for _, s := range []coordinator.Source{third, second, first} {
			must(t, tx.Sources().Put(s))
		}
		got := func(all []coordinator.Source, err error) []coordinator.Source {
			must(t, err)
			return all
		}
		tests := []struct {
			name      string
			got, want []coordinator.Source
		}{
			{"in a tenant", got(tx.Sources().In("acme")), []coordinator.Source{first, second}},
			{"of a user", got(tx.Sources().Of("u1")), []coordinator.Source{first, third}},
			{"unseen", got(tx.Sources().Unseen(noon.Add(2), 9)), []coordinator.Source{second, first}},
			{"unseen, some", got(tx.Sources().Unseen(noon.Add(9), 1)), []coordinator.Source{second}},
			{"unseen just now", got(tx.Sources().Unseen(noon, 9)), nil},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if !slices.Equal(tt.got, tt.want) {
					t.Errorf("got %v, want %v", tt.got, tt.want)
				}
			})
		}
	})
}

func TestSessionTimes(t *testing.T) {
	withPeople(t, func(t *testing.T, tx coordinator.Tx) {
		must(t, tx.Grants().Put(grant("acme", "u1")))
		at := func(n byte, user string, expires, ended time.Duration) {
			s := session(n, user)
			s.Expires, s.Ended = noon.Add(expires), time.Time{}
			if ended != 0 {
				s.Ended = noon.Add(ended)
			}
			must(t, tx.Sessions().Put(s))
		}
		at(1, "u1", 3*time.Hour, 0)
		at(2, "u1", time.Hour, time.Hour)
		at(3, "u1", 2*time.Hour, 2*time.Hour)
		at(4, "u2", 2*time.Hour+1, 2*time.Hour) // has no grant
		ids := func(all []coordinator.Session, err error) (ids []string) {
			must(t, err)
			for _, s := range all {
				ids = append(ids, s.ID)
			}
			return ids
		}
		sessions := tx.Sessions()
		tests := []struct {
			name      string
			got, want []string
		}{
			{"expired", ids(sessions.Expired(noon.Add(3*time.Hour), 9)), []string{"s2", "s3", "s4"}},
			{"expired just now", ids(sessions.Expired(noon.Add(time.Hour), 9)), nil},
			{"expired, some", ids(sessions.Expired(noon.Add(3*time.Hour), 2)), []string{"s2", "s3"}},
			{"ended", ids(sessions.Ended("acme", noon)), []string{"s2", "s3"}},
			{"ended lately", ids(sessions.Ended("acme", noon.Add(time.Hour))), []string{"s3"}},
			{"ended, of another tenant", ids(sessions.Ended("other", noon)), nil},
			{"of a user", ids(sessions.Of("u2")), []string{"s4"}},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if !slices.Equal(tt.got, tt.want) {
					t.Errorf("got %v, want %v", tt.got, tt.want)
				}
			})
		}
		if s, err := sessions.ByID("s3"); err != nil || s.Hash != session(3, "").Hash {
			t.Errorf("by id: got %+v, %v", s, err)
		}
	})
}

// No row is left behind that belongs to nobody, and no two are one user's.
func TestPeopleConstraints(t *testing.T) {
	tests := []struct {
		name string
		do   func(coordinator.Tx) error
	}{
		{"one login twice", func(tx coordinator.Tx) error {
			u := person("u9")
			u.Login = person("u1").Login
			return tx.Users().Put(u)
		}},
		{"one session id twice", func(tx coordinator.Tx) error {
			s := session(2, "u1")
			s.ID = session(1, "u1").ID
			return errors.Join(tx.Sessions().Put(session(1, "u1")), tx.Sessions().Put(s))
		}},
		{"grant of nobody", func(tx coordinator.Tx) error { return tx.Grants().Put(grant("acme", "u9")) }},
		{"grant of no tenant", func(tx coordinator.Tx) error { return tx.Grants().Put(grant("none", "u1")) }},
		{"session of nobody", func(tx coordinator.Tx) error { return tx.Sessions().Put(session(1, "u9")) }},
		{"link from no issuer", func(tx coordinator.Tx) error {
			return tx.Links().Put(coordinator.Link{LinkKey: coordinator.LinkKey{Issuer: "none", Subject: "1"}, User: "u1"})
		}},
		{"user with a grant deleted", func(tx coordinator.Tx) error {
			return errors.Join(tx.Grants().Put(grant("acme", "u1")), tx.Users().Delete("u1"))
		}},
		{"tenant with a grant deleted", func(tx coordinator.Tx) error {
			return errors.Join(tx.Grants().Put(grant("other", "u1")), tx.Tenants().Delete("other"))
		}},
		{"tenant with an issuer deleted", func(tx coordinator.Tx) error { return tx.Tenants().Delete("acme") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			withPeople(t, func(t *testing.T, tx coordinator.Tx) {
				if err := tt.do(tx); err == nil {
					t.Error("it was done")
				}
			})
		})
	}
}
