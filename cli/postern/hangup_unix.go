//go:build unix

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// onHangup calls fn at each SIGHUP until ctx is done.
func onHangup(ctx context.Context, fn func()) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-hangups:
			fn()
		case <-ctx.Done():
			return nil
		}
	}
}
