//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/node"
)

const (
	promisedOffline = 3 * time.Second // of members that start without a coordinator, until they serve

	// promisedResync is of members whose coordinator comes back, beside the jitter that
	// keeps thousands of them from coming at once: up to 8 s after it was away for as
	// long, up to 30 s after minutes.
	promisedResync = 5 * time.Second
	shortJitter    = 8 * time.Second
	longJitter     = 30 * time.Second
)

// The coordinator is killed: people go on. Gateway and node are killed, too, and come up
// from what they know. The coordinator comes back: they find it, and nothing else happens
// to what is open (R1, R2, R3).
func TestSurviveCoordinator(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	want := l.bigFile(8 << 20)
	curl := l.fetch("400K")
	l.d.coordinator.kill()
	begin := time.Now()
	var slowest time.Duration
	eventually(t, time.Minute, func() error { // R1: for as long as it takes a stream to be given up
		slowest = max(slowest, l.answered(survivePatience))
		if s := l.d.nodeStatus("office"); s.Control.Up || time.Since(begin) < 5*time.Second {
			return errors.New("the node waits for the coordinator still")
		}
		return nil
	})
	recovered(t, "R1", "a page while the coordinator is away", 2*time.Second, survivePatience, slowest)
	s := l.d.nodeStatus("office")
	if left := time.Until(s.Control.LeaseEnds); left < 6*24*time.Hour || s.Control.Lapsed {
		t.Errorf("the node's lease ends in %v", left)
	}

	// R3, with a download that goes on.
	ups := strings.Count(l.office.out.String(), "control stream up")
	handshake := l.d.nodeStatus("office").Tunnels[0].Handshake
	l.d.coordinator = l.again(l.d.coordinator)
	eventually(t, survivePatience, func() error { _, err := l.d.try("status", "--json"); return err })
	begin = time.Now()
	var states []string
	eventually(t, promisedResync+shortJitter+survivePatience, func() error {
		var nodes []postern.NodeState
		l.d.cli(&nodes, "nodes", "list")
		if len(nodes) != 1 {
			return fmt.Errorf("%d nodes", len(nodes))
		}
		states = append(states, nodes[0].State)
		if nodes[0].State != postern.StateReady {
			return fmt.Errorf("the node is %s", nodes[0].State)
		}
		return nil
	})
	recovered(t, "R3", "the coordinator is back after seconds: 5 s and jitter", promisedResync+shortJitter, survivePatience, time.Since(begin))
	if states = slices.Compact(states); slices.Contains(states, postern.StateOffline) {
		t.Errorf("states were %v, and the node was never offline", states)
	}
	l.whole(curl, want, time.Minute)
	after := l.d.nodeStatus("office")
	if n := strings.Count(l.office.out.String(), "control stream up") - ups; n != 1 {
		var said []string
		for line := range strings.Lines(l.office.out.String()) {
			if strings.Contains(line, "control stream") || strings.Contains(line, "moved on the network") {
				said = append(said, line)
			}
		}
		t.Errorf("the control stream came up %d times:\n%s", n, strings.Join(said, ""))
	}
	if got := l.switches(l.office); got != 0 {
		t.Errorf("the tunnel's path changed %d times", got)
	}
	if age := time.Since(after.Tunnels[0].Handshake); after.Tunnels[0].Handshake != handshake && age < time.Since(begin) && strings.Contains(l.office.out.String(), "greeting the gateway") {
		t.Error("the session was made anew though nothing was wrong with it")
	}

	// R2.
	l.d.coordinator.kill()
	var took []time.Duration
	for range 3 {
		l.d.gateway.kill()
		l.office.kill()
		l.d.gateway, l.office = l.again(l.d.gateway), l.again(l.office)
		took = append(took, l.answered(promisedOffline+survivePatience))
	}
	recovered(t, "R2", "gateway and node start while the coordinator is away", promisedOffline, survivePatience, took...)
}

// A lease lapses: nobody is served, it is said, and it is over by itself.
func TestSurviveLease(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.d.coordinator.kill()
	argv := append(slices.Clone(l.d.coordinator.cmd.Args), "--lease", "30s")
	l.d.coordinator = start(t, "coordinator", nil, argv...)
	control := func() (c node.Control, err error) {
		var s node.Status
		text, err := run(t, "", program("postern"), "node", "status", "--data", l.d.data("office"), "--json")
		if err == nil {
			err = json.Unmarshal([]byte(text), &s)
		}
		return s.Control, err
	}
	leased := func() error {
		c, err := control()
		if left := time.Until(c.LeaseEnds); err == nil && (!c.Up || c.Lapsed || left <= 0 || left > 31*time.Second) {
			err = fmt.Errorf("control is %+v", c)
		}
		return err
	}
	eventually(t, time.Minute, leased)
	eventually(t, time.Minute, func() error {
		text, err := run(t, "", program("postern"), "gateway", "status", "--data", l.d.data("gateway"))
		if err == nil && !strings.Contains(text, "up since") {
			err = errors.New(text)
		}
		return err
	})
	l.d.coordinator.kill()
	lapsed := func() error {
		if c, err := control(); err != nil || !c.Lapsed {
			return fmt.Errorf("the node's control is %+v, %v", c, err)
		}
		if !strings.Contains(l.d.gateway.out.String(), "the lease has lapsed") {
			return errors.New("the gateway goes on")
		}
		return nil
	}
	eventually(t, 30*time.Second+survivePatience, lapsed)
	if page, err := run(t, "", "ip", "netns", "exec", l.world, "curl", "--silent", "--max-time", "5", "--insecure",
		"--resolve", "acme."+natDomain+":443:"+natGateway, "https://acme."+natDomain+"/"); err == nil {
		t.Errorf("got page %q", page)
	}
	// A restart does not help.
	l.office.kill()
	l.office = l.again(l.office)
	eventually(t, survivePatience, lapsed)

	l.d.coordinator = start(t, "coordinator", nil, argv...)
	took := l.answered(promisedResync + longJitter + survivePatience)
	recovered(t, "R3", "the coordinator is back after leases lapsed: 5 s and jitter", promisedResync+longJitter, survivePatience, took)
}
