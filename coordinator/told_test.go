package coordinator_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

// deployLogged is deploy with what the coordinator logs.
func deployLogged(t *testing.T) (*deployment, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	d := &deployment{t: t, dir: t.TempDir(), clock: &clock{}}
	d.change = func(cfg *coordinator.Config) { cfg.Logger = slog.New(slog.NewTextHandler(log, nil)) }
	d.start()
	t.Cleanup(func() { d.stop() })
	return d, log
}

const (
	sumA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	sumB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// states returns m's statement of these hosts.
func (m *member) states(node string, hosts ...string) *postern.Statement {
	m.d.t.Helper()
	held := postern.Holdings{Node: node, Time: time.Now()}
	for _, h := range hosts {
		held.Hosts = append(held.Hosts, postern.Holding{Host: h, SHA256: sumA, SPKI: sumB, NotAfter: time.Now().Add(time.Hour)})
	}
	payload, err := json.Marshal(held)
	must(m.d.t, err)
	return &postern.Statement{Payload: payload, Signature: ed25519.Sign(m.identity.Key(), postern.StatementMessage(payload))}
}

func (m *member) tells(s *postern.Statement, hosts ...postern.HostStatus) {
	m.d.t.Helper()
	must(m.d.t, m.call("POST", postern.PathStatus, postern.Status{Hosts: hosts, Statement: s}, nil))
}

func (d *deployment) certificatesOf(host string) []postern.RouteCertificate {
	d.t.Helper()
	var r postern.RouteState
	must(d.t, d.operate("GET", "/routes/"+host+"/match", nil, &r))
	return r.Certificates
}

func valid(host string) postern.HostStatus {
	return postern.HostStatus{
		Host: host, State: postern.CertificateValid, Source: postern.SourceACME, Issuer: "R13, Let's Encrypt",
		SHA256: sumA, SPKI: sumB, NotAfter: time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC),
	}
}

// What nodes say of their certificates is told with the route, by the node's name, and
// forgotten with the node.
func TestNodesTellOfCertificates(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	b, a := d.node("acme", "b", "erp"), d.node("acme", "a", "erp")
	if got := d.certificatesOf(shared); got == nil || len(got) > 0 {
		t.Errorf("before anybody said anything: got %+v", got)
	}
	waiting := postern.HostStatus{Host: shared, State: postern.CertificateWaiting, Source: postern.SourceACME,
		Error: "urn:ietf:params:acme:error:rateLimited: too many certificates"}
	changed := d.Changed()
	b.tells(b.states(b.ID, shared), valid(shared))
	select {
	case <-changed:
	default:
		t.Error("nobody was woken")
	}
	a.tells(nil, waiting)
	got := d.certificatesOf(shared)
	if len(got) != 2 || got[0].Node != "a" || got[1].Node != "b" || got[0].Identity != a.identity.Public() ||
		!reflect.DeepEqual(got[0].HostStatus, waiting) || !reflect.DeepEqual(got[1].HostStatus, valid(shared)) ||
		got[0].Statement != nil || got[1].Reported.IsZero() {
		t.Fatalf("got %+v", got)
	}
	s := got[1].Statement
	if s == nil || !ed25519.Verify(b.identity.Public().Key(), postern.StatementMessage(s.Payload), s.Signature) {
		t.Errorf("got statement %+v", s)
	}
	var all []postern.RouteState
	must(t, d.operate("GET", "/routes", nil, &all))
	if c := all[0].Certificates; len(c) != 2 || c[1].SPKI != sumB || c[1].Statement != nil {
		t.Errorf("in the list: got %+v", c)
	}
	changed = d.Changed()
	b.tells(b.states(b.ID, shared), valid(shared))
	select {
	case <-changed:
		t.Error("somebody was woken, and nothing changed")
	default:
	}
	b.tells(nil)
	if got := d.certificatesOf(shared); len(got) != 1 {
		t.Errorf("after b said nothing: got %+v", got)
	}
	must(t, d.operate("DELETE", "/nodes/"+a.ID, nil, nil))
	if got := d.certificatesOf(shared); len(got) != 0 {
		t.Errorf("after a is gone: got %+v", got)
	}
}

// A node can speak of its own hosts alone, and under its own name.
func TestIsolationOfCertificates(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	a, b, r := d.node("acme", "a", "erp"), d.node("acme", "b", "books"), d.node("rival", "r", "erp")
	const theirs, neighbours = "erp.rival." + base, "books.acme." + base
	r.tells(r.states(r.ID, theirs), valid(theirs))
	before := d.certificatesOf(theirs)
	a.tells(a.states(a.ID, theirs, neighbours), valid(theirs), valid(neighbours), valid(portalHost), valid("none.example"))
	for _, host := range []string{shared, neighbours} {
		if got := d.certificatesOf(host); len(got) > 0 {
			t.Errorf("%s: got %+v", host, got)
		}
	}
	if got := d.certificatesOf(theirs); !reflect.DeepEqual(got, before) {
		t.Errorf("got %+v, want %+v", got, before)
	}
	alarm := valid(theirs)
	alarm.Alarm = "an alarm of acme's"
	a.tells(nil, alarm)
	var entries []postern.AuditEntry
	must(t, d.operate("GET", "/audit?action=certificate.alarm", nil, &entries))
	if len(entries) > 0 {
		t.Errorf("an alarm about another tenant's host: %+v", entries)
	}
	// What was theirs while it was routed is not told when it is not.
	b.tells(nil, valid(neighbours))
	b.publish()
	a.publish("erp", "books")
	if got := d.certificatesOf(neighbours); len(got) > 0 {
		t.Errorf("after it moved: got %+v", got)
	}
}

