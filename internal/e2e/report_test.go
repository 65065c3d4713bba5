//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
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
