package coordinator_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// Each change of who may open a tenant reaches its nodes, with the map.
func TestPeopleInMap(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	w := d.node("acme", "a").watch()
	w.sync()
	ctx := t.Context()
	people := func(m postern.Map) []postern.Person { return m.Sections["acme"].People }
	if got := people(w.m); len(got) != 0 {
		t.Fatalf("at the start: got %+v", got)
	}
	u, err := d.AddUser(ctx, postern.UserRequest{Login: "anna@acme.example", Name: "Anna"})
	must(t, err)
	want := postern.Person{ID: u.ID, Login: u.Login, Name: "Anna", Role: postern.TenantMember, Groups: []string{"books"}}
	is := func(want ...postern.Person) func(postern.Map) bool {
		return func(m postern.Map) bool { return slices.EqualFunc(people(m), want, postern.Person.Equal) }
	}
	put := func(req postern.GrantRequest) {
		t.Helper()
		_, err := d.PutGrant(ctx, u.ID, "acme", req)
		must(t, err)
	}
	put(postern.GrantRequest{Groups: []string{"books"}})
	w.until("anna is there", is(want))

	put(postern.GrantRequest{Role: postern.TenantAdmin, Services: []string{"erp"}})
	want.Role, want.Groups, want.Services = postern.TenantAdmin, nil, []string{"erp"}
	w.until("she is an admin", is(want))

	must(t, d.SetName(ctx, "local", u.ID, "Anna B."))
	want.Name = "Anna B."
	w.until("she has another name", is(want))

	_, s, err := d.StartSession(ctx, coordinator.SignIn{User: u.ID, Methods: []string{"hwk"}})
	must(t, err)
	must(t, d.EndSession(ctx, "local", u.ID, s.ID))
	w.until("her session has ended", func(m postern.Map) bool { return slices.Equal(m.Sections["acme"].Ended, []string{s.ID}) })

	must(t, d.EndSessions(ctx, "local", u.ID))
	w.until("all have ended", func(m postern.Map) bool {
		p := people(m)
		return len(p) == 1 && p[0].NotBefore > s.Signed.Unix() && len(m.Sections["acme"].Ended) == 0
	})
	want = people(w.m)[0]

	must(t, d.DisableUser(ctx, u.ID))
	w.until("she is disabled", is())
	must(t, d.EnableUser(ctx, u.ID))
	w.until("she is enabled", func(m postern.Map) bool {
		return len(people(m)) == 1 && people(m)[0].NotBefore >= want.NotBefore
	})
	must(t, d.DeleteGrant(ctx, u.ID, "acme"))
	w.until("her grant is gone", is())
	put(postern.GrantRequest{})
	w.until("she is back", func(m postern.Map) bool { return len(people(m)) == 1 })
	must(t, d.RemoveUser(ctx, u.ID))
	w.until("she is removed", is())
}

