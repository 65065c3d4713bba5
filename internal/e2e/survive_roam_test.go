//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	promisedRestart = 2 * time.Second // of a gateway, until it answers with the node's page
	promisedMove    = 5 * time.Second // of a node, the same
	promisedWake    = 5 * time.Second // the same
)

// again starts what p was, which has ended, once more.
func (l *lab) again(p *process) *process {
	l.t.Helper()
	return start(l.t, p.name, nil, p.cmd.Args...)
}

// answered asks for the node's page from the world, ten times a second at most, until it
// comes, and returns how long that took.
func (l *lab) answered(limit time.Duration) time.Duration {
	l.t.Helper()
	host := "acme." + natDomain
	begin := time.Now()
	eventually(l.t, limit, func() error {
		page, err := run(l.t, "", "ip", "netns", "exec", l.world, "curl", "--silent", "--show-error", "--fail", "--max-time", "1",
			"--cacert", l.d.caFile(), "--resolve", host+":443:"+natGateway, "https://"+host+"/")
		if err == nil && page != "at home" {
			err = fmt.Errorf("got page %q", page)
		}
		return err
	})
	return time.Since(begin)
}

// A gateway is killed and started again: it knows where the node was, and greets it. Then
// the same without that: the node hears of the gateway's new run, and greets it (R4).
func TestSurviveGatewayRestart(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	endpoints := filepath.Join(l.d.data("gateway"), "endpoints.json")
	eventually(t, survivePatience, func() error { _, err := os.Stat(endpoints); return err })
	var took []time.Duration
	for range 3 {
		l.d.gateway.kill()
		l.d.gateway = l.again(l.d.gateway)
		took = append(took, l.answered(promisedRestart+survivePatience))
	}
	recovered(t, "R4", "a gateway is killed and started again", promisedRestart, survivePatience, took...)

	took = nil
	for range 3 {
		l.d.gateway.kill()
		if err := os.Remove(endpoints); err != nil {
			t.Fatal(err)
		}
		l.d.gateway = l.again(l.d.gateway)
		took = append(took, l.answered(promisedRestart+survivePatience))
		eventually(t, survivePatience, func() error { _, err := os.Stat(endpoints); return err })
	}
	recovered(t, "R4", "the same, and it does not know where nodes were", promisedRestart, survivePatience, took...)
}

// swap gives the machine at home another address, in the house and outside.
func (l *lab) swap(from, to string) {
	l.t.Helper()
	for _, args := range []string{
		"addr del " + from + "/24 dev eth", "addr add " + to + "/24 dev eth", "route replace default via 192.168.77.1",
	} {
		must(l.t, append([]string{"ip", "-n", l.home}, strings.Fields(args)...)...)
	}
}

// The node's machine gets another address, and a moment later the one that it had (R7).
func TestSurviveMove(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var took []time.Duration
	from, to := "192.168.77.2", "192.168.77.3"
	for range 4 {
		l.swap(from, to)
		took = append(took, l.answered(promisedMove+survivePatience))
		from, to = to, from
		l.controlled()
	}
	recovered(t, "R7", "the node's machine has another address", promisedMove, survivePatience, took...)
	if n := strings.Count(l.office.out.String(), "this machine moved on the network"); n < 4 {
		t.Errorf("the node noticed %d of 4 moves", n)
	}
}

// controlled waits until the node hears from the coordinator.
func (l *lab) controlled() {
	l.t.Helper()
	eventually(l.t, survivePatience, func() error {
		if c := l.d.nodeStatus("office").Control; !c.Up {
			return errors.New(c.Error)
		}
		return nil
	})
}

// The node's machine is paused until the coordinator has given it up, and goes on. That it may
// sleep for hours is tried under a fake clock in internal/netwatch (R8).
func TestSurvivePause(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if err := l.office.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	eventually(t, time.Minute, func() error {
		if !strings.Contains(l.d.coordinator.out.String(), `msg="map stream ended" tenant=acme`) {
			return errors.New("the coordinator still waits for the node")
		}
		return nil
	})
	paused := time.Since(begin)
	if err := l.office.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	took := l.answered(promisedWake + survivePatience)
	recovered(t, "R8", "the node's machine goes on after a pause", promisedWake, survivePatience, took)
	noteFigure(t, "survive", "R8 the machine was paused for", paused.Seconds(), "s")
	l.controlled()
	if !strings.Contains(l.office.out.String(), "this machine moved on the network") {
		t.Error("the node did not notice that it was paused")
	}
}
