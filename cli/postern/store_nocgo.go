//go:build !cgo

package main

import (
	"context"
	"errors"

	"postern/coordinator"
)

// A store is a registry on disk.
type store interface {
	coordinator.Store
	Close() error
}

func openStore(context.Context, string) (store, error) { return nil, checkBuild() }

// checkBuild reports whether this program can be a coordinator. It cannot: its
// store, SQLite, is C.
func checkBuild() error {
	return fail("use a Postern built with CGO_ENABLED=1, such as the one for Linux; nodes and gateways need no such thing",
		errors.New("this build of postern has no coordinator"))
}
