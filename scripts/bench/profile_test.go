package main

import (
	"maps"
	"strings"
	"testing"
	"time"
)

// A stack counts once for each package in it, however often that calls itself.
func TestAddUp(t *testing.T) {
	const traces = `File: bench
Type: cpu
Duration: 1s, Total samples = 30000000ns ( 3.00%)
-----------+-------------------------------------------------------
         a:  b
20000000ns   runtime.memmove
             postern/netstack.(*ring).pop (inline)
             postern/netstack.tunDevice.Read
-----------+-------------------------------------------------------
10000000ns   postern/netstack.(*ring).pop
             main.main
`
	const ms = time.Millisecond
	for _, test := range []struct {
		by       string
		name     func(string) string
		own, all map[string]time.Duration
	}{
		{"package", packageOf,
			map[string]time.Duration{"runtime": 20 * ms, "postern/netstack": 10 * ms},
			map[string]time.Duration{"runtime": 20 * ms, "postern/netstack": 30 * ms, "main": 10 * ms}},
		{"function", functionOf,
			map[string]time.Duration{"runtime.memmove": 20 * ms, "postern/netstack.(*ring).pop": 10 * ms},
			map[string]time.Duration{"runtime.memmove": 20 * ms, "postern/netstack.(*ring).pop": 30 * ms,
				"postern/netstack.tunDevice.Read": 20 * ms, "main.main": 10 * ms}},
	} {
		t.Run(test.by, func(t *testing.T) {
			got, err := addUp(strings.NewReader(traces), test.name)
			if err != nil {
				t.Fatal(err)
			}
			if got.total != 30*ms || !maps.Equal(got.own, test.own) || !maps.Equal(got.all, test.all) {
				t.Errorf("got %v, want own %v and all %v", got, test.own, test.all)
			}
		})
	}
}

func TestPackageOf(t *testing.T) {
	for line, want := range map[string]string{
		"main.main":       "main",
		"runtime.memmove": "runtime",
		"golang.org/x/net/ipv4.(*payloadHandler).ok (inline)":            "golang.org/x/net/ipv4",
		"golang.zx2c4.com/wireguard/device.(*Device).RoutineEncryption":  "golang.zx2c4.com/wireguard/device",
		"github.com/google/btree.(*BTreeG[go.shape.struct { a/b.C }]).X": "github.com/google/btree",
	} {
		if got := packageOf(line); got != want {
			t.Errorf("packageOf(%q) = %q, want %q", line, got, want)
		}
	}
}
