package node

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// A held is the ResponseWriter of a handler in this process, which may not look at
// its context: once life is done nothing more gets through it, nor through the
// connection that the handler may have taken over.
type held struct {
	http.ResponseWriter
	life     context.Context
	over     func() // to be called once, when the request is over
	hijacked bool
}

// Unwrap is for http.ResponseController.
func (h *held) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *held) Write(b []byte) (int, error) {
	if err := h.life.Err(); err != nil {
		return 0, err
	}
	return h.ResponseWriter.Write(b)
}

// Flush is for handlers that ask for an http.Flusher.
func (h *held) Flush() {
	if h.life.Err() == nil {
		http.NewResponseController(h.ResponseWriter).Flush()
	}
}

// Hijack hands the connection over. The request is over when it is closed, which it
// is with life.
func (h *held) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buf, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.hijacked = true
	hc := &heldConn{Conn: c, over: h.over}
	context.AfterFunc(h.life, func() { hc.Close() })
	return hc, buf, nil
}

// done is to be called when the handler has returned.
func (h *held) done() {
	if !h.hijacked {
		h.over()
	}
}

// A heldConn is a connection that was taken over.
type heldConn struct {
	net.Conn
	once sync.Once
	over func()
}

func (c *heldConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.over)
	return err
}

// errCutOff is the cause of the end of a request's context that the node ended.
var errCutOff = errors.New("the request may not go on")

// severWith has w, and the request's body, fail once ctx is done, also for who is
// reading or writing then. If the node ended ctx, and a client that reads nothing holds
// all up, c is closed after lastWords. Stop ends that; it is to be called before the
// handler returns, after which w is not to be touched.
func severWith(ctx context.Context, w http.ResponseWriter, c net.Conn) (stop func()) {
	severed := make(chan struct{})
	var late *time.Timer
	cancel := context.AfterFunc(ctx, func() {
		defer close(severed)
		rc, past := http.NewResponseController(w), time.Unix(1, 0)
		rc.SetReadDeadline(past)
		rc.SetWriteDeadline(past)
		if context.Cause(ctx) == errCutOff { // a stream of HTTP/2 ends when that could be written
			late = time.AfterFunc(lastWords, func() { c.Close() })
		}
	})
	return func() {
		if cancel() {
			return
		}
		<-severed
		if late != nil {
			late.Stop()
		}
	}
}
