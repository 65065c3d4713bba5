//go:build !linux || android

package netstack

import (
	"log/slog"

	"golang.zx2c4.com/wireguard/conn"
)

// newBind returns the UDP sockets that WireGuard uses here: its own.
func newBind(*slog.Logger) conn.Bind { return conn.NewDefaultBind() }
