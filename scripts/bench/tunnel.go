package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"net/rpc"
	"os/exec"
	"time"
)

// warmUp is how long work runs before it is measured.
const warmUp = 300 * time.Millisecond

// A trial is work in a tunnel and the figures that it yields.
type trial struct {
	name  string
	kind  string // of works
	flows int
	most  time.Duration // that it is measured, if not zero
	yield []yield
}

// A yield is one figure of a trial.
type yield struct {
	name         string // after the trial's
	unit, better string
	goal         float64
	of           func(span) float64
}

// A span is what was seen of a trial from one moment to another.
type span struct {
	sender, receiver Sample // what was done in that time
	ping             time.Duration
}

// gigabytes is what arrived, in 10⁹ bytes.
func (s span) gigabytes() float64 { return float64(s.receiver.Received) / 1e9 }

var bulk = []yield{
	{"throughput", "Gbit/s", more, 5, func(s span) float64 { return 8 * s.gigabytes() / s.receiver.At.Seconds() }},
	{"cpu", "CPU s/GB, both", less, 0.2, func(s span) float64 { return (s.sender.CPU + s.receiver.CPU).Seconds() / s.gigabytes() }},
	{"cpu.sender", "CPU s/GB", less, 0, func(s span) float64 { return s.sender.CPU.Seconds() / s.gigabytes() }},
	{"cpu.receiver", "CPU s/GB", less, 0, func(s span) float64 { return s.receiver.CPU.Seconds() / s.gigabytes() }},
}

// Trials are all of the tunnel. Down is from the node to the gateway.
var trials = []trial{
	{name: "flows1.down", kind: "down", flows: 1, yield: bulk},
	{name: "flows1.up", kind: "up", flows: 1, yield: bulk},
	{name: "flows8.down", kind: "down", flows: 8, yield: bulk},
	{name: "flows8.up", kind: "up", flows: 8, yield: bulk},
	// The glue keeps each port for a minute after its connection, and has 49,000.
	{name: "connections", kind: "connect", flows: 16, most: 3 * time.Second, yield: []yield{
		{"", "new connections/s", more, 1.4, func(s span) float64 { return float64(s.sender.Connections) / s.sender.At.Seconds() }},
	}},
	{name: "pingpong", kind: "pingpong", flows: 1, yield: []yield{
		{"p50", "µs, 1 byte and back", less, 0.7, func(s span) float64 { return float64(s.ping) / 1e3 }},
	}},
}

// benchTunnel measures the tunnel alone: two processes, WireGuard between them over
// loopback UDP, TCP inside it. The ways are our netstack and the published glue.
func benchTunnel(ctx context.Context, o options) ([]Result, error) {
	var results []Result
	for _, t := range trials {
		got, err := interleave(ctx, o.runs, t.way(us, o), t.way(glue, o))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		for _, y := range t.yield {
			name := "tunnel." + t.name
			if y.name != "" {
				name += "." + y.name
			}
			results = append(results, got.compare(name, y.name, y.unit, y.better, us, glue, y.goal))
		}
	}
	return results, nil
}

func (t trial) way(name string, o options) way {
	return way{name, func(ctx context.Context) (figures, error) {
		s, err := t.run(ctx, name, o.span)
		if err != nil {
			return nil, err
		}
		f := figures{}
		for _, y := range t.yield {
			f[y.name] = y.of(s)
		}
		return f, nil
	}}
}

// run does the trial's work in a tunnel of its own.
func (t trial) run(ctx context.Context, way string, long time.Duration) (span, error) {
	tun, err := openTunnel(ctx, way)
	if err != nil {
		return span{}, err
	}
	defer tun.close()
	if t.most != 0 {
		long = min(long, t.most)
	}
	work := Work{Kind: t.kind, Flows: t.flows, Node: tun.node.address}
	if err := tun.gateway.Call("Host.Start", work, &Nothing{}); err != nil {
		return span{}, err
	}
	if err := pause(ctx, warmUp); err != nil {
		return span{}, err
	}
	gateway, node, err := tun.sample()
	if err != nil {
		return span{}, err
	}
	if err := pause(ctx, long); err != nil {
		return span{}, err
	}
	gatewayAfter, nodeAfter, err := tun.sample()
	if err != nil {
		return span{}, err
	}
	s := span{sender: gatewayAfter.since(gateway), receiver: nodeAfter.since(node)}
	if t.kind == "down" {
		s.sender, s.receiver = s.receiver, s.sender
	}
	return s, tun.gateway.Call("Host.Stop", Nothing{}, &s.ping)
}

func (s Sample) since(before Sample) Sample {
	return Sample{
		At: s.At - before.At, CPU: s.CPU - before.CPU,
		Received: s.Received - before.Received, Connections: s.Connections - before.Connections,
	}
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// A tunnel is two hosts that are each other's only peer.
type tunnel struct{ gateway, node *hostProcess }

// openTunnel starts both hosts. They end with ctx, or with close.
func openTunnel(ctx context.Context, way string) (t *tunnel, err error) {
	t = &tunnel{}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.gateway, err = startHost(ctx, way, netip.MustParseAddr("fd00::1")); err != nil {
		return nil, fmt.Errorf("start the gateway: %w", err)
	}
	if t.node, err = startHost(ctx, way, netip.MustParseAddr("fd00::2")); err != nil {
		return nil, fmt.Errorf("start the node: %w", err)
	}
	if err := t.gateway.Call("Host.SetPeer", t.node.peer, &Nothing{}); err != nil {
		return nil, err
	}
	if err := t.node.Call("Host.SetPeer", t.gateway.peer, &Nothing{}); err != nil {
		return nil, err
	}
	return t, t.node.Call("Host.Serve", Nothing{}, &Nothing{})
}

func (t *tunnel) sample() (gateway, node Sample, err error) {
	if err := t.gateway.Call("Host.Sample", Nothing{}, &gateway); err != nil {
		return gateway, node, err
	}
	return gateway, node, t.node.Call("Host.Sample", Nothing{}, &node)
}

func (t *tunnel) close() {
	for _, h := range []*hostProcess{t.gateway, t.node} {
		if h != nil {
			h.close()
		}
	}
}

// A hostProcess is a Host and the process in which it lives.
type hostProcess struct {
	*rpc.Client
	cmd     *exec.Cmd
	unwatch func() bool
	address netip.Addr
	peer    HostPeer // as the other host sees it
}

// startHost starts a process and opens its tunnel.
func startHost(ctx context.Context, way string, address netip.Addr) (*hostProcess, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	cmd, err := roleCommand("host")
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &hostProcess{cmd: cmd, address: address}
	h.Client = rpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{out, in})
	// A call to a process that is gone fails, so this ends whatever waits.
	h.unwatch = context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	var port uint16
	if err := h.Call("Host.Open", HostConfig{way, [32]byte(key.Bytes()), address}, &port); err != nil {
		h.close()
		return nil, err
	}
	h.peer = HostPeer{
		Key: [32]byte(key.PublicKey().Bytes()), Address: address,
		Endpoint: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
	}
	return h, nil
}

func (h *hostProcess) close() {
	h.unwatch()
	h.cmd.Process.Kill()
	h.cmd.Wait()
	h.Client.Close()
}
