package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/urfave/cli/v2"

	"postern/netstack"
	"postern/node"
)

func mtuFlag() cli.Flag {
	return &cli.IntFlag{Name: "mtu", Usage: "longest packets in the tunnel, in `BYTES` (1420 if not given); where the path carries less, they are shorter by themselves"}
}

// parseMTU returns what mtuFlag says, 0 if nothing. It refuses what can work nowhere.
func parseMTU(c *cli.Context) (int, error) {
	n := c.Int("mtu")
	if !c.IsSet("mtu") {
		return 0, nil
	}
	if n < netstack.MinMTU {
		return 0, misuse(fmt.Sprintf("leave --mtu away, or take %d or more; a path that carries less is found out and used as it is", netstack.MinMTU),
			"--mtu %d is below %d, which IPv6 in the tunnel needs", n, netstack.MinMTU)
	}
	widest, most := widestInterface()
	if need := n + netstack.Headers(netip.IPv4Unspecified()); most > 0 && need > most {
		return 0, misuse(fmt.Sprintf("take %d or less, or leave --mtu away", most-netstack.Headers(netip.IPv4Unspecified())),
			"--mtu %d makes datagrams of %d bytes, and no interface of this machine carries more than %d (%s)", n, need, most, widest)
	}
	return n, nil
}

// widestInterface returns which interface carries the longest packets, and how long they
// are; 0 if there is none but loopback.
func widestInterface() (name string, mtu int) {
	all, err := net.Interfaces()
	if err != nil {
		return "", 0
	}
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 && i.MTU > mtu {
			name, mtu = i.Name, i.MTU
		}
	}
	return name, mtu
}

// mtuText tells of the packets in a tunnel.
func mtuText(u node.Tunnel) string {
	line := fmt.Sprintf("MTU %d", u.MTU)
	switch {
	case u.PathMTU == 0:
		line += ", the path is not measured yet"
	case u.MTUSet > 0:
		line += fmt.Sprintf(": the path carries no more than %d, and not --mtu %d", u.PathMTU, u.MTUSet)
	default:
		line += fmt.Sprintf(", on a path that carries %d", u.PathMTU)
	}
	return line
}
