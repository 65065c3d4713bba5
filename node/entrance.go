package node

import (
	"container/list"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern"
	"postern/internal/proxyproto"
)

// A gateway dials some connections before it needs them. They wait, and take
// little, until it sends the PROXY header of a browser's (docs/protocol.md,
// section 5).
const (
	// headerTimeout bounds the arrival of a header, from its first byte.
	headerTimeout = time.Second

	// waitTimeout is how long a connection may wait for that byte. Gateways give
	// up theirs after half of that.
	waitTimeout = 2 * time.Minute

	// maxWaiting is how many of one gateway may wait. Of more, the oldest is
	// closed: the newest may be one whose header is on its way. It is far more than
	// a gateway has spares and dials under way for a tenant, which are bounded there.
	maxWaiting = 512
)

// A conn is a browser's connection, as a gateway handed it over. Its RemoteAddr
// is the browser's.
type conn struct {
	net.Conn
	header   proxyproto.Header
	gateway  string // its name
	id       string // the header's UniqueID, fit for logs and HTTP headers
	requests atomic.Uint64
	entrance *entrance
}

func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.header.Src) }

// LocalAddr returns an address that knows c: it is all that a request of a server
// which is not ours tells of its connection.
func (c *conn) LocalAddr() net.Addr { return localAddr{c.Conn.LocalAddr(), c} }

type localAddr struct {
	net.Addr
	conn *conn
}

func (c *conn) Close() error {
	if c.entrance.linger(c.Conn) {
		return nil
	}
	return c.Conn.Close()
}

// nextRequest returns an id for the next request that came over c.
func (c *conn) nextRequest() string {
	return c.id + "-" + strconv.FormatUint(c.requests.Add(1), 10)
}

// An entrance is the overlay's listener as net/http sees it: Accept returns
// conns of the current gateways that began with a right PROXY header, and no
// others. Its methods are safe for concurrent use.
type entrance struct {
	log    *slog.Logger
	ready  chan *conn
	closed chan struct{}
	close  sync.Once

	cut       chan struct{} // closed when lingering must end
	lingering sync.WaitGroup

	mu       sync.Mutex
	gateways map[netip.Addr]string     // names, by address
	open     map[net.Conn]guest        // every connection, admitted or not yet
	waiting  map[netip.Addr]*list.List // those of open that nothing came on yet, by gateway, the oldest first
	accepted uint64
	refused  uint64
}

// A guest is what the entrance knows of a connection.
type guest struct {
	gateway netip.Addr    // that it came from
	waits   *list.Element // among those of the gateway that wait; nil once something came
}

func newEntrance(log *slog.Logger) *entrance {
	return &entrance{
		log: log, ready: make(chan *conn), closed: make(chan struct{}), cut: make(chan struct{}),
		open: map[net.Conn]guest{}, waiting: map[netip.Addr]*list.List{},
	}
}

// run takes connections from ln until Close, and closes ln. When it returns,
// each was handed out by Accept or is closed.
func (e *entrance) run(ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer e.Close()
	wg.Go(func() { <-e.closed; ln.Close() })
	for {
		raw, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept from the overlay: %w", err)
		}
		wg.Go(func() { e.admit(raw) })
	}
}

// admit reads raw's PROXY header, when it comes, and hands raw to Accept, or
// closes it.
func (e *entrance) admit(raw net.Conn) {
	gateway, ok := e.enter(raw)
	if !ok {
		e.refuse(raw, errors.New("not from a gateway of the current map"))
		return
	}
	raw.SetReadDeadline(time.Now().Add(waitTimeout))
	first := &firstByte{Conn: raw, entrance: e}
	h, err := proxyproto.Read(first)
	if err != nil {
		if first.came {
			e.refuse(raw, err)
		} else { // the gateway had no use for it, or had too many, or all is over
			e.forget(raw)
			raw.Close()
		}
		return
	}
	raw.SetReadDeadline(time.Time{})
	if h.Local {
		e.answerProbe(raw)
		return
	}
	e.count()
	c := &conn{Conn: raw, header: h, gateway: gateway, id: cleanID(h.UniqueID), entrance: e}
	select {
	case e.ready <- c:
		e.log.Debug("connection", "gateway", gateway, "remote", h.Src, "server_name", h.Authority, "id", c.id)
	case <-e.closed:
		c.Close()
	}
}

// answerProbe tells a gateway that connections are taken, and closes raw.
func (e *entrance) answerProbe(raw net.Conn) {
	e.forget(raw)
	if !e.isClosed() {
		raw.SetWriteDeadline(time.Now().Add(headerTimeout))
		_, _ = io.WriteString(raw, postern.ProbeAnswer) // who hears no answer asks again
	}
	raw.Close()
}

// count counts a connection that is not a probe.
func (e *entrance) count() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.accepted++
}

// A firstByte is a connection that waits until something comes.
type firstByte struct {
	net.Conn
	entrance *entrance
	came     bool
}

func (f *firstByte) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if n > 0 && !f.came {
		f.came = true
		f.entrance.begin(f.Conn)
		f.SetReadDeadline(time.Now().Add(headerTimeout))
	}
	return n, err
}

