package main

import (
	"encoding/json"
	"testing"
)

func TestGoals(t *testing.T) {
	got := turns{
		us:      {"rate": {10, 30, 20}, "added": {200, 100, 300}},
		"other": {"rate": {10, 10, 40}, "added": {-20, 30, 0}},
	}
	for _, test := range []struct {
		name string
		r    Result
		goal string
		met  bool
	}{
		{"none", got.compare("rate", "rate", "MB/s", more, us, "other", 0), "-", true},
		{"met", got.compare("rate", "rate", "MB/s", more, us, "other", 2), "≥ 2 met", true},
		{"missed", got.compare("rate", "rate", "MB/s", more, us, "other", 2.5), "≥ 2.5 MISSED", false},
		{"too much", got.compare("rate", "rate", "MB/s", less, us, "other", 1), "≤ 1 MISSED", false},
		{"within a limit", got.compare("added", "added", "µs", less, us, "other", 0).within(200), "≤ 200 µs met", true},
		{"beyond a limit", got.compare("added", "added", "µs", less, us, "", 0).within(150), "≤ 150 µs MISSED", false},
		{"short of a limit", got.compare("rate", "rate", "MB/s", more, us, "", 0).within(21), "≥ 21 MB/s MISSED", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.r.goal(); got != test.goal || test.r.Met != test.met {
				t.Errorf("got %q, %t, want %q, %t", got, test.r.Met, test.goal, test.met)
			}
			if _, err := json.Marshal(test.r); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a way adds is told from the direct one's figure of the same turn.
func TestAdded(t *testing.T) {
	got := turns{
		viaDirect: {"latency.p50": {100, 50, 70}},
		us:        {"latency.p50": {150, 60, 100}},
	}
	got.addAdded()
	if got, want := median(got[us]["latency.added.p50"]), 30.0; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got[viaDirect]["latency.added.p50"] != nil {
		t.Error("the direct way adds something to itself")
	}
}
