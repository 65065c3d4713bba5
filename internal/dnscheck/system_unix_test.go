//go:build !windows

package dnscheck

import (
	"fmt"
	"strings"
	"testing"
)

func TestNameservers(t *testing.T) {
	tests := []struct{ name, conf, want string }{
		{"none", "search example.com\n", "[127.0.0.1:53 [::1]:53]"},
		{"several", "# here\nnameserver 192.0.2.1\nsearch a b\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n", "[192.0.2.1:53 [2001:db8::1]:53 [fe80::1%eth0]:53]"},
		{"names are none", "nameserver dns.example\nnameserver\nnameserver 192.0.2.2 # two\n", "[192.0.2.2:53]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := nameservers(strings.NewReader(tt.conf))
			if err != nil || fmt.Sprint(got) != tt.want {
				t.Errorf("nameservers = %v, %v; want %v", got, err, tt.want)
			}
		})
	}
	if _, err := New(""); err != nil {
		t.Error(err)
	}
}
