//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// device is what the line is called in both namespaces.
const device = "line"

// A pair is the addresses of the line's two ends, from what is set aside for
// measurements (RFC 2544). TCP between them, of the kernel, has the congestion
// control that belongs to the pair, whatever the machine's default is.
type pair struct{ near, far, congestion string }

var pairs = []pair{
	{"198.18.0.1", "198.18.0.2", "cubic"},
	{"198.18.1.1", "198.18.1.2", "bbr"},
}

// turned is the pair as the far end sees it.
func (p pair) turned() pair { return pair{p.far, p.near, p.congestion} }

// A space is a network namespace with one end of the line in it.
type space struct {
	name string
	tun  int // file descriptor of the device, non-blocking
}

// newSpace makes a namespace called name in which the line leads from the near
// address of each pair to the far one. The caller removes it.
func newSpace(name string, pairs ...pair) (s *space, err error) {
	if err := ip("netns", "add", name); err != nil {
		return nil, err
	}
	s = &space{name: name, tun: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove())
		}
	}()
	if err := s.openDevice(); err != nil {
		return nil, fmt.Errorf("make device in %s: %w", name, err)
	}
	commands := [][]string{
		{"link", "set", "lo", "up"},
		// What waits here waits outside the queue that is asked for, so nothing
		// should; but what a busy machine leaves here is not lost.
		{"link", "set", device, "up", "mtu", fmt.Sprint(mtu), "txqueuelen", "10000"},
	}
	for _, p := range pairs {
		commands = append(commands,
			[]string{"addr", "add", p.near, "dev", device},
			[]string{"route", "add", p.far, "dev", device, "src", p.near, "congctl", p.congestion})
	}
	for _, args := range commands {
		if err := ip(append([]string{"-n", name}, args...)...); err != nil {
			return nil, err
		}
	}
	return s, s.raiseBuffers()
}

// openDevice makes the TUN device in the namespace, from a thread that goes
// there and comes to its end there.
func (s *space) openDevice() error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread is not used again
		done <- s.openDeviceHere()
	}()
	return <-done
}

func (s *space) openDeviceHere() error {
	ns, err := os.Open("/run/netns/" + s.name)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	request, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	// Without IFF_VNET_HDR the kernel cuts large segments itself: the line sees
	// the packets that a wire would see.
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("ioctl TUNSETIFF", err)
	}
	s.tun = fd
	return nil
}

// raiseBuffers lets TCP of the kernel fill a long line.
func (s *space) raiseBuffers() error {
	return run("ip", "netns", "exec", s.name, "sysctl", "-qw",
		"net.ipv4.tcp_rmem=4096 131072 33554432", "net.ipv4.tcp_wmem=4096 65536 33554432")
}

// remove ends the line in the namespace and the namespace's name. Processes
// that still run in it keep it, without the line.
func (s *space) remove() error {
	if s.tun >= 0 {
		unix.Close(s.tun)
	}
	return ip("netns", "del", s.name)
}

func ip(args ...string) error { return run("ip", args...) }

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
