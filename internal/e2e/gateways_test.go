//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern"
)

// secondGateway is where the second one is.
const secondGateway = "203.0.113.8"

// A pair is a lab with a second gateway, in a namespace of its own, and with
// scripts/dns-hook, which puts addresses into what it takes for DNS.
type pair struct {
	*lab
	second string // namespace
	zone   string // file with the last update

	gateways map[string]*process // by address
}

// newPair returns a pair in which the node is reached by both.
func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{lab: newLab(t)}
	p.second = p.space("second")
	p.plug(p.second, "eth", secondGateway+"/24", "second")
	p.joinGateway(p.second, "second")
	p.gateways = map[string]*process{natGateway: p.d.gateway, secondGateway: p.runGateway(p.second, "second", secondGateway)}

	p.zone = filepath.Join(p.d.dir, "zone")
	bin := p.d.data("bin")
	nsupdate := fmt.Appendf(nil, "#!/bin/sh\n[ \"$1 $2\" = '-k tsig.key' ] && cat >%[1]s.new && mv %[1]s.new %[1]s\n", p.zone)
	if err := errors.Join(os.Mkdir(bin, 0o755), os.WriteFile(filepath.Join(bin, "nsupdate"), nsupdate, 0o755)); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "DNS_SERVER=ns1.example.com", "DNS_KEY=tsig.key"}
	start(t, "hook", env, program("postern"), "gateways", "dns", "--exec", filepath.Join("..", "..", "scripts", "dns-hook"),
		"--data", p.d.data("coordinator"))
	p.wantZone(30*time.Second, natGateway, secondGateway)
	return p
}

// promisedZone is how long it takes from when the coordinator knows until the program has
// put it into DNS: two looks, of which the second shows that the first holds.
const promisedZone = 6 * time.Second

// resolve returns the addresses that are in DNS.
func (p *pair) resolve() (addrs []string) {
	p.t.Helper()
	text, err := os.ReadFile(p.zone)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		p.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) < 5 || lines[0] != "server ns1.example.com" || lines[1] != "update delete *."+natDomain+". A" || lines[len(lines)-1] != "send" {
		p.t.Fatalf("the update is %s", text)
	}
	for _, line := range lines {
		if addr, ok := strings.CutPrefix(line, "update add *."+natDomain+". 60 A "); ok {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// wantZone waits until these addresses are in DNS, and returns how long that took.
func (p *pair) wantZone(limit time.Duration, addrs ...string) time.Duration {
	p.t.Helper()
	begin := time.Now()
	eventually(p.t, limit, func() error {
		if got := p.resolve(); !slices.Equal(got, addrs) {
			return fmt.Errorf("in DNS are %v, want %v", got, addrs)
		}
		return nil
	})
	return time.Since(begin)
}

// dialIn returns a dialer whose connections begin in a namespace.
func dialIn(space string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		// The thread may not end: the processes that it started would.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return nil, err
		}
		defer home.Close()
		there, err := os.Open("/run/netns/" + space)
		if err != nil {
			return nil, err
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			return nil, err
		}
		defer func() {
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				panic(err) // whoever uses the thread next would be elsewhere
			}
		}()
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

// from returns a client in the world that comes by one gateway, over a connection of its
// own each time.
func (l *lab) from(gateway string, patience time.Duration) *http.Client {
	dial := dialIn(l.world)
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dial(ctx, network, net.JoinHostPort(gateway, "443"))
		},
		TLSClientConfig:   &tls.Config{RootCAs: l.d.roots()},
		DisableKeepAlives: true,
	}}
}

// visit fetches the node's page by a gateway.
func (l *lab) visit(gateway string, patience time.Duration) error {
	status, page, err := get(l.from(gateway, patience), "https://acme."+natDomain+"/")
	if err == nil && (status != http.StatusOK || page != "at home") {
		err = fmt.Errorf("status %d: %.200s", status, page)
	}
	return err
}

// Visitors come one after the other, each to an address that DNS gave at most ttl ago.
type visitors struct {
	wg      sync.WaitGroup
	mu      sync.Mutex
	came    map[string]int // by address
	failed  []error
	longest time.Duration
}

// visitorTTL is how long visitors remember what DNS says. It stands for the 60 s of the
// records: a test cannot wait for that.
const visitorTTL = 2 * time.Second

