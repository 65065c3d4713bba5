package node

import (
	"os"
	"path/filepath"
	"testing"
)

// A folder is a folder however Windows lets people spell it.
func TestParseFolderSpellings(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "docs"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	want := filepath.Join(dir, "docs")
	rooted := want[len(filepath.VolumeName(want)):]
	for _, spelled := range []string{want, filepath.ToSlash(want), `.\docs`, "./docs", `.\docs\..\docs`, rooted, "file:///" + filepath.ToSlash(want)} {
		s, err := ParseService("files=" + spelled)
		if err != nil || s.Upstream != want || s.Name != "files" {
			t.Errorf("%q: %q=%q, %v, want %q", spelled, s.Name, s.Upstream, err, want)
			continue
		}
		if up, err := parseUpstream(s.Upstream); err != nil || up.folder != want {
			t.Errorf("%q is read as %q once it is kept, %v", s.Upstream, up.folder, err)
		}
	}
}
