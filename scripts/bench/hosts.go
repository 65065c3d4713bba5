package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/rpc"
	"os/exec"
	"path/filepath"
)

// A tunnel is two hosts that are each other's only peer.
type tunnel struct{ gateway, node *hostProcess }

// openTunnel starts both hosts. They end with ctx; the caller closes the tunnel.
func openTunnel(ctx context.Context, way string) (t *tunnel, err error) {
	t = &tunnel{}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.gateway, err = startHost(ctx, way, netip.MustParseAddr("fd00::1")); err != nil {
		return nil, fmt.Errorf("start the gateway: %w", err)
	}
	if t.node, err = startHost(ctx, way, netip.MustParseAddr("fd00::2")); err != nil {
		return nil, fmt.Errorf("start the node: %w", err)
	}
	if err := errors.Join(t.gateway.do("SetPeer", t.node.peer), t.node.do("SetPeer", t.gateway.peer)); err != nil {
		return nil, err
	}
	if err := t.node.do("Listen", Nothing{}); err != nil {
		return nil, err
	}
	// It answers for as long as the process lives.
	t.node.Go("Host.Serve", Nothing{}, &Nothing{}, nil)
	return t, nil
}

// sample returns what each host did so far.
func (t *tunnel) sample() (gateway, node Sample, err error) {
	return gateway, node, errors.Join(
		t.gateway.Call("Host.Sample", Nothing{}, &gateway),
		t.node.Call("Host.Sample", Nothing{}, &node))
}

// startProfile begins a CPU profile of each host, in files of dir that begin with
// name. Both end with stopProfile.
func (t *tunnel) startProfile(dir, name string) (gateway, node string, err error) {
	gateway = filepath.Join(dir, name+".gateway.pprof")
	node = filepath.Join(dir, name+".node.pprof")
	return gateway, node, errors.Join(t.gateway.do("StartProfile", gateway), t.node.do("StartProfile", node))
}

func (t *tunnel) stopProfile() error {
	return errors.Join(t.gateway.do("StopProfile", Nothing{}), t.node.do("StopProfile", Nothing{}))
}

func (t *tunnel) close() {
	for _, h := range []*hostProcess{t.gateway, t.node} {
		if h != nil {
			h.close()
		}
	}
}

// A hostProcess is a Host in a process of its own.
type hostProcess struct {
	*rpc.Client
	cmd     *exec.Cmd
	unwatch func() bool
	peer    HostPeer // what the other host has to know of it
}

// startHost starts a process and opens its end of a tunnel. It ends with ctx; the
// caller closes it.
func startHost(ctx context.Context, way string, address netip.Addr) (*hostProcess, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	cmd, err := roleCommand("host")
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &hostProcess{cmd: cmd, Client: rpc.NewClient(pipes{out, in})}
	// A call to a process that is gone fails, so whoever waits for one returns.
	h.unwatch = context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	var port uint16
	if err := h.Call("Host.Open", HostConfig{way, [32]byte(key.Bytes()), address}, &port); err != nil {
		h.close()
		return nil, err
	}
	h.peer = HostPeer{
		Key: [32]byte(key.PublicKey().Bytes()), Address: address,
		Endpoint: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
	}
	return h, nil
}

// do has the host obey a command that is not answered.
func (h *hostProcess) do(command string, arg any) error {
	return h.Call("Host."+command, arg, &Nothing{})
}

func (h *hostProcess) close() {
	h.unwatch()
	h.cmd.Process.Kill()
	h.Client.Close()
	h.cmd.Wait()
}

// Pipes are the standard input and output of a process, seen from either side.
type pipes struct {
	io.Reader
	io.WriteCloser
}
