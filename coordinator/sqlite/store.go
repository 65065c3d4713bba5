// Package sqlite keeps a coordinator's registry in one SQLite file.
//
// Writes go through one connection, one transaction at a time, and are on disk
// when they are acknowledged (WAL with synchronous=FULL). Reads see the last
// commit and wait for nobody.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"github.com/mattn/go-sqlite3"

	"postern/coordinator"
)

// A Store is an open registry. It implements coordinator.Store.
type Store struct {
	path    string
	writer  *sql.DB // one connection
	readers *sql.DB
}

var _ coordinator.Store = (*Store)(nil)

// maxReaders bounds the connections that read at one time.
const maxReaders = 4

// durable are the settings of every connection to the registry itself.
const durable = "_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_foreign_keys=on"

// connect opens a pool of at most conns connections to the file at path, with
// settings of SQLite's URI and of its driver, joined by &.
func connect(path string, conns int, settings string) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+settings)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Close closes the store; transactions must have ended.
func (s *Store) Close() error {
	return errors.Join(s.readers.Close(), s.writer.Close())
}

// View runs fn in a transaction that sees the last commit and cannot write.
func (s *Store) View(ctx context.Context, fn func(coordinator.Tx) error) error {
	return s.run(ctx, s.readers, fn)
}

// Update runs fn in the one transaction that writes.
func (s *Store) Update(ctx context.Context, fn func(coordinator.Tx) error) error {
	return s.run(ctx, s.writer, fn)
}

func (s *Store) run(ctx context.Context, db *sql.DB, fn func(coordinator.Tx) error) error {
	sqlTx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return s.explain(err)
	}
	defer sqlTx.Rollback() // does nothing after a commit
	err = fn(tx{ctx, sqlTx})
	if err == nil {
		err = sqlTx.Commit()
	}
	if ended := ctx.Err(); ended != nil && errors.Is(err, sql.ErrTxDone) {
		err = fmt.Errorf("%w: %w", ended, err) // ctx ended it, which err does not tell
	}
	return s.explain(err)
}

// explain adds to err what the caller branches on.
func (s *Store) explain(err error) error { return explain(s.path, err) }

func explain(path string, err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) && e.Code == sqlite3.ErrFull {
		return fmt.Errorf("%s: %w: %w", path, coordinator.ErrFull, err)
	}
	return err
}
