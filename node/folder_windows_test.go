package node

import (
	"os"
	"testing"
)

// Windows has more than one way to spell a path.
func TestFolderHidesAllSpellings(t *testing.T) {
	root, err := os.OpenRoot(sampleFolder(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{`docs\..\.env`, `.git\config`, `docs\..\.git\config`, "plain.txt::$DATA", "GIT~1/config", "ENV~1"} {
		if f, err := (visible{root}).Open(name); err == nil {
			f.Close()
			t.Errorf("%q was opened", name)
		}
	}
}
