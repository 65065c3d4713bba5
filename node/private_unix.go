//go:build unix

package node

import "io/fs"

// isPrivate reports whether nobody but its owner and group may get at a file.
func isPrivate(info fs.FileInfo) bool { return info.Mode().Perm()&0o007 == 0 }
