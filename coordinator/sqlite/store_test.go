package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"postern"
	"postern/coordinator"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashWrite(dir) // the process that TestCrash kills
	}
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 1, time.UTC)

func addTenant(tx coordinator.Tx, name string, number uint32) error {
	return tx.Tenants().Put(coordinator.Tenant{Name: name, Title: name, Number: number, NextNode: 1, Created: noon})
}

// member returns one with all fields set that its role has.
func member(id, tenant string) coordinator.Member {
	m := coordinator.Member{
		ID: id, Role: postern.RoleNode, Tenant: tenant, Name: "name-" + id,
		Identity: postern.NewIdentityPrivate().Public(), WireGuard: postern.NewWireGuardPrivate().Public(),
		Token: postern.TokenID{7}, Host: postern.Host{Name: "h", OS: "o", Arch: "a", Version: "v"},
		Services: []postern.Service{{Name: "default", Title: "Title", Description: "d", Icon: "book", Entries: []postern.Entry{{Name: "e", Path: "/"}}}}, Joined: noon, Seen: noon.Add(1),
		Weight: 7, Draining: true,
	}
	b := m.Identity
	b[0] = 0xfd
	m.Address = netip.AddrFrom16([16]byte(b[:16]))
	if tenant == "" {
		m.Role, m.Services, m.Endpoint, m.Public = postern.RoleGateway, nil, "e:1", "p:2"
		m.Weight = 0
	}
	return m
}

// Each row comes back as it was put, and is gone when it was deleted.
func TestRows(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "registry.db"))
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		must(t, addTenant(tx, "acme", 65536))
		roundTrip(t, tx.Tenants(), "b", coordinator.Tenant{Name: "b", Title: "B", Number: 1 << 31, NextNode: 1 << 47, Created: noon})
		id := postern.TokenID{1, 2, 3}
		roundTrip(t, tx.Tokens(), id, coordinator.Token{
			ID: id, Kind: postern.JoinToken, Public: postern.IdentityPublic{4}, Role: postern.RoleNode, Tenant: "acme",
			Uses: 3, Created: noon, Expires: noon.Add(1), Revoked: noon.Add(2), Note: "note",
		})
		roundTrip(t, tx.Tokens(), id, coordinator.Token{ID: id, Kind: postern.AdminToken, Public: postern.IdentityPublic{4}, Created: noon, Expires: noon})
		roundTrip(t, tx.Members(), "m", member("m", "acme"))
		roundTrip(t, tx.Members(), "g", member("g", ""))
		key := postern.IdentityPublic{9}
		roundTrip(t, tx.Removed(), key, coordinator.Removed{Identity: key, ID: "x", Time: noon})
		claim := coordinator.Claim{ClaimKey: coordinator.ClaimKey{Host: "a.example", Tenant: "acme"}, Service: "erp", Secret: "s", Created: noon}
		roundTrip(t, tx.Claims(), claim.ClaimKey, claim)
		claim.Proven, claim.Checked, claim.Finding = noon.Add(1), noon.Add(2), "found"
		roundTrip(t, tx.Claims(), claim.ClaimKey, claim)
		roundTrip(t, tx.Holds(), "a.example", coordinator.Hold{Host: "a.example", Owner: 65536, Until: noon})
		want := coordinator.Deployment{ID: "d", Prefix: netip.MustParsePrefix("fd00:1:2::/48"), MapVersion: 1 << 41, NextTenant: 65537, NextGateway: 2, Fit: []string{"a", "b"}, Created: noon}
		if _, err := tx.Deployment(); !errors.Is(err, coordinator.ErrNotFound) {
			t.Errorf("deployment of a new registry: got %v, want ErrNotFound", err)
		}
		for range 2 {
			must(t, tx.PutDeployment(want))
			if got, err := tx.Deployment(); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}
		return nil
	}))
}

// roundTrip puts v, twice, and deletes it.
func roundTrip[K comparable, V any](t *testing.T, table coordinator.Table[K, V], key K, v V) {
	t.Helper()
	for range 2 {
		must(t, table.Put(v))
		if got, err := table.Get(key); err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("got %+v, %v, want %+v", got, err, v)
		}
	}
	all, err := table.All()
	must(t, err)
	if len(all) == 0 || !reflect.DeepEqual(all[len(all)-1], v) {
		t.Errorf("all: got %+v, want %+v last", all, v)
	}
	must(t, table.Delete(key))
	if _, err := table.Get(key); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("get what was deleted: got %v, want ErrNotFound", err)
	}
	if err := table.Delete(key); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("delete what was deleted: got %v, want ErrNotFound", err)
	}
}

