package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern"
)

// What a machine looks like to all roles: clocks that differ, and a disk that takes nothing.
func TestMachine(t *testing.T) {
	found := func(dir string, skew time.Duration, subject string) postern.Finding {
		var e examination
		e.machine(dir, skew)
		for _, f := range e.Findings {
			if f.Subject == subject {
				return f
			}
		}
		t.Fatalf("nothing of %s in %+v", subject, e.Findings)
		panic("unreachable")
	}
	for skew, want := range map[time.Duration]string{
		-3 * time.Hour: "3h behind the coordinator's", 90 * time.Second: "1m ahead of the coordinator's",
	} {
		if f := found(t.TempDir(), skew, "clock"); f.Result != postern.FindingWarning || !strings.Contains(f.Detail, want) || f.Hint == "" {
			t.Errorf("%v: got %+v", skew, f)
		}
	}
	if f := found(t.TempDir(), 50*time.Second, "clock"); strings.Contains(f.Detail, "coordinator") {
		t.Errorf("50 s are worth a word: %+v", f)
	}
	if f := found(filepath.Join(t.TempDir(), "none"), 0, "disk"); f.Result != postern.FindingError || f.Hint == "" {
		t.Errorf("got %+v", f)
	}
}
