//go:build e2e

package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// reports is where the suites' figures go, for people and scripts.
var reports = filepath.Join("..", "..", "build", "reports")

// A figure is one thing that a suite measured.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

var (
	figuresMu sync.Mutex
	figures   = map[string][]figure{} // by suite
	proofs    = map[int]string{}      // of what a gateway cannot do, by their place in the report
)

// noteFigure adds a figure to the suite's report, SUITE.json and SUITE.txt.
func noteFigure(t testing.TB, suite, name string, value float64, unit string) {
	t.Helper()
	t.Logf("%s: %.4g %s", name, value, unit)
	figuresMu.Lock()
	defer figuresMu.Unlock()
	figures[suite] = append(figures[suite], figure{name, value, unit})
	data, err := json.MarshalIndent(figures[suite], "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range figures[suite] {
		fmt.Fprintf(&text, "%-48s %10.4g %s\n", f.Name, f.Value, f.Unit)
	}
	if err := os.MkdirAll(reports, 0o755); err != nil {
		t.Fatal(err)
	}
	for ext, content := range map[string]string{".json": string(data) + "\n", ".txt": text.String()} {
		if err := os.WriteFile(filepath.Join(reports, suite+ext), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// proved adds to the report for who has to judge what a gateway sees and can do,
// proof.txt, unless the test has failed: a claim, what was tried against it, and what came
// of that.
func proved(t testing.TB, place int, claim, tried, outcome string) {
	t.Helper()
	if t.Failed() {
		return
	}
	figuresMu.Lock()
	defer figuresMu.Unlock()
	proofs[place] = fmt.Sprintf("%d. %s\n%s\n%s", place, claim, paragraph("Tried", tried), paragraph("Seen", outcome))
	var text strings.Builder
	for _, place := range slices.Sorted(maps.Keys(proofs)) {
		text.WriteString(proofs[place] + "\n\n")
	}
	if err := os.MkdirAll(reports, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(reports, "proof.txt"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// paragraph returns text in lines of at most 88 characters, behind a word.
func paragraph(word, text string) string {
	const width, indent = 88, 10
	line := fmt.Sprintf("   %-*s", indent-3, word)
	var out strings.Builder
	for _, w := range strings.Fields(text) {
		if len(line)+len(w) > width && len(strings.TrimSpace(line)) > 0 {
			out.WriteString(strings.TrimRight(line, " ") + "\n")
			line = strings.Repeat(" ", indent)
		}
		line += w + " "
	}
	return out.String() + strings.TrimRight(line, " ")
}

// A recovery is how long it took until all was well again after a failure, beside what is
// promised.
type recovery struct {
	Row     string  `json:"row"`     // of docs/recovery.md, such as R4
	What    string  `json:"what"`    // failed, and came back
	Promise float64 `json:"promise"` // seconds
	Took    float64 `json:"took"`    // seconds, the longest if it was tried more often
	Tries   int     `json:"tries"`
}

// recovered writes what was measured into the report of all suites, recovery.json, and
// fails the test if the longest took more than what is promised and patience, which is for
// a machine on which others work.
func recovered(t testing.TB, row, what string, promise, patience time.Duration, took ...time.Duration) {
	t.Helper()
	longest := slices.Max(took)
	t.Logf("%s %s: %.2f s, promised %.4g s (%d tries)", row, what, longest.Seconds(), promise.Seconds(), len(took))
	if longest > promise+patience {
		t.Errorf("%s %s: took %v, promised %v", row, what, longest, promise)
	}
	figuresMu.Lock()
	defer figuresMu.Unlock()
	file := filepath.Join(reports, "recovery.json")
	var all []recovery
	if data, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(data, &all); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	all = slices.DeleteFunc(all, func(r recovery) bool { return r.Row == row && r.What == what })
	all = append(all, recovery{row, what, promise.Seconds(), longest.Seconds(), len(took)})
	number := func(r recovery) (n int) { _, _ = fmt.Sscanf(r.Row, "R%d", &n); return n }
	slices.SortFunc(all, func(a, b recovery) int {
		return cmp.Or(cmp.Compare(number(a), number(b)), strings.Compare(a.What, b.What))
	})
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(reports, 0o755), os.WriteFile(file, append(data, '\n'), 0o644)); err != nil {
		t.Fatal(err)
	}
}
