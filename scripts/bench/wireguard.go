package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"

	"postern/scripts/bench/process"
)

// The ends of the wire between cloud and office, and those of the tunnel over it.
const (
	cloudWire   = "10.98.0.1"
	officeWire  = "10.98.0.2"
	cloudInner  = "10.99.0.1"
	officeInner = "10.99.0.2"
	wirePort    = "51820"
)

// startWireGuard has clients connect to haproxy in one network namespace, the cloud,
// which passes TLS through a tunnel of wireguard-go to an origin in another, the
// office. The two are joined by a veth pair. Each namespace has no name and lives as
// long as the processes in it: nothing of it can be left behind.
//
// haproxy's listening socket is made out here, so that clients reach it over
// loopback, as they reach all others.
func startWireGuard(ctx context.Context, c *process.Children, s site) (*setup, error) {
	var cloud, office namespace
	var err error
	if cloud, err = newNamespace(c, "cloud", cloudWire, cloudInner); err != nil {
		return nil, err
	}
	if office, err = newNamespace(c, "office", officeWire, officeInner); err != nil {
		return nil, err
	}
	if err := cloud.run(ctx, "ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", strconv.Itoa(office.pid)); err != nil {
		return nil, err
	}
	if err := cloud.connect(ctx, c, office); err != nil {
		return nil, err
	}
	if err := office.connect(ctx, c, cloud); err != nil {
		return nil, err
	}
	origin, err := startOrigin(c, office.enter, officeInner)
	if err != nil {
		return nil, err
	}
	config, err := c.Write("haproxy.cfg", fmt.Sprintf(haproxyConfig, "fd@3", benchHost, origin.secure))
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	socket, err := ln.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	haproxy := cloud.enter(haproxyCommand(config))
	haproxy.ExtraFiles = []*os.File{socket} // its fd 3
	pid, err := c.Start("haproxy", haproxy)
	return &setup{
		addr:  ln.Addr().String(),
		cloud: []int{pid, cloud.pid}, office: []int{office.pid}, origin: origin.pid,
	}, err
}

// A namespace is a network namespace with a wireguard-go in it, which made it.
type namespace struct {
	pid         int    // of wireguard-go
	device      string // the name of its interface: one of its own, as its socket is in a common directory
	wire, inner string // its addresses
	key         *ecdh.PrivateKey
}

func newNamespace(c *process.Children, name, wire, inner string) (namespace, error) {
	n := namespace{device: fmt.Sprintf("%s%d", name, os.Getpid()), wire: wire, inner: inner}
	var err error
	if n.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		return n, err
	}
	cmd := command("wireguard-go", "--foreground", n.device)
	process.Isolate(cmd)
	c.OnClose(func() { os.Remove(n.socket()) })
	n.pid, err = c.Start("wireguard-go-"+name, cmd)
	return n, err
}

func (n namespace) socket() string { return "/var/run/wireguard/" + n.device + ".sock" }

// connect gives the namespace its addresses and its tunnel to other.
func (n namespace) connect(ctx context.Context, c *process.Children, other namespace) error {
	config, err := c.Write(n.device+".conf", fmt.Sprintf(
		"[Interface]\nPrivateKey = %s\nListenPort = %s\n[Peer]\nPublicKey = %s\nEndpoint = %s:%s\nAllowedIPs = %s/32\n",
		base64.StdEncoding.EncodeToString(n.key.Bytes()), wirePort,
		base64.StdEncoding.EncodeToString(other.key.PublicKey().Bytes()), other.wire, wirePort, other.inner))
	if err != nil {
		return err
	}
	err = process.Poll(ctx, func() error {
		_, err := os.Stat(n.socket())
		return err
	})
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "address", "add", n.wire + "/24", "dev", "wire"},
		{"ip", "link", "set", "wire", "up"},
		{"wg", "setconf", n.device, config},
		{"ip", "address", "add", n.inner + "/24", "dev", n.device},
		{"ip", "link", "set", n.device, "up"},
	} {
		if err := n.run(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// enter returns a command that runs cmd in the namespace.
func (n namespace) enter(cmd *exec.Cmd) *exec.Cmd {
	inside := command("nsenter", append([]string{"--target", strconv.Itoa(n.pid), "--net", cmd.Path}, cmd.Args[1:]...)...)
	inside.Env = cmd.Env
	return inside
}

// run runs a program in the namespace to its end.
func (n namespace) run(ctx context.Context, args ...string) error {
	cmd := n.enter(command(args[0], args[1:]...))
	_, err := process.Output(ctx, cmd)
	return err
}
