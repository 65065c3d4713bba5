package coordinator

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"postern"
	"postern/internal/identity"
	"postern/internal/proxyproto"
)

// pipeHeader is how long a gateway may take to say whose connection follows.
const pipeHeader = 5 * time.Second

// edge is the coordinator's end of the edge pipes. A gateway splices a
// connection to one of the coordinator's own names into one of its own to the
// control port:
//
//	TLS, the gateway's certificate, ALPN postern-edge/1
//	└─ PROXY v2 header: who connected, and to which name
//	   └─ TLS as the stranger sent it, HTTP inside
//
// To the server inside, an edge is a listener whose connections come from the
// strangers' addresses. Inside there is no edge protocol, so pipes do not nest.
type edge struct {
	c     *Coordinator
	addr  net.Addr
	tls   *tls.Config
	conns chan net.Conn
	done  chan struct{} // closed by stop: no more connections
	stop  func()
}

func newEdge(c *Coordinator, addr net.Addr, d *door) *edge {
	e := &edge{c: c, addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
	e.stop = sync.OnceFunc(func() { close(e.done) })
	e.tls = d.tlsConfig("h2", "http/1.1")
	choose := e.tls.GetConfigForClient
	e.tls.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if err := c.checkEdgeHello(hello); err != nil {
			return nil, err
		}
		return choose(hello)
	}
	return e
}

// checkEdgeHello refuses names that are not the coordinator's own, and those
// other than the gateway routed by.
func (c *Coordinator) checkEdgeHello(hello *tls.ClientHelloInfo) error {
	routed := hello.Conn.(*visitor).Conn.(*pipeConn).authority
	if hello.ServerName != routed || !c.names[hello.ServerName] {
		return fmt.Errorf("server name %q, routed as %q, is not the coordinator's", hello.ServerName, routed)
	}
	return nil
}

// Accept returns the next connection out of a pipe.
func (e *edge) Accept() (net.Conn, error) {
	select {
	case conn := <-e.conns:
		return conn, nil
	case <-e.done:
		return nil, net.ErrClosed
	}
}

func (e *edge) Close() error   { e.stop(); return nil }
func (e *edge) Addr() net.Addr { return e.addr }

// pipe serves one pipe, and returns when the connection inside it is closed or
// the gateway is removed. The caller closes outer.
func (e *edge) pipe(_ *http.Server, outer *tls.Conn, _ http.Handler) {
	key, conn, err := e.open(outer)
	if err != nil {
		e.c.log.Debug("edge pipe refused", "remote", outer.RemoteAddr(), "err", err)
		return
	}
	wire := outer.NetConn().(*visitor)
	wire.release() // how many there are is for the gateway to limit
	inside := e.c.crowd.enter(conn, wire, true)
	defer inside.Close()
	select {
	case e.conns <- tls.Server(inside, e.tls):
	case <-e.done:
		return
	}
	for {
		snap := e.c.snapshot.Load()
		if snap.members[key] == nil {
			return
		}
		select {
		case <-snap.superseded:
		case <-conn.closed:
			return
		}
	}
}

// open reads what a gateway says of the connection that it passes on.
func (e *edge) open(outer *tls.Conn) (postern.IdentityPublic, *pipeConn, error) {
	name, key, err := identity.VerifyMember(outer.ConnectionState().PeerCertificates, e.c.roots)
	if err != nil {
		return key, nil, err
	}
	if m := e.c.snapshot.Load().members[key]; m == nil || m.ID != name.ID || m.Role != postern.RoleGateway {
		return key, nil, fmt.Errorf("%v is not a gateway of this deployment", name)
	}
	if err := outer.SetReadDeadline(time.Now().Add(pipeHeader)); err != nil {
		return key, nil, err
	}
	h, err := proxyproto.Read(outer)
	if err != nil {
		return key, nil, err
	}
	if h.Local || !h.Src.IsValid() {
		return key, nil, errors.New("the gateway does not say who connected")
	}
	conn := &pipeConn{Conn: outer, remote: net.TCPAddrFromAddrPort(h.Src), authority: h.Authority, closed: make(chan struct{})}
	conn.close = sync.OnceValue(func() error { close(conn.closed); return outer.Close() })
	return key, conn, outer.SetReadDeadline(time.Time{})
}

// A pipeConn is the connection inside a pipe.
type pipeConn struct {
	net.Conn
	remote    net.Addr
	authority string // server name that the gateway routed by
	closed    chan struct{}
	close     func() error
}

func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }
func (c *pipeConn) Close() error         { return c.close() }
