//go:build !linux && !windows && !darwin

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// systemService is for systems whose service managers we have not learned to ask.
func systemService() (serviceHost, error) {
	return nil, fail("have whatever starts programs here start `postern node run`", fmt.Errorf("services on %s: %w", runtime.GOOS, errors.ErrUnsupported))
}

// hosted runs f as what started this process wants it.
func hosted(f func(ctx context.Context, stdout, stderr io.Writer) int) int {
	return f(context.Background(), os.Stdout, os.Stderr)
}
