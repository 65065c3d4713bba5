package coordinator_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// claim claims host for tenant, and returns the TXT record that proves it.
func (r *registry) claim(host, tenant string) (name, text string) {
	r.t.Helper()
	state, err := r.Local().AddRoute(r.t.Context(), postern.RouteRequest{Host: host, Tenant: tenant})
	must(r.t, err)
	return proofOf(r.t, state)
}

// proofOf returns the TXT record that proves a claim.
func proofOf(t *testing.T, state postern.RouteState) (name, text string) {
	t.Helper()
	for _, v := range state.Records {
		if v.Purpose == postern.PurposeProof {
			return v.Name, strings.Trim(v.Value, `"`)
		}
	}
	t.Fatalf("no proof in %+v", state)
	return "", ""
}

// check asks DNS what it says of a claim.
func (r *registry) check(host, tenant string) postern.RouteCheck {
	r.t.Helper()
	check, err := r.Local().CheckRoute(r.t.Context(), host, tenant)
	must(r.t, err)
	return check
}

// wantFinding fails the test if check has not that finding on subject.
func wantFinding(t *testing.T, check postern.RouteCheck, subject, result string, words ...string) {
	t.Helper()
	for _, f := range check.Findings {
		if f.Subject != subject {
			continue
		}
		text := f.Detail + " | " + f.Hint
		if f.Result != result {
			t.Errorf("%s: got %+v, want %s", subject, f, result)
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s: got %q, want %q in it", subject, text, w)
			}
		}
		return
	}
	t.Errorf("nothing about %s in %+v", subject, check.Findings)
}

// Nobody is told of a host, and nothing is served there, before its proof is seen.
func TestClaim(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a, g := d.node("acme", "a", postern.DefaultService), d.gateway("door")
	atNode, atGate := a.watch(), g.watch()
	atNode.sync()
	atGate.sync()
	u := d.person("acme", "ada", postern.TenantMember)
	version := d.mapVersion()

	var state postern.RouteState
	must(t, d.operate("POST", "/routes", postern.RouteRequest{Host: "ERP.example.com.", Tenant: "acme"}, &state))
	name, text := proofOf(t, state)
	if state.State != postern.StateUnproven || state.Kind != "custom" || state.Host != "erp.example.com" || !state.Proven.IsZero() ||
		name != "_postern-challenge.erp.example.com" || len(text) != len("postern=")+26 {
		t.Errorf("added: got %+v", state)
	}
	var list []postern.RouteState
	must(t, d.operate("GET", "/routes", nil, &list))
	if len(list) != 2 || list[1].State != postern.StateUnproven || list[1].Nodes[0] != "a" {
		t.Errorf("list: got %+v", list)
	}
	for _, texts := range [][]string{nil, {"postern="}, {text[len("postern="):]}, {strings.ToUpper(text)}, {`"` + text + `"`}, {text + " "}, {"v=spf1 -all", text + "x"}} {
		d.dns.set(name, texts...)
		var check postern.RouteCheck
		must(t, d.operate("POST", "/routes/erp.example.com/check", nil, &check))
		if check.Route.State != postern.StateUnproven {
			t.Fatalf("%q prove it: %+v", texts, check)
		}
		wantFinding(t, check, "proof", postern.FindingMissing, name, "add the TXT record")
	}
	wantProblem(t, d.operate("GET", "/routes/erp.example.com/match", nil, nil), 404, postern.CodeNotFound)
	if _, err := d.MayOpen(t.Context(), u.ID, "erp.example.com"); outcome(t, err) != postern.CodeNotFound {
		t.Errorf("may be opened: %v", err)
	}
	if _, ok := d.Client("erp.example.com"); ok {
		t.Error("it is a client")
	}
	if got := d.mapVersion(); got != version {
		t.Errorf("map version %d after %d, for nothing that anybody is told", got, version)
	}

	d.dns.set(name, "v=spf1 -all", text)
	var check postern.RouteCheck
	must(t, d.operate("POST", "/routes/ERP.example.com/check?tenant=acme", nil, &check))
	wantFinding(t, check, "proof", postern.FindingOK)
	if check.Route.Proven.IsZero() || check.Route.State == postern.StateUnproven {
		t.Errorf("proven: got %+v", check.Route)
	}
	for _, v := range check.Route.Records {
		if v.Purpose == postern.PurposeProof {
			t.Errorf("it is still to be proven: %+v", v)
		}
	}
	has := func(m postern.Map) bool {
		for _, r := range m.Sections["acme"].Routes {
			if r.Host == "erp.example.com" {
				return true
			}
		}
		return false
	}
	atNode.until("the node is told", has)
	atGate.until("the gateway is told", has)

	// The record is no longer needed.
	d.dns.set(name)
	must(t, d.operate("POST", "/routes/erp.example.com/check", nil, &check))
	wantFinding(t, check, "proof", postern.FindingOK)
	must(t, d.operate("GET", "/routes/erp.example.com/match", nil, &state))
	if state.Proven.IsZero() || state.Finding != "" {
		t.Errorf("match: got %+v", state)
	}
	must(t, d.operate("DELETE", "/routes/erp.example.com", nil, nil))
	atGate.until("it is gone", func(m postern.Map) bool { return !has(m) })
}

