// Command bench measures what Postern costs beside what else could be set up, turn
// by turn in one run. It prints medians and their ratios, and writes them to
// build/reports/bench.json; scripts/README.md says how to read them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"postern/scripts/bench/longline"
)

// Options are what was asked for.
type options struct {
	postern string        // the program to measure
	line    string        // the program that is a long and lossy line
	runs    int           // how often each is measured, an odd number
	span    time.Duration // how long one measurement of a rate takes
	bulk    int64         // bytes of one bulk transfer
}

// A section is a part of the bench. The names of its results begin with its own.
type section struct {
	name string
	run  func(ctx context.Context, o options) ([]Result, error)
}

// Sections are all parts, in the order in which they are measured.
var sections = []section{
	{"tunnel", benchTunnel},
	{"road", benchRoad},
	{"memory", benchMemory},
	{"lossy", benchLossy},
}

func main() {
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if ours, err := longline.Child(); ours {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: longline:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.postern, "postern", "build/postern", "the program to measure")
	flag.StringVar(&o.line, "line", "build/line", "the program that is a long and lossy line")
	flag.IntVar(&o.runs, "runs", 3, "how often each is measured, an odd number")
	flag.DurationVar(&o.span, "span", 2*time.Second, "how long one measurement of a rate takes")
	flag.Int64Var(&o.bulk, "bulk", 256<<20, "bytes of one bulk transfer")
	report := flag.String("report", "build/reports/bench.json", "where the figures go")
	only := flag.String("only", "", "measure only these sections, separated by commas")
	profiles := flag.String("profile", "", "leave CPU profiles of the tunnel in this directory, and measure nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	if *profiles != "" {
		err = profileTunnel(ctx, o.span, *profiles, os.Stdout)
	} else {
		err = run(ctx, o, *only, *report)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, only, report string) error {
	wanted, err := choose(only)
	if err != nil {
		return err
	}
	var results []Result
	for _, s := range wanted {
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.name)
		r, err := s.run(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		results = append(results, r...)
		// What was measured is not lost if a later section fails.
		if err := save(report, results); err != nil {
			return err
		}
	}
	return print(os.Stdout, results)
}

// choose returns the sections that are named in names, or all.
func choose(names string) ([]section, error) {
	if names == "" {
		return sections, nil
	}
	var out []section
next:
	for name := range strings.SplitSeq(names, ",") {
		for _, s := range sections {
			if s.name == name {
				out = append(out, s)
				continue next
			}
		}
		return nil, fmt.Errorf("no section is called %q", name)
	}
	return out, nil
}
