// Package systemd speaks with the service manager that started the process, where one did:
// it says when the process is ready and that it lives, and takes listeners that the
// manager holds for it (sd_notify(3), sd_listen_fds(3)). Elsewhere it does nothing.
package systemd

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// passed are the listeners that the manager passed, by name. They can be taken from the
// environment once.
var passed = sync.OnceValues(activation.ListenersWithNames)

// Listen returns the listener that the manager holds under that name (FileDescriptorName=
// of the socket unit), and listens at addr, TCP, if there is none. The manager's stays
// open when it is closed here: who connects while nobody accepts waits.
func Listen(name, addr string) (net.Listener, error) {
	all, err := passed()
	if err != nil {
		return nil, err
	}
	switch ours := all[name]; len(ours) {
	case 0:
		return net.Listen("tcp", addr)
	case 1:
		return ours[0], nil
	default:
		return nil, fmt.Errorf("the socket unit has %d listeners called %q, want one with BindIPv6Only=both", len(ours), name)
	}
}

// Notify says that the process is ready, then, as often as the manager asks for, that it
// lives, if alive returns, and, when ctx is done, that it stops. An alive that hangs has
// the manager start the process anew.
func Notify(ctx context.Context, alive func()) error {
	if sent, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("tell systemd that we are ready: %w", err)
	} else if !sent { // there is none
		return nil
	}
	defer daemon.SdNotify(false, daemon.SdNotifyStopping) // it sees that for itself, too
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("systemd's watchdog: %w", err)
	}
	if interval == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(interval / 2) // as sd_watchdog_enabled(3) recommends
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			alive()
			if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
				return fmt.Errorf("tell systemd that we live: %w", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
