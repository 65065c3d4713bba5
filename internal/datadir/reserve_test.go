package datadir_test

import (
	"os"
	"testing"

	"postern/internal/datadir"
)

func TestReserve(t *testing.T) {
	d := open(t, t.TempDir())
	r := d.Reserve(1 << 16)
	if released, err := r.Release(); released || err != nil {
		t.Errorf("before it was kept: %v, %v", released, err)
	}
	for range 2 {
		if err := r.Keep(); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(d.Path(datadir.ReserveFile)); err != nil || info.Size() != 1<<16 {
		t.Errorf("got %v, %v", info, err)
	}
	if released, err := r.Release(); !released || err != nil {
		t.Errorf("got %v, %v", released, err)
	}
	if _, err := os.Stat(d.Path(datadir.ReserveFile)); err == nil {
		t.Error("it is still there")
	}
}
