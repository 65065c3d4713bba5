//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern"
	carrier "postern/internal/relay"
	"postern/node"
)

// What a round of the soak makes and ends.
const (
	soakRounds   = 40
	soakWarm     = 10 // rounds, after which nothing is to grow
	soakTunnels  = 64 // sessions of WireGuard
	soakBrowsers = 30 // connections with TLS, a request each
	soakStreams  = 8  // control streams
	soakRelays   = 6
)

// A held is what a process holds on to when nothing happens.
type held struct {
	heap       float64 // bytes, after a collection
	goroutines float64
	files      int
}

// holds returns what p holds, which has its socket there.
func (p *process) holds(socket string) (h held) {
	p.t.Helper()
	if _, err := askSocket(socket, "/debug/pprof/heap?gc=1"); err != nil {
		p.t.Fatal(err)
	}
	text, err := askSocket(socket, "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		fmt.Sscanf(string(line), "go_memstats_heap_alloc_bytes %g", &h.heap)
		fmt.Sscanf(string(line), "go_goroutines %g", &h.goroutines)
	}
	h.files = p.used().files
	if h.heap == 0 || h.goroutines == 0 {
		p.t.Fatalf("%s has no metrics: %.200s", p.name, text)
	}
	return h
}

// Thousands of sessions, connections, control streams and relays come and go: what
// gateway, coordinator and node hold on to stays as it was.
func TestSurviveSoak(t *testing.T) { // by itself: it computes, where others wait
	d := bareDeployment(t)
	id, keys := d.startCrowded(soakTunnels, 1)
	d.crowdGateway()
	site := d.data("site")
	if err := os.Mkdir(site, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(site, "index.html"), "still here")
	token := d.tenant("acme")
	office := d.node(token, "office", site)
	var members []*stranger
	for i := range soakStreams {
		members = append(members, newStranger(d, d.token("acme")).mustJoin(fmt.Sprintf("member-%d", i)))
	}
	swarm := newSwarm(t, id.WireGuard.Public(), d.udp, keys)
	gateway := postern.Gateway{
		Name: "gateway", ID: id.Enrollment.ID, Identity: id.Key.Public(), Public: loopback(d.https),
	}
	round := func() {
		begin := time.Now()
		swarm.leave()
		swarm.join(100 * time.Millisecond)
		for range soakBrowsers {
			c := d.client("http/1.1")
			if status, body, err := get(c, d.url("acme", "/")); err != nil || status != http.StatusOK || body != "still here" {
				t.Fatalf("got %d %q, %v", status, body, err)
			}
			c.CloseIdleConnections()
		}
		for _, m := range members {
			m.glance()
		}
		for i := range soakRelays {
			m := carrier.Node{ID: members[i].enrollment.ID, Key: members[i].key.Key()}
			c, err := m.Dial(t.Context(), gateway, func(ctx context.Context, addr string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		eventually(t, survivePatience, func() error {
			if n := swarm.since(begin); n < soakTunnels {
				return fmt.Errorf("%d of %d tunnels are there", n, soakTunnels)
			}
			return nil
		})
	}
	parts := []struct {
		*process
		socket string
	}{
		{d.gateway, filepath.Join(d.data("gateway"), "gateway.sock")},
		{d.coordinator, filepath.Join(d.data("coordinator"), postern.AdminSocket)},
		{office, filepath.Join(d.data("office"), node.Socket)},
	}
	for range soakWarm {
		round()
	}
	var warm []held
	for _, p := range parts {
		warm = append(warm, p.holds(p.socket))
	}
	for range soakRounds - soakWarm {
		round()
	}
	for i, p := range parts {
		var now held
		// What has just ended may take a moment to be gone.
		eventually(t, survivePatience, func() error {
			now = p.holds(p.socket)
			if was := warm[i]; now.heap > 1.1*was.heap+2<<20 || now.goroutines > was.goroutines+30 || now.files > was.files+30 {
				return fmt.Errorf("%s holds %+v after %d rounds, and held %+v after %d", p.name, now, soakRounds, was, soakWarm)
			}
			return nil
		})
		noteFigure(t, "soak", p.name+"'s heap, of that after a quarter", now.heap/warm[i].heap, "")
		noteFigure(t, "soak", p.name+"'s goroutines more than after a quarter", now.goroutines-warm[i].goroutines, "")
		noteFigure(t, "soak", p.name+"'s open files more than after a quarter", float64(now.files-warm[i].files), "")
	}
	for what, n := range map[string]int{"sessions of WireGuard": soakTunnels, "connections": soakBrowsers, "control streams": soakStreams, "relays": soakRelays} {
		noteFigure(t, "soak", what+" that came and went", float64(n*soakRounds), "")
	}
}

// glance opens s's control stream, reads of it what there is at once, and ends it.
func (s *stranger) glance() {
	s.d.t.Helper()
	c := s.client()
	defer c.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(s.d.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+loopback(s.d.control)+postern.PathMap, nil)
	if err != nil {
		s.d.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		s.d.t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); ; {
		if !lines.Scan() {
			s.d.t.Fatalf("the control stream ended: %v", lines.Err())
		}
		msg, err := postern.DecodeMapMessage(lines.Bytes())
		if err != nil {
			s.d.t.Fatal(err)
		}
		if msg.Synced {
			return
		}
	}
}
