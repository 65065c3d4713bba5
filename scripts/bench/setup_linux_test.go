package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// Every way that can be set up here moves bytes both ways and leaves nothing behind.
// Postern's own needs its program, which is not built here.
func TestSetups(t *testing.T) {
	all, s, err := openSite(options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.close)
	others := slices.DeleteFunc(slices.Clone(recipes), func(r recipe) bool { return r.name == us })
	setups, err := openAll(t.Context(), others, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSetups(setups) })
	for _, opened := range setups {
		t.Run(opened.recipe.name, func(t *testing.T) {
			processes := family(append(opened.cloud, opened.office...)...)
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
				err := poll(t.Context(), func() error {
					if fields, err := stat(pid); err == nil && fields[0] != "Z" {
						return errors.New("it still runs")
					}
					return nil
				})
				if err != nil {
					t.Errorf("process %d: %v", pid, err)
				}
			}
			if _, err := os.Stat(opened.children.dir); !os.IsNotExist(err) {
				t.Errorf("the children's directory: got %v, want that there is none", err)
			}
		})
	}
}

// What a process started is of its family, and its memory and time are counted.
func TestFamily(t *testing.T) {
	c, err := newChildren()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	pid, err := c.start("shell", command("sh", "-c", "sleep 1000 & wait"))
	if err != nil {
		t.Fatal(err)
	}
	err = poll(t.Context(), func() error {
		if n := len(family(pid)); n != 2 {
			return fmt.Errorf("got a family of %d, want 2", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	one, err := resident([]int{family(pid)[1]})
	if err != nil {
		t.Fatal(err)
	}
	if both, err := resident([]int{pid}); err != nil || both <= one || one <= 0 {
		t.Errorf("resident: got %v KiB of both, %v of one, %v", both, one, err)
	}
	if took, err := cpu([]int{os.Getpid()}); err != nil || took < 0 {
		t.Errorf("cpu: got %v, %v", took, err)
	}
}