func TestMembers(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "registry.db"))
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		must(t, addTenant(tx, "acme", 65536))
		a, b, g := member("a", "acme"), member("b", "acme"), member("g", "")
		for _, m := range []coordinator.Member{b, g, a} {
			must(t, tx.Members().Put(m))
		}
		for tenant, want := range map[string][]coordinator.Member{"acme": {a, b}, "": {g}, "none": nil} {
			if got, err := tx.Members().In(tenant); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("in %q: got %+v, %v, want %+v", tenant, got, err, want)
			}
		}
		if got, err := tx.Members().ByIdentity(b.Identity); err != nil || got.ID != "b" {
			t.Errorf("by identity: got %+v, %v", got, err)
		}
		if got, err := tx.Members().ByWireGuard(g.WireGuard); err != nil || got.ID != "g" {
			t.Errorf("by WireGuard key: got %+v, %v", got, err)
		}
		if _, err := tx.Members().ByIdentity(postern.IdentityPublic{}); !errors.Is(err, coordinator.ErrNotFound) {
			t.Errorf("by unknown identity: got %v, want ErrNotFound", err)
		}
		for what, m := range map[string]coordinator.Member{"identity": member("x", "acme"), "WireGuard key": member("y", "acme"), "name": member("z", "acme"), "address": member("w", "acme")} {
			switch what {
			case "identity":
				m.Identity = a.Identity
			case "WireGuard key":
				m.WireGuard = a.WireGuard
			case "name":
				m.Name = a.Name
			case "address":
				m.Address = a.Address
			}
			if err := tx.Members().Put(m); err == nil {
				t.Errorf("two members have one %s", what)
			}
		}
		return nil
	}))
}

// What fails, or is given up, leaves nothing behind; readers see commits only.
func TestTransactions(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "registry.db"))
	oops := errors.New("oops")
	tenants := func() (n int) {
		must(t, s.View(t.Context(), func(tx coordinator.Tx) error {
			all, err := tx.Tenants().All()
			n = len(all)
			return err
		}))
		return n
	}
	err := s.Update(t.Context(), func(tx coordinator.Tx) error {
		must(t, addTenant(tx, "acme", 1))
		if n := tenants(); n != 0 {
			t.Errorf("a reader saw %d rows that are not committed", n)
		}
		return oops
	})
	if !errors.Is(err, oops) || tenants() != 0 {
		t.Errorf("failed update: got %v and %d rows, want %v and none", err, tenants(), oops)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = s.Update(ctx, func(tx coordinator.Tx) error {
		defer cancel()
		return addTenant(tx, "acme", 1)
	})
	if err == nil || tenants() != 0 {
		t.Errorf("update given up: got %v and %d rows", err, tenants())
	}
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error { return addTenant(tx, "acme", 1) }))
	if tenants() != 1 {
		t.Errorf("got %d rows, want 1", tenants())
	}
	if err := s.View(t.Context(), func(tx coordinator.Tx) error { return addTenant(tx, "b", 2) }); err == nil {
		t.Error("a view wrote")
	}
}

// A transaction that its context has ended says so, however far it had come.
func TestTransactionCanceled(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "db"))
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Update(ctx, func(t coordinator.Tx) error {
		cancel()
		for { // until package sql has rolled it back
			if _, err := t.(tx).Exec("SELECT 1"); errors.Is(err, sql.ErrTxDone) {
				return nil
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// Not even with SQL can the audit log be rewritten without it showing.
func TestAuditAppendOnly(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "registry.db"))
	startCoordinator(t, s, dir)
	must(t, coordinator.VerifyAudit(t.Context(), s))
	for _, statement := range []string{`DELETE FROM audit`, `UPDATE audit SET actor = 'nobody'`, `REPLACE INTO audit SELECT * FROM audit`} {
		if _, err := s.writer.ExecContext(t.Context(), statement); err == nil {
			t.Errorf("%s: it was done", statement)
		}
	}
	for _, statement := range []string{
		`DROP TRIGGER audit_fixed`, `DROP TRIGGER audit_keep`, `UPDATE audit SET detail = 'x' WHERE seq = 2`,
	} {
		_, err := s.writer.ExecContext(t.Context(), statement)
		must(t, err)
	}
	if err := coordinator.VerifyAudit(t.Context(), s); err == nil || !strings.Contains(err.Error(), "entry 2") {
		t.Errorf("entry changed: got %v, want an error about entry 2", err)
	}
}

func startCoordinator(t *testing.T, s *Store, dir string) *coordinator.Coordinator {
	t.Helper()
	a, err := coordinator.OpenAuthority(filepath.Join(dir, "authority"), "apps.test", nil)
	must(t, err)
	c, err := coordinator.New(coordinator.Config{Store: s, Authority: a, Base: "apps.test"})
	must(t, err)
	for range 3 {
		_, err := c.IssueToken(t.Context(), postern.TokenRequest{Role: postern.RoleGateway})
		must(t, err)
	}
	return c
}

func TestFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry with ?#% in it.db")
	s := openStore(t, path)
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error { return addTenant(tx, "acme", 1) }))
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		stat, err := os.Stat(name)
		must(t, err)
		if stat.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, want 0600", name, stat.Mode().Perm())
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		var got string
		must(t, s.writer.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
		if got != want {
			t.Errorf("%s: got %s, want %s", pragma, got, want)
		}
	}
}

