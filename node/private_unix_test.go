//go:build unix

package node

import (
	"os"
	"strings"
	"testing"
)

// A key that everybody can read is nobody's secret.
func TestKeyFileOfEverybody(t *testing.T) {
	ca := newTestCA(t)
	certFile, keyFile := ca.files("a.test")
	if err := os.Chmod(keyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openPEMFiles(certFile, keyFile, discard); err == nil || !strings.Contains(err.Error(), "chmod o= "+keyFile) {
		t.Errorf("loaded: %v", err)
	}
	if err := os.Chmod(keyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := openPEMFiles(certFile, keyFile, discard); err != nil {
		t.Errorf("readable by the group alone: %v", err)
	}
}
