package gateway

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// relayAsked is the error of a connection that asks for a relay: it leads nowhere else.
type relayAsked struct{ hello []byte } // as it came, and what came with it

func (*relayAsked) Error() string { return "a relay is asked for" }

// serveRelay has Config.Relay serve c, which is closed and forgotten then.
func (g *Gateway) serveRelay(ctx context.Context, c *client, hello []byte) {
	c.relayed = true
	g.counters.relays.Add(1)
	defer g.counters.relays.Add(-1)
	defer g.counters.open.Add(-1)
	defer g.leave(c)
	defer c.Conn.Close()
	g.done(ctx, c, g.cfg.Relay(ctx, &replay{Conn: c, said: hello}, c.src))
}

// A replay is a connection of which the first bytes have been read, and come again.
type replay struct {
	net.Conn
	said []byte
}

func (r *replay) Read(b []byte) (int, error) {
	if len(r.said) == 0 {
		return r.Conn.Read(b)
	}
	n := copy(b, r.said)
	if r.said = r.said[n:]; len(r.said) == 0 {
		r.said = nil
	}
	return n, nil
}

// SyscallConn lets the socket's options be set.
func (r *replay) SyscallConn() (syscall.RawConn, error) {
	if s, ok := r.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
