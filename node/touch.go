package node

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"postern"
	"postern/netstack"
)

const (
	touchInterval = 10 * time.Second // how long a tunnel may be silent
	touchTimeout  = 5 * time.Second
)

// touch looks for life in every tunnel that was silent for touchInterval, until
// ctx is done. A gateway that started anew lost its sessions, and keepalives,
// which nobody answers, do not show it: the next handshake would be minutes away
// (WireGuard whitepaper, section 6.2). What goes unanswered brings it on within
// 15 s (section 6.5).
func (n *Node) touch(ctx context.Context, stack *netstack.Net) error {
	tick := time.NewTicker(touchInterval)
	defer tick.Stop()
	heard := map[netip.Addr]uint64{} // bytes, by gateway
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var touches sync.WaitGroup
		for _, p := range stack.Peers() {
			if p.Received == heard[p.Address] && p.Endpoint.IsValid() {
				touches.Go(func() { touchGateway(ctx, stack, p.Address) })
			}
			heard[p.Address] = p.Received
		}
		touches.Wait()
	}
}

// touchGateway connects to a port where no gateway listens: a refusal is as good
// an answer as any.
func touchGateway(ctx context.Context, stack *netstack.Net, gateway netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	if c, err := stack.DialContext(ctx, netip.AddrPortFrom(gateway, postern.HTTPSPort)); err == nil {
		c.Close()
	}
}
