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

	"postern"
)

const (
	promisedFailover = 2 * time.Second  // of a new connection, to another node of its route
	promisedNews     = 3 * time.Second  // until operators are told that a node was killed
	promisedSilence  = 10 * time.Second // until they are told that one does nothing any more
	promisedBackNode = 5 * time.Second  // until they are told that it goes on
)

// Twins are a lab with two nodes at home, office and annex, that have the same service,
// and visitors in the world with addresses of their own.
type twins struct {
	*lab
	annex    *process
	visitors []string
}

func newTwins(t *testing.T) *twins {
	t.Helper()
	p := &twins{lab: newLab(t)}
	site := p.d.data("annex-site")
	if err := errors.Join(os.Mkdir(site, 0o755), os.WriteFile(filepath.Join(site, "index.html"), []byte("at the annex"), 0o644)); err != nil {
		t.Fatal(err)
	}
	p.in(p.home, append([]string{program("postern"), "node", "join", "--no-run", "--data", p.d.data("annex"), "--name", "annex",
		"--token-file", p.d.secretFile(p.d.token("acme"))}, publicly(site)...)...)
	p.annex = p.start(p.home, "annex", "node", "run")
	for i := range 8 {
		addr := fmt.Sprintf("203.0.113.%d", 100+i)
		must(t, "ip", "-n", p.world, "addr", "add", addr+"/24", "dev", "eth")
		p.visitors = append(p.visitors, addr)
	}
	p.d.ready("annex")
	for _, name := range []string{"office", "annex"} {
		p.state(name, "ready", 20*time.Second)
	}
	return p
}

// curl returns what fetches a page as the visitor with an address.
func (p *twins) curl(visitor, page string, args ...string) []string {
	host := "acme." + natDomain
	return append([]string{"ip", "netns", "exec", p.world, "curl", "--silent", "--show-error", "--fail", "--interface", visitor,
		"--cacert", p.d.caFile(), "--resolve", host + ":443:" + natGateway, "https://" + host + page}, args...)
}

// visit has a visitor open a connection, and returns the node that it came to, and how
// long it waited.
func (p *twins) visit(visitor string) (node string, took time.Duration) {
	p.t.Helper()
	begin := time.Now()
	page, err := run(p.t, "", p.curl(visitor, "/", "--max-time", "20")...)
	if err != nil {
		p.t.Errorf("a new connection failed: %v", err)
	}
	return map[string]string{"at home": "office", "at the annex": "annex"}[page], time.Since(begin)
}

// homes returns which node each visitor is taken to.
func (p *twins) homes() map[string]string {
	p.t.Helper()
	homes := map[string]string{}
	for _, v := range p.visitors {
		homes[v], _ = p.visit(v)
	}
	return homes
}

// of returns a visitor who is taken to the node.
func of(homes map[string]string, node string) string {
	for v, at := range homes {
		if at == node {
			return v
		}
	}
	return ""
}

// state waits until operators are told that a node is in one of states, which have spaces
// between, and returns how long that took and what they are told.
func (p *twins) state(name, states string, patience time.Duration) (time.Duration, postern.NodeState) {
	p.t.Helper()
	begin := time.Now()
	var n postern.NodeState
	eventually(p.t, patience, func() error {
		p.d.cli(&n, "nodes", "show", "acme/"+name)
		for s := range strings.FieldsSeq(states) {
			if n.State == s {
				return nil
			}
		}
		return fmt.Errorf("%s is %s, %q, and not %s", name, n.State, n.Reason, states)
	})
	return time.Since(begin), n
}

// Of two nodes that have one service, one is killed, drained and stopped: what is new goes
// to the other one, what is open goes on if it can, and operators are told.
func TestSurviveNodes(t *testing.T) {
	t.Parallel()
	p := newTwins(t)
	homes := p.homes()
	office, annex := of(homes, "office"), of(homes, "annex")
	if office == "" || annex == "" {
		t.Fatalf("all visitors are taken to one node: %v", homes)
	}
	for v, want := range p.homes() {
		if homes[v] != want {
			t.Errorf("visitor %s was taken to %s and is to %s", v, homes[v], want)
		}
	}
	p.killed(office)
	p.drained(homes, office)
	p.stopped(office)
}

