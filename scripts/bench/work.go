package main

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"
)

// Work is what a gateway does with its node.
type Work struct {
	Kind  string // a key of works
	Flows int    // at a time
	Node  netip.Addr
}

// The kinds of work.
const (
	down     = "down"     // read what the node writes
	up       = "up"       // write what the node reads
	connect  = "connect"  // exchange a byte on a new connection, again and again
	pingpong = "pingpong" // exchange a byte on one connection, again and again
)

// works do each kind of work, for one flow, until ctx ends.
var works = map[string]func(h *Host, ctx context.Context, node netip.Addr) error{
	down:     (*Host).down,
	up:       (*Host).up,
	connect:  (*Host).connect,
	pingpong: (*Host).pingpong,
}

// The ports of the node, by what it does with a connection.
const (
	sinkPort   = 1 // reads
	sourcePort = 2 // writes
	echoPort   = 3 // writes what it read
)

// chunk is how much bulk work reads or writes at a time, in bytes.
const chunk = 64 << 10

// dial connects to a port of the node. The connection closes when ctx ends.
func (h *Host) dial(ctx context.Context, node netip.Addr, port uint16) (c net.Conn, done func(), err error) {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err = h.net.DialContext(limited, netip.AddrPortFrom(node, port))
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return c, func() { stop(); c.Close() }, nil
}

func (h *Host) down(ctx context.Context, node netip.Addr) error {
	c, done, err := h.dial(ctx, node, sourcePort)
	if err != nil {
		return err
	}
	defer done()
	return h.read(c)
}

func (h *Host) up(ctx context.Context, node netip.Addr) error {
	c, done, err := h.dial(ctx, node, sinkPort)
	if err != nil {
		return err
	}
	defer done()
	return h.write(c)
}

func (h *Host) connect(ctx context.Context, node netip.Addr) error {
	for ctx.Err() == nil {
		c, done, err := h.dial(ctx, node, echoPort)
		if err != nil {
			return err
		}
		err = ping(c)
		done()
		if err != nil {
			return err
		}
		h.exchanges.Add(1)
	}
	return nil
}

func (h *Host) pingpong(ctx context.Context, node netip.Addr) error {
	c, done, err := h.dial(ctx, node, echoPort)
	if err != nil {
		return err
	}
	defer done()
	for {
		start := time.Now()
		if err := ping(c); err != nil {
			return err
		}
		took := time.Since(start)
		h.exchanges.Add(1)
		h.mu.Lock()
		h.pings = append(h.pings, took)
		h.mu.Unlock()
	}
}

func ping(c net.Conn) error {
	b := make([]byte, 1)
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

func (h *Host) echo(c net.Conn) error {
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

// read counts what comes until c ends.
func (h *Host) read(c net.Conn) error {
	buf := make([]byte, chunk)
	for {
		n, err := c.Read(buf)
		h.received.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// write fills c until it ends.
func (h *Host) write(c net.Conn) error {
	buf := make([]byte, chunk)
	for {
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
}
