package node

import (
	"context"
	"net/netip"
	"time"

	"postern/internal/netwatch"
)

// rebindAgain is how long one waits for the system to give a UDP socket, where it did not.
const rebindAgain = time.Second

// roam has the gateways and the coordinator learn at once that this machine is elsewhere
// on the network, or is back from its sleep, until ctx is done. Sessions and connections
// go on; where the gateways are is looked up anew.
func (n *Node) roam(ctx context.Context, run *running) error {
	return netwatch.Run(ctx, netwatch.Config{
		Logger: n.log,
		Targets: func() (gateways []netip.AddrPort) {
			for _, p := range run.net.Peers() {
				if p.Endpoint.IsValid() {
					gateways = append(gateways, p.Endpoint)
				}
			}
			return gateways
		},
		Changed: func(ctx context.Context, why string) {
			n.log.Info("this machine moved on the network", "reason", why)
			n.client.Reconnect()
			wake(n.moved)
			n.rebind(ctx, run) // which may take long
			run.steerer.hurry()
		},
	})
}

// rebind opens the tunnels' UDP socket anew, however often that takes.
func (n *Node) rebind(ctx context.Context, run *running) {
	for failed := false; ctx.Err() == nil; failed = true {
		err := run.net.Rebind()
		if err == nil {
			return
		}
		if !failed {
			n.log.Warn("open the tunnels' UDP socket anew; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rebindAgain):
		}
	}
}