// visitors has some come until ctx is done.
func (p *pair) visitors(ctx context.Context) *visitors {
	v := &visitors{came: make(map[string]int)}
	v.wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		var addrs []string
		var asked time.Time
		for n := 0; ; n++ {
			if time.Since(asked) > visitorTTL {
				addrs, asked = p.resolve(), time.Now()
			}
			gateway := addrs[n%len(addrs)]
			v.wg.Go(func() { v.one(gateway, p.visit) })
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return v
}

func (v *visitors) one(gateway string, visit func(string, time.Duration) error) {
	begin := time.Now()
	err := visit(gateway, 20*time.Second)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.came[gateway]++
	v.longest = max(v.longest, time.Since(begin))
	if err != nil {
		v.failed = append(v.failed, fmt.Errorf("%s by %s: %w", begin.Format(time.TimeOnly), gateway, err))
	}
}

// count returns how many came by a gateway.
func (v *visitors) count(gateway string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.came[gateway]
}

// leave waits for those who are there, and fails the test if one of all was turned away.
func (v *visitors) leave(t *testing.T) {
	t.Helper()
	v.wg.Wait()
	t.Logf("%v visitors came, the slowest waited %v", v.came, v.longest)
	for _, err := range v.failed {
		t.Error(err)
	}
}

// The host of one of two gateways is lost: who comes by the other is served at once, and
// DNS leads nobody there any more when its reports are missed (R5).
func TestSurviveGatewayLost(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, gateway := range []string{natGateway, secondGateway} {
		if err := p.visit(gateway, 10*time.Second); err != nil {
			t.Fatalf("by %s: %v", gateway, err)
		}
	}
	// An operator takes one out before, and back: nobody is turned away.
	for _, step := range []struct {
		command string
		dns     []string
	}{{"drain", []string{natGateway}}, {"undrain", []string{natGateway, secondGateway}}} {
		if _, err := p.d.try("gateways", step.command, "second"); err != nil {
			t.Fatal(err)
		}
		took := p.wantZone(promisedZone+survivePatience, step.dns...)
		recovered(t, "R18", "an operator has a gateway "+step.command+"ed: in DNS", promisedZone, survivePatience, took)
		if err := p.visit(secondGateway, 10*time.Second); err != nil {
			t.Errorf("%sed: %v", step.command, err)
		}
	}

	must(t, "ip", "-n", p.exchange, "link", "set", "second", "down")
	lost := time.Now()
	if err := p.visit(natGateway, 10*time.Second); err != nil {
		t.Fatalf("by the other gateway: %v", err)
	}
	recovered(t, "R5", "a gateway's host is lost: first page by the other one", time.Second, survivePatience, time.Since(lost))

	// A program that has both addresses, and tries the one that is lost first.
	host := "acme." + natDomain
	begin := time.Now()
	page := p.in(p.world, "curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--cacert", p.d.caFile(),
		"--resolve", host+":443:"+secondGateway+","+natGateway, "https://"+host+"/")
	if page != "at home" {
		t.Errorf("curl got %q", page)
	}
	noteFigure(t, "survive", "R5 curl with both addresses, the lost one first", time.Since(begin).Seconds(), "s")

	const promise = 2*postern.StatusInterval + promisedZone
	p.wantZone(promise+survivePatience, natGateway)
	recovered(t, "R5", "a gateway's host is lost: out of DNS", promise, survivePatience, time.Since(lost))
	if err := p.visit(natGateway, 10*time.Second); err != nil {
		t.Errorf("by the other gateway, later: %v", err)
	}
}

// drainDelay is what these tests have gateways wait: as long as it takes until DNS has
// changed and visitors know.
const drainDelay = 10 * time.Second

// One gateway after the other is stopped and started again while visitors come and a
// download goes on: not one new connection fails (R19), and the download comes to its end
// through the gateway that is being stopped (R18).
func TestSurviveRollingRestart(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	want := p.bigFile(20 << 20)
	for addr, gateway := range p.gateways { // as an operator runs them who has two
		gateway.stop()
		p.gateways[addr] = p.again(addr)
	}
	p.wantZone(time.Minute, natGateway, secondGateway)
	eventually(t, 30*time.Second, func() error {
		return errors.Join(p.visit(natGateway, 5*time.Second), p.visit(secondGateway, 5*time.Second))
	})

	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	v := p.visitors(ctx)
	curl := p.fetch("1000K") // through the first gateway
	for _, addr := range []string{natGateway, secondGateway} {
		other := natGateway
		if addr == natGateway {
			other = secondGateway
		}
		eventually(t, survivePatience, func() error {
			if v.count(addr) == 0 {
				return errors.New("nobody has come yet")
			}
			return nil
		})
		stopped := time.Now()
		go p.gateways[addr].stop()
		p.wantZone(drainDelay, other)
		recovered(t, "R18", "a gateway is stopped: out of DNS", promisedZone, survivePatience, time.Since(stopped))
		<-p.gateways[addr].done
		recovered(t, "R18", "a gateway is stopped: its connections have ended", drainDelay+30*time.Second, survivePatience, time.Since(stopped))
		if code := p.gateways[addr].cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("gateway %s ended with %d", addr, code)
		}
		begin := time.Now()
		p.gateways[addr] = p.again(addr)
		p.wantZone(time.Minute, natGateway, secondGateway)
		recovered(t, "R19", "a gateway is started again: in DNS", 10*time.Second, survivePatience, time.Since(begin))
		n := v.count(addr)
		eventually(t, survivePatience, func() error {
			if v.count(addr) < n+5 {
				return fmt.Errorf("%d came since", v.count(addr)-n)
			}
			return nil
		})
	}
	leave()
	v.leave(t)
	noteFigure(t, "survive", "R19 new connections while both gateways were restarted", float64(v.count(natGateway)+v.count(secondGateway)), "")
	noteFigure(t, "survive", "R19 new connections that failed", float64(len(v.failed)), "")
	p.whole(curl, want, time.Minute)
}

