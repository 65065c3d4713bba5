package main

import (
	"context"
	"io"
	"os"
)

const (
	serviceFile = "/Library/LaunchDaemons/" + serviceName + ".plist"
	serviceLog  = launchdLog
)

// hosted runs f as what started this process wants it.
func hosted(f func(ctx context.Context, stdout, stderr io.Writer) int) int {
	return f(context.Background(), os.Stdout, os.Stderr)
}
