//go:build unix

package datadir

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes the lock that flock(2) gives, which dies with the process.
func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	return err
}

// guard does nothing: a directory is made with mode 0700, and one that was there before
// keeps what it has.
func guard(string) error { return nil }

func rename(from, to string) error { return os.Rename(from, to) }

// syncDir makes a rename in the directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
