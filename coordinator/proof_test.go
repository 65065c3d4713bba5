package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern"
	"postern/coordinator"
	"postern/coordinator/sqlite"
)

// looksIn returns how often DNS is asked for the proof of a claim while span passes, if
// somebody looks every second.
func (r *registry) looksIn(host string, span time.Duration) int {
	r.t.Helper()
	before := r.dns.questions(host)
	for range int(span / time.Second) {
		r.wait(time.Second)
		must2(r.LookRound(r.t.Context()))
	}
	return r.dns.questions(host) - before
}

// A young claim is looked at often, an old one now and then.
func TestLookSchedule(t *testing.T) {
	r := openRegistry(t)
	r.claim("erp.example.com", "acme")
	for _, step := range []struct {
		span     time.Duration
		min, max int
	}{
		{9 * time.Second, 0, 0},
		{51 * time.Second, 3, 5}, // one minute old
		{9 * time.Minute, 4, 9},  // ten
		{50 * time.Minute, 4, 7}, // an hour
		{5 * time.Hour, 28, 32},  // six
		{18 * time.Hour, 100, 110},
		{10 * time.Hour, 9, 11},
	} {
		if n := r.looksIn("erp.example.com", step.span); n < step.min || n > step.max {
			t.Errorf("in the next %v: asked %d times, want %d to %d", step.span, n, step.min, step.max)
		}
	}
}

// One tenant's claims, of which DNS says nothing, do not keep another's waiting.
func TestLooksAreShared(t *testing.T) {
	r := openRegistry(t)
	must(t, r.AddTenant(t.Context(), "rival"))
	for i := range coordinator.MaxUnproven {
		r.claim(fmt.Sprintf("h%d.example.com", i), "rival")
	}
	r.wait(time.Second)
	name, text := r.claim("erp.example.com", "acme")
	r.dns.set(name, text)
	r.wait(10 * time.Second)
	wait, err := r.LookRound(t.Context())
	must(t, err)
	state, err := r.Local().MatchRoute(t.Context(), "erp.example.com")
	if err != nil || state.Proven.IsZero() {
		t.Errorf("got %+v, %v", state, err)
	}
	r.wantLog("route.prove", "coordinator erp.example.com")
	if n := len(r.dns.asked); n != coordinator.MaxOwnLooks+1 {
		t.Errorf("asked %d times, want %d", n, coordinator.MaxOwnLooks+1)
	}
	if wait != time.Second {
		t.Errorf("the others wait for %v", wait)
	}
	for range 1000 {
		must2(r.LookRound(t.Context()))
	}
	if n := len(r.dns.asked); n > 31 {
		t.Errorf("asked %d times at one moment", n)
	}
}

// What goes wrong with DNS is kept in words.
func TestFindingIsKept(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	r.claim("erp.example.com", "acme")
	finding := func() string {
		t.Helper()
		all, err := r.Local().Routes(ctx, "acme")
		must(t, err)
		return all[0].Finding
	}
	changed := r.Changed()
	r.dns.err = errors.New("192.0.2.53:53 says SERVFAIL\x1b[31m\nof it")
	r.wait(10 * time.Second)
	must2(r.LookRound(ctx))
	if got, want := finding(), "DNS does not answer for _postern-challenge.erp.example.com: 192.0.2.53:53 says SERVFAIL [31m of it"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	select {
	case <-changed:
	default:
		t.Error("pages that show it were not told")
	}
	r.dns.err = nil
	check := r.check("erp.example.com", "")
	wantFinding(t, check, "proof", postern.FindingMissing, "there is no TXT record")
	if got := finding(); got != check.Findings[0].Detail || check.Route.Checked.IsZero() {
		t.Errorf("got %q, checked %v", got, check.Route.Checked)
	}
}

