//go:build !windows

package dnscheck

import (
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// system returns the servers of /etc/resolv.conf.
func system() ([]netip.AddrPort, error) {
	f, err := os.Open("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return nameservers(strings.NewReader(""))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return nameservers(f)
}

// nameservers returns the first three nameservers of a resolv.conf, as
// resolv.conf(5) has it: the machine's own if it names none.
func nameservers(conf io.Reader) ([]netip.AddrPort, error) {
	config, err := dns.ClientConfigFromReader(conf)
	if err != nil {
		return nil, err
	}
	var servers []netip.AddrPort
	for _, s := range config.Servers {
		if addr, err := netip.ParseAddr(s); err == nil && len(servers) < 3 {
			servers = append(servers, netip.AddrPortFrom(addr, 53))
		}
	}
	if servers == nil {
		servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53")}
	}
	return servers, nil
}
