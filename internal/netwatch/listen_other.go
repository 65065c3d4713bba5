//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd || windows)

package netwatch

import (
	"context"
	"errors"
)

// listen says that this system does not tell.
func listen(context.Context, func()) error { return errors.ErrUnsupported }
