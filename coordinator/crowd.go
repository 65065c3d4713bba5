package coordinator

import (
	"container/list"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
)

// A crowd is the open connections of the control port. Whoever has not proven
// yet to be a member or an operator is a stranger. Of strangers there are so
// many and no more, in all and from one source, and so are the connections of
// one member or operator: the first that came makes room for the next. Who is
// honest says who it is within a second or two.
type crowd struct {
	limits crowdLimits

	mu        sync.Mutex
	strangers list.List          // of *visitor
	parties   map[any]*list.List // of *visitor; by netip.Prefix of strangers, by string of the others
}

// crowdLimits are in connections.
type crowdLimits struct{ strangers, source, known int }

// defaultCrowd has room, in source, for all that a gateway dials at a time for
// its visitors: until its certificate is seen, it is a stranger too.
var defaultCrowd = crowdLimits{strangers: 4096, source: 1024, known: 64}

// A visitor is one connection of a crowd until it is closed.
type visitor struct {
	net.Conn
	crowd *crowd
	wire  io.Closer // what to close to cut it off at once
	piped bool      // it came out of an edge pipe

	// Guarded by crowd.mu.
	party any
	among *list.Element // of its party's; nil: it is not counted
	line  *list.Element // of all strangers'; nil: it is none
}

func newCrowd(l crowdLimits) *crowd { return &crowd{limits: l, parties: make(map[any]*list.List)} }

// enter makes conn a stranger, by its remote address.
func (c *crowd) enter(conn net.Conn, wire io.Closer, piped bool) *visitor {
	v := &visitor{Conn: conn, crowd: c, wire: wire, piped: piped}
	source := SourceOf(addrOf(conn.RemoteAddr().String()))
	c.mu.Lock()
	v.line = c.strangers.PushBack(v)
	shed := []*visitor{v.join(source, c.limits.source)}
	if c.strangers.Len() > c.limits.strangers {
		first := c.strangers.Front().Value.(*visitor)
		first.leave()
		shed = append(shed, first)
	}
	c.mu.Unlock()
	cutOff(shed...)
	return v
}

// known makes v one of who's, which is a member or an operator.
func (v *visitor) known(who string) {
	c := v.crowd
	c.mu.Lock()
	if v.among == nil || v.party == who {
		c.mu.Unlock()
		return
	}
	v.leave()
	shed := v.join(who, c.limits.known)
	c.mu.Unlock()
	cutOff(shed)
}

// release lets v be, however many there are.
func (v *visitor) release() {
	v.crowd.mu.Lock()
	defer v.crowd.mu.Unlock()
	v.leave()
}

// Close implements net.Conn.
func (v *visitor) Close() error {
	v.release()
	return v.Conn.Close()
}

// join adds v to a party and returns who has to go for it, if one has. The lock
// is held.
func (v *visitor) join(party any, most int) *visitor {
	all := v.crowd.parties[party]
	if all == nil {
		all = list.New()
		v.crowd.parties[party] = all
	}
	v.party, v.among = party, all.PushBack(v)
	if all.Len() <= most {
		return nil
	}
	first := all.Front().Value.(*visitor)
	first.leave()
	return first
}

// leave takes v off the count. The lock is held.
func (v *visitor) leave() {
	if v.line != nil {
		v.crowd.strangers.Remove(v.line)
		v.line = nil
	}
	if v.among == nil {
		return
	}
	all := v.crowd.parties[v.party]
	all.Remove(v.among)
	v.among = nil
	if all.Len() == 0 {
		delete(v.crowd.parties, v.party)
	}
}

// cutOff ends those visitors that are not nil.
func cutOff(visitors ...*visitor) {
	for _, v := range visitors {
		if v != nil {
			v.wire.Close()
		}
	}
}

// A crowdListener lets its connections into a crowd.
type crowdListener struct {
	net.Listener
	crowd *crowd
}

func (l crowdListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.crowd.enter(conn, conn, false), nil
}

type visitorKey struct{}

// withVisitor is an http.Server's ConnContext.
func withVisitor(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, visitorKey{}, conn.(*tls.Conn).NetConn().(*visitor))
}

// visitorOf returns the connection on the control port that r came over.
func visitorOf(r *http.Request) *visitor { return r.Context().Value(visitorKey{}).(*visitor) }
