package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"postern/scripts/bench/process"
)

// The ways to the origin besides ours.
const (
	viaDirect    = "direct"
	viaHAProxy   = "haproxy"
	viaWireGuard = "haproxy+wireguard-go"
	viaOpenSSH   = "openssh"
	viaStunnel   = "stunnel"
)

// A recipe is how one way to the origin is set up.
type recipe struct {
	name     string
	programs []string // that it needs
	network  bool     // whether it needs network namespaces and TUN devices

	// start returns as soon as all is started. Its processes are c's.
	start func(ctx context.Context, c *process.Children, s site) (*setup, error)
}

// recipes are all ways, in the order in which they take turns.
var recipes = []recipe{
	{name: viaDirect, start: startDirect},
	{name: us, start: startPostern},
	{name: viaHAProxy, start: startHAProxy, programs: []string{"haproxy"}},
	{name: viaWireGuard, start: startWireGuard, programs: []string{"haproxy", "wireguard-go", "wg", "ip", "nsenter"}, network: true},
	{name: viaOpenSSH, start: startOpenSSH, programs: []string{"sshd", "ssh", "ssh-keygen"}},
	{name: viaStunnel, start: startStunnel, programs: []string{"stunnel"}},
}

// A site is what all setups use.
type site struct {
	postern string   // the program to measure
	origin  upstream // on loopback
}

// A setup is one way to the origin, running, with the processes that are its own.
// What those started counts as theirs.
type setup struct {
	addr   string // where clients connect
	cloud  []int  // at the end where clients are
	office []int  // at the end where the origin is
	origin int    // what answers in the end

	recipe   recipe
	children *process.Children
}

// open sets up the way and returns once an answer came through it.
func (r recipe) open(ctx context.Context, s site) (*setup, error) {
	c, err := process.New()
	if err != nil {
		return nil, err
	}
	opened, err := r.start(ctx, c, s)
	if err == nil {
		opened.recipe, opened.children = r, c
		err = process.Poll(ctx, func() error { return try(ctx, opened.addr) })
	}
	if err != nil {
		err = c.Explain(fmt.Errorf("%s: %w", r.name, err))
		c.Close()
		return nil, err
	}
	return opened, nil
}

func (s *setup) close() { s.children.Close() }

// own returns the CPU time that the setup's own processes have taken, and that with
// the origin's.
func (s *setup) spent() (own, total time.Duration, err error) {
	if own, err = process.CPU(append(s.cloud, s.office...)); err != nil {
		return 0, 0, err
	}
	origin, err := process.CPU([]int{s.origin})
	return own, own + origin, err
}

// try asks once for a small answer over a new connection.
func try(ctx context.Context, addr string) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.close()
	return c.small()
}

// openAll sets up all of recipes that can be set up here, and says which cannot.
// Only the direct way and ours must not be missing.
func openAll(ctx context.Context, recipes []recipe, s site) (all []*setup, err error) {
	defer func() {
		if err != nil {
			closeSetups(all)
		}
	}()
	for _, r := range recipes {
		err := r.lacks()
		var opened *setup
		if err == nil {
			opened, err = r.open(ctx, s)
		}
		switch {
		case err == nil:
			all = append(all, opened)
		case ctx.Err() != nil || r.name == us || r.name == viaDirect:
			return all, err
		default:
			fmt.Fprintf(os.Stderr, "bench: LEFT OUT: %v\n", err)
		}
	}
	return all, nil
}

func closeSetups(all []*setup) {
	for _, s := range all {
		s.close()
	}
}

// lacks says what the recipe needs and is not there.
func (r recipe) lacks() error {
	var missing []string
	for _, name := range r.programs {
		if _, err := find(name); err != nil {
			missing = append(missing, name)
		}
	}
	if r.network && !canNetwork() {
		missing = append(missing, "root's right to network namespaces and /dev/net/tun")
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("%s: it needs %s", r.name, strings.Join(missing, ", "))
}

// canNetwork reports whether this process may make network namespaces and there are
// TUN devices.
func canNetwork() bool {
	cmd := command("true")
	process.Isolate(cmd)
	_, err := os.Stat("/dev/net/tun")
	return err == nil && cmd.Run() == nil
}

// find returns the path of a program, also where only root's PATH leads.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", err
}

// command returns a command that runs the program called name, which is there.
func command(name string, args ...string) *exec.Cmd {
	path, err := find(name)
	if err != nil {
		path = name
	}
	return exec.Command(path, args...)
}

// freePorts returns n loopback addresses that were free a moment ago.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}

// startDirect has clients connect to the origin.
func startDirect(_ context.Context, _ *process.Children, s site) (*setup, error) {
	return &setup{addr: s.origin.secure, origin: s.origin.pid}, nil
}
