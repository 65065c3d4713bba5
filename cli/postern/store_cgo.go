//go:build cgo

package main

import (
	"context"
	"errors"

	"postern/coordinator"
	"postern/coordinator/sqlite"
)

// A store is a registry on disk.
type store interface {
	coordinator.Store
	Close() error
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

// checkBuild reports whether this program can be a coordinator.
func checkBuild() error { return nil }
