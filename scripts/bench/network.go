package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	published "golang.zx2c4.com/wireguard/tun/netstack"

	"postern/netstack"
)

// tunnelMTU is the largest packet inside either tunnel, in bytes.
const tunnelMTU = 1420

// A network is a host's access to a tunnel that it shares with one peer.
type network interface {
	Port() uint16 // the UDP port of WireGuard
	SetPeer(key [32]byte, address netip.Addr, endpoint netip.AddrPort) error
	Listen(port uint16) (net.Listener, error)
	DialContext(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// networks opens each kind of tunnel that is compared: ours, and what joining the
// published parts yields.
var networks = map[string]func(key [32]byte, address netip.Addr) (network, error){
	us:   openPostern,
	glue: openGlue,
}

// The two ways through a tunnel.
const (
	us   = "postern" // package netstack
	glue = "glue"    // wireguard-go's own tun/netstack and its standard bind
)

type posternNetwork struct{ *netstack.Net }

func openPostern(key [32]byte, address netip.Addr) (network, error) {
	n, err := netstack.New(netstack.Config{PrivateKey: key, Address: address, MTU: tunnelMTU})
	if err != nil {
		return nil, err
	}
	return posternNetwork{n}, nil
}

func (n posternNetwork) SetPeer(key [32]byte, address netip.Addr, endpoint netip.AddrPort) error {
	return n.SetPeers([]netstack.Peer{{PublicKey: key, Address: address, Endpoint: endpoint}})
}

type glueNetwork struct {
	net     *published.Net
	device  *device.Device
	address netip.Addr
	port    uint16
}

func openGlue(key [32]byte, address netip.Addr) (network, error) {
	tun, net, err := published.CreateNetTUN([]netip.Addr{address}, nil, tunnelMTU)
	if err != nil {
		return nil, err
	}
	d := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	if err := d.IpcSet("private_key=" + hex.EncodeToString(key[:]) + "\n"); err != nil {
		return nil, err
	}
	if err := d.Up(); err != nil {
		return nil, err
	}
	n := &glueNetwork{net: net, device: d, address: address}
	return n, n.learnPort()
}

// learnPort asks the device which port it is bound to.
func (n *glueNetwork) learnPort() error {
	status, err := n.device.IpcGet()
	if err != nil {
		return err
	}
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "listen_port="); ok {
			port, err := strconv.ParseUint(value, 10, 16)
			n.port = uint16(port)
			return err
		}
	}
	return fmt.Errorf("the device has no port")
}

func (n *glueNetwork) Port() uint16 { return n.port }

func (n *glueNetwork) SetPeer(key [32]byte, address netip.Addr, endpoint netip.AddrPort) error {
	return n.device.IpcSet(fmt.Sprintf("public_key=%x\nendpoint=%v\nallowed_ip=%v/128\n", key[:], endpoint, address))
}

func (n *glueNetwork) Listen(port uint16) (net.Listener, error) {
	return n.net.ListenTCPAddrPort(netip.AddrPortFrom(n.address, port))
}

func (n *glueNetwork) DialContext(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	return n.net.DialContextTCPAddrPort(ctx, addr)
}
