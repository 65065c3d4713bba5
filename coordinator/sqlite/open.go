package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// Errors of Open that a caller may want to explain, wrapped with the path.
var (
	ErrDamaged = errors.New("the registry's file is damaged")
	ErrNewer   = errors.New("the registry was made by a newer Postern")
)

//go:embed migrations/*.sql
var embedded embed.FS

// backupDir is where backups go, those before a migration and those of each hour, beside
// the store's file.
const backupDir = "backups"

// backupsOf returns the backupDir of the registry at path.
func backupsOf(path string) string { return filepath.Join(filepath.Dir(path), backupDir) }

// Open opens the registry at path, mode 0600, and makes it if there is none. An
// older one is brought up to date, after a backup into the directory "backups"
// beside it. Nothing is written to a file that is damaged (ErrDamaged) or newer
// than this program (ErrNewer).
func Open(ctx context.Context, path string) (*Store, error) {
	migrations, err := fs.Sub(embedded, "migrations")
	if err != nil {
		return nil, err
	}
	return open(ctx, path, migrations, time.Now())
}

func open(ctx context.Context, path string, migrations fs.FS, now time.Time) (*Store, error) {
	newest, err := newestVersion(migrations)
	if err != nil {
		return nil, err
	}
	version, err := inspect(ctx, path)
	if err != nil {
		return nil, err
	}
	if version > newest {
		return nil, fmt.Errorf("%s: %w: its schema is %d and this program knows %d; nothing was changed", path, ErrNewer, version, newest)
	}
	// SQLite gives its other files the mode of this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	s := &Store{path: path}
	if s.writer, err = connect(path, 1, durable+"&_txlock=immediate"); err != nil {
		return nil, err
	}
	if s.readers, err = connect(path, maxReaders, durable+"&_query_only=on"); err != nil {
		return nil, errors.Join(err, s.writer.Close())
	}
	if err := s.migrate(ctx, migrations, version, newest, now); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, s.explain(err)), s.Close())
	}
	return s, nil
}

// Check reads the whole registry at path, which may be in use, and reports what is wrong
// with it: ErrDamaged, if it is.
func Check(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	_, err := inspect(ctx, path)
	return err
}

// inspect returns the schema version of the file at path, 0 if it is missing or
// empty. It checks the whole file and does not write to it.
func inspect(ctx context.Context, path string) (int64, error) {
	stat, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && stat.Size() == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	db, err := connect(path, 1, "mode=ro&_busy_timeout=5000&_query_only=on")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if err := quickCheck(ctx, db); err != nil {
		return 0, fmt.Errorf("%s: %w (%w); it was left as it is; %s", path, ErrDamaged, err, newestBackup(path))
	}
	version, err := schemaOf(ctx, db)
	if err != nil {
		return 0, fmt.Errorf("%s is not a registry of Postern's: %w", path, err)
	}
	return version, nil
}

func schemaOf(ctx context.Context, db *sql.DB) (version int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`).Scan(&version)
	return version, err
}

// quickCheck reports the first thing wrong with db's file.
func quickCheck(ctx context.Context, db *sql.DB) error {
	var result string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&result); err != nil {
		return err
	}
	if result != "ok" {
		return errors.New(result)
	}
	return nil
}

// newestBackup says which backup to bring back.
func newestBackup(path string) string {
	found, err := filepath.Glob(filepath.Join(backupsOf(path), "*.db"))
	if err != nil || len(found) == 0 {
		return "there is no backup in " + backupsOf(path)
	}
	return "the newest backup is " + slices.Max(found) // their names begin with the time
}

func newestVersion(migrations fs.FS) (int64, error) {
	files, err := fs.Glob(migrations, "*.sql")
	if err != nil {
		return 0, err
	}
	var newest int64
	for _, name := range files {
		number, _, _ := strings.Cut(name, "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("migration %q: %w", name, err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}

// migrate brings the schema from version to newest, each step in a transaction.
func (s *Store) migrate(ctx context.Context, migrations fs.FS, version, newest int64, now time.Time) error {
	if version > 0 && version < newest {
		dir := backupsOf(s.path)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		name := fmt.Sprintf("%s-schema-%d.db", now.UTC().Format(backupTime), version)
		if err := s.Backup(ctx, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("backup before migration: %w", err)
		}
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.writer, migrations, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}
