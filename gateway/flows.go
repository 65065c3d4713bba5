package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// A flow is a connection that has reached a node, or the coordinator if node is
// zero.
type flow struct {
	client net.Conn
	cancel context.CancelCauseFunc

	name   string
	tenant string
	node   Node
}

// Flows are those that are open.
type flows struct {
	mu      sync.Mutex
	open    map[*flow]struct{}
	noPipes bool // endPipes was called
}

// errRouteGone is why a flow ends that the route table no longer allows.
var errRouteGone = errors.New("the name no longer leads to this node")

// add makes f one of the open flows and reports whether the table still allows
// it. Adding comes before asking and SetRoutes swaps before it cuts, so no flow
// slips between the two.
func (fs *flows) add(f *flow, routes *atomic.Pointer[Table]) bool {
	fs.mu.Lock()
	if fs.open == nil {
		fs.open = map[*flow]struct{}{}
	}
	fs.open[f] = struct{}{}
	if fs.noPipes && f.tenant == "" {
		f.cancel(errDrained)
	}
	fs.mu.Unlock()
	return routes.Load().holds(f.name, f.tenant, f.node)
}

func (fs *flows) remove(f *flow) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.open, f)
}

// cut ends the flows that the table does not allow.
func (fs *flows) cut(routes *atomic.Pointer[Table]) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	t := routes.Load()
	for f := range fs.open {
		if !t.holds(f.name, f.tenant, f.node) {
			// What the kernel still holds for the client must not reach it either.
			noLinger(f.client)
			f.cancel(errRouteGone)
		}
	}
}

// endPipes ends the flows to the coordinator, those included that are yet to
// come. Members keep one open for as long
// as they run, so that none would ever end by itself; they come back through
// another gateway, or through this one once it is back.
func (fs *flows) endPipes() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.noPipes = true
	for f := range fs.open {
		if f.tenant == "" {
			f.cancel(errDrained)
		}
	}
}
