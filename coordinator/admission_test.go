package coordinator_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// setAdmission says from where acme can be reached.
func (r *registry) setAdmission(mode string, allowed ...string) {
	r.t.Helper()
	_, err := r.Local().SetAdmission(r.t.Context(), "acme", postern.AdmissionRequest{Mode: mode, Allowed: prefixes(allowed...)})
	must(r.t, err)
}

// admit has u be at addr at the portal.
func (r *registry) admit(u coordinator.User, addr string) {
	r.t.Helper()
	must(r.t, r.Admit(r.t.Context(), u.ID, netip.MustParseAddr(addr)))
}

// admits checks whom gateways are told to admit to acme: PREFIX and how much longer.
func (r *registry) admits(want ...string) {
	r.t.Helper()
	state, err := r.Local().Admission(r.t.Context(), "acme")
	must(r.t, err)
	var got []string
	for _, s := range state.Sources {
		got = append(got, fmt.Sprintf("%v %v", s.Prefix, s.Until.Sub(r.clock())))
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("admitted: got %q, want %q", got, want)
	}
}

// mapVersion is the map's, which rises whenever anybody is told anything.
func (r *registry) mapVersion() uint64 {
	r.t.Helper()
	o, err := r.Local().Status(r.t.Context())
	must(r.t, err)
	return o.MapVersion
}

// granted makes a user who may open acme.
func (r *registry) granted(login string) coordinator.User {
	r.t.Helper()
	u := r.user(login, "")
	r.grant(u)
	return u
}

func TestSetAdmission(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	is := func(want postern.AdmissionRequest) {
		t.Helper()
		got, err := r.Local().Admission(ctx, "acme")
		if must(t, err); !reflect.DeepEqual(got.AdmissionRequest, want) {
			t.Errorf("got %+v, want %+v", got.AdmissionRequest, want)
		}
	}
	is(postern.AdmissionRequest{Mode: postern.AdmissionOpen})
	for _, tt := range []struct {
		name string
		req  postern.AdmissionRequest
		want []netip.Prefix
		log  string
	}{
		{"by the portal", postern.AdmissionRequest{Mode: "admission"}, nil, "local : admission"},
		{"and from an office", postern.AdmissionRequest{Mode: "admission", Allowed: prefixes("203.0.113.0/24", "2001:db8::/32", "203.0.113.0/24", "10.0.0.7/32")},
			prefixes("10.0.0.7/32", "203.0.113.0/24", "2001:db8::/32"), "local : admission, always from 10.0.0.7/32 203.0.113.0/24 2001:db8::/32"},
		{"from an office alone", postern.AdmissionRequest{Mode: "allow-list", Allowed: prefixes("203.0.113.0/24")},
			prefixes("203.0.113.0/24"), "local : allow-list, always from 203.0.113.0/24"},
		{"from everywhere", postern.AdmissionRequest{Mode: "open"}, nil, "local : open"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the second time changes nothing
				got, err := r.Local().SetAdmission(ctx, "acme", tt.req)
				must(t, err)
				if want := (postern.AdmissionRequest{Mode: tt.req.Mode, Allowed: tt.want}); !reflect.DeepEqual(got.AdmissionRequest, want) {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
			is(postern.AdmissionRequest{Mode: tt.req.Mode, Allowed: tt.want})
			log := r.log("admission.set")
			if last := log[len(log)-1]; last != tt.log || slices.Index(log, last) != len(log)-1 {
				t.Errorf("audit log: got %q, want %q at its end, once", log, tt.log)
			}
		})
	}
	many := make([]netip.Prefix, 257)
	for i := range many {
		many[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
	}
	for _, tt := range []struct {
		name   string
		req    postern.AdmissionRequest
		detail string
	}{
		{"no mode", postern.AdmissionRequest{}, `there is no admission ""`},
		{"unknown mode", postern.AdmissionRequest{Mode: "closed"}, `there is no admission "closed"`},
		{"empty list", postern.AdmissionRequest{Mode: "allow-list"}, "lets nobody in"},
		{"open with a list", postern.AdmissionRequest{Mode: "open", Allowed: prefixes("10.0.0.0/8")}, "open to all"},
		{"address bits", postern.AdmissionRequest{Mode: "admission", Allowed: prefixes("10.0.0.7/8")}, "prefix 10.0.0.7/8 has"},
		{"IPv4 as IPv6", postern.AdmissionRequest{Mode: "admission", Allowed: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104)}}, "of IPv4"},
		{"no prefix", postern.AdmissionRequest{Mode: "admission", Allowed: make([]netip.Prefix, 1)}, "is none"},
		{"too many", postern.AdmissionRequest{Mode: "admission", Allowed: many}, "257 prefixes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.Local().SetAdmission(ctx, "acme", tt.req)
			wantProblem(t, err, 422, postern.CodeInvalid)
			var p *postern.Problem
			if errors.As(err, &p); !strings.Contains(p.Detail, tt.detail) || p.Hint == "" {
				t.Errorf("got %q with hint %q, want %q", p.Detail, p.Hint, tt.detail)
			}
			is(postern.AdmissionRequest{Mode: "open"})
		})
	}
	_, err := r.Local().SetAdmission(ctx, "nobody", postern.AdmissionRequest{Mode: "open"})
	wantProblem(t, err, 404, postern.CodeNotFound)
	_, err = r.Local().Admission(ctx, "nobody")
	wantProblem(t, err, 404, postern.CodeNotFound)
}

