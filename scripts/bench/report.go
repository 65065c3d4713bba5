package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
)

// Figures are what one run of a way measured, by name, such as "bulk8.down".
type figures map[string]float64

// A way is one of the things that take turns at the same work.
type way struct {
	name string
	run  func(ctx context.Context) (figures, error)
}

// Turns are the figures of interleaved runs: by way, then by name, in order.
type turns map[string]map[string][]float64

// interleave runs all ways, one after the other, as many times as runs says, so
// that whatever the machine does meanwhile meets all of them.
func interleave(ctx context.Context, runs int, ways ...way) (turns, error) {
	got := turns{}
	for range runs {
		for _, w := range ways {
			f, err := w.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			if got[w.name] == nil {
				got[w.name] = map[string][]float64{}
			}
			for name, v := range f {
				got[w.name][name] = append(got[w.name][name], v)
			}
		}
	}
	return got, nil
}

// Which way a figure gets better.
const (
	more = "more"
	less = "less"
)

// A Result is one figure of the report, Postern's beside another way's. Both are
// medians of their runs, from the same interleaved turns.
type Result struct {
	Name         string    `json:"name"` // such as tunnel.flows1.throughput
	Unit         string    `json:"unit"`
	Better       string    `json:"better"` // "more" or "less"
	Value        float64   `json:"value"`
	Runs         []float64 `json:"runs"`     // in order
	Baseline     string    `json:"baseline"` // what Value is compared with
	Other        float64   `json:"baseline_value"`
	BaselineRuns []float64 `json:"baseline_runs"` // in order
	Ratio        float64   `json:"ratio"`         // Value / Other

	// Goal is the ratio that is wanted: at least, or at most where less is
	// better. Zero if none was set.
	Goal float64 `json:"goal,omitempty"`
	Met  bool    `json:"met"` // the goal, or there is none
}

// compare returns the figure called figure of the way us beside that of the way
// other, as a Result called name. A goal of 0 is none.
func (t turns) compare(name, figure, unit, better, us, other string, goal float64) Result {
	r := Result{
		Name: name, Unit: unit, Better: better, Baseline: other, Goal: goal,
		Runs: t[us][figure], BaselineRuns: t[other][figure],
	}
	r.Value, r.Other = median(r.Runs), median(r.BaselineRuns)
	r.Ratio = r.Value / r.Other
	r.Met = goal == 0 || better == more && r.Ratio >= goal || better == less && r.Ratio <= goal
	return r
}

// median returns the middle one of an odd number of values.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// print shows results as a table.
func print(w io.Writer, results []Result) error {
	fmt.Fprintf(w, "%s/%s, %d CPUs, %s; medians of interleaved runs\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tPOSTERN\tOTHER\tRATIO\tGOAL\tUNIT\tAGAINST")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%.4g\t%.4g\t%.2f\t%s\t%s\t%s\n", r.Name, r.Value, r.Other, r.Ratio, r.goal(), r.Unit, r.Baseline)
	}
	return table.Flush()
}

func (r Result) goal() string {
	switch {
	case r.Goal == 0:
		return "-"
	case r.Better == more:
		return fmt.Sprintf("≥ %g %s", r.Goal, verdict[r.Met])
	}
	return fmt.Sprintf("≤ %g %s", r.Goal, verdict[r.Met])
}

var verdict = map[bool]string{true: "met", false: "MISSED"}

// save leaves results in path as JSON.
func save(path string, results []Result) error {
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
