package datadir

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
)

// ReserveFile is the file of a Reserve.
const ReserveFile = "reserve"

// A Reserve is room on the disk that is set aside for when there is no other.
type Reserve struct {
	dir  *Dir
	size int64
}

// Reserve returns a reserve of size bytes in d. Nothing is set aside yet.
func (d *Dir) Reserve(size int64) *Reserve { return &Reserve{d, size} }

// Keep sets the room aside, unless it is. It fails if there is not enough, and takes
// nothing then.
func (r *Reserve) Keep() error {
	if info, err := os.Stat(r.dir.Path(ReserveFile)); err == nil && info.Size() == r.size {
		return nil
	}
	data := make([]byte, r.size)
	rand.Read(data) // zeroes are no room on a disk that compresses
	return r.dir.Write(ReserveFile, data)
}

// Release gives the room away, and reports whether it was there.
func (r *Reserve) Release() (bool, error) {
	err := os.Remove(r.dir.Path(ReserveFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
