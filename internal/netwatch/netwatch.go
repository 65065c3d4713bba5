// Package netwatch tells when this machine has come to another place on the network, or
// slept. Who has sessions with others then lets them know at once, where they would else
// find out when an answer is missed.
//
// The operating system only wakes who looks: what counts is whether the place is another
// than before. Without its help one looks every few seconds.
package netwatch

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// tickInterval is how often the clocks are looked at.
	tickInterval = time.Second

	// lateTick is how much later than it should a tick comes once a machine has slept,
	// or was paused. What lasts no longer costs nobody a session.
	lateTick = 10 * time.Second

	// settleTime is how long one waits after the system said that something changed:
	// an address, a route and a link come in one after the other.
	settleTime = 250 * time.Millisecond

	// lookInterval is how often one looks where the system says nothing, and
	// idleInterval how often where it does.
	lookInterval = 2 * time.Second
	idleInterval = 10 * time.Second
)

// A Config says what is watched.
type Config struct {
	// Targets are those whom this machine talks to: the address from which it would
	// reach each is a part of its place. If nil, there are none.
	Targets func() []netip.AddrPort

	// Changed is told why it is called, in words for a log. No other call comes before
	// it returns.
	Changed func(ctx context.Context, why string)

	// Logger is told if the system is of no help. If nil, nobody is.
	Logger *slog.Logger

	// What tests stand in for.
	place  func() place
	listen func(ctx context.Context, changed func()) error // until ctx is done, or with why it cannot
	wall   func() time.Time
}

// Run watches until ctx is done, and then returns nil.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.place == nil {
		cfg.place = func() place { return here(cfg.Targets) }
	}
	if cfg.listen == nil {
		cfg.listen = listen
	}
	if cfg.wall == nil {
		cfg.wall = time.Now
	}
	w := watch{Config: cfg, events: make(chan struct{}, 1), deaf: make(chan error, 1)}
	var listening sync.WaitGroup
	listening.Go(func() { w.deaf <- cfg.listen(ctx, w.wake) })
	w.run(ctx)
	listening.Wait()
	return nil
}

// A watch is what Run knows.
type watch struct {
	Config
	events chan struct{} // holds one token since something may have changed
	deaf   chan error    // gets why the system is of no help any more

	held place
	last reading
}

// A reading is both clocks at a moment: the one on the wall, which is set, and the one
// in time.Time, which only runs; on most systems not while the machine sleeps.
type reading struct {
	wall time.Time
	ran  time.Time
}

func (w *watch) wake() {
	select {
	case w.events <- struct{}{}:
	default:
	}
}

func (w *watch) run(ctx context.Context) {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	w.held, w.last = w.place(), w.read()
	interval, looked := idleInterval, time.Now()
	var settled <-chan time.Time
	for {
		look := false
		select {
		case <-ctx.Done():
			return
		case err := <-w.deaf:
			if ctx.Err() == nil {
				w.Logger.Warn("this system does not tell of changes of its network; looking for them instead", "err", err)
				interval = lookInterval
			}
			continue
		case <-w.events:
			if settled == nil {
				settled = time.After(settleTime)
			}
		case <-settled:
			settled, look = nil, true
		case <-tick.C:
			if gap := w.gap(); gap > 0 {
				w.held, looked = w.place(), time.Now()
				w.Changed(ctx, fmt.Sprintf("it slept, or its clock was set, for %v", gap.Round(time.Second)))
				w.last = w.read()
				continue
			}
			look = time.Since(looked) >= interval
		}
		if !look {
			continue
		}
		looked = time.Now()
		before := w.held
		if w.held = w.place(); w.held.moved(before) {
			w.Changed(ctx, "it has other addresses")
			w.last = w.read() // the time that took is no sleep
		}
	}
}

func (w *watch) read() reading { return reading{w.wall().Round(0), time.Now()} }

// gap returns how long the machine slept since it was last called, by either clock; zero
// if it did not.
func (w *watch) gap() time.Duration {
	before := w.last
	w.last = w.read()
	gap := max(w.last.wall.Sub(before.wall), w.last.ran.Sub(before.ran)) - tickInterval
	if gap < lateTick {
		return 0
	}
	return gap
}

// A place is where this machine is.
type place struct {
	addresses string                // that it has
	from      map[netip.Addr]string // by target: the one from which it would be reached
}

// moved reports whether p is another place than before. A target that is new says nothing.
func (p place) moved(before place) bool {
	for target, from := range p.from {
		if was, ok := before.from[target]; ok && was != from {
			return true
		}
	}
	return p.addresses != before.addresses
}

// here returns where this machine is now.
func here(targets func() []netip.AddrPort) place {
	p := place{from: map[netip.Addr]string{}}
	if targets != nil {
		for _, t := range targets() {
			p.from[t.Addr()] = source(t)
		}
	}
	var at []string
	interfaces, err := net.Interfaces()
	if err != nil {
		at = append(at, err.Error())
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone in the meantime
		}
		for _, a := range addrs {
			// Bridges and virtual cables come and go with addresses of the link alone.
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				at = append(at, i.Name+" "+n.String())
			}
		}
	}
	slices.Sort(at)
	p.addresses = strings.Join(at, "\n")
	return p
}

// source returns the address from which packets to t would be sent. None is.
func source(t netip.AddrPort) string {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(t))
	if err != nil {
		return "nowhere"
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().String()
}