// Of those who claim one host, who proves it first has it.
func TestFirstProof(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	must(t, r.AddTenant(ctx, "rival"))
	must(t, r.AddTenant(ctx, "third"))
	ada, rob := r.operator(r.member("acme", "ada", postern.TenantOwner)), r.operator(r.member("rival", "rob", postern.TenantAdmin))

	// Who is first to ask has nothing of it.
	r.claim("erp.example.com", "rival")
	name, text := r.claim("erp.example.com", "acme")
	if _, err := r.Local().CheckRoute(ctx, "erp.example.com", ""); outcome(t, err) != postern.CodeInvalid {
		t.Errorf("whose? got %v", err)
	}
	r.dns.set(name, text)
	wantFinding(t, r.check("erp.example.com", "rival"), "proof", postern.FindingMissing, "there is another one")
	check, err := ada.CheckRoute(ctx, "erp.example.com", "")
	must(t, err)
	wantFinding(t, check, "proof", postern.FindingOK)
	r.wantLog("route.prove", "user:", "erp.example.com", "default")

	// The other is told, not by whom, and cannot prove it any more.
	all, err := rob.Routes(ctx, "")
	must(t, err)
	if len(all) != 1 || all[0].State != postern.StateUnproven || !strings.Contains(all[0].Finding, "another company") || strings.Contains(fmt.Sprintf("%+v", all), "acme") {
		t.Errorf("rival sees %+v", all)
	}
	_, theirs := proofOf(t, all[0])
	r.dns.set(name, theirs)
	asked := r.dns.questions("erp.example.com")
	lost, err := rob.CheckRoute(ctx, "erp.example.com", "")
	must(t, err)
	wantFinding(t, lost, "proof", postern.FindingError, "another company has shown")
	if r.dns.questions("erp.example.com") != asked {
		t.Error("DNS was asked for nothing")
	}

	// Who comes later is told the name of whom they see, and of nobody else.
	_, err = r.Local().AddRoute(ctx, postern.RouteRequest{Host: "erp.example.com", Tenant: "third"})
	if outcome(t, err) != postern.CodeTaken || !strings.Contains(err.Error(), "acme") {
		t.Errorf("the operator: got %v", err)
	}
	tom := r.operator(r.member("third", "tom", postern.TenantOwner))
	_, err = tom.AddRoute(ctx, postern.RouteRequest{Host: "erp.example.com", Tenant: "third"})
	if outcome(t, err) != postern.CodeTaken || strings.Contains(err.Error(), "acme") {
		t.Errorf("a manager: got %v", err)
	}

	// A released name is held: for who claimed it before it was, too.
	must(t, ada.RemoveRoute(ctx, "erp.example.com", "acme"))
	r.wantLog("route.remove", "user:", "erp.example.com")
	held, err := rob.CheckRoute(ctx, "erp.example.com", "rival")
	must(t, err)
	wantFinding(t, held, "proof", postern.FindingError, "released lately")
	_, err = tom.AddRoute(ctx, postern.RouteRequest{Host: "erp.example.com", Tenant: "third"})
	if outcome(t, err) != postern.CodeQuarantined {
		t.Errorf("held: got %v", err)
	}
	name, text = r.claim("erp.example.com", "acme")
	r.dns.set(name, text)
	wantFinding(t, r.check("erp.example.com", "acme"), "proof", postern.FindingOK)

	// What led nowhere is not held.
	r.claim("new.example.com", "acme")
	must(t, ada.RemoveRoute(ctx, "new.example.com", ""))
	r.claim("new.example.com", "third")
}