// A source is admitted for a quarter of an hour from when somebody was last there,
// and the map changes only now and then for who stays.
func TestAdmit(t *testing.T) {
	r := openRegistry(t)
	anna, berta, stranger := r.granted("anna"), r.granted("berta"), r.user("stranger", "")
	r.admit(anna, "192.0.2.7")
	r.setAdmission(postern.AdmissionList, "192.0.2.0/24")
	r.admit(anna, "198.51.100.7")
	r.setAdmission(postern.AdmissionPortal)
	r.admits() // it was not asked for

	r.admit(anna, "192.0.2.7")
	r.admits("192.0.2.7/32 15m0s")
	version := r.mapVersion()
	r.admit(anna, "::ffff:192.0.2.7")
	r.admit(stranger, "192.0.2.8")
	r.wait(4 * time.Minute)
	r.admit(anna, "192.0.2.7")
	r.SweepSources(t.Context())
	if got := r.mapVersion(); got != version {
		t.Errorf("the map changed from version %d to %d for nobody", version, got)
	}
	r.wait(2 * time.Minute)
	r.admit(anna, "192.0.2.7")
	r.admits("192.0.2.7/32 9m0s")
	r.wait(time.Minute)
	r.SweepSources(t.Context())
	r.admits("192.0.2.7/32 14m0s")

	r.wait(2 * time.Minute)
	r.admit(berta, "192.0.2.7") // from behind the same NAT
	r.admit(berta, "2001:db8:1:2:3::4")
	r.admits("192.0.2.7/32 15m0s", "2001:db8:1:2::/64 15m0s")
	r.wait(13 * time.Minute)
	r.admits("192.0.2.7/32 2m0s", "2001:db8:1:2::/64 2m0s")
	r.admit(berta, "192.0.2.7")
	r.wait(2 * time.Minute)
	r.SweepSources(t.Context())
	r.admits("192.0.2.7/32 13m0s")
	r.wait(13 * time.Minute)
	r.SweepSources(t.Context())
	r.wait(1)
	r.SweepSources(t.Context())
	r.admits()
	r.view(func(tx coordinator.Tx) error {
		left, err := tx.Sources().All()
		if len(left) > 0 {
			t.Errorf("sources are left in the store: %+v", left)
		}
		return err
	})
}

// Who comes back is admitted at once, whether or not their last visit is forgotten.
func TestAdmitAgain(t *testing.T) {
	r := openRegistry(t)
	anna := r.granted("anna")
	r.setAdmission(postern.AdmissionPortal)
	r.admit(anna, "192.0.2.7")
	for _, after := range []time.Duration{15 * time.Minute, time.Hour} {
		r.wait(after)
		r.admit(anna, "192.0.2.7")
		r.admits("192.0.2.7/32 15m0s")
	}
	r.setAdmission(postern.AdmissionList, "10.0.0.0/8")
	r.admits()
}

// Who signed out everywhere, and in again from the same place, stays admitted when a
// visit from before is stored at last.
func TestAdmitRenewedLate(t *testing.T) {
	r := openRegistry(t)
	anna := r.granted("anna")
	r.setAdmission(postern.AdmissionPortal)
	r.admit(anna, "192.0.2.7")
	r.wait(6 * time.Minute)
	r.admit(anna, "192.0.2.7") // to be stored later
	must(t, r.EndSessions(t.Context(), coordinator.ActorUser(anna.ID), anna.ID))
	r.admits()
	r.admit(anna, "192.0.2.7")
	r.wait(time.Second)
	r.admits("192.0.2.7/32 14m59.75s")
	r.SweepSources(t.Context())
	r.admits("192.0.2.7/32 14m59.75s")
}

