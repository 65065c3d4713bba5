//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"

	"postern"
)

const (
	floodTime  = 3 * time.Second
	floodRate  = 5   // new connections a second that one tenant may have; a flood tries a hundred times as many
	floodBurst = 100 // milliseconds' worth of a flood that come at once

	// floodMemory is what a flood may take of the gateway: its buffers are bounded, and
	// the collector runs when memory has doubled.
	floodMemory = 256 << 20
)

// A flood is a deployment with a tenant that floods, acme, and one that is quiet, globex.
type flood struct {
	*deployment
	quiet *http.Client
	big   string // acme's page that does not end
}

func newFlood(t *testing.T) *flood {
	t.Helper()
	f := &flood{deployment: bareDeployment(t)}
	f.startCoordinator()
	f.joinGateway()
	f.runGateway("--http", "", "--source-rate", "-1", "--tenant-rate", fmt.Sprint(floodRate), "--bandwidth", "200mbit")
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		piece := make([]byte, 2<<10)
		for {
			if _, err := w.Write(piece); err != nil || r.URL.Path != "/big" {
				return
			}
		}
	}))
	t.Cleanup(site.Close)
	for _, tenant := range []string{"acme", "globex"} {
		f.node(f.tenant(tenant), tenant+"-office", site.URL)
	}
	f.quiet = f.client("http/1.1")
	f.big = f.url("acme", "/big")
	return f
}

// serve asks for pages of the quiet tenant, one after the other for floodTime, and returns
// the 99th percentile of how long they took. None may fail.
func (f *flood) serve() time.Duration {
	f.t.Helper()
	var took []time.Duration
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < floodTime; <-tick.C {
		start := time.Now()
		if status, _, err := get(f.quiet, f.url("globex", "/")); status != http.StatusOK {
			f.t.Fatalf("the quiet tenant is not served: %d, %v", status, err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// beside serves the quiet tenant while a flood goes on, and writes down how that compares
// to alone, and what the flood takes of the gateway's memory. The flood must end with
// its context.
func (f *flood) beside(name string, alone time.Duration, flood func(ctx context.Context)) {
	f.t.Helper()
	before := f.gateway.used().private
	ctx, end := context.WithCancel(f.t.Context())
	defer end()
	var wg sync.WaitGroup
	wg.Go(func() { flood(ctx) })
	p99 := f.serve()
	during := f.gateway.used().private
	end()
	wg.Wait()
	noteFigure(f.t, "survive", "flood of "+name+": p99 of the quiet tenant, to alone", float64(p99)/float64(alone), "×")
	f.t.Logf("%s: p99 %v alone, %v beside; gateway %d MiB before, %d during, %d after",
		name, alone, p99, before>>20, during>>20, f.gateway.used().private>>20)
	if during > before+floodMemory {
		f.t.Errorf("%s: the gateway grew from %d to %d MiB", name, before>>20, during>>20)
	}
}

// dialFrom connects to the gateway from one of 200 addresses.
func (f *flood) dialFrom(i int) (net.Conn, error) {
	from := netip.AddrFrom4([4]byte{127, 9, byte(i % 200), 1})
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 10 * time.Second}
	return d.Dial("tcp", loopback(f.https))
}

// each calls one so many times a second until ctx ends, some at once.
func (f *flood) each(ctx context.Context, perSecond int, one func(i int)) {
	tick := time.NewTicker(floodBurst * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; {
		for range perSecond * floodBurst / 1000 {
			one(i)
			i++
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// download reads the page that does not end, for as long as read has it.
func (f *flood) download(ctx context.Context, hc *http.Client, read func(body io.Reader)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.big, nil)
	if err != nil {
		return err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	read(resp.Body)
	return nil
}

// TestSurviveFlood: floods of one tenant, and of nobody, cost the gateway bounded memory,
// and another tenant is served all along.
func TestSurviveFlood(t *testing.T) { // by itself: it computes, where others wait
	f := newFlood(t)
	hc := f.client("http/1.1")
	f.serve() // everything is warm
	alone := f.serve()

	f.beside("connections and bytes of one tenant", alone, func(ctx context.Context) {
		var flows sync.WaitGroup
		defer flows.Wait()
		for range floodRate {
			flows.Go(func() { f.download(ctx, hc, func(body io.Reader) { io.Copy(io.Discard, body) }) })
		}
		var tried atomic.Int64
		f.each(ctx, 100*floodRate, func(i int) {
			if c, err := f.dialFrom(i); err == nil {
				tried.Add(1)
				flows.Go(func() {
					defer c.Close()
					tls.Client(c, &tls.Config{ServerName: "acme." + base}).HandshakeContext(ctx)
				})
			}
		})
		t.Logf("%d connections tried", tried.Load())
	})
	f.grew("postern_gateway_limit_hits_total{limit=\"tenant_rate\"}")
	f.grew("postern_gateway_limit_hits_total{limit=\"bandwidth\"}")

	var gateways []postern.GatewayState
	f.cli(&gateways, "gateways", "list")
	key, err := ecdh.X25519().NewPublicKey(gateways[0].WireGuard[:])
	if err != nil {
		t.Fatal(err)
	}
	f.beside("handshakes of nobody", alone, func(ctx context.Context) {
		c, err := net.Dial("udp", loopback(f.udp))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		f.each(ctx, 5000, func(int) { c.Write(nobodysHello(&party{peer: key})) })
	})
	f.grew("postern_gateway_tunnel_limit_hits_total{limit=\"handshakes\"}")

	f.beside("hellos that do not come", alone, func(ctx context.Context) {
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		f.each(ctx, 1000, func(i int) {
			if c, err := f.dialFrom(i % 20); err == nil {
				conns = append(conns, c)
				c.Write([]byte{22, 3, 1, 2, 0})
			}
		})
		t.Logf("%d connections that said the beginning of a hello", len(conns))
	})
	f.grew("postern_gateway_limit_hits_total{limit=\"source_hellos\"}")

	f.beside("clients that do not read", alone, func(ctx context.Context) {
		var clients sync.WaitGroup
		defer clients.Wait()
		f.each(ctx, floodRate, func(int) {
			clients.Go(func() { f.download(ctx, hc, func(io.Reader) { <-ctx.Done() }) })
		})
	})
}

// grew checks that a counter of the gateway's is more than nothing.
func (f *flood) grew(name string) {
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

// nobodysHello returns a handshake initiation of nobody to p's peer: its first MAC, which
// takes no secret but the peer's public key, is good.
func nobodysHello(p *party) []byte {
	b := make([]byte, initiationSize-2*blake2s.Size128, initiationSize)
	rand.Read(b)
	binary.LittleEndian.PutUint32(b, initiationType)
	return p.addMACs(b)
}
