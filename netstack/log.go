package netstack

import (
	"context"
	"fmt"
	"log/slog"

	"golang.zx2c4.com/wireguard/device"
)

// newDeviceLogger returns a logger for the WireGuard device. What it logs names
// peers by a part of their public keys and never holds private ones.
func newDeviceLogger(log *slog.Logger) *device.Logger {
	return &device.Logger{
		Verbosef: func(format string, args ...any) {
			if log.Enabled(context.Background(), slog.LevelDebug) {
				log.Debug("wireguard", "event", fmt.Sprintf(format, args...))
			}
		},
		Errorf: func(format string, args ...any) {
			log.Warn("wireguard", "err", fmt.Sprintf(format, args...))
		},
	}
}