// Who is let in anyway opens nothing besides.
func TestAdmitAllowed(t *testing.T) {
	r := openRegistry(t)
	anna := r.granted("anna")
	r.setAdmission(postern.AdmissionPortal, "192.0.2.0/24")
	r.admit(anna, "192.0.2.7")
	r.admits()
	r.admit(anna, "::ffff:192.0.2.7")
	r.admit(anna, "192.0.3.7")
	r.admits("192.0.3.7/32 15m0s")
	must(t, r.Admit(t.Context(), anna.ID, netip.Addr{}))
	r.admits("192.0.3.7/32 15m0s")
}

// Only tenants that a user was granted let them in, and only those that ask.
func TestAdmitTenants(t *testing.T) {
	r := openRegistry(t)
	anna := r.granted("anna")
	for _, name := range []string{"granted", "other", "open"} {
		must(t, r.AddTenant(t.Context(), name))
		if name != "other" {
			_, err := r.PutGrant(t.Context(), anna.ID, name, postern.GrantRequest{})
			must(t, err)
		}
		if name != "open" {
			_, err := r.Local().SetAdmission(t.Context(), name, postern.AdmissionRequest{Mode: postern.AdmissionPortal})
			must(t, err)
		}
	}
	r.setAdmission(postern.AdmissionPortal)
	r.admit(anna, "192.0.2.7")
	for name, want := range map[string]int{"acme": 1, "granted": 1, "other": 0, "open": 0} {
		state, err := r.Local().Admission(t.Context(), name)
		if must(t, err); len(state.Sources) != want {
			t.Errorf("%s: got %+v, want %d", name, state.Sources, want)
		}
	}
}

// Who may not open the tenant any more, or signed out everywhere, is admitted no
// longer; whoever else came from there is.
func TestAdmissionTakenBack(t *testing.T) {
	for _, tt := range []struct {
		name       string
		take, give func(*registry, coordinator.User) error
	}{
		{"grant",
			func(r *registry, u coordinator.User) error { return r.DeleteGrant(r.t.Context(), u.ID, "acme") },
			func(r *registry, u coordinator.User) error { r.grant(u); return nil }},
		{"disabled",
			func(r *registry, u coordinator.User) error { return r.DisableUser(r.t.Context(), u.ID) },
			func(r *registry, u coordinator.User) error { return r.EnableUser(r.t.Context(), u.ID) }},
		{"signed out everywhere",
			func(r *registry, u coordinator.User) error {
				return r.EndSessions(r.t.Context(), coordinator.ActorUser(u.ID), u.ID)
			},
			func(r *registry, u coordinator.User) error { return nil }},
		{"removed",
			func(r *registry, u coordinator.User) error { return r.RemoveUser(r.t.Context(), u.ID) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := openRegistry(t)
			anna, berta := r.granted("anna"), r.granted("berta")
			r.setAdmission(postern.AdmissionPortal)
			r.admit(anna, "192.0.2.7")
			r.admit(anna, "192.0.2.8")
			r.wait(time.Minute)
			r.admit(berta, "192.0.2.7")
			r.wait(time.Minute)
			must(t, tt.take(r, anna))
			r.admits("192.0.2.7/32 14m0s")
			if tt.give == nil {
				return
			}
			must(t, tt.give(r, anna))
			for _, addr := range []string{"192.0.2.8", "192.0.2.9"} { // within the second
				r.admit(anna, addr)
				if until, _ := r.Admitted(t.Context(), anna.ID, netip.MustParseAddr(addr)); until.IsZero() {
					t.Errorf("after all is well again, %s is not admitted", addr)
				}
			}
		})
	}
}