// A full disk is said to be one, and costs nothing that was there.
func TestDiskFull(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "registry.db"))
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error { return addTenant(tx, "acme", 1) }))
	_, err := s.writer.ExecContext(t.Context(), `PRAGMA max_page_count = 1`) // no more than there are
	must(t, err)
	err = s.Update(t.Context(), func(tx coordinator.Tx) error {
		for i := range uint32(1000) {
			if err := addTenant(tx, strings.Repeat("x", 60)+string(rune('a'+i%26))+string(rune('a'+i/26)), i+2); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, coordinator.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	must(t, s.View(t.Context(), func(tx coordinator.Tx) error {
		all, err := tx.Tenants().All()
		if len(all) != 1 {
			t.Errorf("%d rows, want 1", len(all))
		}
		return err
	}))
}

// newest is the schema that this program makes.
const newest = 4

// later is the migrations and one more.
func later(t *testing.T, step string) fs.FS {
	t.Helper()
	all := fstest.MapFS{fmt.Sprintf("%05d_later.sql", newest+1): {Data: []byte("-- +goose Up\n" + step)}}
	names, err := fs.Glob(embedded, "migrations/*.sql")
	must(t, err)
	for _, name := range names {
		data, err := embedded.ReadFile(name)
		must(t, err)
		all[filepath.Base(name)] = &fstest.MapFile{Data: data}
	}
	return all
}

func TestMigrate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "registry.db")
	s := openStore(t, path)
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error { return addTenant(tx, "acme", 1) }))
	must(t, s.Close())

	// A step that fails leaves the registry as it was.
	if _, err := open(t.Context(), path, later(t, "ALTER TABLE tenants ADD COLUMN colour TEXT;\nSELECT nothing FROM nowhere;"), noon); err == nil {
		t.Fatal("a migration with an error was done")
	}
	s = openStore(t, path) // and this program still knows it
	must(t, s.Close())

	newer, err := open(t.Context(), path, later(t, "ALTER TABLE tenants ADD COLUMN colour TEXT;"), noon.Add(time.Hour))
	must(t, err)
	var n int
	must(t, newer.writer.QueryRow(`SELECT count(*) FROM tenants WHERE colour IS NULL`).Scan(&n))
	must(t, newer.Close())
	if n != 1 {
		t.Errorf("%d rows after the migration, want 1", n)
	}
	backup := openStore(t, filepath.Join(dir, "backups", fmt.Sprintf("20260102T130000Z-schema-%d.db", newest)))
	must(t, backup.View(t.Context(), func(tx coordinator.Tx) error { _, err := tx.Tenants().Get("acme"); return err }))

	before, err := os.ReadFile(path)
	must(t, err)
	_, err = Open(t.Context(), path)
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), path) {
		t.Errorf("newer schema: got %v, want ErrNewer with the path", err)
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("a newer registry was written to")
	}
}

// A damaged file is found, told with the newest backup, and left as it is.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "registry.db")
	s := openStore(t, path)
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		for i := range uint32(200) {
			must(t, addTenant(tx, "t"+strings.Repeat("x", int(i%50))+string(rune('a'+i/50)), i+1))
		}
		return nil
	}))
	must(t, os.Mkdir(filepath.Join(dir, "backups"), 0o700))
	for _, name := range []string{"20260101T000000Z-schema-1.db", "20260301T000000Z-schema-1.db", "20260201T000000Z-schema-1.db"} {
		must(t, s.Backup(t.Context(), filepath.Join(dir, "backups", name)))
	}
	must(t, s.Close())
	good, err := os.ReadFile(path)
	must(t, err)
	page := len(good) / 4096 / 2 * 4096 // somewhere in the middle
	flipped := bytes.Clone(good)
	for i := range flipped[page : page+4096] {
		flipped[page+i] ^= 0xff
	}
	tests := []struct {
		name string
		data []byte
	}{
		{"bytes flipped", flipped},
		{"cut short", good[:len(good)-4096]},
		{"overwritten", bytes.Repeat([]byte("text "), 2000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			must(t, os.WriteFile(path, tt.data, 0o600))
			_, err := Open(t.Context(), path)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "20260301T000000Z-schema-1.db") {
				t.Errorf("got %v, want ErrDamaged and the newest backup", err)
			}
			got, err := os.ReadFile(path)
			must(t, err)
			if !bytes.Equal(got, tt.data) {
				t.Error("the damaged file was written to")
			}
		})
	}
}

func TestBackupReplacesOnlyWhenGood(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "registry.db"))
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error { return addTenant(tx, "acme", 1) }))
	backup := filepath.Join(dir, "backup.db")
	must(t, os.WriteFile(backup, []byte("the last one"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Backup(ctx, backup); err == nil {
		t.Error("a backup that was given up is said to be done")
	}
	if got, err := os.ReadFile(backup); err != nil || string(got) != "the last one" {
		t.Errorf("the last backup is %q, %v", got, err)
	}
	must(t, s.Backup(t.Context(), backup))
	stat, err := os.Stat(backup)
	must(t, err)
	if stat.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", stat.Mode().Perm())
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("%v was left", left)
	}
	b := openStore(t, backup)
	must(t, b.View(t.Context(), func(tx coordinator.Tx) error { _, err := tx.Tenants().Get("acme"); return err }))
}
