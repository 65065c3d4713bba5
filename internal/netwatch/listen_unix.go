//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package netwatch

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// listen calls changed for each message of the system until ctx is done. It does not read
// what they say.
func listen(ctx context.Context, changed func()) error {
	events, err := openEvents()
	if err != nil {
		return err
	}
	defer events.Close()
	defer context.AfterFunc(ctx, func() { events.Close() })()
	buf := make([]byte, 64<<10)
	for {
		_, err := events.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // some were lost, and this is one, too
			return err
		}
		changed()
	}
}
