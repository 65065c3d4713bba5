package node

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postern/internal/dnscheck/dnstest"
)

// patient is the status of a node at which all is well, whose one host leads to addr and
// shows cert.
func patient(addr string, cert *certificate) Status {
	_, port, _ := net.SplitHostPort(addr)
	c := cert.status()
	c.Source, c.Account, c.Authorities = SourceACME, "https://ca.test/acct/1", []string{"ca.test"}
	c.Records = []string{`a.test. CAA 128 issue "ca.test"`}
	return Status{
		Base: "test", Member: Membership{Tenant: "acme", Name: "office"}, Control: Control{Up: true},
		Tunnels: []Tunnel{{Gateway: "gw-1", Endpoint: "192.0.2.1:51820", Handshake: time.Now(), Path: udp, MTU: 1420, PathMTU: 1480}},
		Routes:  []Route{{Host: "a.test", URL: "https://a.test:" + port, Service: "default", State: RouteReady, Certificate: c}},
	}
}

func TestExamine(t *testing.T) {
	ca := newTestCA(t)
	held, other := certFor(t, ca, SourceACME, "a.test"), certFor(t, ca, SourceACME, "a.test")
	var shown atomic.Pointer[certificate]
	gateway := strings.Replace(publicGateway(t, shown.Load), "gw.localhost", "127.0.0.1", 1)
	server := dnstest.New(t, "")
	const zone = "a.test. A 127.0.0.1\n"
	const pinned = `a.test. CAA 0 issue "ca.test; accounturi=https://ca.test/acct/1; validationmethods=tls-alpn-01"` + "\n"
	tests := []struct {
		name   string
		zone   string
		lie    dnstest.Lie
		spoil  func(*Status)
		shown  *certificate
		want   map[string]string // result by subject; of several the last
		says   string            // somewhere
		health bool
	}{
		{"all is well", zone + pinned, nil, nil, held,
			map[string]string{"control": "ok", "tunnel": "ok", "certificate": "ok", "gateways": "ok", "address": "ok", "caa": "ok", "outside": "ok"}, "grade A", true},
		{"a setting that the path does not carry", zone + pinned, nil, func(s *Status) {
			s.Tunnels[0].MTU, s.Tunnels[0].PathMTU, s.Tunnels[0].MTUSet = 1328, 1388, 1400
		}, held, map[string]string{"mtu": "warning"}, "--mtu 1400 is more than", true},
		{"no echoes", zone + pinned, nil, func(s *Status) { s.Tunnels[0].PathMTU = 0 }, held, map[string]string{"mtu": "warning"}, "answers no echoes", true},
		{"a proxy", zone + pinned, nil, func(s *Status) { s.Control.Proxy = "http://me:xxxxx@proxy:3128" }, held, map[string]string{"proxy": "ok"}, "me:xxxxx@", true},
		{"nothing restricts", zone, nil, nil, held, map[string]string{"caa": "warning"}, "records that let nobody but", true},
		{"our own authority is kept out", zone + `a.test. CAA 0 issue "other.test"` + "\n", nil, nil, held,
			map[string]string{"caa": "error"}, "let the node's own account in", false},
		{"another account alone is let in", zone + `a.test. CAA 0 issue "ca.test; accounturi=https://ca.test/acct/2"` + "\n", nil, nil, held,
			map[string]string{"caa": "error"}, "acct/2", false},
		{"CAA cannot be asked for", zone, dnstest.Fail("a.test", dns.RcodeServerFailure), nil, held, map[string]string{"caa": "error"}, "SERVFAIL", false},
		{"no address", pinned, nil, nil, held, map[string]string{"address": "missing"}, "A or AAAA", false},
		{"somebody else's key outside", zone + pinned, nil, nil, other, map[string]string{"outside": "error"}, "another key", false},
		{"another node's key outside", zone + pinned, nil, func(s *Status) { s.Routes[0].Keys = []string{other.spki} }, other,
			map[string]string{"outside": "ok"}, "another node", true},
		{"a key of nobody's, while another node answered elsewhere", zone + pinned, nil, func(s *Status) {
			s.Routes[0].Keys, s.Routes[0].Note = []string{held.spki}, "another node of this route answered"
		}, other, map[string]string{"outside": "error"}, "another key", false},
		{"another node answered a gateway", zone + pinned, nil, func(s *Status) {
			s.Routes[0].Keys, s.Routes[0].Note = []string{other.spki}, "another node of this route answered"
		}, other, map[string]string{"gateways": "ok"}, "shows the key of this node or of another of its route", true},
		{"a key outside while another node's is not known", zone + pinned, nil, func(s *Status) { s.Routes[0].Keys = []string{""} }, other,
			map[string]string{"outside": "warning"}, "not told the coordinator yet", true},
		{"an alarm", zone + pinned, nil, func(s *Status) { s.Routes[0].State, s.Routes[0].Error = RouteAlarm, "gateway showed another" }, held,
			map[string]string{"gateways": "error"}, "reading along", false},
		{"the authority refuses", zone + pinned, nil, func(s *Status) {
			s.Routes[0].State, s.Routes[0].Certificate = RouteWaiting, &Certificate{Source: SourceACME, Error: "urn:ietf:params:acme:error:rateLimited: too many", Waiting: "next try in 1h"}
		}, held, map[string]string{"certificate": "error"}, "rateLimited: too many", false},
		{"renewal fails", zone + pinned, nil, func(s *Status) { s.Routes[0].Certificate.Error = "the authority is down" }, held,
			map[string]string{"certificate": "warning"}, "the authority is down", true},
		{"the coordinator is away", zone + pinned, nil, func(s *Status) { s.Control = Control{Error: "refused"} }, held, map[string]string{"control": "warning"}, "refused", true},
		{"the tunnel is dead", zone + pinned, nil, func(s *Status) { s.Tunnels[0].Handshake = time.Now().Add(-time.Hour) }, held,
			map[string]string{"tunnel": "error"}, "UDP", false},
		{"the application is down", zone + pinned, nil, func(s *Status) {
			s.Services = []ServiceState{{Name: "erp", Upstream: "http://127.0.0.1:9000", State: UpstreamDown, Error: "connection refused"}}
		}, held, map[string]string{"application": "error"}, "erp, at http://127.0.0.1:9000, is down: connection refused start the application", false},
		{"applications answer", zone + pinned, nil, func(s *Status) {
			s.Services = []ServiceState{{Name: "docs", State: UpstreamUp}, {Name: "erp", State: UpstreamUp}, {Name: "new", State: UpstreamUnknown}}
		}, held, map[string]string{"application": "ok"}, "docs, erp: up ", true},
		{"there is no gateway", zone + pinned, nil, func(s *Status) { s.Tunnels = nil }, held, map[string]string{"tunnel": "missing"}, "no gateway", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server.SetZone(t, tt.zone)
			lie := tt.lie
			if lie == nil {
				lie = func(_ dns.Question, _ bool, honest *dns.Msg) *dns.Msg { return honest }
			}
			server.Lie(func(q dns.Question, tcp bool, honest *dns.Msg) *dns.Msg {
				if q.Qtype != dns.TypeCAA {
					return honest
				}
				return lie(q, tcp, honest)
			})
			shown.Store(tt.shown)
			s := patient(gateway, held)
			if tt.spoil != nil {
				tt.spoil(&s)
			}
			all, err := Examine(t.Context(), s, server.Addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			got, healthy := map[string]string{}, true
			for _, d := range all {
				healthy = healthy && d.Healthy()
				for _, f := range d.Findings {
					got[f.Subject] = f.Result
					text.WriteString(f.Subject + " " + f.Result + " " + f.Detail + " " + f.Hint + "\n")
				}
			}
			for subject, result := range tt.want {
				if got[subject] != result {
					t.Errorf("%s is %q, want %q", subject, got[subject], result)
				}
			}
			if healthy != tt.health || !strings.Contains(text.String(), tt.says) {
				t.Errorf("healthy %v, want %v and %q in\n%s", healthy, tt.health, tt.says, text.String())
			}
		})
	}
}

func TestExamineOneHost(t *testing.T) {
	cert := certFor(t, newTestCA(t), SourceFile, "a.localhost")
	s := patient("127.0.0.1:1", cert)
	s.Routes[0].Host, s.Routes[0].URL = "a.localhost", "https://a.localhost:1"
	all, err := Examine(t.Context(), s, "127.0.0.1:1", []string{"a.localhost", "b.localhost"})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 3 || all[1].Host != "a.localhost" || all[2].Host != "b.localhost" || all[2].Healthy() ||
		all[2].Findings[0].Result != "missing" {
		t.Errorf("got %+v", all)
	}
	if _, err := Examine(t.Context(), s, "not an address", nil); err == nil {
		t.Error("a resolver that is none was taken")
	}
}
