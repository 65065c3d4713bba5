package netstack

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"gvisor.dev/gvisor/pkg/log"
)

// muteStack keeps gVisor's own log, of which there is one for the whole process,
// from standard error. It holds no more than that connections broke, which those
// who use them are told.
var muteStack = sync.OnceFunc(func() { log.SetTarget(mute{}) })

// mute discards what it is given.
type mute struct{}

func (mute) Emit(int, log.Level, time.Time, string, ...any) {}

// noEndpoint is what WireGuard says when it should shake hands with a peer that
// never came. Anybody can make it say so, by asking for a node that is away.
const noEndpoint = "no known endpoint for peer"

// newDeviceLogger returns a logger for the WireGuard device. What it logs names
// peers by a part of their public keys and never holds private ones.
func newDeviceLogger(to *slog.Logger) *device.Logger {
	return &device.Logger{
		Verbosef: func(format string, args ...any) {
			if to.Enabled(context.Background(), slog.LevelDebug) {
				to.Debug("wireguard", "event", fmt.Sprintf(format, args...))
			}
		},
		Errorf: func(format string, args ...any) {
			event := fmt.Sprintf(format, args...)
			level := slog.LevelWarn
			if strings.Contains(event, noEndpoint) {
				level = slog.LevelDebug
			}
			to.Log(context.Background(), level, "wireguard", "err", event)
		},
	}
}
