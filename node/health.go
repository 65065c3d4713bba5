package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"
)

// probeInterval is how often an application that nobody asks is knocked at.
const probeInterval = 10 * time.Second

// A health is what is known of an application, from requests and from probes.
// Its methods are safe for concurrent use.
type health struct {
	log *slog.Logger

	mu    sync.Mutex
	state string // UpstreamUp, UpstreamDown or UpstreamUnknown
	since time.Time
	err   error // iff UpstreamDown
}

func newHealth(log *slog.Logger) *health { return &health{log: log, state: UpstreamUnknown} }

// set notes that the application answered, or with what it failed.
func (h *health) set(err error) {
	state := UpstreamUp
	if err != nil {
		state = UpstreamDown
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	if h.state == state {
		return
	}
	if err != nil {
		h.log.Warn("the application does not answer", "err", err)
	} else {
		h.log.Info("the application answers")
	}
	h.state, h.since = state, time.Now()
}

func (h *health) get() (state string, since time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, h.since, h.err
}

// probe knocks at every application now and then, until ctx is done.
func (n *Node) probe(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	probes := map[*health]context.CancelFunc{} // running
	defer func() {
		for _, stop := range probes {
			stop()
		}
	}()
	for {
		wanted := map[*health]bool{}
		for _, s := range n.published.Load().order {
			if s.Handler != nil {
				continue
			}
			wanted[s.health] = true
			if probes[s.health] == nil {
				ctx, stop := context.WithCancel(ctx)
				probes[s.health] = stop
				wg.Go(func() { s.probeEvery(ctx, probeInterval) })
			}
		}
		for h, stop := range probes {
			if !wanted[h] {
				stop()
				delete(probes, h)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.probed:
		}
	}
}

func (s *service) probeEvery(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := s.knock(ctx); ctx.Err() == nil {
			s.health.set(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// knock opens a connection to the application and closes it, or looks for the
// folder. It asks the application nothing.
func (s *service) knock(ctx context.Context) error {
	u := s.upstream
	if u.folder != "" {
		root, err := os.OpenRoot(u.folder)
		if err != nil {
			return err
		}
		return root.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := u.dial(ctx, "tcp", u.address())
	if err != nil {
		return err
	}
	defer c.Close()
	if s.tls == nil {
		return nil
	}
	return tls.Client(c, s.tls).HandshakeContext(ctx)
}
