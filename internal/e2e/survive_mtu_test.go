//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/node"
)

// promisedMTU is how long it may take until what the path carries is found and in use.
const promisedMTU = 10 * time.Second

// clamped are the rules of a router that knows what it carries: TCP is told at its
// beginning, as routers of DSL lines do, and ICMP tells the rest, unless %s drops that.
const clamped = `
table inet clamp {
	chain forward {
		type filter hook forward priority -20
		tcp flags syn tcp option maxseg size set %d
	}
	chain output {
		type filter hook output priority -20
		%s
	}
}
`

// carry has the router carry packets of so many bytes both ways, and say so by ICMP or
// lose longer ones in silence.
func (l *lab) carry(mtu int, says bool) {
	l.t.Helper()
	drop := "icmp type destination-unreachable drop"
	if says {
		drop = ""
	}
	file := filepath.Join(l.d.dir, "clamp.nft")
	if err := os.WriteFile(file, fmt.Appendf(nil, "table inet clamp\ndelete table inet clamp\n"+clamped, mtu-40, drop), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.in(l.router, "nft", "-f", file)
	for _, route := range []string{"192.168.77.0/24 dev in", "203.0.113.0/24 dev out"} {
		argv := append([]string{"ip", "-n", l.router, "route", "change"}, strings.Fields(route)...)
		must(l.t, append(argv, "mtu", fmt.Sprint(mtu))...)
	}
}

// tunnel returns the node's only tunnel.
func (l *lab) tunnel() node.Tunnel {
	l.t.Helper()
	tunnels := l.d.nodeStatus("office").Tunnels
	if len(tunnels) != 1 {
		l.t.Fatalf("the node has tunnels %+v, want one", tunnels)
	}
	return tunnels[0]
}

// measured waits until both ends send packets of mtu bytes, and returns how long that took.
func (l *lab) measured(mtu int) time.Duration {
	l.t.Helper()
	begin := time.Now()
	eventually(l.t, promisedMTU+survivePatience, func() error {
		if u := l.tunnel(); u.MTU != mtu || u.PathMTU != mtu+60 {
			return fmt.Errorf("the node's packets have %d bytes, and a path of %d, want %d", u.MTU, u.PathMTU, mtu)
		}
		return nil
	})
	took := time.Since(begin)
	eventually(l.t, survivePatience, func() error {
		var s struct{ Tunnels []struct{ MTU int } }
		if err := l.d.gatewaySocket("/v1/status", &s); err != nil {
			return err
		}
		if len(s.Tunnels) != 1 || s.Tunnels[0].MTU != mtu {
			return fmt.Errorf("the gateway's packets are others: %+v", s)
		}
		return nil
	})
	return took
}

// Paths that carry less than the tunnel's MTU asks for, whether routers say so or not:
// the tunnel goes over UDP, and its packets are as long as passes.
func TestSurviveMTU(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		path, mtu int
		says      bool
	}{{1492, 1420, true}, {1400, 1328, true}, {1400, 1328, false}, {1300, 1232, true}, {1300, 1232, false}} {
		name := fmt.Sprintf("%d in silence", v.path)
		if v.says {
			name = fmt.Sprintf("%d with ICMP", v.path)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := bareLab(t)
			l.carry(v.path, v.says)
			l.settle()
			l.measured(v.mtu)
			want := l.bigFile(8 << 20)
			l.whole(l.fetch("1G"), want, time.Minute)
			if got := l.path(); got != postern.CarrierUDP || l.switches(l.office) != 0 {
				t.Errorf("the tunnel goes by %q after %d changes", got, l.switches(l.office))
			}
		})
	}
}

// The path carries less all at once, and says nothing, while a download goes on: it goes
// on, over UDP, and all of it arrives.
func TestSurviveMTUShrinks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.measured(1420)
	want := l.bigFile(24 << 20)
	curl := l.fetch("2M")
	l.reaches(2 << 20)
	l.carry(1300, false)
	recovered(t, "MTU", "the path carries less, in silence: found", promisedMTU, survivePatience, l.measured(1232))
	begin := time.Now()
	l.reaches(l.size() + 1<<20)
	noteFigure(t, "survive", "path MTU shrinks: 1 MiB more after that took", time.Since(begin).Seconds(), "s")
	l.whole(curl, want, time.Minute)
	if got := l.path(); got != postern.CarrierUDP || l.switches(l.office) != 0 {
		t.Errorf("the tunnel goes by %q after %d changes", got, l.switches(l.office))
	}
}