// Without a resolver, a claim stays what it is, and everybody is told why.
func TestNoResolver(t *testing.T) {
	d := &deployment{t: t, dir: t.TempDir(), clock: &clock{}}
	d.change = func(cfg *coordinator.Config) { cfg.Resolver = nil }
	d.start()
	t.Cleanup(func() { d.stop() })
	d.addTenant("acme")
	var state postern.RouteState
	must(t, d.operate("POST", "/routes", postern.RouteRequest{Host: "erp.example.com", Tenant: "acme"}, &state))
	if want := "this coordinator asks no DNS, so no host name can be proven"; state.Finding != want {
		t.Errorf("got %q, want %q", state.Finding, want)
	}
	var check postern.RouteCheck
	must(t, d.operate("POST", "/routes/erp.example.com/check", nil, &check))
	wantFinding(t, check, "proof", postern.FindingError, "asks no DNS")
	if len(check.Findings) != 1 {
		t.Errorf("got %+v", check.Findings)
	}
}

// The coordinator looks by itself, and ends when it is told to while DNS is silent.
func TestProveClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store, err := sqlite.Open(t.Context(), filepath.Join(dir, "registry.db"))
		must(t, err)
		defer store.Close()
		authority, err := coordinator.OpenAuthority(filepath.Join(dir, "authority"), base, time.Now)
		must(t, err)
		dns := &fakeDNS{}
		c, err := coordinator.New(coordinator.Config{Store: store, Authority: authority, Base: base, Resolver: dns})
		must(t, err)
		must(t, c.AddTenant(t.Context(), "acme"))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { must(t, c.ProveClaims(ctx)) })
		<-time.After(time.Hour)
		if len(dns.asked) > 0 {
			t.Errorf("asked for %q", dns.asked)
		}

		state, err := c.Local().AddRoute(ctx, postern.RouteRequest{Host: "erp.example.com", Tenant: "acme"})
		must(t, err)
		name, text := proofOf(t, state)
		<-time.After(15 * time.Second)
		synctest.Wait()
		if n := dns.questions("erp.example.com"); n != 1 {
			t.Errorf("asked %d times in 15 s, want once", n)
		}
		<-time.After(2 * time.Minute)
		dns.set(name, text)
		<-time.After(2 * time.Minute)
		synctest.Wait()
		got, err := c.Local().MatchRoute(ctx, "erp.example.com")
		if err != nil || got.Proven.IsZero() {
			t.Errorf("four minutes later: got %+v, %v", got, err)
		}
		asked := dns.questions("erp.example.com")
		<-time.After(48 * time.Hour)
		if n := dns.questions("erp.example.com"); n != asked {
			t.Errorf("asked %d times more for what is proven", n-asked)
		}

		must2(c.Local().AddRoute(ctx, postern.RouteRequest{Host: "slow.example.com", Tenant: "acme"}))
		dns.change(func() { dns.block = make(chan struct{}) })
		<-time.After(12 * time.Second)
		synctest.Wait()
		if n := dns.questions("slow.example.com"); n != 1 {
			t.Errorf("asked %d times", n)
		}
		cancel()
		wg.Wait()
		all, err := c.Local().Routes(t.Context(), "")
		must(t, err)
		if all[1].Finding != "" {
			t.Errorf("the end was taken for an answer: %q", all[1].Finding)
		}
	})
}

// A claim that nobody proves is forgotten by itself.
func TestClaimsLapse(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	must(t, d.operate("POST", "/routes", postern.RouteRequest{Host: "erp.example.com", Tenant: "acme"}, nil))
	d.clock.advance(coordinator.ClaimLife)
	must(t, d.operate("POST", "/routes", postern.RouteRequest{Host: "new.example.com", Tenant: "acme"}, nil)) // wakes who looks
	eventually(t, "it to be forgotten", func() bool {
		var all []postern.RouteState
		must(t, d.operate("GET", "/routes", nil, &all))
		return len(all) == 1 && all[0].Host == "new.example.com"
	})
}
