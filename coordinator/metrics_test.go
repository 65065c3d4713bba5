package coordinator_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"postern"
	"postern/coordinator"
)

// gather returns what the coordinator collects, by name and labels' values.
func (d *deployment) gather() map[string]float64 {
	d.t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(d.Collector())
	families, err := reg.Gather()
	must(d.t, err)
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "postern_coordinator_")
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

// Metrics count what there is, and say nobody's name (I15).
func TestMetrics(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("zenith")
	n := d.node("acme", "office", "erp")
	d.gateway("door")
	alarm := valid(shared)
	alarm.Alarm = "another key"
	n.tells(nil, alarm)
	for range 3 {
		d.Note(t.Context(), coordinator.ActorStranger, "signin.refused", "acme", "u-1", "no")
	}
	var audit []postern.AuditEntry
	must(t, d.operate("GET", "/audit?newest=true&limit=1", nil, &audit))
	got := d.gather()
	for name, want := range map[string]float64{
		"info test": 1, "tenants": 2, "nodes offline": 1, "nodes ready": 0, "gateways offline": 1, "gateways ready": 0,
		"routes offline": 1, "streams_open": 0, "certificate_alarms": 1, "refused_total signin": 3, "refused_total admin": 0,
		"audit_entries": float64(audit[0].Seq), "map_version": float64(d.mapVersion()), "registry_full_total": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: got %v, %v; want %v", name, v, ok, want)
		}
	}
	for name := range got {
		for _, private := range []string{"acme", "zenith", "office", "door", "erp", base, "u-1"} {
			if strings.Contains(name, private) {
				t.Errorf("%s tells of a tenant, a member or a person", name)
			}
		}
	}
}

// Beside the admin API, its socket has what the program puts there.
func TestServeAdminLocal(t *testing.T) {
	d := deploy(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		local := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "local "+r.URL.Path) })
		if err := d.ServeAdmin(ctx, ln, local); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	for path, want := range map[string]string{"/metrics": "local /metrics", postern.PathAdmin + "/status": `"base"`} {
		resp, err := hc.Get("http://c" + path)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: got %s, %v", path, body, err)
		}
	}
}
