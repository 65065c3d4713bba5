package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/coder/websocket"

	"postern"
)

// accept answers the request for the WebSocket. Pings count as heard.
func accept(conn net.Conn, heard *atomic.Int64) (*websocket.Conn, error) {
	limited := &io.LimitedReader{R: conn, N: maxRequest}
	buf := bufio.NewReadWriter(bufio.NewReader(limited), bufio.NewWriter(conn))
	req, err := http.ReadRequest(buf.Reader)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	w := &answer{conn: conn, buf: buf, header: http.Header{}}
	if req.URL.Path != postern.RelayPath {
		http.Error(w, "there is a relay here and nothing else", http.StatusNotFound)
		return nil, fmt.Errorf("request for %q", req.URL.Path)
	}
	return websocket.Accept(w, req, &websocket.AcceptOptions{
		OnPingReceived: func(context.Context, []byte) bool {
			heard.Store(clock())
			return true
		},
	})
}

// answer is an http.ResponseWriter for one request on a connection that becomes a
// WebSocket or ends.
type answer struct {
	conn   net.Conn
	buf    *bufio.ReadWriter
	header http.Header
	wrote  bool
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.wrote {
		return
	}
	a.wrote = true
	if status != http.StatusSwitchingProtocols {
		a.header.Set("Connection", "close")
	}
	fmt.Fprintf(a.buf, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	a.header.Write(a.buf)
	a.buf.WriteString("\r\n")
	a.buf.Flush()
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	n, err := a.buf.Write(b)
	a.buf.Flush()
	return n, err
}

// Hijack implements http.Hijacker.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) { return a.conn, a.buf, nil }
