package member

import (
	"context"
	"errors"
	"net"
	"sync"
)

// errMoved is why a control stream ended that Reconnect ended.
var errMoved = errors.New("this machine is elsewhere on the network, or slept")

// Reconnect has Follow open a new control stream now, over a new connection, and not when
// the one that there is has been silent for too long, or the wait after a failure is over.
func (c *Client) Reconnect() {
	c.hc.Swap(c.newHTTP()).CloseIdleConnections() // HTTP would use a connection again that is dead
	if stop := c.stop.Load(); stop != nil {
		(*stop)(errMoved)
	}
	c.conns.closeAll()
	select { // last: whatever ended by this is tried again
	case c.again <- struct{}{}:
	default:
	}
}

// conns are the connections of a client to the coordinator.
type conns struct {
	mu  sync.Mutex
	all map[*tracked]bool
}

// tracked is one of conns until it is closed.
type tracked struct {
	net.Conn
	in *conns
}

func (c *conns) dial(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	raw, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	t := &tracked{raw, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[*tracked]bool{}
	}
	c.all[t] = true
	return t, nil
}

func (t *tracked) Close() error {
	t.in.mu.Lock()
	delete(t.in.all, t)
	t.in.mu.Unlock()
	return t.Conn.Close()
}

// closeAll closes what is below: whoever uses a connection then finds out.
func (c *conns) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t := range c.all {
		t.Conn.Close()
	}
}
