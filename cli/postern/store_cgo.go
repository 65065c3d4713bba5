//go:build cgo

package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"postern/coordinator"
	"postern/coordinator/sqlite"
)

// A store is a registry on disk.
type store interface {
	coordinator.Store
	Close() error
	KeepBackups(ctx context.Context, log *slog.Logger) error
}

func openStore(ctx context.Context, path string) (store, error) {
	s, err := sqlite.Open(ctx, path)
	switch {
	case errors.Is(err, sqlite.ErrNewer):
		return nil, fail("install the Postern that wrote it, or a newer one", err)
	case errors.Is(err, sqlite.ErrDamaged):
		return nil, fail("put the newest backup in its place, then start again; keep the damaged file", err)
	case err != nil:
		return nil, err
	}
	return s, nil
}

// backupRegistry is sqlite.Backup.
func backupRegistry(ctx context.Context, from, to string) error { return sqlite.Backup(ctx, from, to) }

// inspectRegistry checks the registry of a backup and returns its schema and its
// deployment.
func inspectRegistry(ctx context.Context, path string) (schema int64, deployment string, err error) {
	r, err := sqlite.Inspect(ctx, path)
	if errors.Is(err, sqlite.ErrNewer) {
		err = fail("install the Postern that wrote it, or a newer one; nothing was changed", err)
	}
	return r.Schema, r.Deployment, err
}

// checkRegistry is sqlite.Check.
func checkRegistry(ctx context.Context, path string) error { return sqlite.Check(ctx, path) }

// lastBackup returns when the coordinator whose registry is at path made its last backup
// by itself.
func lastBackup(path string) (time.Time, error) { return sqlite.LastBackup(path) }

// checkBuild reports whether this program can be a coordinator.
func checkBuild() error { return nil }
