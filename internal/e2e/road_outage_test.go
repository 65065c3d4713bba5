//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern"
)

// TestRoadApplicationDown has the node answer for an application that is down, at once
// (R12).
func TestRoadApplicationDown(t *testing.T) {
	r := newRoad(t)
	c := r.client()
	fetch(t, c, r.url("acme", "/"), http.StatusOK)
	r.acme.stop()
	for _, test := range []struct{ name, accept, media string }{
		{"browser", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html"},
		{"program", "application/json", "application/problem+json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, r.url("acme", "/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", test.accept)
			begin := time.Now()
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body := readAll(t, resp)
			recovered(t, "R12", "application down: the node tells a "+test.name, 0, time.Second, time.Since(begin))
			if resp.StatusCode != http.StatusBadGateway || resp.Header.Get("Retry-After") == "" {
				t.Errorf("got status %d, Retry-After %q, want 502 and some", resp.StatusCode, resp.Header.Get("Retry-After"))
			}
			if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, test.media) {
				t.Errorf("got type %q, want %q", got, test.media)
			}
			if strings.Contains(body, "127.0.0.1") {
				t.Errorf("the page tells where the application is: %s", body)
			}
		})
	}
	fetch(t, c, r.url("globex", "/"), http.StatusOK)
	r.acme.again(t)
	begin := time.Now()
	if got := fetch(t, c, r.url("acme", "/"), http.StatusOK); got != "acme" {
		t.Errorf("when the application is back: got %q", got)
	}
	recovered(t, "R12", "application back: first page", 0, time.Second, time.Since(begin))
}

// TestRoadNodeRemoved cuts a node off: what flows ends within 2 s, and neither
// its identity nor its token opens the door again.
func TestRoadNodeRemoved(t *testing.T) {
	r := newRoad(t)
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := r.listen(ctx, t, r.client(), "acme", 2)
	r.acme.mustEvent(ctx, t, events, 0)
	ended := make(chan time.Time, 1)
	reading.Go(func() {
		for events.Scan() {
		}
		ended <- time.Now()
	})
	begin := time.Now()
	must(t, program("postern"), "nodes", "remove", "acme/acme-office", "--data", r.data("coordinator"))
	select {
	case end := <-ended:
		noteFigure(t, "road", "removal of a node to end of its flows", end.Sub(begin).Seconds(), "s")
	case <-time.After(2 * time.Second):
		t.Error("2 s after its removal the node's connections are still open")
	}
	eventually(t, 2*time.Second, func() error {
		_, err := run(t, "", "openssl", "s_client", "-connect", loopback(r.https), "-servername", "acme."+base)
		if err == nil || !strings.Contains(err.Error(), "SSL alert number 112") {
			return fmt.Errorf("a new connection got %v, want alert 112", err)
		}
		return nil
	})
	fetch(t, r.client(), r.url("globex", "/"), http.StatusOK)

	select {
	case <-r.acmeNode.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the node does not notice that it was removed")
	}
	for _, argv := range [][]string{
		{"node", "run", "--data", r.data("acme-office")},
		{"node", "join", "--data", r.data("acme-office"), "--token-file", r.secretFile(r.token("acme"))},
	} {
		if _, err := run(t, "", append([]string{program("postern")}, argv...)...); err == nil || !strings.Contains(err.Error(), "postern: hint:") {
			t.Errorf("%v: got %v, want a refusal with a hint", argv[:2], err)
		}
	}
	var nodes []postern.NodeState
	r.cli(&nodes, "nodes", "list", "--tenant", "acme")
	if len(nodes) != 0 {
		t.Errorf("the removed node is back: %+v", nodes)
	}
}

