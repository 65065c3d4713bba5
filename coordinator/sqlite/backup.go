package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Backup writes the registry as it is at this moment to a new file at path, mode
// 0600, checks it, and returns when it is on disk. Others may read and write
// meanwhile. A file that is there already is replaced only by a good backup.
func (s *Store) Backup(ctx context.Context, path string) error {
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // no longer there after the rename
	if err := temp.Close(); err != nil {
		return err
	}
	// A connection of its own: the readers' may write nowhere, and the writer has
	// others waiting. An empty file is as good as none to VACUUM INTO, and keeps
	// its mode.
	db, err := connect(s.path, 1, durable)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, temp.Name())
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("backup to %s: %w", path, s.explain(err))
	}
	if err := check(ctx, temp.Name()); err != nil {
		return fmt.Errorf("backup to %s is not usable: %w", path, err)
	}
	if err := sync(temp.Name()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return sync(filepath.Dir(path))
}

func check(ctx context.Context, path string) error {
	// A backup has no journal; immutable keeps SQLite from making one beside it.
	db, err := connect(path, 1, "mode=ro&immutable=1")
	if err != nil {
		return err
	}
	return errors.Join(quickCheck(ctx, db), db.Close())
}

// sync puts a file, or a directory's entries, on disk.
func sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
