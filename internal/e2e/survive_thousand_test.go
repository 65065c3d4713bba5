//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"postern"
)

const (
	thousand         = 1000 // nodes
	thousandTenants  = 100
	thousandChildren = 4 // processes of nodes
)

// fromEverywhere returns the address of a port that leads to another on loopback, from
// another source each time, as nodes come from everywhere. It is closed with the test.
func fromEverywhere(t *testing.T, port int) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var number atomic.Uint32
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				n := number.Add(1)
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, byte(n>>8), byte(n))}}
				out, err := d.DialContext(t.Context(), "tcp", loopback(port))
				if err != nil {
					return
				}
				defer out.Close()
				go func() { io.Copy(out, in); out.Close() }()
				io.Copy(in, out)
			}()
		}
	}()
	return ln.Addr().String()
}

// A thousand real nodes, of a hundred tenants, join one gateway, and each is reached
// through it; the gateway is killed and runs again, and each is reached again (R17).
func TestSurviveThousandNodes(t *testing.T) { // by itself: it computes, where others wait
	d := bareDeployment(t)
	d.startCoordinator()
	d.joinGateway()
	d.crowdGateway()
	coordinator := "https://" + fromEverywhere(t, d.control)

	parts := make([]nodesPart, thousandChildren)
	hosts := make(map[string]string) // by node
	for i := range thousandTenants {
		tenant := fmt.Sprintf("tenant-%d", i)
		d.mustAdmin("POST", "/tenants", postern.TenantRequest{Name: tenant}, nil)
		var token postern.CreatedToken
		d.mustAdmin("POST", "/tokens", postern.TokenRequest{Tenant: tenant, Uses: thousand / thousandTenants}, &token)
		for n := range thousand / thousandTenants {
			name := fmt.Sprintf("node-%d-%d", i, n)
			hosts[name] = name + "." + tenant
			part := &parts[i%thousandChildren]
			part.Nodes = append(part.Nodes, nodePart{name, token.Secret})
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	var children []*process
	for i, part := range parts {
		part.Coordinator, part.Dir, part.AtOnce = coordinator, d.dir, 4
		text, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		// A node's buffers count as 36 MiB, of which it touches two as long as little is
		// sent: the collector is not to wait until as much is garbage.
		children = append(children, start(t, fmt.Sprintf("nodes %d", i), []string{
			childEnv + "=nodes", partEnv + "=" + string(text), "GOGC=off", fmt.Sprintf("GOMEMLIMIT=%dMiB", 38*len(part.Nodes)),
		}, self))
	}
	alive := func() {
		for _, c := range children {
			if c.ended() {
				t.Fatalf("%s ended: %s", c.name, c.out.tail(2000))
			}
		}
	}
	eventually(t, 2*promisedCrowd, func() error {
		alive()
		for _, c := range children {
			if !strings.Contains(c.out.String(), "joined") {
				return errors.New("not all have joined")
			}
		}
		return nil
	})
	noteFigure(t, "scale", "1,000 nodes: all have joined after", time.Since(begin).Seconds(), "s")
	eventually(t, 2*promisedCrowd, func() error {
		alive()
		var nodes []postern.NodeState
		d.mustAdmin("GET", "/nodes", nil, &nodes)
		ready := 0
		for _, n := range nodes {
			if n.State == postern.StateReady {
				ready++
			}
		}
		if ready < thousand {
			return fmt.Errorf("%d are ready", ready)
		}
		return nil
	})
	noteFigure(t, "scale", "1,000 nodes: all are ready after", time.Since(begin).Seconds(), "s")
	d.reachAll(hosts)
	noteFigure(t, "scale", "1,000 nodes: each has answered a request after", time.Since(begin).Seconds(), "s")
	var private int64
	for _, c := range children {
		private += c.used().private
	}
	noteFigure(t, "scale", "1,000 nodes: memory of one", float64(private)/thousand/(1<<20), "MiB")
	noteFigure(t, "scale", "1,000 nodes: gateway's memory", float64(d.gateway.used().private)/(1<<20), "MiB")
	noteFigure(t, "scale", "1,000 nodes: coordinator's memory", float64(d.coordinator.used().private)/(1<<20), "MiB")
	noteFigure(t, "scale", "1,000 nodes: gateway's CPU time until then", d.gateway.used().cpu.Seconds(), "s")
	noteFigure(t, "scale", "1,000 nodes: coordinator's CPU time until then", d.coordinator.used().cpu.Seconds(), "s")

	d.gateway.kill()
	begin = time.Now()
	d.crowdGateway()
	d.reachAll(hosts)
	recovered(t, "R17", "gateway of 1,000 nodes killed: each has answered a request", promisedCrowd, survivePatience, time.Since(begin))
	noteFigure(t, "scale", "1,000 nodes: gateway's CPU time from its start to that", d.gateway.used().cpu.Seconds(), "s")
}

// reachAll asks each of hosts, by node, until it has answered.
func (d *deployment) reachAll(hosts map[string]string) {
	d.t.Helper()
	var asking errgroup.Group
	asking.SetLimit(16)
	for name, host := range hosts {
		asking.Go(func() error {
			c := d.client("http/1.1")
			defer c.CloseIdleConnections()
			c.Timeout = 5 * time.Second
			deadline := time.Now().Add(2 * promisedCrowd)
			for {
				status, body, err := get(c, d.url(host, "/"))
				switch {
				case err == nil && status == http.StatusOK && body == name:
					return nil
				case time.Now().After(deadline):
					return fmt.Errorf("%s: %d %q, %v", host, status, body, err)
				}
			}
		})
	}
	if err := asking.Wait(); err != nil {
		d.t.Fatal(err)
	}
}