// TestRoadDrain stops the gateway while a download runs: the download goes on to
// its end, nobody new comes in, and then the gateway is gone.
func TestRoadDrain(t *testing.T) {
	r := newRoad(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const n = 20
	c := r.client()
	events := r.listen(ctx, t, c, "acme", n)
	r.acme.mustEvent(ctx, t, events, 0)

	r.gateway.signal(syscall.SIGTERM)
	eventually(t, 5*time.Second, func() error {
		conn, err := net.Dial("tcp", loopback(r.https))
		if err == nil {
			conn.Close()
			return fmt.Errorf("the gateway still takes connections")
		}
		return nil
	})
	for i := 1; i < n; i++ {
		r.acme.mustEvent(ctx, t, events, i)
	}
	if events.Scan() || events.Err() != nil {
		t.Errorf("behind the last event: got %q and %v", events.Text(), events.Err())
	}
	c.CloseIdleConnections()
	begin := time.Now()
	select {
	case <-r.gateway.done:
		noteFigure(t, "road", "end of the last download to end of the gateway", time.Since(begin).Seconds(), "s")
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is under way any more, and the gateway still runs")
	}
	if got := r.gateway.cmd.ProcessState.ExitCode(); got != 0 {
		t.Errorf("the gateway ended with %d, want 0", got)
	}
}

// TestRoadDrainCutShort has a second signal end what the first one lets run.
func TestRoadDrainCutShort(t *testing.T) {
	r := newRoad(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := r.listen(ctx, t, r.client(), "acme", 3)
	r.acme.mustEvent(ctx, t, events, 0)
	r.gateway.signal(syscall.SIGTERM)
	eventually(t, 5*time.Second, func() error {
		conn, err := net.Dial("tcp", loopback(r.https))
		if err == nil {
			conn.Close()
			return fmt.Errorf("the gateway still takes connections")
		}
		return nil
	})
	r.acme.mustEvent(ctx, t, events, 1)
	r.gateway.signal(syscall.SIGTERM)
	select {
	case <-r.gateway.done:
	case <-time.After(5 * time.Second):
		t.Fatal("the gateway still runs 5 s after a second signal")
	}
}

// TestRoadRestarts stops a node, and then everything while the coordinator is
// away: members come up from what they knew last.
func TestRoadRestarts(t *testing.T) {
	r := newRoad(t)
	t.Run("node", func(t *testing.T) {
		r.acmeNode.stop()
		if got := r.acmeNode.cmd.ProcessState.ExitCode(); got != 0 {
			t.Errorf("the node ended with %d, want 0", got)
		}
		begin := time.Now()
		_, err := run(t, "", "openssl", "s_client", "-connect", loopback(r.https), "-servername", "acme."+base)
		if err == nil || !strings.Contains(err.Error(), "SSL alert number 80") {
			t.Errorf("with the node away: got %v, want alert 80", err)
		}
		noteFigure(t, "road", "hold before an absent node's alert", time.Since(begin).Seconds(), "s")
		begin = time.Now()
		r.acmeNode = r.runNode("acme-office")
		r.serves("acme", 20*time.Second)
		noteFigure(t, "road", "node start to first answer", time.Since(begin).Seconds(), "s")
	})
	t.Run("coordinator away", func(t *testing.T) {
		r.coordinator.stop()
		r.serves("acme", time.Second)
		r.serves("globex", time.Second)
		before := r.remembered()
		for _, p := range []*process{r.gateway, r.acmeNode, r.globexNode} {
			p.kill()
		}
		begin := time.Now()
		r.startGateway()
		r.acmeNode, r.globexNode = r.runNode("acme-office"), r.runNode("globex-office")
		r.serves("acme", 20*time.Second)
		r.serves("globex", 20*time.Second)
		noteFigure(t, "road", "all members' start, no coordinator, to first answers", time.Since(begin).Seconds(), "s")
		eventually(t, 10*time.Second, func() error { // the nodes have new ports
			for key, endpoint := range r.remembered() {
				if endpoint == before[key] {
					return fmt.Errorf("the gateway remembers %s from before", endpoint)
				}
			}
			return nil
		})
	})
	t.Run("gateway alone, coordinator away", func(t *testing.T) {
		r.gateway.kill()
		begin := time.Now()
		r.startGateway()
		r.serves("acme", 10*time.Second)
		r.serves("globex", 10*time.Second)
		noteFigure(t, "road", "gateway start to first answers", time.Since(begin).Seconds(), "s")
	})
	t.Run("gateway that forgot where the nodes are", func(t *testing.T) {
		r.gateway.kill()
		if err := os.WriteFile(r.endpointsFile(), []byte("[dam"), 0o600); err != nil { // the disk's fault
			t.Fatal(err)
		}
		begin := time.Now()
		r.startGateway()
		r.serves("acme", time.Minute)
		r.serves("globex", time.Minute)
		noteFigure(t, "road", "gateway start to first answers, nodes' endpoints lost", time.Since(begin).Seconds(), "s")
	})
	t.Run("coordinator back", func(t *testing.T) {
		begin := time.Now()
		r.startCoordinator()
		r.allReady(60 * time.Second)
		noteFigure(t, "road", "coordinator start to all nodes ready", time.Since(begin).Seconds(), "s")
		r.node(r.tenant("initech"), "initech-office", newApplication(t, "initech").url)
		r.serves("initech", time.Second)
	})
}

func (d *deployment) endpointsFile() string {
	return filepath.Join(d.data("gateway"), "endpoints.json")
}

// remembered returns where the gateway will look for the nodes when it starts
// again, by node.
func (d *deployment) remembered() map[string]string {
	d.t.Helper()
	data, err := os.ReadFile(d.endpointsFile())
	if err != nil {
		d.t.Fatal(err)
	}
	var endpoints map[string]string
	if err := json.Unmarshal(data, &endpoints); err != nil {
		d.t.Fatal(err)
	}
	return endpoints
}

// serves waits until a tenant's application answers a connection of its own.
func (d *deployment) serves(tenant string, limit time.Duration) {
	d.t.Helper()
	eventually(d.t, limit, func() error {
		c := d.client()
		defer c.CloseIdleConnections()
		c.Timeout = 10 * time.Second
		status, body, err := get(c, d.url(tenant, "/"))
		if err == nil && (status != http.StatusOK || body != tenant) {
			err = fmt.Errorf("%s answered %d %.200q", tenant, status, body)
		}
		return err
	})
}

// allReady waits until the coordinator finds every node ready.
func (d *deployment) allReady(limit time.Duration) {
	d.t.Helper()
	eventually(d.t, limit, func() error {
		out, err := d.try("nodes", "list", "--json")
		if err != nil {
			return err
		}
		var nodes []postern.NodeState
		if err := json.Unmarshal([]byte(out), &nodes); err != nil {
			return err
		}
		for _, n := range nodes {
			if n.State != postern.StateReady {
				return fmt.Errorf("%s/%s is %s", n.Tenant, n.Name, n.State)
			}
		}
		return nil
	})
}

// signal sends the process a signal.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v", p.name, err)
	}
}

func readAll(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
