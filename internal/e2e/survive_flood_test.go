//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern"
)

const (
	// A flood is measured in turns of floodTime alone and as long beside it, of which the
	// middle one counts: three, and seven where something else kept the machine busy.
	floodTime           = 1500 * time.Millisecond
	fewTurns, manyTurns = 3, 7

	// floodMemory is what a flood may take of the gateway: its buffers are bounded, and
	// the collector runs when memory has doubled.
	floodMemory = 256 << 20

	// floodSlower is how much slower requests of another tenant may be beside a flood, at
	// the 99th percentile, to somebody who is floodAway of the gateway, there and back.
	floodSlower = 1.2
	floodAway   = 20 * time.Millisecond
)

// A flooded is a deployment with a tenant that floods, acme, and one that is quiet,
// globex. What is measured is what the gateway does to globex: so it has a processor of
// its own if there are two, and of the rest acme's node, its application and its clients have what
// those of globex leave, which on their own machines would not feel each other either.
type flooded struct {
	*deployment
	scene       scene
	quiet, loud []string // what commands of globex and of acme come behind
}

func newFlooded(t *testing.T) *flooded {
	t.Helper()
	f := &flooded{deployment: bareDeployment(t), quiet: []string{"nice", "-n", "-20"}, loud: []string{"chrt", "--idle", "0"}}
	var gateway []string
	if first, others := processors(t); others != "" {
		gateway = []string{"taskset", "-c", first}
		f.quiet = append(f.quiet, "taskset", "-c", others)
		f.loud = append(f.loud, "taskset", "-c", others)
	}
	f.behind = map[string][]string{"gateway": gateway, "acme-office": f.loud, "globex-office": f.quiet}
	f.startCoordinator()
	f.joinGateway()
	f.runGateway("--http", "", "--source-rate", "-1", "--tenant-rate", fmt.Sprint(floodRate), "--bandwidth", "200mbit")
	for _, tenant := range []string{"acme", "globex"} {
		node := tenant + "-office"
		f.node(f.tenant(tenant), node, "http://"+f.site(f.behind[node]))
	}
	var gateways []postern.GatewayState
	f.cli(&gateways, "gateways", "list")
	f.scene = scene{HTTPS: f.https, UDP: f.udp, CA: f.caFile(), Key: gateways[0].WireGuard}
	return f
}

// processors returns one that this process may use, and the others, as taskset(1) takes
// them.
func processors(t *testing.T) (first, others string) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	var usable []string
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			usable = append(usable, strconv.Itoa(i))
		}
	}
	return usable[0], strings.Join(usable[1:], ",")
}

// child starts this binary again in a part, behind a command.
func (f *flooded) child(behind []string, part string, s scene) *process {
	f.t.Helper()
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		f.t.Fatal(err)
	}
	return start(f.t, part, []string{childEnv + "=" + part, sceneEnv + "=" + string(text)}, append(slices.Clone(behind), self)...)
}

// site starts an application and returns where it listens.
func (f *flooded) site(behind []string) (address string) {
	f.t.Helper()
	p := f.child(behind, "big site", scene{})
	eventually(f.t, 10*time.Second, func() error {
		var ok bool
		if address, ok = strings.CutSuffix(p.out.String(), "\n"); !ok {
			return errors.New("the application does not listen")
		}
		return nil
	})
	return address
}

// visit asks for pages of the quiet tenant, and returns the 50th and the 99th percentile of
// how long they took.
func (f *flooded) visit() (p50, p99 time.Duration) {
	f.t.Helper()
	p := f.child(f.quiet, "visits", f.scene)
	<-p.done
	if _, err := fmt.Sscan(p.out.String(), &p50, &p99); err != nil {
		f.t.Fatalf("the visits ended with %q", p.out.String())
	}
	return p50, p99
}

// beside serves the quiet tenant alone and beside a flood, in turns, and writes down how
// the two compare and what the flood takes of the gateway's memory. It returns how much
// slower the quiet tenant was beside it, to somebody who is floodAway, in at most so many
// turns.
func (f *flooded) beside(name string, turns int) (slower float64) {
	f.t.Helper()
	s := f.scene
	s.Flood = name
	var near, far []float64 // beside, to alone
	for len(far) < fewTurns || len(far) < turns && median(far) > floodSlower {
		_, alone := f.visit()
		before := f.gateway.used()
		flood := f.child(f.loud, "flood", s)
		p50, p99 := f.visit()
		during := f.gateway.used()
		flood.stop()
		near = append(near, float64(p99)/float64(alone))
		far = append(far, float64(floodAway+p99)/float64(floodAway+alone))
		f.t.Logf("%s: p99 %v alone, %v beside (p50 %v); %s; gateway %d MiB before, %d during, and %v of processor",
			name, alone, p99, p50, strings.TrimSpace(flood.out.String()), before.private>>20, during.private>>20, during.cpu-before.cpu)
		if code := flood.cmd.ProcessState.ExitCode(); code != 0 {
			f.t.Errorf("%s: it ended with %d", name, code)
		}
		if during.private > before.private+floodMemory {
			f.t.Errorf("%s: the gateway grew from %d to %d MiB", name, before.private>>20, during.private>>20)
		}
	}
	noteFigure(f.t, "survive", "flood of "+name+": p99 of the quiet tenant, to alone", median(near), "×")
	noteFigure(f.t, "survive", fmt.Sprintf("flood of %s: the same, %v away", name, floodAway), median(far), "×")
	return median(far)
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// TestSurviveFlood: floods of one tenant, and of nobody, cost the gateway bounded memory,
// and another tenant is served all along, by less than a fifth slower (I13). What is not the
// gateway's doing shows in a flood that goes elsewhere on this machine.
func TestSurviveFlood(t *testing.T) { // by itself: it computes, where others wait
	f := newFlooded(t)
	f.visit() // everything is warm
	f.beside("what does not come to the gateway", fewTurns)
	for _, flood := range []struct{ name, counts string }{
		{"connections of one tenant", `limit_hits_total{limit="tenant_rate"}`},
		{"bytes of one tenant", `limit_hits_total{limit="bandwidth"}`},
		{"handshakes of nobody", `tunnel_limit_hits_total{limit="handshakes"}`},
		{"hellos that do not come", `limit_hits_total{limit="source_hellos"}`},
		{"clients that do not read", `limit_hits_total{limit="tenant_rate"}`},
	} {
		if slower := f.beside(flood.name, manyTurns); slower > floodSlower {
			t.Errorf("%s: another tenant's requests take %.2f times as long, %v away; want %v at most", flood.name, slower, floodAway, floodSlower)
		}
		f.grew("postern_gateway_" + flood.counts)
	}
}

// grew checks that a counter of the gateway's is more than nothing.
func (f *flooded) grew(name string) {
	f.t.Helper()
	text, err := askSocket(filepath.Join(f.data("gateway"), "gateway.sock"), "/metrics")
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if strings.TrimSpace(value) == "0" {
				f.t.Errorf("%s is 0", name)
			}
			return
		}
	}
	f.t.Errorf("there is no %s", name)
}
