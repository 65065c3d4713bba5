package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Backup is the func Backup of this registry.
func (s *Store) Backup(ctx context.Context, path string) error { return Backup(ctx, s.path, path) }

// Backup writes the registry at from, as it is at this moment, to a new file at path, mode
// 0600, checks it, and returns when it is on disk. Others, in other processes too, may
// read and write meanwhile. A file that is there already is replaced only by a good
// backup.
func Backup(ctx context.Context, from, path string) error {
	// Opening what is not there would make it.
	if _, err := os.Stat(from); err != nil {
		return err
	}
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
	db, err := connect(from, 1, durable)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, temp.Name())
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("backup to %s: %w", path, explain(from, err))
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

// A Registry is what can be said of a registry's file without its being in use.
type Registry struct {
	Schema, Newest int64  // its own, and this program's
	Deployment     string // id
}

// Inspect checks the whole of a backup's file at path, to which nobody writes, and says
// what it is. It fails with ErrDamaged or ErrNewer if it is of no use to this program.
func Inspect(ctx context.Context, path string) (Registry, error) {
	if err := check(ctx, path); err != nil {
		return Registry{}, fmt.Errorf("%s: %w (%w)", path, ErrDamaged, err)
	}
	db, err := connect(path, 1, "mode=ro&immutable=1")
	if err != nil {
		return Registry{}, err
	}
	defer db.Close()
	migrations, err := fs.Sub(embedded, "migrations")
	if err != nil {
		return Registry{}, err
	}
	r := Registry{}
	if r.Newest, err = newestVersion(migrations); err != nil {
		return r, err
	}
	if r.Schema, err = schemaOf(ctx, db); err != nil {
		return r, fmt.Errorf("%s is not a registry of Postern's: %w", path, err)
	}
	if r.Schema > r.Newest {
		return r, fmt.Errorf("%s: %w: its schema is %d and this program knows %d", path, ErrNewer, r.Schema, r.Newest)
	}
	if err := db.QueryRowContext(ctx, `SELECT id FROM deployment`).Scan(&r.Deployment); err != nil {
		return r, fmt.Errorf("%s is not a registry of Postern's: %w", path, err)
	}
	return r, nil
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
