package coordinator_test

import (
	"bytes"
	"slices"
	"testing"
)

func TestSeal(t *testing.T) {
	dir := t.TempDir()
	a := openAuthority(t, dir)
	plain := []byte("a secret of somebody's")
	sealed := a.Seal(plain, "issuer x")
	if bytes.Contains(sealed, plain) {
		t.Error("it can be read")
	}
	if again := a.Seal(plain, "issuer x"); bytes.Equal(again, sealed) {
		t.Error("the same twice")
	}
	got, err := openAuthority(t, dir).Open(sealed, "issuer x")
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("got %q, %v, want %q", got, err, plain)
	}
	if empty, err := a.Open(a.Seal(nil, ""), ""); err != nil || len(empty) != 0 {
		t.Errorf("of nothing: got %q, %v", empty, err)
	}
	if _, err := a.Open(sealed, "issuer y"); err == nil {
		t.Error("opened for something else")
	}
	if _, err := openAuthority(t, t.TempDir()).Open(sealed, "issuer x"); err == nil {
		t.Error("opened with another key")
	}
	for i := range sealed {
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		if _, err := a.Open(changed, "issuer x"); err == nil {
			t.Fatalf("opened with byte %d changed", i)
		}
		if _, err := a.Open(sealed[:i], "issuer x"); err == nil {
			t.Fatalf("opened when cut to %d bytes", i)
		}
	}
}
