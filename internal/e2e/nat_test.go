//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern"
)

// A lab is network namespaces:
//
//	home 192.168.77.2 ── 192.168.77.1 router 203.0.113.1 ── exchange ── 203.0.113.7 world
//
// The node is at home, behind the router's NAT; the coordinator, the gateway and the
// people are in the world. There may be the provider's NAT beyond that of the router,
// which is then at 100.64.0.2 outside (RFC 6598). The exchange is a switch, for others to
// plug into.
type lab struct {
	t                                      *testing.T
	d                                      *deployment
	home, router, carrier, exchange, world string // namespaces; carrier is the router, or the provider's beyond it
	office                                 *process

	number    int64
	nodeFlags []string // beside those that it always has
	publish   []string // beside the site, [NAME=]UPSTREAM each
}

const (
	natDomain  = "apps.example.com"
	natGateway = "203.0.113.7"
	natPort    = 51820 // the gateway's, UDP

	// natTimeout is longer than a node's keepalive, 25 s, by little.
	natTimeout = 30 * time.Second

	// promisedIdle is how long a node that has nothing to send is lost at most after its
	// NAT forgot it.
	promisedIdle = 25 * time.Second
)

// A nat is how a router translates addresses: rules of nft, and how long it remembers
// a UDP mapping without a packet.
type nat struct {
	rules   string
	timeout time.Duration
}

// symmetric gives every mapping a port at random, and lets in none but who was asked.
// Who is at 192.168.77.3 is seen at another address than the others.
const symmetric = `
table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat
		ip saddr 192.168.77.3 oifname "out" snat to 203.0.113.2 fully-random
		oifname "out" masquerade fully-random
	}
}
table ip filter {
	chain forward {
		type filter hook forward priority filter; policy drop
		iifname "in" accept
		ct state established,related accept
	}
}
`

// newLab returns a lab in which the node is reached.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := bareLab(t)
	l.settle()
	return l
}

// labs counts those that were made, each of which has namespaces of its own.
var labs atomic.Int64

// bareLab returns a lab in which nothing runs yet, behind one symmetric NAT or behind
// those given, the one at home first.
func bareLab(t *testing.T, nats ...nat) *lab {
	t.Helper()
	if nats == nil {
		nats = []nat{{symmetric, natTimeout}}
	}
	l := &lab{t: t, d: &deployment{t: t, dir: t.TempDir()}}
	l.number = labs.Add(1)
	for name, space := range map[string]*string{"home": &l.home, "router": &l.router, "exchange": &l.exchange, "world": &l.world} {
		*space = l.space(name)
	}
	must(t, "ip", "-n", l.exchange, "link", "add", "switch", "up", "type", "bridge")
	l.link(l.home, "eth", "192.168.77.2/24", l.router, "in", "192.168.77.1/24")
	must(t, "ip", "-n", l.home, "route", "add", "default", "via", "192.168.77.1")
	l.carrier = l.router
	if len(nats) == 2 {
		l.carrier = l.space("carrier")
		l.link(l.router, "out", "100.64.0.2/24", l.carrier, "in", "100.64.0.1/24")
		must(t, "ip", "-n", l.router, "route", "add", "default", "via", "100.64.0.1")
		l.translate(l.carrier, nats[1])
	}
	l.plug(l.carrier, "out", "203.0.113.1/24", "router")
	l.plug(l.world, "eth", natGateway+"/24", "world")
	must(t, "ip", "-n", l.carrier, "addr", "add", "203.0.113.2/24", "dev", "out")
	l.translate(l.router, nats[0])
	return l
}

