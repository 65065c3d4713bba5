// Command bench measures what the road costs: the same requests to the same
// origin, once over TLS straight to it and once through gateway, tunnel and
// node, turn by turn in one run. It prints medians and their ratios, and writes
// them to build/reports/bench.json; scripts/README.md says how to read them.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Result is one figure of the report.
type Result struct {
	Name     string    `json:"name"`
	Value    float64   `json:"value"`    // through the road: median of the runs
	Unit     string    `json:"unit"`     //
	Baseline float64   `json:"baseline"` // direct: median of the runs, same unit
	Ratio    float64   `json:"ratio"`    // value / baseline
	Runs     []float64 `json:"runs"`     // each run's value, in order
}

func main() {
	if os.Getenv(originEnv) != "" {
		if err := origin(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: origin:", err)
			os.Exit(1)
		}
		return
	}
	postern := flag.String("postern", "build/postern", "the program to measure")
	report := flag.String("report", "build/reports/bench.json", "where the figures go")
	runs := flag.Int("runs", 3, "how often each is measured, an odd number")
	span := flag.Duration("span", 2*time.Second, "how long one measurement of a rate takes")
	bulk := flag.Int64("bulk", 256<<20, "bytes of one bulk transfer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	results, err := bench(ctx, *postern, *runs, *span, *bulk)
	if err == nil {
		err = write(*report, results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench starts the road and measures everything that is in measures.
func bench(ctx context.Context, program string, runs int, span time.Duration, bulk int64) ([]Result, error) {
	road, err := openRoad(ctx, program)
	if err != nil {
		return nil, err
	}
	defer road.close()
	var results []Result
	for _, m := range measures(span, bulk) {
		r := Result{Name: m.name, Unit: m.unit}
		var direct []float64
		for range runs {
			d, err := m.run(ctx, road.direct)
			if err != nil {
				return nil, fmt.Errorf("%s, direct: %w", m.name, err)
			}
			v, err := m.run(ctx, road.through)
			if err != nil {
				return nil, fmt.Errorf("%s, through the road: %w", m.name, err)
			}
			direct, r.Runs = append(direct, d), append(r.Runs, v)
		}
		r.Value, r.Baseline = median(r.Runs), median(direct)
		r.Ratio = r.Value / r.Baseline
		results = append(results, r)
		if name, ok := strings.CutPrefix(r.Name, "road.latency."); ok {
			results = append(results, added(r, "road.latency.added."+name))
		}
	}
	return results, nil
}

// added returns what the road adds to a figure that was measured both ways.
func added(r Result, name string) Result {
	a := Result{Name: name, Unit: r.Unit + ", road less direct", Value: r.Value - r.Baseline, Baseline: r.Baseline}
	a.Ratio = a.Value / a.Baseline
	for _, v := range r.Runs {
		a.Runs = append(a.Runs, v-r.Baseline)
	}
	return a
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// write prints the figures and leaves them in path as JSON.
func write(path string, results []Result) error {
	fmt.Printf("%s/%s, %d CPUs, %s; medians of %d interleaved runs\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), len(results[0].Runs))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "NAME\tROAD\tDIRECT\tRATIO\tUNIT\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.2f\t%s\t\n", r.Name, r.Value, r.Baseline, r.Ratio, r.Unit)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
