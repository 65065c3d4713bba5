package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A profile is CPU time by function or by package.
type profile struct {
	total time.Duration
	own   map[string]time.Duration // spent in it
	all   map[string]time.Duration // spent in it and in what it called
}

// profileTunnel does the work of each trial once in our tunnel, leaves a CPU profile
// of both hosts in dir and says on w what is on top.
func profileTunnel(ctx context.Context, long time.Duration, dir string, w io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, t := range trials {
		fmt.Fprintf(os.Stderr, "bench: profile %s\n", t)
		var gateway, node string
		_, err := t.work(ctx, us, func(tun *tunnel) (err error) {
			if err := pause(ctx, warmUp); err != nil {
				return err
			}
			if gateway, node, err = tun.startProfile(dir, t.String()); err != nil {
				return err
			}
			if err := t.last(ctx, long); err != nil {
				return err
			}
			return tun.stopProfile()
		})
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		fmt.Fprintf(w, "%s\n  %s\n  %s\n", t, gateway, node)
		if err := top(ctx, w, gateway, node); err != nil {
			return err
		}
	}
	return nil
}

// top shows where the time of both profiles went.
func top(ctx context.Context, w io.Writer, gateway, node string) error {
	for _, by := range []struct {
		title string
		name  func(line string) string
		most  int
	}{
		{"PACKAGE", packageOf, 12},
		{"FUNCTION", functionOf, 15},
	} {
		g, err := readProfile(ctx, gateway, by.name)
		if err != nil {
			return err
		}
		n, err := readProfile(ctx, node, by.name)
		if err != nil {
			return err
		}
		fmt.Fprintln(w)
		if err := topOf(w, by.title, by.most, g, n); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}

// topOf shows the most entries that cost most in both profiles together.
func topOf(w io.Writer, title string, most int, gateway, node profile) error {
	both := maps.Clone(gateway.own)
	for name, d := range node.own {
		both[name] += d
	}
	names := slices.SortedFunc(maps.Keys(both), func(a, b string) int {
		return cmp.Or(cmp.Compare(both[b], both[a]), cmp.Compare(a, b))
	})
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "gateway\twith calls\tnode\twith calls\t  %s\n", title)
	for _, name := range names[:min(most, len(names))] {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t  %s\n", gateway.share(gateway.own[name]), gateway.share(gateway.all[name]),
			node.share(node.own[name]), node.share(node.all[name]), name)
	}
	fmt.Fprintf(table, "%.2f s\t\t%.2f s\t\t  all\n", gateway.total.Seconds(), node.total.Seconds())
	return table.Flush()
}

func (p profile) share(d time.Duration) string {
	if p.total == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*d.Seconds()/p.total.Seconds())
}

// readProfile adds up the profile in file by what name makes of a function, as
// pprof writes it.
func readProfile(ctx context.Context, file string, name func(line string) string) (profile, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", "-unit=ns", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return profile{}, fmt.Errorf("read %s: %w\n%s", file, err, stderr.Bytes())
	}
	return addUp(bytes.NewReader(out), name)
}

// addUp reads what pprof -traces prints: after a rule, a stack's time and its
// innermost function in one line, then its callers, each in a line.
func addUp(traces io.Reader, name func(line string) string) (profile, error) {
	p := profile{own: map[string]time.Duration{}, all: map[string]time.Duration{}}
	var took time.Duration      // of the stack that is being read; 0 before the first
	var counted map[string]bool // what this stack is counted for already
	lines := bufio.NewScanner(traces)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "-----------+") {
			took, counted = 0, map[string]bool{}
			continue
		}
		if first, rest, ok := strings.Cut(line, " "); ok && counted != nil && took == 0 {
			d, err := time.ParseDuration(first)
			if err != nil {
				continue // a label
			}
			took, line = d, strings.TrimSpace(rest)
			p.total += took
			p.own[name(line)] += took
		}
		if of := name(line); took != 0 && !counted[of] {
			counted[of] = true
			p.all[of] += took
		}
	}
	return p, lines.Err()
}

// functionOf returns a function's full name without what the compiler did to it.
func functionOf(line string) string { return strings.TrimSuffix(line, " (inline)") }

// packageOf returns the import path in a function's full name.
func packageOf(line string) string {
	function, _, _ := strings.Cut(line, "[") // type arguments have paths too
	slash := strings.LastIndexByte(function, '/') + 1
	name, _, _ := strings.Cut(function[slash:], ".")
	return function[:slash] + name
}