// A removed claim whose proof is seen at that moment comes to nothing, and so does one
// that another's proof overtakes.
func TestProofRaces(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	must(t, r.AddTenant(ctx, "rival"))
	name, text := r.claim("a.example.com", "acme")
	r.dns.set(name, text)
	r.dns.next = func() { must(t, r.Local().RemoveRoute(ctx, "a.example.com", "acme")) }
	if _, err := r.Local().CheckRoute(ctx, "a.example.com", "acme"); outcome(t, err) != postern.CodeNotFound {
		t.Errorf("removed: got %v", err)
	}
	_, mine := r.claim("b.example.com", "acme")
	name, theirs := r.claim("b.example.com", "rival")
	r.dns.set(name, mine, theirs)
	r.dns.next = func() { wantFinding(t, r.check("b.example.com", "rival"), "proof", postern.FindingOK) }
	wantFinding(t, r.check("b.example.com", "acme"), "proof", postern.FindingError, "taken")
	if log := r.log("route.prove"); len(log) != 1 {
		t.Errorf("proven: %q", log)
	}
	must(t, coordinator.VerifyAudit(ctx, r.store))

	// What cannot be stored is no proof.
	name, text = r.claim("c.example.com", "acme")
	r.dns.set(name, text)
	r.store.commit = errors.New("the disk failed")
	if _, err := r.Local().CheckRoute(ctx, "c.example.com", "acme"); err == nil {
		t.Error("proven on a disk that failed")
	}
	r.store.commit = nil
	if _, err := r.Local().MatchRoute(ctx, "c.example.com"); outcome(t, err) != postern.CodeNotFound {
		t.Errorf("it leads somewhere: %v", err)
	}
}

// Claims are few for each tenant, and not for ever.
func TestClaimBounds(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	must(t, r.AddTenant(ctx, "rival"))
	for i := range coordinator.MaxUnproven {
		r.claim(fmt.Sprintf("h%d.example.com", i), "acme")
	}
	req := postern.RouteRequest{Host: "more.example.com", Tenant: "acme"}
	if _, err := r.Local().AddRoute(ctx, req); outcome(t, err) != postern.CodeTooMany {
		t.Errorf("one more: got %v", err)
	}
	r.claim("more.example.com", "rival")
	name, text := r.claim("kept.example.com", "rival")
	r.dns.set(name, text)
	r.check("kept.example.com", "rival")

	r.wait(coordinator.ClaimLife - time.Second)
	must2(r.LookRound(ctx))
	if log := r.log("route.lapse"); len(log) != 0 {
		t.Fatalf("forgotten too early: %q", log)
	}
	r.wait(time.Second)
	must2(r.LookRound(ctx))
	if log := r.log("route.lapse"); len(log) != coordinator.MaxUnproven+1 || !strings.HasPrefix(log[0], "coordinator h0.example.com: not proven in time") {
		t.Errorf("forgotten: %q", log)
	}
	all, err := r.Local().Routes(ctx, "")
	must(t, err)
	if len(all) != 1 || all[0].Host != "kept.example.com" {
		t.Errorf("left: %+v", all)
	}
	must2(r.Local().AddRoute(ctx, req))
}

