//go:build !cgo

package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"postern/coordinator"
)

// A store is a registry on disk.
type store interface {
	coordinator.Store
	Close() error
	KeepBackups(ctx context.Context, log *slog.Logger) error
}

func openStore(context.Context, string) (store, error) { return nil, checkBuild() }

func backupRegistry(context.Context, string, string) error { return checkBuild() }

func inspectRegistry(context.Context, string) (int64, string, error) { return 0, "", checkBuild() }

func checkRegistry(context.Context, string) error { return checkBuild() }

func lastBackup(string) (time.Time, error) { return time.Time{}, checkBuild() }

// checkBuild reports whether this program can be a coordinator. It cannot: its
// store, SQLite, is C.
func checkBuild() error {
	return fail("use a Postern built with CGO_ENABLED=1, such as the one for Linux; nodes and gateways need no such thing",
		errors.New("this build of postern has no coordinator"))
}
