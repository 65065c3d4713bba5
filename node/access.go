package node

import (
	"bufio"
	"context"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An access is a request that was answered, as the access log tells of it. Of what was
// asked there is the path alone: queries hold secrets. ID is the connection's, as in the
// gateway's log; Request begins with it, and is what the application saw.
type access struct {
	Time    time.Time  `json:"time"` // when it came
	ID      string     `json:"id"`
	Request string     `json:"request"` // X-Request-Id
	Gateway string     `json:"gateway"` // name
	Remote  netip.Addr `json:"remote"`  // the browser
	Host    string     `json:"server_name"`
	Service string     `json:"service,omitempty"` // empty: the node itself answered
	Method  string     `json:"method"`
	Path    string     `json:"path"`
	Status  int        `json:"status"`         // zero: there was none
	User    string     `json:"user,omitempty"` // id; empty: nobody who is signed in and may
	Bytes   int64      `json:"down_bytes"`     // of bodies, to the browser
	Seconds float64    `json:"duration"`       // in seconds
	Aborted bool       `json:"aborted,omitempty"`
}

// maxAccessPath bounds the path in the access log, in bytes.
const maxAccessPath = 2048

type accessKey struct{}

// accessOf returns what will be told of the request of ctx, nil if nothing will. It is
// for the goroutine of the request's handler.
func accessOf(ctx context.Context) *access {
	a, _ := ctx.Value(accessKey{}).(*access)
	return a
}

// listenTo returns w and r so that tell is told of the request once done was called, and
// the connection closed, if the handler took it over. Of r, setForwarded has seen to.
func listenTo(w http.ResponseWriter, r *http.Request, tell func(access)) (*listened, *http.Request) {
	c := connOf(r)
	a := &access{
		Time: time.Now().UTC(), ID: c.id, Request: r.Header.Get(headerRequestID), Gateway: c.gateway,
		Remote: c.header.Src.Addr(), Host: strings.ToLower(r.TLS.ServerName), Method: cutText(r.Method, 32), Path: cutText(r.URL.Path, maxAccessPath),
	}
	l := &listened{ResponseWriter: w, access: a, tell: tell}
	return l, r.WithContext(context.WithValue(r.Context(), accessKey{}, a))
}

func cutText(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// A listened is a ResponseWriter that hears what is answered.
type listened struct {
	http.ResponseWriter
	access   *access
	tell     func(access)
	once     sync.Once
	taken    *listenedConn
	finished bool // the handler returned in good order
}

// Unwrap is for http.ResponseController.
func (l *listened) Unwrap() http.ResponseWriter { return l.ResponseWriter }

func (l *listened) WriteHeader(status int) {
	// Others of 1xx are followed by another (RFC 9110, section 15.2).
	if l.access.Status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		l.access.Status = status
	}
	l.ResponseWriter.WriteHeader(status)
}

func (l *listened) Write(b []byte) (int, error) {
	if l.taken != nil {
		return l.ResponseWriter.Write(b) // which refuses
	}
	if l.access.Status == 0 {
		l.access.Status = http.StatusOK
	}
	n, err := l.ResponseWriter.Write(b)
	l.access.Bytes += int64(n)
	return n, err
}

// Flush is for handlers that ask for an http.Flusher.
func (l *listened) Flush() { http.NewResponseController(l.ResponseWriter).Flush() }

// Hijack hands the connection over.
func (l *listened) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, buf, err := http.NewResponseController(l.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if l.access.Status == 0 { // what is said from here on is said past us
		l.access.Status = http.StatusSwitchingProtocols
	}
	l.taken = &listenedConn{Conn: c, over: l.over}
	return l.taken, bufio.NewReadWriter(buf.Reader, bufio.NewWriter(l.taken)), nil
}

// done is to be called when the handler returned, or panics.
func (l *listened) done() {
	if l.taken == nil {
		l.over()
	}
}

// over tells, once.
func (l *listened) over() {
	l.once.Do(func() {
		a := *l.access
		if l.taken != nil {
			a.Bytes += l.taken.wrote.Load()
		} else if a.Aborted = !l.finished; l.finished && a.Status == 0 {
			a.Status = http.StatusOK // as the server writes then
		}
		a.Seconds = math.Round(time.Since(a.Time).Seconds()*1000) / 1000
		l.tell(a)
	})
}

// A listenedConn is a connection that was taken over.
type listenedConn struct {
	net.Conn
	wrote atomic.Int64
	over  func()
}

func (c *listenedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.wrote.Add(int64(n))
	return n, err
}

func (c *listenedConn) Close() error {
	err := c.Conn.Close()
	c.over()
	return err
}
