package gateway

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A flow is a connection that has reached a node, or the coordinator if node is
// zero.
type flow struct {
	client net.Conn
	cancel context.CancelCauseFunc

	hello
	src    netip.Addr
	tenant string
	node   Node

	window *window // that it keeps open; owned by flows
}

// Flows are those that are open, and the windows that they keep open.
type flows struct {
	mu      sync.Mutex
	open    map[*flow]struct{}
	nodes   map[Node]int // how many of them each has
	noPipes bool         // endPipes was called
	windows map[windowKey]*window
}

// Why a flow ends that the route table no longer allows.
var (
	errRouteGone = errors.New("the name no longer leads to this node")
	errWindow    = errors.New("the tenant no longer admits the client's address")
)

// admitted reports whether the table lets f through to its tenant now.
func (fs *flows) admitted(f *flow, routes *atomic.Pointer[Table], now time.Time) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.admits(routes.Load(), f, now)
}

// add makes f one of the open flows if the table still allows it, and reports
// whether it does. The table is asked under the lock and SetRoutes swaps before it cuts, so no
// flow slips between the two.
func (fs *flows) add(f *flow, routes *atomic.Pointer[Table], now time.Time) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.allow(routes.Load(), f, now) != nil {
		return false
	}
	if fs.open == nil {
		fs.open, fs.nodes = map[*flow]struct{}{}, map[Node]int{}
	}
	fs.open[f] = struct{}{}
	fs.nodes[f.node]++
	if fs.noPipes && f.tenant == "" {
		f.cancel(errDrained)
	}
	return true
}

// allow returns why t does not allow f, if it does not. The lock is held.
func (fs *flows) allow(t *Table, f *flow, now time.Time) error {
	if !t.holds(f.name, f.tenant, f.node) {
		return errRouteGone
	}
	if !fs.admits(t, f, now) {
		return errWindow
	}
	fs.hold(t, f, now)
	return nil
}

func (fs *flows) remove(f *flow, now time.Time) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if _, ok := fs.open[f]; ok {
		delete(fs.open, f)
		if fs.nodes[f.node]--; fs.nodes[f.node] == 0 {
			delete(fs.nodes, f.node)
		}
	}
	fs.release(f, now)
}

// busy reports whether n has flows.
func (fs *flows) busy(n Node) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.nodes[n] > 0
}

// cut ends the flows that the table does not allow.
func (fs *flows) cut(routes *atomic.Pointer[Table], now time.Time) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	t := routes.Load()
	fs.settleWindows(t, now)
	for f := range fs.open {
		if err := fs.allow(t, f, now); err != nil {
			// What the kernel still holds for the client must not reach it either.
			noLinger(f.client)
			f.cancel(err)
		}
	}
}

// endIf ends the flows that ended reports, with cause, and returns how many.
func (fs *flows) endIf(cause error, ended func(*flow) bool) (n int) {
	fs.mu.Lock()
	open := slices.Collect(maps.Keys(fs.open))
	fs.mu.Unlock()
	for _, f := range open { // unlocked: it may take a while
		if ended(f) {
			noLinger(f.client)
			f.cancel(cause)
			n++
		}
	}
	return n
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
