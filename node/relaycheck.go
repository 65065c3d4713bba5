package node

import (
	"context"
	"net/http"
	"sync"
	"time"

	"postern"
	"postern/internal/relay"
)

// A RelayCheck says whether a gateway's relay can be opened from here, as it would have to
// be if UDP were blocked.
type RelayCheck struct {
	Gateway string        `json:"gateway"` // its name
	Public  string        `json:"public"`  // where it is
	InUse   bool          `json:"in_use"`  // the tunnel goes by it, and nothing was tried
	Took    time.Duration `json:"took"`    // in nanoseconds, until the gateway had let this node in
	Error   string        `json:"error,omitempty"`
}

// CheckRelays has the node whose Socket has the given path open and close a relay to each
// gateway, by the proxy that it uses, unless one is in use. It fails with ErrNotRunning if
// there is none.
func CheckRelays(ctx context.Context, socket string) (all []RelayCheck, err error) {
	err = askLocal(ctx, socket, http.MethodGet, pathRelays, nil, &all)
	return all, err
}

func (n *Node) getRelays(w http.ResponseWriter, r *http.Request) {
	all := []RelayCheck{}
	run, m := n.running.Load(), n.latest.Load()
	if run != nil && m != nil && m.Deployment() != nil {
		all = run.steerer.check(r.Context(), m.Deployment().Gateways)
	}
	writeJSON(w, http.StatusOK, all)
}

// check tries the relays of gateways, all at once.
func (s *steerer) check(ctx context.Context, gateways []postern.Gateway) []RelayCheck {
	all := make([]RelayCheck, len(gateways))
	me := relay.Node{ID: s.node.id.Enrollment.ID, Key: s.node.id.Key.Key()}
	var tried sync.WaitGroup
	for i, g := range gateways {
		v := &all[i]
		v.Gateway, v.Public = g.Name, g.Public
		if v.InUse = s.path(g.ID) == postern.CarrierRelay; v.InUse {
			continue
		}
		tried.Go(func() {
			start := time.Now()
			c, err := me.Dial(ctx, g, s.proxy.Dial)
			if err != nil {
				v.Error = err.Error()
				return
			}
			v.Took = time.Since(start)
			c.Close()
		})
	}
	tried.Wait()
	return all
}

// proxyFor returns by which proxy addr is reached, for people; "" for none.
func (n *Node) proxyFor(addr string) string {
	u, err := n.proxy(addr)
	if err != nil {
		return err.Error()
	}
	if u == nil {
		return ""
	}
	return u.Redacted()
}
