package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"postern/scripts/bench/longline"
)

// A lossyLine is one of the lines that the section measures over.
type lossyLine struct {
	prefix string // of its results' names
	args   []string
	ways   []string
	wanted []string
}

var (
	lossyWays = []string{longline.Direct, longline.DirectBBR, longline.RelayBBR, longline.Postern}
	lossyBulk = []string{"bulk1.down", "bulk1.up", "bulk8.down", "bulk8.up"}
)

// lossyLines are 500 Mbit/s, and 40 ms there and back, if not said otherwise.
var lossyLines = []lossyLine{
	{"lossy.", []string{"--loss", "1%"}, lossyWays, append(slices.Clone(lossyBulk), "small", "new")},
	{"lossy.clean.", nil, lossyWays, append(slices.Clone(lossyBulk), "new")},
	{"lossy.rare.", []string{"--loss", "0.1%"}, lossyWays, lossyBulk},
	{"lossy.narrow.", []string{"--rate", "200mbit", "--queue", "700"}, lossyWays, lossyBulk},
	{"lossy.", nil, []string{longline.Direct, longline.Postern}, []string{"storm"}},
}

// lossyFigures says how to read what the ways measure, in the report's order.
var lossyFigures = []struct{ name, unit, better string }{
	{"bulk1.down", "Mbit/s, 1 download", more},
	{"bulk1.up", "Mbit/s, 1 upload", more},
	{"bulk8.down", "Mbit/s, 8 downloads", more},
	{"bulk8.up", "Mbit/s, 8 uploads", more},
	{"small.p50", "ms, beside 8 downloads", less},
	{"small.p99", "ms, beside 8 downloads", less},
	{"new.p50", "ms to a first answer", less},
	{"new.p99", "ms to a first answer", less},
	{"storm.rate", "new connections/s", more},
	{"storm.prompt", "of them within 1 s", more},
	{"storm.max", "ms, the slowest of them", less},
}

// lossyGoals are the ratios to direct that are wanted, by result.
var lossyGoals = map[string]float64{
	"lossy.bulk8.down": 0.9,
	"lossy.bulk8.up":   0.9,
	"lossy.small.p99":  0.5,
}

// lossyLimits are the values that are wanted, by result: little more than the round
// trip for a small answer, 2.2 of them for the first on a new connection, and no
// connection of a storm that hangs.
var lossyLimits = map[string]float64{
	"lossy.small.p50":     1.05 * 40,
	"lossy.clean.new.p50": 2.2 * 40,
	"lossy.storm.prompt":  1,
}

// benchLossy measures all ways over all lines. Each line is made anew and
// everything started on it, so nothing remembers the line before.
func benchLossy(ctx context.Context, o options) ([]Result, error) {
	if !canNetwork() {
		fmt.Fprintln(os.Stderr, "bench: LEFT OUT: lossy: it needs root's right to network namespaces and /dev/net/tun")
		return nil, nil
	}
	var results []Result
	for _, line := range lossyLines {
		fmt.Fprintf(os.Stderr, "bench: %s over a line %s\n", strings.Join(line.wanted, ", "), strings.Join(line.args, " "))
		r, err := line.measure(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("line %s: %w", strings.Join(line.args, " "), err)
		}
		results = append(results, r...)
	}
	return results, nil
}

func (line lossyLine) measure(ctx context.Context, o options) (results []Result, err error) {
	lab, err := longline.Open(ctx, longline.Config{Line: o.line, Args: line.args, Postern: o.postern})
	if err != nil {
		return nil, err
	}
	defer func() {
		if closing := lab.Close(); err == nil {
			err = closing
		}
	}()
	var ways []way
	for _, name := range line.ways {
		ways = append(ways, way{name, func(ctx context.Context) (figures, error) {
			f, err := lab.Measure(ctx, name, o.span, line.wanted...)
			return figures(f), err
		}})
	}
	got, err := interleave(ctx, o.runs, ways...)
	if err != nil {
		return nil, err
	}
	for _, f := range lossyFigures {
		for _, w := range ways {
			if w.name == longline.Postern || got[w.name][f.name] == nil {
				continue
			}
			name := line.prefix + f.name
			goal, limit := 0.0, 0.0
			if w.name == longline.Direct {
				goal, limit = lossyGoals[name], lossyLimits[name]
			}
			r := got.compare(name, f.name, f.unit, f.better, longline.Postern, w.name, goal)
			if limit != 0 {
				r = r.within(limit)
			}
			results = append(results, r)
		}
	}
	return results, nil
}