// Several are told in the order of their ids, whatever the order they came in.
func TestPeopleInOrder(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	w := d.node("acme", "a").watch()
	w.sync()
	var ids []string
	for _, login := range []string{"z", "a", "m", "b", "y", "c"} {
		u, err := d.AddUser(t.Context(), postern.UserRequest{Login: login})
		must(t, err)
		_, err = d.PutGrant(t.Context(), u.ID, "acme", postern.GrantRequest{})
		must(t, err)
		ids = append(ids, u.ID)
	}
	slices.Sort(ids)
	w.until("all are there", func(m postern.Map) bool { return len(m.Sections["acme"].People) == len(ids) })
	var got []string
	for _, p := range w.m.Sections["acme"].People {
		got = append(got, p.ID)
	}
	if !reflect.DeepEqual(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

// People are their tenants' nodes' alone to know: no gateway and no other tenant's
// node is told a word of them. Who has two tenants is told to each what it granted.
func TestPeopleIsolation(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	ctx := t.Context()
	both, err := d.AddUser(ctx, postern.UserRequest{Login: "both", Name: "Common Name"})
	must(t, err)
	mine, err := d.AddUser(ctx, postern.UserRequest{Login: "secret-login", Name: "Secret Name"})
	must(t, err)
	nobody, err := d.AddUser(ctx, postern.UserRequest{Login: "operator-login", Name: "Hidden Name", Operator: true})
	must(t, err)
	grants := []struct {
		user, tenant string
		groups       []string
	}{{both.ID, "acme", []string{"secret-group"}}, {both.ID, "rival", []string{"rival-group"}}, {mine.ID, "acme", nil}}
	for _, g := range grants {
		_, err := d.PutGrant(ctx, g.user, g.tenant, postern.GrantRequest{Groups: g.groups, Services: []string{g.tenant + "-service"}})
		must(t, err)
	}
	sids := map[string]string{}
	for _, u := range []coordinator.User{both, mine, nobody} {
		_, s, err := d.StartSession(ctx, coordinator.SignIn{User: u.ID, Methods: []string{"hwk"}, Agent: "secret-agent", Remote: somewhere})
		must(t, err)
		must(t, d.EndSession(ctx, "local", u.ID, s.ID))
		sids[u.ID] = s.ID
	}
	tests := []struct {
		name   string
		member *member
		has    []string
		lacks  []string
	}{
		{"node of acme", d.node("acme", "a"),
			[]string{both.ID, mine.ID, "secret-login", "Secret Name", "secret-group", sids[both.ID], sids[mine.ID], "acme-service"},
			[]string{"rival-group", "rival-service", nobody.ID, "operator-login", sids[nobody.ID], "secret-agent", somewhere.String()}},
		{"node of rival", d.node("rival", "r"),
			[]string{both.ID, "Common Name", "rival-group", sids[both.ID]},
			[]string{mine.ID, "secret", "Secret Name", sids[mine.ID], "acme-service", nobody.ID, sids[nobody.ID]}},
		{"gateway", d.gateway("door"), nil,
			[]string{both.ID, mine.ID, nobody.ID, "secret", "Secret Name", "Common Name", "Hidden Name", "-group", "-service", sids[both.ID], sids[mine.ID], sids[nobody.ID], "people", "ended"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := tt.member.watch()
			var raw strings.Builder
			for !w.synced {
				line := <-w.lines
				raw.Write(line)
				msg, err := postern.DecodeMapMessage(line)
				must(t, err)
				w.synced = msg.Synced
			}
			for _, word := range tt.has {
				if !strings.Contains(raw.String(), word) {
					t.Errorf("it is not told %q", word)
				}
			}
			for _, word := range tt.lacks {
				if strings.Contains(raw.String(), word) {
					t.Errorf("it is told %q", word)
				}
			}
			w.cancel()
		})
	}
}

// What ended, and who was disabled, is still so after a restart.
func TestPeopleAfterRestart(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	n := d.node("acme", "a")
	ctx := t.Context()
	var users []coordinator.User
	for _, login := range []string{"stays", "disabled"} {
		u, err := d.AddUser(ctx, postern.UserRequest{Login: login})
		must(t, err)
		_, err = d.PutGrant(ctx, u.ID, "acme", postern.GrantRequest{})
		must(t, err)
		users = append(users, u)
	}
	must(t, d.DisableUser(ctx, users[1].ID))
	_, s, err := d.StartSession(ctx, coordinator.SignIn{User: users[0].ID, Methods: []string{"hwk"}})
	must(t, err)
	must(t, d.EndSession(ctx, "local", users[0].ID, s.ID))
	told := func() (people []string, ended []string) {
		n.client = d.clientFor(n.certificate())
		w := n.watch()
		defer w.cancel()
		w.sync()
		for _, p := range w.m.Sections["acme"].People {
			people = append(people, p.Login)
		}
		return people, w.m.Sections["acme"].Ended
	}
	for _, tt := range []struct {
		away  time.Duration
		ended []string
	}{{0, []string{s.ID}}, {25 * time.Hour, nil}} {
		d.stop()
		d.clock.advance(tt.away)
		d.start()
		if people, ended := told(); !slices.Equal(people, []string{"stays"}) || !slices.Equal(ended, tt.ended) {
			t.Errorf("after %v: got %v and %v, want %v", tt.away, people, ended, tt.ended)
		}
	}
}
