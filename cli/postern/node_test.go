package main

import (
	"testing"

	"postern/node"
)

func TestReadyLine(t *testing.T) {
	const head = "https://acme.example  READY   seen from the gateway: TLS 1.3, certificate SHA-256 0123, "
	for _, tt := range []struct {
		name string
		note string
		want string
	}{
		{"this node answered", "", head + "key on this machine"},
		{"another node answered", "another node of this route answered", head + "another node of this route answered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := node.Route{URL: "https://acme.example", SeenTLS: "TLS 1.3", SeenSHA256: "0123", Note: tt.note}
			if got := readyLine(r); got != tt.want {
				t.Errorf("readyLine = %q, want %q", got, tt.want)
			}
		})
	}
}