// again starts the gateway at addr anew, with a drain delay.
func (p *pair) again(addr string) *process {
	p.t.Helper()
	space, name := p.world, "gateway"
	if addr == secondGateway {
		space, name = p.second, "second"
	}
	return p.runGateway(space, name, addr, "--drain-delay", drainDelay.String())
}

// Gateways that are dead, have a name that leads nowhere, or are cut off from UDP harm
// nobody but themselves: a node that starts is reached by all that can be.
func TestSurviveBadGateways(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const nameless, dead = "203.0.113.9", "203.0.113.10"
	for addr, name := range map[string]string{nameless: "nameless", dead: "dead"} {
		must(t, "ip", "-n", p.second, "addr", "add", addr+"/24", "dev", "eth")
		p.joinGateway(p.second, name)
	}
	p.runGateway(p.second, "nameless", nameless, "--udp", ":51821", "--advertise", "nowhere.invalid:51821")
	gone := p.runGateway(p.second, "dead", dead, "--udp", ":51822", "--advertise", dead+":51822")
	eventually(t, 20*time.Second, func() error {
		var all []postern.GatewayState
		p.d.cli(&all, "gateways", "list")
		for _, g := range all {
			if g.Endpoint == "" || g.State != postern.StateReady {
				return fmt.Errorf("gateway %s: %+v", g.Name, g)
			}
		}
		return nil
	})
	gone.kill()
	p.office.kill()
	p.block("ip daddr " + secondGateway + " meta l4proto udp drop")
	begin := time.Now()
	p.office = p.start(p.home, "office", "node", "run")
	for _, by := range []struct {
		gateway string
		promise time.Duration
		how     string
	}{
		{natGateway, 3 * time.Second, "UDP"},
		{secondGateway, promisedOut, "its relay: UDP is blocked"},
		{nameless, promisedOut + 5*time.Second, "its relay: its UDP name leads nowhere"}, // once DNS has been waited for
	} {
		eventually(t, by.promise+survivePatience, func() error { return p.visit(by.gateway, 5*time.Second) })
		recovered(t, "R5", "a node starts beside a dead gateway: reached by "+by.how, by.promise, survivePatience, time.Since(begin))
		if status, page, err := get(p.from(by.gateway, 10*time.Second), "https://portal."+natDomain+"/sign-in"); err != nil || status != http.StatusOK {
			t.Errorf("the portal by %s: %d, %v: %.200s", by.gateway, status, err, page)
		}
	}
	paths := map[string]string{}
	for _, u := range p.d.nodeStatus("office").Tunnels {
		paths[u.Gateway] = u.Path
	}
	for name, want := range map[string]string{"gateway": postern.CarrierUDP, "second": postern.CarrierRelay, "nameless": postern.CarrierRelay} {
		if paths[name] != want {
			t.Errorf("the tunnel to %s goes by %q, want %q", name, paths[name], want)
		}
	}
	p.wantZone(time.Minute, natGateway, secondGateway, nameless)
}
