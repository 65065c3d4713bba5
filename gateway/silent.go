package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"
)

// A client that is gone without a word is noticed by keepalive, while nothing is on its
// way there. What is on its way the kernel sends again for a quarter of an hour, and
// TCP_USER_TIMEOUT, which would shorten that, also ends connections of clients that are
// there and pause (docs/decisions/tcp-timeouts.md). So the gateway looks for itself.
const (
	keepaliveIdle     = 30 * time.Second
	keepaliveInterval = 30 * time.Second
	keepaliveCount    = 3

	// silence is how long a client may acknowledge none of what is on its way.
	silence = 60 * time.Second

	// silenceInterval is how often the gateway looks.
	silenceInterval = 30 * time.Second
)

var errClientGone = errors.New("the client is gone")

// harden has the kernel notice when the client of an idle conn is gone.
func harden(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok {
		c.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: keepaliveIdle, Interval: keepaliveInterval, Count: keepaliveCount,
		})
	}
}

// endSilent ends the flows whose clients are gone, and logs how many, if any.
func (g *Gateway) endSilent(ctx context.Context) {
	ended := g.flows.endIf(errClientGone, func(f *flow) bool {
		c, ok := f.client.(syscall.Conn)
		if !ok {
			return false
		}
		raw, err := c.SyscallConn()
		return err == nil && isSilent(raw)
	})
	if ended > 0 {
		g.counters.silent.Add(int64(ended))
		g.log.LogAttrs(ctx, slog.LevelInfo, "ended connections of clients that are gone", slog.Int("connections", ended))
	}
}
