package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// markdown returns results as tables, one for each section: a row is a figure, a
// column a way, with Postern's ratio to it.
func markdown(results []Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s.\n", time.Now().Format("2 January 2006"), machine())
	for _, s := range sections {
		var mine []Result
		var others []string
		for _, r := range results {
			if !strings.HasPrefix(r.Name, s.name+".") {
				continue
			}
			mine = append(mine, r)
			if r.Baseline != "" && !slices.Contains(others, r.Baseline) {
				others = append(others, r.Baseline)
			}
		}
		if len(mine) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n| figure | unit | Postern |", s.name)
		for _, o := range others {
			fmt.Fprintf(&b, " %s |", o)
		}
		fmt.Fprintf(&b, " goals |\n|---|---|---|%s---|\n", strings.Repeat("---|", len(others)))
		for len(mine) > 0 {
			name := mine[0].Name
			var row, rest []Result
			for _, r := range mine {
				if r.Name == name {
					row = append(row, r)
				} else {
					rest = append(rest, r)
				}
			}
			writeRow(&b, strings.TrimPrefix(name, s.name+"."), row, others)
			mine = rest
		}
	}
	return b.String()
}

// number writes v with four digits or, if it is larger, without a fraction.
func number(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// writeRow writes one figure's comparisons.
func writeRow(b *strings.Builder, name string, row []Result, others []string) {
	fmt.Fprintf(b, "| %s | %s | %s |", name, row[0].Unit, number(row[0].Value))
	var goals []string
	for _, o := range others {
		i := slices.IndexFunc(row, func(r Result) bool { return r.Baseline == o })
		switch {
		case i < 0:
			b.WriteString(" |")
		case row[i].Ratio == 0:
			fmt.Fprintf(b, " %s |", number(row[i].Other))
		default:
			fmt.Fprintf(b, " %s (× %.2f) |", number(row[i].Other), row[i].Ratio)
		}
	}
	for _, r := range row {
		if g := r.goal(); g != "-" {
			if len(row) > 1 && r.Limit == 0 {
				g += " against " + r.Baseline
			}
			goals = append(goals, g)
		}
	}
	fmt.Fprintf(b, " %s |\n", strings.Join(goals, "; "))
}

// machine says on what the figures were taken.
func machine() string {
	parts := []string{fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())}
	if model := cpuModel(); model != "" {
		parts = append(parts, model)
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
		parts = append(parts, "Linux "+release)
	}
	parts = append(parts, runtime.Version())
	for _, name := range []string{"haproxy", "wireguard-go", "openssh-server", "stunnel4"} {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output()
		if err == nil && len(out) > 0 {
			parts = append(parts, name+" "+string(out))
		}
	}
	return strings.Join(parts, ", ")
}

// cpuModel returns what the processor calls itself, or nothing.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