// translate makes a namespace a router that translates so.
func (l *lab) translate(router string, n nat) {
	l.t.Helper()
	rules := filepath.Join(l.d.dir, router+".nft")
	if err := os.WriteFile(rules, []byte(n.rules), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.in(router, "nft", "-f", rules)
	for setting, value := range map[string]int{
		"ipv4/ip_forward":                           1,
		"netfilter/nf_conntrack_udp_timeout":        int(n.timeout.Seconds()),
		"netfilter/nf_conntrack_udp_timeout_stream": int(n.timeout.Seconds()),
	} {
		l.in(router, "sh", "-c", fmt.Sprintf("echo %d > /proc/sys/net/%s", value, setting))
	}
}

// space makes a namespace.
func (l *lab) space(name string) string {
	l.t.Helper()
	space := fmt.Sprintf("postern-%d-%d-%s", os.Getpid(), l.number, name)
	must(l.t, "ip", "netns", "add", space)
	l.t.Cleanup(func() { must(l.t, "ip", "netns", "del", space) })
	must(l.t, "ip", "-n", space, "link", "set", "lo", "up")
	return space
}

// plug makes a cable from a namespace to a port of the exchange.
func (l *lab) plug(space, name, addr, port string) {
	l.t.Helper()
	must(l.t, "ip", "link", "add", name, "netns", space, "type", "veth", "peer", "name", port, "netns", l.exchange)
	must(l.t, "ip", "-n", l.exchange, "link", "set", port, "master", "switch", "up")
	must(l.t, "ip", "-n", space, "addr", "add", addr, "dev", name)
	must(l.t, "ip", "-n", space, "link", "set", name, "up")
}

// link makes a cable between two namespaces.
func (l *lab) link(a, aName, aAddr, b, bName, bAddr string) {
	l.t.Helper()
	must(l.t, "ip", "link", "add", aName, "netns", a, "type", "veth", "peer", "name", bName, "netns", b)
	for _, end := range [][3]string{{a, aName, aAddr}, {b, bName, bAddr}} {
		must(l.t, "ip", "-n", end[0], "addr", "add", end[2], "dev", end[1])
		must(l.t, "ip", "-n", end[0], "link", "set", end[1], "up")
	}
}

// in runs a command in a namespace to its end.
func (l *lab) in(space string, argv ...string) string {
	l.t.Helper()
	return must(l.t, append([]string{"ip", "netns", "exec", space}, argv...)...)
}

// start starts postern in a namespace.
func (l *lab) start(space, name string, args ...string) *process {
	l.t.Helper()
	argv := append([]string{"ip", "netns", "exec", space, program("postern")}, args...)
	return start(l.t, name, nil, append(argv, "--data", l.d.data(name), "--log-level", "debug")...)
}

// settle brings up the coordinator, the gateway and the node, and waits until
// the node is reached.
func (l *lab) settle() {
	t, d := l.t, l.d
	t.Helper()
	d.coordinator = l.startCoordinator()
	l.joinGateway(l.world, "gateway")
	d.gateway = l.runGateway(l.world, "gateway", natGateway)

	site := d.data("site")
	if err := errors.Join(os.Mkdir(site, 0o755), os.WriteFile(filepath.Join(site, "index.html"), []byte("at home"), 0o644)); err != nil {
		t.Fatal(err)
	}
	l.in(l.home, append([]string{program("postern"), "node", "join", "--no-run", "--data", d.data("office"), "--name", "office",
		"--token-file", d.secretFile(d.tenant("acme"))}, append(publicly(append([]string{site}, l.publish...)...), l.nodeFlags...)...)...)
	l.office = l.start(l.home, "office", append([]string{"node", "run"}, l.nodeFlags...)...)
	d.ready("office")
	l.request(10)
}

// startCoordinator starts the coordinator, and waits until it answers.
func (l *lab) startCoordinator() *process {
	l.t.Helper()
	c := l.start(l.world, "coordinator", "coordinator", "run", "--domain", natDomain,
		"--listen", natGateway+":8443", "--control-url", "https://"+natGateway+":8443")
	eventually(l.t, 20*time.Second, func() error { _, err := l.d.try("status", "--json"); return err })
	return c
}

// joinGateway makes a gateway that has yet to run.
func (l *lab) joinGateway(space, name string) {
	l.t.Helper()
	var token postern.CreatedToken
	l.d.cli(&token, "tokens", "create", "--gateway")
	l.in(space, program("postern"), "gateway", "join", "--data", l.d.data(name), "--name", name, "--token-file", l.d.secretFile(token.Secret))
}

// runGateway starts it, at an address of the namespace.
func (l *lab) runGateway(space, name, addr string, flags ...string) *process {
	l.t.Helper()
	return l.start(space, name, append([]string{"gateway", "run", "--listen", addr + ":443", "--http", "",
		"--udp", fmt.Sprintf(":%d", natPort), "--advertise", fmt.Sprintf("%s:%d", addr, natPort), "--public", addr + ":443"}, flags...)...)
}

// request fetches the node's page from the world, once, within so many seconds.
func (l *lab) request(seconds int) {
	l.t.Helper()
	host := "acme." + natDomain
	page := l.in(l.world, "curl", "--silent", "--show-error", "--fail", "--max-time", fmt.Sprint(seconds), "--cacert", l.d.caFile(),
		"--resolve", host+":443:"+natGateway, "https://"+host+"/")
	if page != "at home" {
		l.t.Errorf("got page %q", page)
	}
}

// endpoint returns where the gateway sees the node, as operators are told.
func (l *lab) endpoint() (netip.AddrPort, error) {
	var nodes []postern.NodeState
	l.d.cli(&nodes, "nodes", "list")
	if len(nodes) != 1 || len(nodes[0].Tunnels) != 1 {
		return netip.AddrPort{}, fmt.Errorf("nodes are %+v, want one with one tunnel", nodes)
	}
	return netip.ParseAddrPort(nodes[0].Tunnels[0].Endpoint)
}

// mustEndpoint is endpoint once it is known, and at the router's address at that.
func (l *lab) mustEndpoint() netip.AddrPort {
	l.t.Helper()
	var got netip.AddrPort
	eventually(l.t, 20*time.Second, func() (err error) { got, err = l.endpoint(); return err })
	if got.Addr() != netip.MustParseAddr("203.0.113.1") {
		l.t.Fatalf("the gateway sees the node at %v, not behind the NAT", got)
	}
	return got
}

// followed waits until the gateway sees the node elsewhere than at old, with no
// other help than the node's own keepalive, and returns where, and how long that took.
func (l *lab) followed(old netip.AddrPort) (netip.AddrPort, time.Duration) {
	l.t.Helper()
	begin := time.Now()
	var now netip.AddrPort
	eventually(l.t, 40*time.Second, func() (err error) {
		if now, err = l.endpoint(); err == nil && now == old {
			err = fmt.Errorf("the node is still seen at %v", old)
		}
		return err
	})
	return now, time.Since(begin)
}

// A mapping is what the router remembers of the tunnel.
type mapping struct {
	left time.Duration // until it is forgotten
	port uint16        // outside
}

// mapping returns the tunnel's mapping, and false if there is none.
func (l *lab) mapping() (mapping, bool) {
	l.t.Helper()
	for line := range strings.Lines(l.in(l.router, "conntrack", "-L", "-p", "udp", "--orig-port-dst", fmt.Sprint(natPort))) {
		var m mapping
		var seconds int
		fields := strings.Fields(line) // udp 17 29 src=… … dport=OUTSIDE …
		if _, err := fmt.Sscan(fields[2], &seconds); err != nil || !strings.Contains(line, "src=192.168.77.") {
			continue
		}
		m.left = time.Duration(seconds) * time.Second
		for _, f := range fields {
			fmt.Sscanf(f, "dport=%d", &m.port) // the last one is the reply's
		}
		return m, true
	}
	return mapping{}, false
}

// connections is how many connections the node has had from gateways.
func (l *lab) connections() uint64 {
	l.t.Helper()
	return l.d.nodeStatus("office").Connections.Accepted
}

// A node's keepalives keep the way to it open for longer than its NAT remembers
// anything, so a request after a long silence succeeds at once.
func TestNATIdle(t *testing.T) {
	l := newLab(t)
	before, visits := l.mustEndpoint(), l.connections()
	begin := time.Now()
	lowest, refreshed, last := natTimeout, 0, natTimeout
	eventually(t, 3*natTimeout, func() error {
		m, ok := l.mapping()
		if !ok || m.port != before.Port() {
			t.Fatalf("after %v the mapping is %+v (%t), and was for port %d", time.Since(begin), m, ok, before.Port())
		}
		if m.left > last {
			refreshed++
		}
		last, lowest = m.left, min(lowest, m.left)
		if idle := time.Since(begin); idle < 2*natTimeout || refreshed < 2 {
			return fmt.Errorf("idle for %v, mapping refreshed %d times", idle, refreshed)
		}
		return nil
	})
	idle := time.Since(begin)
	if got := l.connections(); got != visits {
		t.Errorf("the node had %d connections while nothing was to happen", got-visits)
	}
	l.request(2)
	if now, err := l.endpoint(); err != nil || now != before {
		t.Errorf("the node is seen at %v, %v, want at %v as before", now, err, before)
	}
	noteFigure(t, "nat", "UDP timeout of the NAT", natTimeout.Seconds(), "s")
	noteFigure(t, "nat", "idle before the request", idle.Seconds(), "s")
	noteFigure(t, "nat", "least that the mapping had left", lowest.Seconds(), "s")
}

// The NAT forgets all and chooses another port: the gateway follows as soon as
// the node sends again.
func TestNATMappingLost(t *testing.T) {
	l := newLab(t)
	old := l.mustEndpoint()
	l.in(l.router, "conntrack", "-F")
	now, took := l.followed(old)
	if now.Addr() != old.Addr() {
		t.Errorf("the node is seen at %v after %v: want another port alone", now, old)
	}
	if m, _ := l.mapping(); m.port != now.Port() {
		t.Errorf("the gateway says port %d, the NAT port %d", now.Port(), m.port)
	}
	l.request(2)
	recovered(t, "R6", "NAT forgot the idle node and gave it another port: the gateway follows", promisedIdle, survivePatience, took)
}

// The node gets another address, in the house and outside: the gateway follows.
func TestNATAddressChanged(t *testing.T) {
	l := newLab(t)
	old := l.mustEndpoint()
	for _, args := range []string{
		"addr del 192.168.77.2/24 dev eth", "addr add 192.168.77.3/24 dev eth", "route replace default via 192.168.77.1",
	} {
		must(t, append([]string{"ip", "-n", l.home}, strings.Fields(args)...)...)
	}
	now, took := l.followed(old)
	if now.Addr() != netip.MustParseAddr("203.0.113.2") {
		t.Errorf("the node is seen at %v, want 203.0.113.2", now)
	}
	l.request(2)
	noteFigure(t, "nat", "new address followed after", took.Seconds(), "s")
}
