package main

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"postern/scripts/bench/process"
)

// Every way that can be set up here moves bytes both ways and leaves nothing behind.
// Postern's own needs its program, which is not built here.
func TestSetups(t *testing.T) {
	all, s, err := openSite(options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	others := slices.DeleteFunc(slices.Clone(recipes), func(r recipe) bool { return r.name == us })
	setups, err := openAll(t.Context(), others, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSetups(setups) })
	for _, opened := range setups {
		t.Run(opened.recipe.name, func(t *testing.T) {
			processes := process.Family(append(opened.cloud, opened.office...)...)
			f, err := opened.measure(t.Context(), options{span: 100 * time.Millisecond, bulk: 8 << 20})
			opened.close()
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range roadFigures {
				own := want.name == "cpu.bulk" || want.name == "cpu.request"
				if _, ok := f[want.name]; !ok && !own && want.name != "latency.added.p50" {
					t.Errorf("%s is missing", want.name)
				}
			}
			for _, pid := range processes {
				err := process.Poll(t.Context(), func() error {
					if process.Runs(pid) {
						return errors.New("it still runs")
					}
					return nil
				})
				if err != nil {
					t.Errorf("process %d: %v", pid, err)
				}
			}
			if _, err := os.Stat(opened.children.Dir); !os.IsNotExist(err) {
				t.Errorf("the children's directory: got %v, want that there is none", err)
			}
		})
	}
}
