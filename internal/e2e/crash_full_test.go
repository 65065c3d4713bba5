//go:build e2e

package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/datadir"
	"postern/node"
)

// A small disk is a directory with room for some 32 MiB, which fills.
func smallDisk(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=32m,mode=0700"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// fill writes to the disk at path until nothing fits, and returns what empties it.
func fill(t *testing.T, path string) (empty func()) {
	t.Helper()
	name := filepath.Join(path, "ballast.tmp")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err = nil; err == nil; {
		_, err = f.Write(make([]byte, 64<<10))
	}
	for err = nil; err == nil; { // the last bytes
		_, err = f.Write(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	return func() { os.Remove(name) }
}

// sums returns the SHA-256 of all that is kept in roles' data directories and does not
// change by itself while they serve.
func (d *deployment) sums(roles []string) map[string][32]byte {
	d.t.Helper()
	all := map[string][32]byte{}
	for _, role := range roles {
		err := filepath.WalkDir(d.data(role), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), "postern.db") || e.Name() == "access.log" ||
				e.Name() == "map.json" || e.Name() == datadir.ReserveFile || filepath.Ext(path) == ".tmp" {
				return err
			}
			data, err := os.ReadFile(path)
			all[path] = sha256.Sum256(data)
			return err
		})
		if err != nil {
			d.t.Fatal(err)
		}
	}
	return all
}

// TestCrashDiskFull: with full disks at the coordinator, the gateway and a node, browsers
// are served and what is there can be read; what would have to be written is refused,
// says why, and leaves every file as it was. With room again, all goes on (R13, R14).
func TestCrashDiskFull(t *testing.T) {
	d := bareDeployment(t)
	roles := []string{"coordinator", "gateway", "office"}
	for _, role := range roles {
		smallDisk(t, d.data(role))
	}
	d.startCoordinator()
	d.joinGateway()
	d.runGateway("--http", "", "--access-log", filepath.Join(d.data("gateway"), "access.log"))
	www := filepath.Join(d.dir, "www")
	if err := errors.Join(os.Mkdir(www, 0o700), os.WriteFile(filepath.Join(www, "index.html"), []byte("open"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d.join(d.tenant("acme"), "office", www)
	start(t, "office", d.env, program("postern"), "node", "run", "--data", d.data("office"), "--access-log", filepath.Join(d.data("office"), "access.log"))
	d.ready("office")
	c := d.client()
	serves := func(when string) {
		t.Helper()
		for range 20 {
			if status, body, err := get(c, d.url("acme", "/")); err != nil || status != http.StatusOK || body != "open" {
				t.Fatalf("%s: got %d %q, %v", when, status, body, err)
			}
			c.CloseIdleConnections() // the next comes anew
		}
	}
	serves("with room")
	password := rand.Text()
	if at := d.visitor(t).walk("POST", d.invite("ann", "Ann"), url.Values{"name": {"Ann"}, "password": {password}}); at.status != http.StatusOK {
		t.Fatalf("the invitation led to %s, status %d", at.url, at.status)
	}

	var empty []func()
	for _, role := range roles {
		empty = append(empty, fill(t, d.data(role)))
	}
	before := d.sums(roles)
	serves("full")
	if text, err := d.try("nodes", "list"); err != nil || !strings.Contains(text, "office") {
		t.Errorf("what is there cannot be read: %s, %v", text, err)
	}
	refused := 0
	for i := range 40 { // some may fit where the journal has room already
		if text, err := d.try("tenants", "add", "t"+strings.Repeat("x", 40)+string(rune('a'+i%26))+string(rune('a'+i/26)), "--no-token"); err != nil {
			refused++
			if !strings.Contains(text+err.Error(), "the coordinator's disk is full; nothing was changed") {
				t.Fatalf("refused otherwise: %s, %v", text, err)
			}
		}
	}
	if refused == 0 {
		t.Error("a full disk refuses nothing")
	}
	// What was set aside is for people.
	for range 3 {
		if at := d.visitor(t).walk("POST", d.portal("/sign-in"), url.Values{"login": {"ann"}, "password": {password}}); at.status != http.StatusOK || at.url.Path != "/" {
			t.Errorf("signing in led to %s, status %d: %.500s", at.url, at.status, at.body)
		}
	}
	if _, err := d.try("tenants", "add", "sneaky", "--no-token"); err == nil {
		t.Error("an operator uses up what is for people")
	}
	socket := filepath.Join(d.data("office"), node.Socket)
	if text, err := run(t, `{"services":[]}`, "curl", "-s", "--unix-socket", socket, "-X", "PUT", "--data-binary", "@-", "http://node/v1/services"); err != nil ||
		!strings.Contains(text, "no space left on device") || !strings.Contains(text, "nothing was changed") {
		t.Errorf("the node: %s, %v", text, err)
	}
	if after := d.sums(roles); !maps.Equal(before, after) {
		t.Errorf("files changed: there were %d, and there are %d", len(before), len(after))
	}
	serves("still full")

	for _, fn := range empty {
		fn()
	}
	eventually(t, 20*time.Second, func() error { _, err := d.try("tenants", "add", "later", "--no-token"); return err })
	serves("with room again")
	var status struct {
		AccessLog struct{ Lost int } `json:"access_log"`
	}
	text, err := run(t, "", program("postern"), "gateway", "status", "--data", d.data("gateway"), "--json")
	if err != nil || json.Unmarshal([]byte(text), &status) != nil || status.AccessLog.Lost == 0 {
		t.Errorf("no line of the access log is said to be lost: %s, %v", text, err)
	}
	d.coordinator.kill()
	d.startCoordinator()
	if text, err := d.try("tenants", "list"); err != nil || !strings.Contains(text, "later") {
		t.Errorf("after a kill: %s, %v", text, err)
	}
}
