package member

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// errMoved is why a control stream ended that Reconnect ended.
var errMoved = errors.New("this machine is elsewhere on the network, or slept")

// Reconnect has Follow open a new control stream now, over a new connection, and not when
// the one that there is has been silent for too long, or the wait after a failure is over.
func (c *Client) Reconnect() {
	old := c.http.Swap(c.connect())
	if stop := c.stop.Load(); stop != nil {
		(*stop)(errMoved)
	}
	old.close()
	select {
	case c.again <- struct{}{}:
	default:
	}
}

// Connections are those of a Client to the coordinator, of which HTTP uses one again for
// as long as it does not know that it is dead.
type connections struct {
	hc *http.Client

	mu     sync.Mutex
	closed bool
	all    map[*tracked]bool
}

// tracked is one of connections until it is closed.
type tracked struct {
	net.Conn
	in *connections
}

// hc returns the client of the newest connections.
func (c *Client) hc() *http.Client { return c.http.Load().hc }

// connect returns connections of which none is open yet.
func (c *Client) connect() *connections {
	cs := &connections{all: map[*tracked]bool{}}
	cs.hc = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			raw, err := c.proxy.Dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			return cs.track(raw)
		},
		TLSClientConfig:     c.tls.Clone(),
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}}
	return cs
}

// track makes raw one of cs, or closes it if they are closed.
func (cs *connections) track(raw net.Conn) (net.Conn, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		raw.Close()
		return nil, errMoved
	}
	t := &tracked{raw, cs}
	cs.all[t] = true
	return t, nil
}

func (t *tracked) Close() error {
	t.in.mu.Lock()
	delete(t.in.all, t)
	t.in.mu.Unlock()
	return t.Conn.Close()
}

// close closes what is below, now and later: whoever uses a connection then finds out.
func (cs *connections) close() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for t := range cs.all {
		t.Conn.Close()
	}
}