func TestAdmissionBounds(t *testing.T) {
	r := openRegistry(t)
	anna := r.granted("anna")
	r.setAdmission(postern.AdmissionPortal)
	for i := range coordinator.MaxUserSources + 2 {
		r.wait(time.Second)
		r.admit(anna, fmt.Sprintf("192.0.2.%d", 99-i))
	}
	state, err := r.Local().Admission(t.Context(), "acme")
	must(t, err)
	last := state.Sources[len(state.Sources)-1].Prefix
	if len(state.Sources) != coordinator.MaxUserSources || last.String() != "192.0.2.97/32" {
		t.Errorf("of one user: got %d, the last %v", len(state.Sources), last)
	}
	for i := 0; ; i++ {
		err := r.Admit(t.Context(), anna.ID, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		if err != nil {
			wantProblem(t, err, 429, postern.CodeTooMany)
			if i < 5 || i > 30 {
				t.Errorf("refused after %d sources in no time", i)
			}
			break
		}
	}
}

// Ten thousand sources are told to gateways, and no more.
func TestAdmissionMany(t *testing.T) {
	r := openRegistry(t)
	r.setAdmission(postern.AdmissionPortal)
	at := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}
	must(t, r.store.Update(t.Context(), func(tx coordinator.Tx) error {
		for i := range coordinator.MaxSources {
			id := fmt.Sprintf("u%d", i/coordinator.MaxUserSources)
			if i%coordinator.MaxUserSources == 0 {
				must(t, tx.Users().Put(coordinator.User{ID: id, Login: id, Created: r.now}))
				must(t, tx.Grants().Put(coordinator.Grant{GrantKey: coordinator.GrantKey{Tenant: "acme", User: id}, Role: "member", Created: r.now}))
			}
			must(t, tx.Sources().Put(coordinator.Source{
				SourceKey: coordinator.SourceKey{Tenant: "acme", User: id, Prefix: at(i)}, Seen: r.now.Add(time.Duration(i)),
			}))
		}
		return nil
	}))
	anna := r.granted("anna") // the map has them from now on
	addr := netip.MustParseAddr("192.0.2.7")
	start := time.Now()
	must(t, r.Admit(t.Context(), anna.ID, addr))
	t.Logf("one more than %d in %v", coordinator.MaxSources, time.Since(start))
	state, err := r.Local().Admission(t.Context(), "acme")
	must(t, err)
	has := func(p netip.Prefix) bool {
		return slices.ContainsFunc(state.Sources, func(s postern.Source) bool { return s.Prefix == p })
	}
	if len(state.Sources) != coordinator.MaxSources || has(at(0)) || !has(at(1)) || !has(netip.PrefixFrom(addr, 32)) {
		t.Errorf("got %d sources, the first %v", len(state.Sources), has(at(0)))
	}
}

func TestAdmitted(t *testing.T) {
	r := openRegistry(t)
	anna, stranger := r.granted("anna"), r.user("stranger", "")
	addr := netip.MustParseAddr("192.0.2.7")
	is := func(name string, u coordinator.User, left time.Duration, needed bool) {
		t.Helper()
		until, got := r.Admitted(t.Context(), u.ID, addr)
		if until.IsZero() {
			until = r.clock()
		}
		if until.Sub(r.clock()) != left || got != needed {
			t.Errorf("%s: got %v, %v; want %v, %v", name, until.Sub(r.clock()), got, left, needed)
		}
	}
	is("open", anna, 0, false)
	r.setAdmission(postern.AdmissionList, "10.0.0.0/8")
	is("a list", anna, 0, false)
	r.setAdmission(postern.AdmissionPortal)
	is("not yet", anna, 0, true)
	is("not granted", stranger, 0, false)
	r.admit(anna, "192.0.2.7")
	is("at the portal", anna, 15*time.Minute, true)
	must(t, r.AddTenant(t.Context(), "other"))
	_, err := r.Local().SetAdmission(t.Context(), "other", postern.AdmissionRequest{Mode: postern.AdmissionPortal})
	must(t, err)
	_, err = r.PutGrant(t.Context(), anna.ID, "other", postern.GrantRequest{})
	must(t, err)
	is("at one of two", anna, 0, true)
	r.wait(time.Minute)
	r.admit(anna, "192.0.2.7")
	is("at both, the sooner", anna, 14*time.Minute, true)
	r.wait(15 * time.Minute)
	is("no more", anna, 0, true)
	r.setAdmission(postern.AdmissionPortal, "192.0.2.0/24")
	_, err = r.Local().SetAdmission(t.Context(), "other", postern.AdmissionRequest{Mode: postern.AdmissionOpen})
	must(t, err)
	is("allowed anyway", anna, 0, false)
}
