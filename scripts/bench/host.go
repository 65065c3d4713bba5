package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/rpc"
	"os"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Host is one end of a tunnel, in a process of its own, which the bench commands
// with net/rpc over standard input and output: Open and SetPeer; on the node Listen
// and Serve; then, on the gateway, Start and Stop, and meanwhile, on both, Sample.
type Host struct {
	// Set by the first commands.
	opened   time.Time
	net      network
	services []service

	received  atomic.Int64 // bytes of bulk work
	exchanges atomic.Int64 // of a byte there and back

	stop    context.CancelFunc // ends the work that was started
	working errgroup.Group
	profile *os.File // that was started

	mu    sync.Mutex
	pings []time.Duration // how long each round trip took
}

// A Sample is what a host did so far.
type Sample struct {
	At        time.Duration // by the host's own clock
	CPU       time.Duration // user and system, of the whole process
	Received  int64         // bytes of bulk work
	Exchanges int64         // of a byte there and back
}

// HostConfig says who a host is.
type HostConfig struct {
	Way     string // a key of networks
	Key     [32]byte
	Address netip.Addr
}

// HostPeer is the other host.
type HostPeer struct {
	Key      [32]byte // public
	Address  netip.Addr
	Endpoint netip.AddrPort
}

// Nothing is what a command without arguments or answer has.
type Nothing struct{}

// serveHost obeys for as long as there is somebody to obey.
func serveHost() error {
	server := rpc.NewServer()
	if err := server.Register(new(Host)); err != nil {
		return err
	}
	server.ServeConn(pipes{lifeline{}, os.Stdout})
	return nil
}

// A lifeline is standard input. The process ends with it, whatever it does: the
// bench that held the other end is gone.
type lifeline struct{}

func (lifeline) Read(p []byte) (int, error) {
	n, err := os.Stdin.Read(p)
	if err != nil {
		os.Exit(0)
	}
	return n, nil
}

// Open brings the host up and says at which UDP port.
func (h *Host) Open(cfg HostConfig, port *uint16) error {
	open, ok := networks[cfg.Way]
	if !ok {
		return fmt.Errorf("there is no way %q", cfg.Way)
	}
	n, err := open(cfg.Key, cfg.Address)
	if err != nil {
		return err
	}
	h.opened, h.net = time.Now(), n
	*port = n.Port()
	return nil
}

// SetPeer makes p the host's one peer.
func (h *Host) SetPeer(p HostPeer, _ *Nothing) error {
	return h.net.SetPeer(p.Key, p.Address, p.Endpoint)
}

// Listen opens the node's ports. Call Serve next.
func (h *Host) Listen(Nothing, *Nothing) error {
	for port, serve := range map[uint16]func(h *Host, c net.Conn) error{
		sinkPort:   (*Host).read,
		sourcePort: (*Host).write,
		echoPort:   (*Host).echo,
	} {
		ln, err := h.net.Listen(port)
		if err != nil {
			return err
		}
		h.services = append(h.services, service{h, ln, serve})
	}
	return nil
}

// Serve answers on the node's ports until one of them fails.
func (h *Host) Serve(Nothing, *Nothing) error {
	var serving errgroup.Group
	for _, s := range h.services {
		serving.Go(s.run)
	}
	return serving.Wait()
}

// A service is what is done with the connections to one port.
type service struct {
	host     *Host
	listener net.Listener
	serve    func(h *Host, c net.Conn) error
}

func (s service) run() error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return err
		}
		conns.Go(func() {
			defer c.Close()
			s.serve(s.host, c) // until the gateway ends it
		})
	}
}

// Sample says what the host did so far.
func (h *Host) Sample(_ Nothing, s *Sample) error {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return err
	}
	*s = Sample{
		At:        time.Since(h.opened),
		CPU:       time.Duration(used.Utime.Nano() + used.Stime.Nano()),
		Received:  h.received.Load(),
		Exchanges: h.exchanges.Load(),
	}
	return nil
}

// since returns what was done between before and s.
func (s Sample) since(before Sample) Sample {
	return Sample{
		At: s.At - before.At, CPU: s.CPU - before.CPU,
		Received: s.Received - before.Received, Exchanges: s.Exchanges - before.Exchanges,
	}
}

// StartProfile begins a CPU profile of the host.
func (h *Host) StartProfile(path string, _ *Nothing) (err error) {
	if h.profile, err = os.Create(path); err != nil {
		return err
	}
	return pprof.StartCPUProfile(h.profile)
}

// StopProfile ends the profile that was begun.
func (h *Host) StopProfile(Nothing, *Nothing) error {
	pprof.StopCPUProfile()
	return h.profile.Close()
}

// Start begins work. Call Stop to end it.
func (h *Host) Start(w Work, _ *Nothing) error {
	work, ok := works[w.Kind]
	if !ok {
		return fmt.Errorf("there is no work %q", w.Kind)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	for range w.Flows {
		h.working.Go(func() error {
			err := work(h, ctx, w.Node)
			if ctx.Err() != nil {
				return nil
			}
			return errors.Join(errors.New("the work ended early"), err)
		})
	}
	return nil
}

// Stop ends work, and returns the median of round trips if that was the work.
func (h *Host) Stop(_ Nothing, median *time.Duration) error {
	h.stop()
	if err := h.working.Wait(); err != nil {
		return err
	}
	if slices.Sort(h.pings); len(h.pings) > 0 {
		*median = h.pings[len(h.pings)/2]
	}
	return nil
}
