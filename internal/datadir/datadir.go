// Package datadir keeps a process' state in one directory: marked with the role
// it is for, locked while in use, written so that a crash at any moment leaves
// either the old file or the new one.
package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"postern"
)

// Errors that a caller may want to explain. Each is wrapped with the path.
var (
	ErrInUse      = errors.New("another process is using this data directory")
	ErrOtherRole  = errors.New("this data directory belongs to another role")
	ErrNewer      = errors.New("this data directory was written by a newer Postern")
	ErrUnwritable = errors.New("this data directory is not writable")
	ErrForeign    = errors.New("this directory holds files that are not Postern's")
)

// Files that each data directory has, besides what its owner keeps there.
const (
	MarkFile = "postern.json" // says whose the directory is
	LockFile = "lock"
)

const schema = 1

// A Dir is an open data directory. Its methods are safe for concurrent use.
type Dir struct {
	path string
	lock *os.File
}

// mark is the content of MarkFile.
type mark struct {
	Role   postern.Role `json:"role"`
	Schema int          `json:"schema"` // of the files beside it; 1 is the first
}

// Open makes path if need be, mode 0700 or what is as much on Windows, and locks it for role
// until Close. A directory that has files but no mark is refused: it is somebody else's.
func Open(path string, role postern.Role) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, unwritable(path, err)
	}
	if err := checkMark(path, role); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	lock, err := os.OpenFile(filepath.Join(path, LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unwritable(path, err)
	}
	if err := tryLock(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := &Dir{path: path, lock: lock}
	if _, err := os.Stat(d.Path(MarkFile)); errors.Is(err, fs.ErrNotExist) {
		err := guard(path)
		if err == nil {
			err = d.WriteJSON(MarkFile, mark{Role: role, Schema: schema})
		}
		if err != nil {
			d.Close()
			return nil, unwritable(path, err)
		}
	}
	return d, nil
}

func checkMark(path string, role postern.Role) error {
	data, err := os.ReadFile(filepath.Join(path, MarkFile))
	if errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			// A crash between lock and mark leaves the lock alone.
			if e.Name() != LockFile && filepath.Ext(e.Name()) != TempExt {
				return fmt.Errorf("%w (%s)", ErrForeign, e.Name())
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	var m mark
	switch err := json.Unmarshal(data, &m); {
	case err != nil:
		return fmt.Errorf("%s: %w", MarkFile, err)
	case m.Schema > schema:
		return fmt.Errorf("%w: its schema is %d and this program knows %d", ErrNewer, m.Schema, schema)
	case m.Role != role:
		return fmt.Errorf("%w: it is a %s's, wanted for a %s", ErrOtherRole, m.Role, role)
	}
	return nil
}

// Is reports whether the directory at path is marked as role's.
func Is(path string, role postern.Role) bool {
	data, err := os.ReadFile(filepath.Join(path, MarkFile))
	var m mark
	return err == nil && json.Unmarshal(data, &m) == nil && m.Role == role
}

func unwritable(path string, err error) error {
	return fmt.Errorf("%s: %w: %w", path, ErrUnwritable, err)
}

// Close releases the directory for other processes.
func (d *Dir) Close() error { return d.lock.Close() }

// Path returns the path of the file called name.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// ReadJSON decodes the file called name into v. The error wraps fs.ErrNotExist
// if there is none.
func (d *Dir) ReadJSON(name string, v any) error {
	data, err := os.ReadFile(d.Path(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", d.Path(name), err)
	}
	return nil
}

// WriteJSON replaces the file called name, as Write does.
func (d *Dir) WriteJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return d.Write(name, append(data, '\n'))
}

// Write replaces the file called name with data, mode 0600, and returns when it
// is on disk. After a crash the file is the old one or the new one.
func (d *Dir) Write(name string, data []byte) error { return Write(d.Path(name), data) }

// Remove deletes the file called name, if there is one.
func (d *Dir) Remove(name string) error {
	if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(d.path)
}

// TempExt ends the names of files that are still being written.
const TempExt = ".tmp"

// Write is Dir.Write for a file anywhere.
func Write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+TempExt) // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no longer there after the rename
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
