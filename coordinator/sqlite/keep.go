package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Backups by themselves: one an hour, kept for a day, and of each day before that the
// last one, for a week. They lie beside the registry, in backupDir, each called after its
// time. Others that lie there, such as those before a migration, are left alone.
const (
	backupInterval = time.Hour
	backupRetry    = 5 * time.Minute // after one that failed
	keptHourly     = 24
	keptDaily      = 7

	backupTime = "20060102T150405Z"
	backupExt  = ".db"
)

// KeepBackups makes a backup now and then, and removes those whose time is over, until ctx
// is done. What fails is logged and tried again.
func (s *Store) KeepBackups(ctx context.Context, log *slog.Logger) error {
	for {
		wait, err := s.keepBackups(ctx, time.Now().UTC())
		if err != nil && ctx.Err() == nil {
			log.Error("backup of the registry", "err", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// keepBackups makes a backup if one is due at now, and returns how long to wait for the
// next.
func (s *Store) keepBackups(ctx context.Context, now time.Time) (wait time.Duration, err error) {
	last, err := LastBackup(s.path)
	if err != nil {
		return backupRetry, err
	}
	// A clock that was set back must not keep backups from being made.
	if age := now.Sub(last); age >= 0 && age < backupInterval {
		return backupInterval - age, nil
	}
	dir := backupsOf(s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return backupRetry, err
	}
	if err := s.Backup(ctx, filepath.Join(dir, now.Format(backupTime)+backupExt)); err != nil {
		return backupRetry, err
	}
	// Not before there is another: on a full disk the old ones are all there is.
	times, err := backupTimes(dir)
	if err != nil {
		return backupInterval, err
	}
	for _, t := range spent(times, now) {
		err = errors.Join(err, os.Remove(filepath.Join(dir, t.Format(backupTime)+backupExt)))
	}
	return backupInterval, err
}

// LastBackup returns when the last backup by itself was made of the registry at path, the
// zero time if there is none.
func LastBackup(path string) (time.Time, error) {
	times, err := backupTimes(backupsOf(path))
	if err != nil || len(times) == 0 {
		return time.Time{}, err
	}
	return times[len(times)-1], nil
}

// backupTimes returns when the backups in dir were made that were made by themselves, the
// oldest first.
func backupTimes(dir string) ([]time.Time, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var times []time.Time
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), backupExt)
		if t, err := time.Parse(backupTime, name); ok && err == nil && e.Type().IsRegular() {
			times = append(times, t)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times, nil
}

// spent returns those of times, the oldest first, whose backups are not to be kept at now.
func spent(times []time.Time, now time.Time) []time.Time {
	var gone []time.Time
	days := make(map[string]bool) // of which one is kept
	hours := 0
	for _, t := range slices.Backward(times) {
		day := t.Format(time.DateOnly)
		age := now.Sub(t)
		switch {
		case hours < keptHourly && age < keptHourly*time.Hour:
			hours++
			days[day] = true
		case !days[day] && age < (keptDaily+1)*24*time.Hour:
			days[day] = true
		default:
			gone = append(gone, t)
		}
	}
	return gone
}
