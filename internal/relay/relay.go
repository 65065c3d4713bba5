// Package relay is the second carrier of WireGuard's datagrams: a WebSocket over TLS on a
// gateway's public HTTPS port, for nodes in networks that block UDP. What it carries is
// encrypted and authenticated already, so TLS is there to get through, and to tell that it
// is a node of the deployment who asks for a gateway's time.
//
// A relay's life, in order:
//
//	Dial            node: TCP, perhaps through a proxy; TLS, the gateway's identity pinned
//	Server.Serve    gateway: TLS and all up to the welcome within a few seconds
//	prove, verify   the node signs the gateway's nonce; see postern.RelayProtocol
//	Conn.Run        datagrams both ways, until one side is silent or gone
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

const (
	// pingInterval is how often a node asks whether the gateway is there, and how long
	// it waits for each answer.
	pingInterval = 10 * time.Second
	maxMisses    = 2
	// silence is how long a gateway hears nothing of a node before it takes it for gone.
	silence = (maxMisses + 1) * pingInterval
)

// began is when this process did.
var began = time.Now()

// clock returns the nanoseconds since began, which nobody who sets the machine's clock
// changes.
func clock() int64 { return int64(time.Since(began)) }

// A Conn is an open relay. It is good for one Run; Close ends it before that, or during.
type Conn struct {
	raw    net.Conn // below ws; closed first, since TLS would wait to say goodbye to who is gone
	ws     *websocket.Conn
	remote netip.AddrPort // as the other side is seen from here
	client bool
	queue  *queue
	heard  *atomic.Int64 // when something came last, see clock
	end    context.CancelCauseFunc
	ended  context.Context
}

func newConn(raw net.Conn, ws *websocket.Conn, remote netip.AddrPort, client bool, heard *atomic.Int64) *Conn {
	c := &Conn{raw: raw, ws: ws, remote: remote, client: client, heard: heard, queue: newQueue()}
	c.ended, c.end = context.WithCancelCause(context.Background())
	ws.SetReadLimit(maxMessage)
	return c
}

// Remote returns where the other side, or the proxy before it, is.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Send queues copies of datagrams. It never waits: what is too much is lost, the oldest
// first.
func (c *Conn) Send(datagrams [][]byte) { c.queue.put(datagrams, time.Now()) }

// Dropped returns how many datagrams were queued and not sent.
func (c *Conn) Dropped() uint64 {
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	return c.queue.dropped
}

// errClosed ends a Run whose Conn was closed.
var errClosed = errors.New("closed")

// Close ends the relay at once. It does not wait for Run.
func (c *Conn) Close() error {
	c.end(errClosed)
	return c.close()
}

func (c *Conn) close() error {
	err := c.raw.Close()
	c.ws.CloseNow()
	return err
}

// Run carries datagrams, giving receive those that come, until ctx is done, the other side
// is gone or silent, or says what it should not. It returns why, and has closed the relay
// then. Receive must not keep the datagrams.
func (c *Conn) Run(ctx context.Context, receive func(datagrams [][]byte) error) error {
	stop := context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })
	defer stop()
	c.heard.Store(clock())
	var work sync.WaitGroup
	defer work.Wait()
	closing := context.AfterFunc(c.ended, func() { c.close() })
	defer closing()
	for _, part := range []func() error{c.write, c.watch} {
		work.Go(func() { c.end(part()) })
	}
	c.end(c.read(receive))
	c.close()
	return context.Cause(c.ended)
}

// buffers hold messages, for as long as they are read or written.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, fullMessage); return &b }}

// read gives receive what comes.
func (c *Conn) read(receive func([][]byte) error) error {
	var datagrams [][]byte
	for {
		kind, r, err := c.ws.Reader(c.ended)
		if err != nil {
			return err
		}
		if kind != websocket.MessageBinary {
			return errors.New("a message of text among datagrams")
		}
		c.heard.Store(clock())
		buf := buffers.Get().(*[]byte)
		message, err := readAll(r, (*buf)[:0])
		if err == nil {
			datagrams, err = split(datagrams[:0], message)
		}
		if err == nil {
			err = receive(datagrams)
		}
		clear(datagrams)
		if cap(message) <= maxMessage {
			*buf = message[:0]
		}
		buffers.Put(buf)
		if err != nil {
			return err
		}
	}
}

// readAll appends all of r to b.
func readAll(r io.Reader, b []byte) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// write sends what is queued.
func (c *Conn) write() error {
	for {
		select {
		case <-c.queue.ready:
		case <-c.ended.Done():
			return nil
		}
		for more := true; more; {
			buf := buffers.Get().(*[]byte)
			var message []byte
			message, more = c.queue.take((*buf)[:0], time.Now())
			var err error
			if len(message) > 0 {
				err = c.ws.Write(c.ended, websocket.MessageBinary, message)
			}
			if cap(message) <= maxMessage {
				*buf = message[:0]
			}
			buffers.Put(buf)
			if err != nil {
				return err
			}
		}
	}
}

// watch returns when the other side has been silent for too long.
func (c *Conn) watch() error {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for misses := 0; ; {
		select {
		case <-c.ended.Done():
			return nil
		case <-tick.C:
		}
		if !c.client {
			if quiet := time.Duration(clock() - c.heard.Load()); quiet > silence {
				return fmt.Errorf("the node has been silent for %v", quiet.Round(time.Second))
			}
			continue
		}
		ctx, cancel := context.WithTimeout(c.ended, pingInterval)
		err := c.ws.Ping(ctx)
		cancel()
		if misses++; err == nil {
			misses = 0
		}
		if misses == maxMisses {
			return errors.New("the gateway does not answer")
		}
	}
}