// Managers claim at most so much at a time, as each claim is recorded for ever, and they
// have DNS asked at most so often.
func TestClaimRates(t *testing.T) {
	r := openRegistry(t)
	ctx := t.Context()
	o := r.operator(r.member("acme", "ada", postern.TenantOwner))
	req := postern.RouteRequest{Host: "a.example.com", Tenant: "acme"}
	n := 0
	for ; n < 1000; n++ {
		if _, err := o.AddRoute(ctx, req); outcome(t, err) == postern.CodeTooMany {
			break
		}
		must(t, o.RemoveRoute(ctx, req.Host, ""))
	}
	if n == 0 || n == 1000 {
		t.Errorf("claimed %d times", n)
	}
	r.claim(req.Host, "acme")
	for n = 0; n < 1000; n++ {
		if _, err := o.CheckRoute(ctx, req.Host, ""); outcome(t, err) == postern.CodeTooMany {
			break
		}
	}
	if n == 0 || n == 1000 || r.dns.questions(req.Host) != n {
		t.Errorf("checked %d times, DNS was asked %d times", n, r.dns.questions(req.Host))
	}
	r.check(req.Host, "acme") // who operates the deployment may
}

// I14: who manages a tenant sees nothing of what another claims, on the same host above
// all: not that it does, nor its secret.
func TestIsolationOfClaims(t *testing.T) {
	d := deploy(t)
	mine, theirs := d.side("acme"), d.side("rival")
	const host = "both.example.com"
	secrets := map[string]string{}
	for _, s := range []side{theirs, mine} {
		var state postern.RouteState
		must(t, d.operate("POST", "/routes", postern.RouteRequest{Host: host, Tenant: s.name}, &state))
		_, secrets[s.name] = proofOf(t, state)
	}
	only := "only.rival.example"
	must(t, d.operate("POST", "/routes", postern.RouteRequest{Host: only, Tenant: "rival"}, nil))
	const routes = postern.PathAdmin + "/routes"
	tests := []struct {
		name, method, path string
		in                 any
		status             int
		absent             string // a path about what nobody has; its answer is the same
	}{
		{"list", "GET", routes, nil, 200, ""},
		{"list theirs", "GET", routes + "?tenant=rival", nil, 200, routes + "?tenant=nobody"},
		{"check theirs", "POST", routes + "/" + host + "/check?tenant=rival", nil, 404, routes + "/" + host + "/check?tenant=nobody"},
		{"check", "POST", routes + "/" + host + "/check", nil, 200, ""},
		{"check a host of theirs", "POST", routes + "/" + only + "/check", nil, 404, ""},
		{"match", "GET", routes + "/" + only + "/match", nil, 404, ""},
		{"add for them", "POST", routes, postern.RouteRequest{Host: "x.example.com", Tenant: "rival"}, 404, ""},
		{"add what they have", "POST", routes, postern.RouteRequest{Host: theirs.ids["{host}"], Tenant: "acme"}, 409, ""},
		{"add what they claim", "POST", routes, postern.RouteRequest{Host: only, Tenant: "acme"}, 200, ""},
		{"remove theirs", "DELETE", routes + "/" + host + "?tenant=rival", nil, 404, routes + "/" + host + "?tenant=nobody"},
		{"audit", "GET", postern.PathAdmin + "/audit?action=route", nil, 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := d.as(mine.manager, tt.method, tt.path, tt.in)
			if status != tt.status {
				t.Errorf("got %d %s, want %d", status, answer, tt.status)
			}
			if tt.absent != "" {
				if _, want := d.as(mine.manager, tt.method, tt.absent, tt.in); answer != want {
					t.Errorf("got %s; of what does not exist %s", answer, want)
				}
			}
			answer = strings.NewReplacer(only, "", theirs.ids["{host}"], "", `\"rival\"`, "").Replace(answer) // as asked
			for _, mark := range append(theirs.marks, secrets["rival"]) {
				if strings.Contains(answer, mark) {
					t.Errorf("it tells of %q: %s", mark, answer)
				}
			}
		})
	}
	// What is left of theirs is all of it.
	var left []postern.RouteState
	must(t, d.operate("GET", "/routes?tenant=rival", nil, &left))
	n := 0
	for _, v := range left {
		if v.Kind == "custom" {
			n++
		}
	}
	if n != 3 {
		t.Errorf("left: %+v", left)
	}
	// Without a tenant, a manager means their own.
	if status, answer := d.as(mine.manager, "DELETE", routes+"/"+host, nil); status != 204 {
		t.Errorf("remove one's own: got %d %s", status, answer)
	}
	var check postern.RouteCheck
	must(t, d.operate("POST", "/routes/"+host+"/check?tenant=rival", nil, &check))
}
