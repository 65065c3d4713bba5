package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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
	Ratio        float64   `json:"ratio"`         // Value / Other, or 0 if there is no such thing

	// Goal is the ratio that is wanted: at least, or at most where less is
	// better. Zero if none was set.
	Goal float64 `json:"goal,omitempty"`
	// Limit is the value that is wanted instead: at least, or at most.
	Limit float64 `json:"limit,omitempty"`
	Met   bool    `json:"met"` // the goal and the limit, or there is none
}

// compare returns the figure called figure of the way us beside that of the way
// other, as a Result called name. A goal of 0 is none, and so is an empty other,
// for a figure that stands alone.
func (t turns) compare(name, figure, unit, better, us, other string, goal float64) Result {
	r := Result{
		Name: name, Unit: unit, Better: better, Baseline: other, Goal: goal,
		Runs: t[us][figure], BaselineRuns: t[other][figure],
	}
	r.Value, r.Other = median(r.Runs), median(r.BaselineRuns)
	if r.Other > 0 {
		r.Ratio = r.Value / r.Other
	}
	r.Met = goal == 0 || reaches(r.Ratio, better, goal)
	return r
}

// within returns r with a limit to its value.
func (r Result) within(limit float64) Result {
	r.Limit = limit
	r.Met = r.Met && reaches(r.Value, r.Better, limit)
	return r
}

func reaches(value float64, better string, goal float64) bool {
	return better == more && value >= goal || better == less && value <= goal
}

// median returns the middle one of an odd number of values, or 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// print shows results as a table.
func print(w io.Writer, results []Result) error {
	fmt.Fprintf(w, "%s/%s, %d CPUs, %s; medians of interleaved runs\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tPOSTERN\tOTHER\tRATIO\tGOAL\tUNIT\tAGAINST")
	for _, r := range results {
		other, ratio := "-", "-"
		if r.Baseline != "" {
			other = number(r.Other)
		}
		if r.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, number(r.Value), other, ratio, r.goal(), r.Unit, cmp.Or(r.Baseline, "-"))
	}
	return table.Flush()
}

// goal says what is wanted of r, and whether it is met.
func (r Result) goal() string {
	sign := "≥"
	if r.Better == less {
		sign = "≤"
	}
	switch {
	case r.Limit != 0:
		return fmt.Sprintf("%s %.4g %s %s", sign, r.Limit, r.Unit, verdict[r.Met])
	case r.Goal != 0:
		return fmt.Sprintf("%s %g %s", sign, r.Goal, verdict[r.Met])
	}
	return "-"
}

var verdict = map[bool]string{true: "met", false: "MISSED"}

// save leaves results in path as JSON, and beside it as tables in Markdown.
func save(path string, results []Result) error {
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tables := strings.TrimSuffix(path, filepath.Ext(path)) + ".md"
	return errors.Join(os.WriteFile(path, append(data, '\n'), 0o644), os.WriteFile(tables, []byte(markdown(results)), 0o644))
}
