package sqlite

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"postern/coordinator"
)

// Of two weeks with a backup an hour, there are the last day's 24 and one of each of the
// seven days before.
func TestSpent(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 30, 0, 0, time.UTC)
	var kept []time.Time
	for h := range 14 * 24 {
		now := start.Add(time.Duration(h) * time.Hour)
		kept = append(kept, now)
		gone := spent(kept, now)
		kept = slices.DeleteFunc(kept, func(t time.Time) bool { return slices.Contains(gone, t) })
		if len(kept) > keptHourly+keptDaily+2 {
			t.Fatalf("after %d hours there are %d", h, len(kept))
		}
	}
	now := start.Add((14*24 - 1) * time.Hour)
	days := map[string]int{}
	hourly := 0
	for _, k := range kept {
		if now.Sub(k) < 24*time.Hour {
			hourly++
		} else {
			days[k.Format(time.DateOnly)]++
		}
	}
	if hourly != keptHourly {
		t.Errorf("%d of the last day, want %d", hourly, keptHourly)
	}
	for back := 1; back < keptDaily; back++ {
		if day := now.Add(-time.Duration(back)*24*time.Hour - 24*time.Hour).Format(time.DateOnly); days[day] != 1 {
			t.Errorf("%d of %s, want 1: %v", days[day], day, days)
		}
	}
	if oldest := now.Sub(kept[0]); oldest < (keptDaily-1)*24*time.Hour {
		t.Errorf("the oldest is of %v ago", oldest)
	}
	if got := spent([]time.Time{now.Add(time.Hour)}, now); got != nil {
		t.Errorf("one of a clock that was set back is removed: %v", got)
	}
}

// openDeployed is openStore for a registry of a deployment.
func openDeployed(t *testing.T, path string) *Store {
	t.Helper()
	s := openStore(t, path)
	must(t, s.Update(t.Context(), func(tx coordinator.Tx) error {
		return tx.PutDeployment(coordinator.Deployment{ID: "dep", Created: time.Now()})
	}))
	return s
}

// A backup is made when it is due, is whole, and leaves alone what lies beside it.
func TestKeepBackups(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "postern.db")
	s := openDeployed(t, path)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	keep := func(at time.Time) time.Duration {
		t.Helper()
		wait, err := s.keepBackups(t.Context(), at)
		must(t, err)
		return wait
	}
	if wait := keep(now); wait != backupInterval {
		t.Errorf("after the first: %v", wait)
	}
	if wait := keep(now.Add(20 * time.Minute)); wait != 40*time.Minute {
		t.Errorf("before the second: %v", wait)
	}
	must(t, os.WriteFile(filepath.Join(dir, backupDir, "20200101T000000Z-schema-1.db"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, backupDir, "letter.txt"), nil, 0o600))
	keep(now.Add(time.Hour))
	keep(now.Add(-48 * time.Hour)) // the clock was set back
	keep(now.Add(30 * 24 * time.Hour))
	var names []string
	entries, err := os.ReadDir(filepath.Join(dir, backupDir))
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"20200101T000000Z-schema-1.db", "20260331T120000Z.db", "letter.txt"}; !slices.Equal(names, want) {
		t.Errorf("there are %v, want %v", names, want)
	}
	if last, err := LastBackup(path); err != nil || !last.Equal(now.Add(30*24*time.Hour)) {
		t.Errorf("the last is of %v, %v", last, err)
	}
	r, err := Inspect(t.Context(), filepath.Join(dir, backupDir, "20260331T120000Z.db"))
	if err != nil || r.Deployment != "dep" || r.Schema != newest || r.Newest != newest {
		t.Errorf("got %+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.KeepBackups(ctx, slog.New(slog.DiscardHandler)))
}

// A backup that cannot be made costs none that is there.
func TestFailedBackup(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "postern.db"))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	_, err := s.keepBackups(t.Context(), now)
	must(t, err)
	taken := now.Add(30 * 24 * time.Hour)
	must(t, os.Mkdir(filepath.Join(dir, backupDir, taken.Format(backupTime)+backupExt), 0o700)) // in its way
	if wait, err := s.keepBackups(t.Context(), taken); err == nil || wait != backupRetry {
		t.Errorf("got %v, %v", wait, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if wait, err := s.keepBackups(ctx, now.Add(40*24*time.Hour)); err == nil || wait != backupRetry {
		t.Errorf("got %v, %v", wait, err)
	}
	if _, err := os.Stat(filepath.Join(dir, backupDir, now.Format(backupTime)+backupExt)); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, backupDir, "*.tmp")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestInspectRefuses(t *testing.T) {
	dir := t.TempDir()
	s := openDeployed(t, filepath.Join(dir, "postern.db"))
	_, err := s.writer.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`)
	must(t, err)
	newer, letter := filepath.Join(dir, "newer.db"), filepath.Join(dir, "letter.txt")
	must(t, s.Backup(t.Context(), newer))
	if _, err := Inspect(t.Context(), newer); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer one: got %v", err)
	}
	must(t, os.WriteFile(letter, []byte("Dear Sir or Madam"), 0o600))
	if _, err := Inspect(t.Context(), letter); !errors.Is(err, ErrDamaged) {
		t.Errorf("a letter: got %v", err)
	}
	if err := Backup(t.Context(), filepath.Join(dir, "none.db"), filepath.Join(dir, "x.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nothing: got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); err == nil {
		t.Error("it was made")
	}
}
