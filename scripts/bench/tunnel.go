package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// warmUp is how long work runs before it is measured.
const warmUp = 300 * time.Millisecond

// A trial is work in a tunnel and the figures that it yields.
type trial struct {
	name  string
	kind  string // of works
	flows int
	most  time.Duration // that it is measured; if zero, as long as asked
	yield []yield
}

// A yield is one figure of a trial.
type yield struct {
	name         string // after the trial's
	unit, better string
	goal         float64
	of           func(observation) float64
}

// An observation is what was seen of a trial.
type observation struct {
	sender, receiver Sample        // what each did, from one moment to another
	ping             time.Duration // the median of round trips
}

func (o observation) gigabytes() float64 { return float64(o.receiver.Received) / 1e9 }

var bulk = []yield{
	{"throughput", "Gbit/s", more, 5, func(o observation) float64 { return 8 * o.gigabytes() / o.receiver.At.Seconds() }},
	{"cpu", "CPU s/GB", less, 0.2, func(o observation) float64 { return (o.sender.CPU + o.receiver.CPU).Seconds() / o.gigabytes() }},
	{"cpu.sender", "CPU s/GB", less, 0, func(o observation) float64 { return o.sender.CPU.Seconds() / o.gigabytes() }},
	{"cpu.receiver", "CPU s/GB", less, 0, func(o observation) float64 { return o.receiver.CPU.Seconds() / o.gigabytes() }},
}

// Trials are all of the tunnel. Down is from the node to the gateway.
var trials = []trial{
	{name: "flows1.down", kind: down, flows: 1, yield: bulk},
	{name: "flows1.up", kind: up, flows: 1, yield: bulk},
	{name: "flows8.down", kind: down, flows: 8, yield: bulk},
	{name: "flows8.up", kind: up, flows: 8, yield: bulk},
	// The glue keeps a port for a minute after its connection, and has 49,000.
	{name: "connections", kind: connect, flows: 16, most: 3 * time.Second, yield: []yield{
		{"", "new connections/s", more, 1.4, func(o observation) float64 {
			return float64(o.sender.Exchanges) / o.sender.At.Seconds()
		}},
	}},
	{name: "pingpong", kind: pingpong, flows: 1, yield: []yield{
		{"p50", "µs, 1 byte each way", less, 0.7, func(o observation) float64 { return float64(o.ping) / 1e3 }},
	}},
}

// benchTunnel measures the tunnel alone: two processes, WireGuard between them over
// loopback UDP, TCP inside it. The ways take turns at each trial.
func benchTunnel(ctx context.Context, o options) ([]Result, error) {
	var results []Result
	for _, t := range trials {
		fmt.Fprintf(os.Stderr, "bench: %s\n", t)
		got, err := interleave(ctx, o.runs, t.way(us, o.span), t.way(glue, o.span))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		for _, y := range t.yield {
			name := t.String()
			if y.name != "" {
				name += "." + y.name
			}
			results = append(results, got.compare(name, y.name, y.unit, y.better, us, glue, y.goal))
		}
	}
	return results, nil
}

func (t trial) String() string { return "tunnel." + t.name }

func (t trial) way(name string, long time.Duration) way {
	return way{name, func(ctx context.Context) (figures, error) {
		seen, err := t.observe(ctx, name, long)
		if err != nil {
			return nil, err
		}
		f := figures{}
		for _, y := range t.yield {
			f[y.name] = y.of(seen)
		}
		return f, nil
	}}
}

// observe measures the trial in a tunnel of the given way.
func (t trial) observe(ctx context.Context, way string, long time.Duration) (observation, error) {
	var before, after [2]Sample // of gateway and node
	ping, err := t.work(ctx, way, func(tun *tunnel) (err error) {
		if err := pause(ctx, warmUp); err != nil {
			return err
		}
		if before[0], before[1], err = tun.sample(); err != nil {
			return err
		}
		if err := t.last(ctx, long); err != nil {
			return err
		}
		after[0], after[1], err = tun.sample()
		return err
	})
	if err != nil {
		return observation{}, err
	}
	o := observation{sender: after[0].since(before[0]), receiver: after[1].since(before[1]), ping: ping}
	if t.kind == down {
		o.sender, o.receiver = o.receiver, o.sender
	}
	if o.receiver.Received == 0 && o.sender.Exchanges == 0 {
		return observation{}, errors.New("nothing was done")
	}
	return o, nil
}

// work does the trial's work in a tunnel of its own until look returns. It returns
// the median of round trips, if that was the work.
func (t trial) work(ctx context.Context, way string, look func(*tunnel) error) (ping time.Duration, err error) {
	tun, err := openTunnel(ctx, way)
	if err != nil {
		return 0, err
	}
	defer tun.close()
	if err := tun.gateway.do("Start", Work{Kind: t.kind, Flows: t.flows, Node: tun.node.peer.Address}); err != nil {
		return 0, err
	}
	if err := look(tun); err != nil {
		return 0, err
	}
	return ping, tun.gateway.Call("Host.Stop", Nothing{}, &ping)
}

// last waits for as long as the trial is to be measured.
func (t trial) last(ctx context.Context, long time.Duration) error {
	if t.most != 0 {
		long = min(long, t.most)
	}
	return pause(ctx, long)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