func TestStatementRefused(t *testing.T) {
	d, log := deployLogged(t)
	d.addTenant("acme")
	a, b := d.node("acme", "a", "erp"), d.node("acme", "b", "erp")
	bent := a.states(a.ID, shared)
	bent.Payload = bytes.Replace(bent.Payload, []byte(sumA), []byte(sumB), 1)
	short := a.states(a.ID, shared)
	short.Signature = short.Signature[:10]
	noJSON := &postern.Statement{Payload: []byte("{"), Signature: ed25519.Sign(a.identity.Key(), postern.StatementMessage([]byte("{")))}
	for name, s := range map[string]*postern.Statement{
		"changed on the way": bent, "signature too short": short, "another node's": b.states(b.ID, shared),
		"about another node": a.states(b.ID, shared), "another's, signed by a": a.states(b.ID),
		"host that is not routed": a.states(a.ID, shared, "x.acme."+base), "no JSON": noJSON, "empty": {},
	} {
		a.tells(s, valid(shared))
		if got := d.certificatesOf(shared); len(got) != 1 || got[0].Statement != nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	a.tells(a.states(a.ID, shared), valid(shared))
	if got := d.certificatesOf(shared); got[0].Statement == nil {
		t.Error("a good one was refused")
	}
	before := log.count("of no use")
	for range 3 {
		a.tells(bent, valid(shared))
	}
	if got := log.count("of no use"); got != before+1 {
		t.Errorf("logged %d times, want once", got-before)
	}
}

// What is told is bounded and in order.
func TestHostStatusChecked(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	a := d.node("acme", "a", "erp")
	for name, spoil := range map[string]func(*postern.HostStatus){
		"state":   func(h *postern.HostStatus) { h.State = "splendid" },
		"source":  func(h *postern.HostStatus) { h.Source = "a friend" },
		"sha256":  func(h *postern.HostStatus) { h.SHA256 = "abc" },
		"spki":    func(h *postern.HostStatus) { h.SPKI = strings.ToUpper(sumA) },
		"issuer":  func(h *postern.HostStatus) { h.Issuer = "two\nlines" },
		"account": func(h *postern.HostStatus) { h.Account = "https://ca.example/" + strings.Repeat("x", 300) },
	} {
		h := valid(shared)
		spoil(&h)
		a.tells(nil, h)
		if got := d.certificatesOf(shared); len(got) > 0 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	h := valid(shared)
	h.Error = "no\x1b[31m:\r\n" + strings.Repeat("ä", 1000)
	a.tells(nil, h)
	got := d.certificatesOf(shared)[0].Error
	if !strings.HasPrefix(got, "no [31m: ää") || len(got) > 512 || strings.Contains(got, "\uFFFD") {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
}

// An alarm is recorded once for each change.
func TestCertificateAlarm(t *testing.T) {
	d, log := deployLogged(t)
	d.addTenant("acme")
	a := d.node("acme", "a", "erp", "own")
	h := valid(shared)
	for _, alarm := range []string{"", "gateway door showed x", "gateway door showed x", "gateway back showed y", "gateway back showed y", "", ""} {
		h.Alarm = alarm
		a.tells(nil, valid("own.acme."+base), h)
	}
	var entries []postern.AuditEntry
	must(t, d.operate("GET", "/audit?action=certificate.alarm", nil, &entries))
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprint(e.Actor == "node:"+a.ID, " ", e.Tenant, " ", e.Target, " ", e.Detail))
	}
	want := []string{"true acme " + shared + " gateway door showed x", "true acme " + shared + " gateway back showed y", "true acme " + shared + " over"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := log.count("level=ERROR"); n != 2 {
		t.Errorf("logged %d errors, want 2", n)
	}
	// A node that cries without end does not fill the log.
	for i := range 100 {
		h.Alarm = fmt.Sprint("alarm ", i)
		a.tells(nil, h)
		d.clock.advance(300 * time.Millisecond)
	}
	must(t, d.operate("GET", "/audit?action=certificate.alarm&limit=1000", nil, &entries))
	if len(entries) > 70 {
		t.Errorf("%d entries", len(entries))
	}
	a.publish("erp") // its other doings are recorded all the same
}
