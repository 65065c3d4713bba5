package main

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3"
)

// migrations holds the schema's history, one file a version, in order of name.
// A file that has been released is never edited.
//
//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks an SQLite file as ours: "LEDG".
const applicationID = 0x4c454447

// Store keeps the books in one SQLite file. It is safe for concurrent use; a
// write that returned without an error is on the disk.
type Store struct {
	db     *sql.DB
	posted broadcast // fires after each commit of a voucher
}

// OpenStore opens the books in the file at path, makes them (mode 0600) if
// there are none, and brings their schema up to date. A file of another
// program, or one written by a newer version of this one, is an error and is
// left as it is. The caller closes the Store.
func OpenStore(ctx context.Context, path string) (*Store, error) {
	s, err := openStore(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open books in %q: %w", path, err)
	}
	return s, nil
}

func openStore(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// SQLite would make the file readable for everyone.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	settings := url.Values{
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"on"},
		"_busy_timeout": {"5000"}, // milliseconds
		"_txlock":       {"immediate"},
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: settings.Encode()}
	db, err := sql.Open("sqlite3", dsn.String())
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, db, migrations); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Store{db: db}, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// migrate applies the migrations in files that db has not seen, a transaction
// each. SQLite's user_version counts those it has.
func migrate(ctx context.Context, db *sql.DB, files fs.FS) error {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return err
	}
	var version, application, tables int
	err = db.QueryRowContext(ctx, `SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_user_version, pragma_application_id`).Scan(&version, &application, &tables)
	switch {
	case err != nil:
		return err
	case application != applicationID && (tables > 0 || version > 0):
		return errors.New("the file belongs to another program")
	case version > len(names):
		return fmt.Errorf("the file has schema version %d, this program knows up to %d: use a newer program", version, len(names))
	}
	for i, name := range names[version:] {
		if err := applyMigration(ctx, db, files, name, version+i+1); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
	}
	return nil
}

func applyMigration(ctx context.Context, db *sql.DB, files fs.FS, name string, version int) error {
	statements, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	return inTx(ctx, db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, string(statements)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, version))
		return err
	})
}

// inTx runs do in a write transaction: committed if do returns nil, else undone.
func inTx(ctx context.Context, db *sql.DB, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
