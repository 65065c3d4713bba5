package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"postern/scripts/bench/process"
)

// How hard the road is worked.
const (
	bulkClients    = 8   // where bulk is not one connection's
	requestClients = 32  // kept connections
	latencyRate    = 500 // requests a second that every way can carry
	connectWorkers = 16  // new connections at a time
)

// A roadFigure is one figure that every way has, and what is wanted of Postern's as
// a ratio to that of other ways.
type roadFigure struct {
	name, unit, better string
	goals              map[string]float64
}

var (
	bulkGoals   = map[string]float64{viaWireGuard: 2, viaOpenSSH: 1}
	roadFigures = []roadFigure{
		{"bulk1.down", "MB/s", more, bulkGoals},
		{"bulk1.up", "MB/s", more, bulkGoals},
		{"bulk8.down", "MB/s", more, bulkGoals},
		{"bulk8.up", "MB/s", more, bulkGoals},
		{"requests", "requests/s", more, map[string]float64{viaOpenSSH: 1}},
		{"latency.p50", "µs", less, nil},
		{"latency.p99", "µs", less, nil},
		{"latency.added.p50", "µs", less, nil},
		{"connections", "connections/s", more, map[string]float64{viaDirect: 0.6}},
		{"connections.p50", "µs", less, nil},
		{"connections.p99", "µs", less, nil},
		{"cpu.bulk", "CPU s/GB", less, nil},
		{"cpu.bulk.total", "CPU s/GB", less, nil},
		{"cpu.request", "CPU µs/request", less, nil},
		{"cpu.request.total", "CPU µs/request", less, nil},
	}
)

// benchRoad measures the way through Postern beside the others, all of them set up
// at the same time and taking turns.
func benchRoad(ctx context.Context, o options) ([]Result, error) {
	if err := raiseFileLimit(); err != nil {
		return nil, err
	}
	all, s, err := openSite(o)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	setups, err := openAll(ctx, recipes, s)
	if err != nil {
		return nil, err
	}
	defer closeSetups(setups)
	var ways []way
	for _, s := range setups {
		ways = append(ways, way{s.recipe.name, func(ctx context.Context) (figures, error) {
			fmt.Fprintf(os.Stderr, "bench: road: %s\n", s.recipe.name)
			return s.measure(ctx, o)
		}})
	}
	got, err := interleave(ctx, o.runs, ways...)
	if err != nil {
		return nil, err
	}
	got.addAdded()
	return got.roadResults(), nil
}

// openSite starts the origin that most ways lead to.
func openSite(o options) (*process.Children, site, error) {
	c, err := process.New()
	if err != nil {
		return nil, site{}, err
	}
	origin, err := startOrigin(c, func(cmd *exec.Cmd) *exec.Cmd { return cmd }, "127.0.0.1")
	if err != nil {
		err = c.Explain(err)
		c.Close()
	}
	return c, site{postern: o.postern, origin: origin}, err
}

// measure takes all figures of a way once.
func (s *setup) measure(ctx context.Context, o options) (figures, error) {
	f := figures{}
	if err := s.measureBulk(ctx, o.bulk, f); err != nil {
		return nil, fmt.Errorf("bulk: %w", err)
	}
	if err := s.measureRequests(ctx, o.span, f); err != nil {
		return nil, fmt.Errorf("requests: %w", err)
	}
	took, err := latencies(ctx, s.addr, requestClients, latencyRate, o.span)
	if err != nil {
		return nil, fmt.Errorf("latency: %w", err)
	}
	f["latency.p50"], f["latency.p99"] = quantile(took, 0.50), quantile(took, 0.99)
	took, all, err := connections(ctx, s.addr, connectWorkers, o.span)
	if err != nil {
		return nil, fmt.Errorf("connections: %w", err)
	}
	f["connections"] = float64(len(took)) / all.Seconds()
	f["connections.p50"], f["connections.p99"] = quantile(took, 0.50), quantile(took, 0.99)
	return f, nil
}

func (s *setup) measureBulk(ctx context.Context, size int64, f figures) error {
	meter, err := s.meter()
	if err != nil {
		return err
	}
	var moved int64
	for _, b := range []struct {
		name    string
		clients int
		move    func(*client, int64, []byte) error
	}{
		{"bulk1.down", 1, (*client).download},
		{"bulk1.up", 1, (*client).upload},
		{"bulk8.down", bulkClients, (*client).download},
		{"bulk8.up", bulkClients, (*client).upload},
	} {
		if f[b.name], err = transfer(ctx, s.addr, b.clients, size, b.move); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		moved += size
	}
	return meter.read(f, "cpu.bulk", func(took time.Duration) float64 {
		return took.Seconds() / (float64(moved) / 1e9)
	})
}

func (s *setup) measureRequests(ctx context.Context, span time.Duration, f figures) error {
	meter, err := s.meter()
	if err != nil {
		return err
	}
	count, took, err := requests(ctx, s.addr, requestClients, span)
	if err != nil {
		return err
	}
	f["requests"] = float64(count) / took.Seconds()
	return meter.read(f, "cpu.request", func(took time.Duration) float64 {
		return float64(took.Microseconds()) / float64(count)
	})
}

// A meter tells what CPU time a setup takes from when it was made.
type meter struct {
	*setup
	own, total time.Duration // before
}

func (s *setup) meter() (m meter, err error) {
	m.setup = s
	m.own, m.total, err = s.spent()
	return m, err
}

// read adds to f the figure called name, of the setup's own processes if it has
// any, and name.total, with the origin's.
func (m meter) read(f figures, name string, figure func(time.Duration) float64) error {
	own, total, err := m.spent()
	if err != nil {
		return err
	}
	if own > m.own {
		f[name] = figure(own - m.own)
	}
	f[name+".total"] = figure(total - m.total)
	return nil
}

// addAdded adds to all ways but the direct one by how much their latency exceeds
// that of the direct one in the same turn.
func (t turns) addAdded() {
	direct := t[viaDirect]["latency.p50"]
	for name, way := range t {
		if name == viaDirect {
			continue
		}
		for i, v := range way["latency.p50"] {
			way["latency.added.p50"] = append(way["latency.added.p50"], v-direct[i])
		}
	}
}

// roadResults compares Postern with every way that has the same figure.
func (t turns) roadResults() []Result {
	var results []Result
	for _, f := range roadFigures {
		for _, r := range recipes {
			if r.name == us || t[r.name][f.name] == nil {
				continue
			}
			result := t.compare("road."+f.name, f.name, f.unit, f.better, us, r.name, f.goals[r.name])
			if f.name == "latency.added.p50" && r.name == viaHAProxy {
				result = result.within(1.5*max(0, result.Other) + 150)
			}
			results = append(results, result)
		}
	}
	return results
}