// enter has raw wait, if it comes from a gateway, and reports whether and which.
// One lock for both, so that setGateways misses none.
func (e *entrance) enter(raw net.Conn) (gateway string, ok bool) {
	addr := remoteAddr(raw)
	e.mu.Lock()
	defer e.mu.Unlock()
	gateway, ok = e.gateways[addr]
	if !ok || e.isClosed() {
		return "", false
	}
	waiting := e.waiting[addr]
	if waiting == nil {
		waiting = list.New()
		e.waiting[addr] = waiting
	}
	e.open[raw] = guest{addr, waiting.PushBack(raw)}
	if waiting.Len() > maxWaiting {
		oldest := waiting.Front().Value.(net.Conn)
		e.unwait(oldest)
		oldest.Close() // and who reads it forgets it
	}
	return gateway, true
}

// begin ends raw's waiting: its header begins to come.
func (e *entrance) begin(raw net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unwait(raw)
}

// unwait takes raw off those that wait, if it is there. The lock is held.
func (e *entrance) unwait(raw net.Conn) {
	g := e.open[raw]
	if g.waits == nil {
		return
	}
	waiting := e.waiting[g.gateway]
	waiting.Remove(g.waits)
	if waiting.Len() == 0 {
		delete(e.waiting, g.gateway)
	}
	e.open[raw] = guest{gateway: g.gateway}
}

// drop takes raw off all that are open. The lock is held.
func (e *entrance) drop(raw net.Conn) {
	e.unwait(raw)
	delete(e.open, raw)
}

func (e *entrance) refuse(raw net.Conn, why error) {
	e.mu.Lock()
	e.accepted++
	e.refused++
	e.drop(raw)
	e.mu.Unlock()
	raw.Close()
	e.log.Debug("connection refused", "peer", raw.RemoteAddr(), "err", why)
}

func (e *entrance) forget(raw net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(raw)
}

// setGateways replaces the gateways, and closes the connections of those gone.
func (e *entrance) setGateways(gateways map[netip.Addr]string) {
	e.mu.Lock()
	e.gateways = gateways
	var gone []net.Conn
	for c, g := range e.open {
		if _, stays := gateways[g.gateway]; !stays {
			gone = append(gone, c)
			e.drop(c)
		}
	}
	e.mu.Unlock()
	for _, c := range gone {
		c.Close()
	}
}

// linger forgets raw. If the entrance is closed, and with it the overlay soon,
// it also sees to it that what was written to raw arrives, closes it after that,
// and reports true.
func (e *entrance) linger(raw net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.open[raw]; !ok {
		return false
	}
	e.drop(raw)
	half, ok := raw.(interface{ CloseWrite() error })
	select {
	case <-e.closed:
	default:
		return false
	}
	if !ok || half.CloseWrite() != nil {
		return false
	}
	e.lingering.Go(func() { e.awaitEnd(raw) })
	return true
}

// awaitEnd closes raw when the other end has, which it does when it has read
// everything, or when the lingering is cut.
func (e *entrance) awaitEnd(raw net.Conn) {
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-e.cut:
		case <-ended:
		}
		raw.Close()
	})
	io.Copy(io.Discard, raw)
	close(ended)
	wg.Wait()
}

// finish closes what is still open, and returns when all that lingers has ended
// or ctx is done. It is to be called once, after Close.
func (e *entrance) finish(ctx context.Context) {
	e.mu.Lock()
	open := slices.Collect(maps.Keys(e.open))
	e.mu.Unlock()
	for _, raw := range open {
		if !e.linger(raw) {
			raw.Close()
		}
	}
	stop := context.AfterFunc(ctx, func() { close(e.cut) })
	defer stop()
	e.lingering.Wait()
}

// counts returns how many connections came, and what became of them.
func (e *entrance) counts() Connections {
	e.mu.Lock()
	defer e.mu.Unlock()
	waiting := 0
	for _, conns := range e.waiting {
		waiting += conns.Len()
	}
	return Connections{Open: len(e.open) - waiting, Waiting: waiting, Accepted: e.accepted, Refused: e.refused}
}

// Accept returns the next *conn. It fails with net.ErrClosed after Close.
func (e *entrance) Accept() (net.Conn, error) {
	select {
	case c := <-e.ready:
		return c, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept, run, and what waits. Conns that were handed out go on.
func (e *entrance) Close() error {
	e.close.Do(func() {
		close(e.closed)
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, conns := range e.waiting {
			for c := conns.Front(); c != nil; c = c.Next() {
				c.Value.(net.Conn).Close()
			}
		}
	})
	return nil
}

func (e *entrance) isClosed() bool {
	select {
	case <-e.closed:
		return true
	default:
		return false
	}
}

// Addr returns the port that the entrance stands for.
func (e *entrance) Addr() net.Addr { return &net.TCPAddr{Port: postern.HTTPSPort} }

// remoteAddr returns the other end's address, the zero Addr if it has none.
func remoteAddr(c net.Conn) netip.Addr {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap()
}

// cleanID returns id if it is plain characters, which stand for themselves in a
// header and a log, and its hex digits otherwise.
func cleanID(id string) string {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}
	if strings.ContainsFunc(id, odd) {
		return hex.EncodeToString([]byte(id))
	}
	return id
}
