package postern_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// walls lists, for each room, the rooms of ours that it may import. A room that
// is not here does not exist, and arrows only point down the list.
var walls = map[string][]string{
	".":                         {},
	"netstack":                  {},
	"internal/accept":           {},
	"internal/fair":             {},
	"internal/splice":           {},
	"internal/connect":          {"."},
	"internal/relay":            {"."},
	"internal/proxyproto":       {},
	"internal/identity":         {"."},
	"internal/datadir":          {"."},
	"internal/acme":             {".", "internal/datadir"},
	"internal/acme/acmetest":    {},
	"internal/accesslog":        {},
	"internal/archive":          {},
	"internal/monitor":          {},
	"internal/netwatch":         {},
	"internal/systemd":          {},
	"internal/dnscheck":         {"."},
	"internal/dnscheck/dnstest": {},
	"internal/member":           {".", "netstack", "internal/connect", "internal/identity", "internal/datadir"},
	"coordinator":               {".", "internal/dnscheck", "internal/identity", "internal/datadir", "internal/proxyproto"},
	"coordinator/sqlite":        {".", "coordinator"},
	"coordinator/portal":        {".", "coordinator", "internal/accept"},
	"gateway":                   {".", "internal/fair", "internal/splice", "internal/proxyproto"},
	"node":                      {".", "netstack", "internal/acme", "internal/dnscheck", "internal/member", "internal/datadir", "internal/accesslog", "internal/monitor", "internal/netwatch", "internal/proxyproto", "internal/accept", "internal/connect", "internal/relay"},
	"cli/postern":               {".", "netstack", "internal/acme", "internal/dnscheck", "coordinator", "coordinator/sqlite", "coordinator/portal", "gateway", "node", "internal/member", "internal/datadir", "internal/identity", "internal/archive", "internal/systemd", "internal/accesslog", "internal/monitor", "internal/netwatch", "internal/relay", "scripts/systemd"},
	"scripts/systemd":           {},
	"scripts/ledger":            {".", "node"},
	"scripts/bench":             {"netstack", "scripts/bench/longline", "scripts/bench/process"},
	"scripts/line":              {},
	"scripts/bench/process":     {},
	"scripts/bench/longline":    {"scripts/bench/process"},
	"internal/e2e":              {".", "netstack", "internal/acme", "internal/dnscheck", "coordinator", "coordinator/sqlite", "coordinator/portal", "gateway", "node", "internal/member", "internal/datadir", "internal/identity", "internal/proxyproto", "internal/relay", "internal/splice"},
}

// keepers lists who may import a module whose types must stay in one room.
var keepers = map[string][]string{
	"golang.zx2c4.com/wireguard":   {"netstack", "scripts/bench"}, // the bench compares with its own glue
	"gvisor.dev/gvisor":            {"netstack"},
	"github.com/mattn/go-sqlite3":  {"coordinator/sqlite", "scripts/ledger"},
	"github.com/urfave/cli":        {"cli/postern"},
	"github.com/miekg/dns":         {"internal/dnscheck", "internal/dnscheck/dnstest", "internal/acme/acmetest"},
	"github.com/mholt/acmez":       {"internal/acme"},
	"filippo.io/age":               {"internal/archive"},
	"github.com/coreos/go-systemd": {"internal/systemd"},
	"github.com/kardianos/service": {"cli/postern"},
	"github.com/letsencrypt":       {"internal/acme/acmetest"},
}

// lent lists the modules of keepers that any room's tests may import too.
var lent = []string{"github.com/miekg/dns"}

// props lists the rooms that only tests may import, those of any room.
var props = []string{"internal/dnscheck/dnstest", "internal/acme/acmetest"}

// neighbours lists which rooms, for its tests, implement interfaces of a room's.
var neighbours = map[string][]string{
	"coordinator":        {"coordinator/sqlite"},
	"coordinator/portal": {"coordinator/sqlite", "internal/dnscheck"},
	"gateway":            {"netstack"},
}

func TestWalls(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && file != "." || file == "build") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		room := path.Dir(filepath.ToSlash(file))
		if _, ok := walls[room]; !ok {
			t.Errorf("%s: room %q is not in the plan of the house", file, room)
			return nil
		}
		seen[room] = true
		test := strings.HasSuffix(file, "_test.go")
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, file, room, imported, test)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for room := range walls {
		if !seen[room] {
			t.Errorf("room %q of the plan does not exist", room)
		}
	}
}

func checkImport(t *testing.T, file, room, imported string, test bool) {
	t.Helper()
	for module, rooms := range keepers {
		if strings.HasPrefix(imported, module) && !slices.Contains(rooms, room) && !(test && slices.Contains(lent, module)) {
			t.Errorf("%s imports %s, which only %v may", file, imported, rooms)
		}
	}
	ours, ok := strings.CutPrefix(imported, "postern/")
	if imported == "postern" {
		ours, ok = ".", true
	}
	// A test may stand in its own room's shoes, and try a room with the real
	// neighbour that implements its interface, or with props.
	if !ok || ours == room || test && (slices.Contains(neighbours[room], ours) || slices.Contains(props, ours)) {
		return
	}
	if !slices.Contains(walls[room], ours) {
		t.Errorf("%s: %q imports %q through a wall", file, room, ours)
	}
}
