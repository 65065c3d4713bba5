package node

import (
	"fmt"
	"os"
)

// readPrivate returns what the file at path holds, a secret. It fails if others than
// its owner and group may get at it.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !isPrivate(info) {
		return nil, fmt.Errorf("%s: everybody on this machine can read it (mode %#o); chmod o= %s", path, info.Mode().Perm(), path)
	}
	return os.ReadFile(path)
}