// killed has the office killed while its visitor comes again and again.
func (p *twins) killed(visitor string) {
	t := p.t
	t.Helper()
	p.office.kill()
	begin := time.Now()
	var waits []time.Duration
	come := func() {
		node, took := p.visit(visitor)
		if waits = append(waits, took); node != "annex" {
			t.Errorf("after the office was killed its visitor was taken to %q", node)
		}
	}
	come()
	_, n := p.state("office", postern.StateOffline, promisedNews+survivePatience)
	recovered(t, "nodes", "one is killed: operators are told", promisedNews, survivePatience, time.Since(begin))
	for range 10 {
		come()
	}
	recovered(t, "nodes", "one of two is killed: a new connection at the other", promisedFailover, survivePatience, waits...)
	if n.Reason == "" || n.Reached {
		t.Errorf("the office is %+v", n)
	}
	p.lab.office = p.start(p.home, "office", "node", "run")
	p.state("office", postern.StateReady, 20*time.Second)
	eventually(t, 20*time.Second, func() error {
		if node, _ := p.visit(visitor); node != "office" {
			return fmt.Errorf("the office is back, and its visitor is taken to %q", node)
		}
		return nil
	})
}

// drained has the office drained while a download of its visitor's runs.
func (p *twins) drained(homes map[string]string, visitor string) {
	t := p.t
	t.Helper()
	want := p.bigFile(12 << 20)
	file := filepath.Join(p.d.dir, "got")
	curl := start(t, "curl", nil, p.curl(visitor, "/big", "--limit-rate", "2M", "--output", file)...)
	p.reaches(1 << 20)
	p.d.cli(nil, "nodes", "drain", "acme/office")
	eventually(t, survivePatience, func() error {
		if node, _ := p.visit(visitor); node != "annex" {
			return errors.New("the office still gets connections")
		}
		return nil
	})
	for range 2 {
		for v, node := range p.homes() {
			if node != "annex" {
				t.Errorf("the office is drained, and visitor %s is taken to %q", v, node)
			}
		}
	}
	if curl.ended() {
		t.Error("the download ended before the office was drained")
	}
	p.whole(curl, want, time.Minute)
	if _, n := p.state("office", postern.StateReady, survivePatience); !n.Draining {
		t.Errorf("the office is drained, and is %+v", n)
	}
	p.d.cli(nil, "nodes", "undrain", "acme/office")
	eventually(t, survivePatience, func() error {
		for v, node := range p.homes() {
			if node != homes[v] {
				return fmt.Errorf("visitor %s was taken to %s and is to %q", v, homes[v], node)
			}
		}
		return nil
	})
}

// stopped has the office do nothing for a while, while its control channel stays open.
func (p *twins) stopped(visitor string) {
	t := p.t
	t.Helper()
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(-p.office.cmd.Process.Pid, s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT)
	took, n := p.state("office", postern.StateDegraded+" "+postern.StateOffline, promisedSilence+survivePatience)
	recovered(t, "nodes", "one does nothing any more: operators are told", promisedSilence, survivePatience, took)
	if n.Reason == "" || n.Reached {
		t.Errorf("the office is %+v", n)
	}
	t.Logf("the office is %s: %s", n.State, n.Reason)
	if node, took := p.visit(visitor); node != "annex" {
		t.Errorf("its visitor is taken to %q after %v", node, took)
	}
	signal(syscall.SIGCONT)
	took, _ = p.state("office", postern.StateReady, promisedBackNode+survivePatience)
	recovered(t, "nodes", "it goes on: operators are told", promisedBackNode, survivePatience, took)
}
