//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The kinds of NAT (RFC 3489, section 5). Where there is a cone, all that comes from one
// port inside comes from one port outside, whomever it is for.
const (
	// fullCone lets in whoever knows that port.
	fullCone = `
table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat
		iifname "out" udp dport 1024-65535 dnat to 192.168.77.2
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname "out" masquerade persistent
	}
}
table ip filter {
	chain forward {
		type filter hook forward priority filter; policy drop
		iifname "in" accept
		ct state established,related accept
		iifname "out" meta l4proto udp accept
	}
}
`
	// restrictedCone lets in those addresses that were sent to, from any port of theirs.
	restrictedCone = `
table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat
		iifname "out" udp dport 1024-65535 dnat to 192.168.77.2
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname "out" masquerade persistent
	}
}
table ip filter {
	set asked {
		type ipv4_addr
		size 64
		flags dynamic,timeout
		timeout 30s
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		iifname "in" meta l4proto udp update @asked { ip daddr } accept
		iifname "in" accept
		ct state established,related accept
		iifname "out" meta l4proto udp ip saddr @asked accept
	}
}
`
	// portRestrictedCone lets in those addresses and ports that were sent to.
	portRestrictedCone = `
table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname "out" masquerade persistent
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
)

// arrived counts, at home, what comes to the node from others than the gateway.
const arrived = `
table inet arrived {
	counter port {}
	counter address {}
	chain input {
		type filter hook input priority filter
		iifname "eth" meta l4proto udp ip saddr 203.0.113.7 udp sport != 51820 counter name port
		iifname "eth" meta l4proto udp ip saddr 203.0.113.8 counter name address
	}
}
`

// strangers sends datagrams to the node as the gateway sees it: from another port of the
// gateway's machine, and from another machine. It reports which arrived.
func (l *lab) strangers() (port, address bool) {
	l.t.Helper()
	rules := filepath.Join(l.d.dir, "arrived.nft")
	if err := os.WriteFile(rules, []byte(arrived), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.in(l.home, "nft", "-f", rules)
	must(l.t, "ip", "-n", l.world, "addr", "add", "203.0.113.8/24", "dev", "eth")
	node := l.mustEndpoint()
	for _, from := range []string{natGateway, "203.0.113.8"} {
		// A question of TFTP is a datagram like any other; there is no answer.
		_, _ = run(l.t, "", "ip", "netns", "exec", l.world, "curl", "--silent", "--max-time", "1", "--interface", from, fmt.Sprintf("tftp://%v/x", node))
	}
	came := func(counter string) bool {
		return !strings.Contains(l.in(l.home, "nft", "list", "counter", "inet", "arrived", counter), "packets 0 ")
	}
	return came("port"), came("address")
}

// Behind each kind of NAT the node is reached; when the NAT has forgotten it, and when the
// gateway was killed and runs again, it is soon reached again (R6).
func TestSurviveNATKinds(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name          string
		rules         string
		port, address bool // lets in another port of the gateway's, another address
	}{
		{"full cone", fullCone, true, true},
		{"restricted cone", restrictedCone, true, false},
		{"port-restricted cone", portRestrictedCone, false, false},
		{"symmetric", symmetric, false, false},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			l := bareLab(t, nat{kind.rules, natTimeout})
			l.settle()
			if port, address := l.strangers(); port != kind.port || address != kind.address {
				t.Fatalf("the NAT lets in another port: %t, another address: %t; want %t, %t", port, address, kind.port, kind.address)
			}
			l.request(2)

			l.in(l.router, "conntrack", "-D", "-p", "udp") // the control stream goes on
			took := l.answered(promisedIdle + survivePatience)
			recovered(t, "R6", kind.name+" NAT forgot the idle node: first page", promisedIdle, survivePatience, took)
			l.d.gateway.kill()
			l.d.gateway = l.again(l.d.gateway)
			took = l.answered(promisedRestart + survivePatience)
			recovered(t, "R4", "a gateway is killed and started again, node behind a "+kind.name+" NAT", promisedRestart, survivePatience, took)
		})
	}
}

// Behind the provider's NAT and the router's own the node is reached; each may forget it.
func TestSurviveNATDouble(t *testing.T) {
	t.Parallel()
	l := bareLab(t, nat{portRestrictedCone, natTimeout}, nat{symmetric, natTimeout})
	l.settle()
	var took []time.Duration
	for _, router := range []string{l.carrier, l.router, l.carrier} {
		l.mustEndpoint()
		l.in(router, "conntrack", "-F")
		took = append(took, l.answered(promisedIdle+survivePatience))
	}
	recovered(t, "R6", "one of two NATs in a row forgot the idle node: first page", promisedIdle, survivePatience, took...)
	if l.path() != "udp" {
		t.Errorf("the tunnel goes by %s", l.path())
	}
}

// The NAT gives the node another port while it sends: the gateway follows at once, and
// the download goes on.
func TestSurviveNATRebinding(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	want := l.bigFile(24 << 20)
	curl := l.fetch("2M")
	l.reaches(1 << 20)
	var took []time.Duration
	for range 3 {
		old := l.mustEndpoint()
		l.in(l.router, "conntrack", "-D", "-p", "udp")
		_, after := l.followed(old)
		took = append(took, after)
	}
	recovered(t, "R6", "NAT gave a node that sends another port: the gateway follows", 0, survivePatience, took...)
	l.whole(curl, want, time.Minute)
	if got := l.switches(l.office); got != 0 {
		t.Errorf("%d changes of path were logged", got)
	}
}

// A NAT that forgets sooner than the keepalive of 25 s would hold it, is held by the
// node's asking whether its gateways live, every two and a half seconds; one that forgets
// nearly as soon, by the keepalive that its operator sets.
func TestSurviveNATShort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		timeout time.Duration
		file    string // of the node, beside what it publishes
	}{
		{timeout: 10 * time.Second},
		{timeout: 3 * time.Second, file: "keepalive: 1s\n"},
	} {
		t.Run(tt.timeout.String(), func(t *testing.T) {
			t.Parallel()
			l := bareLab(t, nat{symmetric, tt.timeout})
			l.settle()
			if tt.file != "" {
				l.office.stop()
				file := l.d.secretFile(tt.file + "services:\n  - upstream: " + l.d.data("site") + "\n    access: public\n")
				l.office = l.start(l.home, "office", "node", "run", "--config", file)
				l.d.ready("office")
			}
			l.request(10)
			var before netip.AddrPort
			eventually(t, survivePatience, func() (err error) {
				m, _ := l.mapping()
				if before, err = l.endpoint(); err == nil && before.Port() != m.port {
					err = fmt.Errorf("the gateway says %v, the NAT port %d", before, m.port)
				}
				return err
			})
			begin, lowest := time.Now(), tt.timeout
			eventually(t, time.Minute, func() error {
				idle := time.Since(begin)
				m, ok := l.mapping()
				if !ok || m.port != before.Port() {
					t.Fatalf("after %v the mapping is %+v (%t), and was for port %d", idle, m, ok, before.Port())
				}
				lowest = min(lowest, m.left)
				if idle < 2*tt.timeout+5*time.Second {
					return errors.New("not idle for long enough")
				}
				return nil
			})
			// What the node asks would leave less than a second of three.
			if tt.file != "" && lowest < time.Second {
				t.Errorf("the mapping had %v left at a time, with a keepalive of 1 s", lowest)
			}
			l.request(2)
		})
	}
}
