package gateway

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"postern"
)

// An accessLog keeps what a Gateway tells.
type accessLog struct {
	mu  sync.Mutex
	all []Access
}

func (l *accessLog) add(a Access) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, a)
}

// last returns what was told last, as JSON, too.
func (l *accessLog) last(t *testing.T) (Access, string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		t.Fatal("nothing was told")
	}
	a := l.all[len(l.all)-1]
	line, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(line)
}

// What the access log says of a connection: who, where to, how much, and nothing that
// was said after the hello (I15).
func TestAccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log accessLog
		w := newWorld(t, Config{Access: log.add}, mapOf(section("acme", "a.example", "fd00::1")))
		hello := helloFor("a.example")
		client := w.say(hello, "192.0.2.7:4711")
		node, h := w.accept(w.node("fd00::1"))
		w.expect(node, string(hello))
		w.talk(client, node)
		client.Close()
		node.Close()
		synctest.Wait()
		a, line := log.last(t)
		if a.Remote.String() != "192.0.2.7:4711" || a.ServerName != "a.example" || a.Tenant != "acme" || a.Node != "fd00::1" ||
			a.Verdict != VerdictSpliced || a.ID != h.UniqueID || a.Cut != "" ||
			a.UpBytes != int64(len(hello)+len("question")) || a.DownBytes != int64(len("answer")) {
			t.Errorf("got %s", line)
		}
		for _, said := range []string{"question", "answer"} {
			if strings.Contains(line, said) {
				t.Errorf("%q is in %s", said, line)
			}
		}

		// A route that goes takes its connections with it.
		client = w.say(hello, "192.0.2.7:4712")
		w.accept(w.node("fd00::1"))
		synctest.Wait()
		w.g.SetRoutes(NewTable(postern.Map{Version: 2}))
		synctest.Wait()
		if a, line := log.last(t); a.Verdict != VerdictSpliced || a.Cut != errRouteGone.Error() {
			t.Errorf("cut: got %s", line)
		}

		// What is refused is told with the reason.
		w.say(hello, "192.0.2.7:4713").Close()
		synctest.Wait()
		if a, line := log.last(t); a.Verdict != UnknownName.String() || a.ServerName != "a.example" || a.Tenant != "" {
			t.Errorf("refused: got %s", line)
		}
		w.say([]byte("GET / HTTP/1.1\r\nCookie: secret\r\n\r\n"), "192.0.2.7:4714").Close()
		synctest.Wait()
		if a, line := log.last(t); a.Verdict != PlainHTTP.String() || strings.Contains(line, "secret") {
			t.Errorf("not TLS: got %s", line)
		}
		client.Close()
	})
}

// What limits refuse is told in one line of the log a limit, and not in the access log.
func TestLimitsAreTalliedNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log accessLog
		var out bytes.Buffer
		w := newWorld(t, Config{
			Access: log.add, Limits: Limits{SourceRate: 1, SourceBurst: 1},
			Logger: slog.New(slog.NewTextHandler(&out, nil)),
		}, mapOf(section("acme", "a.example", "fd00::1")))
		for _, src := range []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3", "192.0.2.2:1", "192.0.2.2:2", "[2001:db8::1]:1", "[2001:db8::2]:2"} {
			c := w.client(src)
			_, _ = c.Write(helloFor("nobody.example")) // who is refused may be cut off before
			c.Close()
			synctest.Wait()
		}
		w.refused(SourceRate, 4)
		if len(log.all) != 3 {
			t.Errorf("%d in the access log, want the 3 that no limit refused: %v", len(log.all), log.all)
		}
		w.g.logRefused(t.Context())
		w.g.logRefused(t.Context()) // there is nothing new
		if got := strings.Count(out.String(), "limit reached"); got != 1 || !strings.Contains(out.String(), "limit=source_rate refused=4 sources=3") {
			t.Errorf("got:\n%s", out.String())
		}
		if strings.Contains(out.String(), "192.0.2") {
			t.Errorf("sources are listed:\n%s", out.String())
		}
	})
}

// However many sources there are, a tally remembers few.
func TestTallyIsBounded(t *testing.T) {
	var ta tally
	for i := range 4 * maxTallied {
		ta.add(SourceConns, gatewayAddr.Addr())
		b := gatewayAddr.Addr().As4()
		b[2], b[3] = byte(i>>8), byte(i)
		ta.add(SourceRate, netip.AddrFrom4(b))
	}
	if got := ta.take(SourceRate); got != maxTallied {
		t.Errorf("got %d sources, want %d", got, maxTallied)
	}
	if got := ta.take(SourceConns); got != 1 {
		t.Errorf("got %d sources, want 1", got)
	}
	if got := ta.take(SourceConns); got != 0 {
		t.Errorf("taken twice: %d", got)
	}
}

// Metrics say what the stats do, and nobody's name (I15).
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Config{Limits: Limits{Conns: 2}}, mapOf(section("acme", "a.example", "fd00::1"), section("other", "b.example", "fd00::2")))
		client := w.say(helloFor("a.example"), "192.0.2.7:1")
		node, _ := w.accept(w.node("fd00::1"))
		w.say(helloFor("nobody.example"), "192.0.2.7:2").Close()
		synctest.Wait()
		w.say(helloFor("b.example"), "192.0.2.7:3")
		w.accept(w.node("fd00::2"))
		synctest.Wait()
		got := gather(t, w.g.Collector())
		for name, want := range map[string]float64{
			"postern_gateway_connections_accepted_total":     3,
			"postern_gateway_connections_open":               2,
			"postern_gateway_connections_total spliced":      2,
			"postern_gateway_connections_total unknown_name": 1,
			"postern_gateway_connections_total offline":      0,
			"postern_gateway_limit_hits_total source_rate":   0,
			"postern_gateway_limit_hits_total conns":         2,
			"postern_gateway_limit_hits_total bandwidth":     0,
			"postern_gateway_bytes_total up":                 float64(w.g.Stats().UpBytes),
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s: got %v, %v; want %v", name, v, ok, want)
			}
		}
		for name := range got {
			for _, private := range []string{"acme", "other", "example", "192.0.2", "fd00"} {
				if strings.Contains(name, private) {
					t.Errorf("%s tells of a tenant or a client", name)
				}
			}
		}
		client.Close()
		node.Close()
	})
}

// gather returns what c collects, by name and labels' values.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}
